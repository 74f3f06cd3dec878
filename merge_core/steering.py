"""What can change in a gate stage after it was planned, as values of a recipe (no torch).

A steering is the list of such changes in the order in which they were made. Each holds from the
beginning of an epoch on, until a later change of the same kind in the list takes over from an epoch
of its own; so what has been trained is never touched, and dropping the last change undoes it:

    schedule_in(first, steering, epoch)  the λ schedule of an epoch
    rate_in(first, steering, epoch)      the learning rate of the gates in an epoch
    seed_in(first, steering, epoch)      the seed of what is drawn in an epoch
    length(epochs, steering)             how many epochs the stage has
    weights(first, steering, epochs, n)  λ at the end of every epoch: one curve for charts

A recipe with its steering gives the same numbers as the run that was steered so while it ran.
Epochs count from 1, as everywhere where people see them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from merge_core.errors import RecipeError
from merge_core.schedules import TITLES, Closing, Schedule

MOST_STEERS = 1000
"""So many changes a recipe can hold."""


@dataclass(frozen=True, kw_only=True)
class NewSchedule:
    """Another λ schedule.

    Attributes:
        epoch: the first epoch that it holds for.
        schedule: λ over the whole stage, of which the part from `epoch` on counts.
    """

    kind: Literal["lambda"] = field(default="lambda", init=False)
    epoch: int
    schedule: Schedule


@dataclass(frozen=True, kw_only=True)
class NewRate:
    """Another learning rate of the gates.

    Attributes:
        epoch: the first epoch that it holds for.
        learning_rate: of the gates; that of the weights stays.
    """

    kind: Literal["rate"] = field(default="rate", init=False)
    epoch: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class CutEarly:
    """The stage ends before this epoch, and the network is cut.

    Attributes:
        epoch: the first epoch that is not trained; 2 or more.
    """

    kind: Literal["cut"] = field(default="cut", init=False)
    epoch: int


@dataclass(frozen=True, kw_only=True)
class NewSeed:
    """Other random draws, in the gate stage and in all stages after it.

    Attributes:
        epoch: the first epoch that draws otherwise; one more than the stage has for the stages
            after it alone.
        seed: stands for the recipe's seed from there on.
    """

    kind: Literal["seed"] = field(default="seed", init=False)
    epoch: int
    seed: int


Steer = NewSchedule | NewRate | CutEarly | NewSeed
Steering = tuple[Steer, ...]

STEERS: dict[str, type[Steer]] = {
    "lambda": NewSchedule,
    "rate": NewRate,
    "cut": CutEarly,
    "seed": NewSeed,
}


def schedule_in(first: Schedule, steering: Sequence[Steer], epoch: int) -> Schedule:
    """The λ schedule that holds in an epoch.

    Args:
        first: the recipe's schedule.
        steering: the changes, in the order in which they were made.
        epoch: from 1.
    """
    for steer in reversed(steering):
        if isinstance(steer, NewSchedule) and steer.epoch <= epoch:
            return steer.schedule
    return first


def rate_in(first: float, steering: Sequence[Steer], epoch: int) -> float:
    """The learning rate of the gates in an epoch; arguments as of `schedule_in`."""
    for steer in reversed(steering):
        if isinstance(steer, NewRate) and steer.epoch <= epoch:
            return steer.learning_rate
    return first


def reseeding(steering: Sequence[Steer], epoch: int) -> NewSeed | None:
    """The change of seed that holds in an epoch, if there is one."""
    for steer in reversed(steering):
        if isinstance(steer, NewSeed) and steer.epoch <= epoch:
            return steer
    return None


def seed_in(first: int, steering: Sequence[Steer], epoch: int) -> int:
    """The seed of what is drawn in an epoch; arguments as of `schedule_in`."""
    change = reseeding(steering, epoch)
    return first if change is None else change.seed


def length(epochs: int, steering: Sequence[Steer]) -> int:
    """How many epochs the gate stage has, of those that the recipe gives it."""
    cuts = [steer.epoch - 1 for steer in steering if isinstance(steer, CutEarly)]
    return min([epochs, *cuts])


def weights(
    first: Schedule, steering: Sequence[Steer], epochs: int, per_epoch: int = 100
) -> np.ndarray:
    """λ in the last step of every epoch, as the run's metrics have it; shape `(epochs,)`, float64.

    NaN where a controller sets λ while the gates learn, so that nobody knows it beforehand.

    Args:
        first: the recipe's schedule.
        steering: the changes, in the order in which they were made.
        epochs: that the recipe gives the stage; an early cut leaves the curve as it would go on.
        per_epoch: optimizer steps in an epoch.
    """
    curve = np.full(epochs, math.nan)
    for epoch in range(1, epochs + 1):
        schedule = schedule_in(first, steering, epoch)
        if not isinstance(schedule, Closing):
            curve[epoch - 1] = schedule.at((epoch * per_epoch - 1) / (epochs * per_epoch))
    return curve


def require_fitting(steer: Steer, epochs: int) -> None:
    """RecipeError unless a change fits a gate stage of so many epochs."""
    match steer:
        case NewSchedule():
            least, most = 1, epochs
        case NewRate(learning_rate=rate):
            least, most = 1, epochs
            if not (math.isfinite(rate) and 0 < rate <= 100):
                raise RecipeError(
                    f"The learning rate of the gates is {rate} from epoch {steer.epoch} on, but it "
                    f"must be above 0 and at most 100; choose for example 0.1."
                )
        case CutEarly():
            least, most = 2, epochs
        case NewSeed(seed=seed):
            least, most = 1, epochs + 1
            if not 0 <= seed < 2**31:
                raise RecipeError(
                    f"The seed is {seed} from epoch {steer.epoch} on, but a seed is a whole number "
                    f"from 0 to 2³¹−1."
                )
    if not least <= steer.epoch <= most:
        raise RecipeError(
            f"{words(steer)} cannot be: the gate stage has {epochs} epochs, so this can begin with "
            f"epoch {least} to {most}; choose one of these."
        )


def words(steer: Steer) -> str:
    """A change in words for a marker: "λ from epoch 8 on: Growth law, 0.05 to 3.1"."""
    match steer:
        case NewSchedule(epoch=epoch, schedule=schedule):
            title = TITLES[schedule.kind]
            if isinstance(schedule, Closing):
                return f"λ from epoch {epoch} on: {title}"
            return f"λ from epoch {epoch} on: {title}, {schedule.at(0):.3g} to {schedule.at(1):.3g}"
        case NewRate(epoch=epoch, learning_rate=rate):
            return f"gate learning rate from epoch {epoch} on: {rate:g}"
        case CutEarly(epoch=epoch):
            return f"cut after epoch {epoch - 1}"
        case NewSeed(epoch=epoch, seed=seed):
            return f"draws from epoch {epoch} on: seed {seed}"
