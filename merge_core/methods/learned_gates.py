"""The paper's method: gates learn, beside the weights, which half of the channels to keep."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from merge_core import recipes
from merge_core.channels import ChannelGraph, concatenate, flops, trace
from merge_core.devices import derived_seed
from merge_core.events import Arrays, Event
from merge_core.gates import Gates, Pull, gate, gates_of
from merge_core.methods.base import STEP_COST, Choice, Merged, Setting, as_progress
from merge_core.methods.selection import kept_by
from merge_core.schedules import Closing
from merge_core.steering import Steering, length, rate_in, reseeding, schedule_in
from merge_core.training import Course, Job, fit, load_arrays, to_array


@dataclass(kw_only=True)
class GateLearning:
    """The gates as the training loop sees them: parameters of their own, pulled to half.

    Attributes:
        gates: what learns.
        settings: how.
        training: the recipe's settings of the stage.
        steering: what has changed since; asked before every epoch.
        weight: λ as used in the last step.
    """

    gates: Gates
    settings: recipes.Gates
    training: recipes.Training
    steering: Callable[[], Steering] = tuple
    weight: float | Tensor = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        self._schedule = self.settings.schedule

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {
                "params": list(self.gates.parameters()),
                "lr": self.settings.learning_rate,
                "momentum": self.training.momentum,
                "weight_decay": 0.0,
                "fixed": True,
            }
        ]

    def begin(self, course: Course) -> bool:
        """Set what holds in the coming epoch; False where the stage is cut short before it."""
        steering, epoch = self.steering(), course.epoch + 1
        self._schedule = schedule_in(self.settings.schedule, steering, epoch)
        rate = rate_in(self.settings.learning_rate, steering, epoch)
        for group in course.optimizer.param_groups:
            if group.get("fixed"):
                group["lr"] = rate
        change = reseeding(steering, epoch)
        if change is not None:
            course.dropout_seed = derived_seed(change.seed, "dropout/gates")
            if change.epoch == epoch:  # later epochs draw on from there
                _reseed(course.job.draws, change.seed, f"train/gates/{epoch}")
                _reseed(self.gates.draws, change.seed, f"gates/{epoch}")
        return course.epoch < length(self.training.epochs, steering)

    def after_step(self, step: int, steps: int) -> None:
        schedule = self._schedule
        if isinstance(schedule, Closing):
            self.weight = schedule.weight(step / steps, self.gates.mean_open())
        else:
            self.weight = schedule.at(step / steps)
        self.gates.pull(Pull.at(self.weight, self.settings.pull, step, steps))

    def observe(self, step: int, steps: int) -> tuple[dict[str, float], Arrays]:
        open_now = {name: to_array(p) for name, p in self.gates.open_probabilities().items()}
        metrics = {
            "lambda": float(self.weight),
            "penalty": self.gates.penalty().item(),
        }
        return metrics, open_now


def _reseed(draws: torch.Generator, seed: int, purpose: str) -> None:
    draws.manual_seed(derived_seed(seed, purpose))


class LearnedGates:
    """Hard-concrete gates under the half-open penalty with a growing λ."""

    key = "learned_gates"
    title = "Learned gates"
    source = "Pašen and Boža, Merging of neural networks, section 2.2"

    def choose(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, checkpoint: Arrays | None
    ) -> Generator[Event, None, Choice]:
        """Train weights and gates together, then keep half of every space."""
        job = self.job(big, graph, setting)
        yield from fit(job, checkpoint)
        return choice_of(job.network, graph, setting)

    def job(self, big: nn.Module, graph: ChannelGraph, setting: Setting) -> Job:
        """The gate stage as a job of training; `choice_of` its network is what was learned."""
        gated = _gated(big, graph, setting)
        return Job(
            stage="gates",
            network=gated,
            training=setting.recipe.gating,
            train=setting.data.train,
            heldout=setting.data.heldout,
            augment=setting.augment,
            draws=setting.draws("train/gates"),
            dropout_seed=derived_seed(setting.recipe.seed, "dropout/gates"),
            companion=GateLearning(
                gates=gates_of(gated),
                settings=setting.recipe.gates,
                training=setting.recipe.gating,
                steering=setting.steering,
            ),
            generators=(gates_of(gated).draws,),
            precision=setting.recipe.precision,
        )

    def restore(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, arrays: Arrays
    ) -> Choice:
        """The choice of gates that have learned in an earlier process."""
        return choice_of(load_arrays(_gated(big, graph, setting), arrays), graph, setting)


def _gated(big: nn.Module, graph: ChannelGraph, setting: Setting) -> nn.Module:
    """The big student with its gates as they start."""
    gates = setting.recipe.gates
    return gate(big, graph, start=gates.start, spread=gates.spread, draws=setting.draws("gates"))


def choice_of(gated: nn.Module, graph: ChannelGraph, setting: Setting) -> Choice:
    """The choice that gates which have learned stand for, by the recipe's rule."""
    gates = gates_of(gated)
    return Choice(
        network=gated,
        gates=gates.deterministic(),
        open_probability=gates.open_probabilities(),
        kept=kept_by(setting.recipe.gates.selection, gated, graph, setting.teachers),
    )


LEARNED_GATES = LearnedGates()


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Gates and weights of the big student learn together; then the closed half is cut away.

    `learned` holds P[gate > 0] of every channel of the big student, by space.
    """
    big = concatenate(teachers, graph)
    big_graph = trace(big, setting.example)
    choosing = LEARNED_GATES.choose(big, big_graph, setting, None)
    choice = yield from as_progress(choosing, LEARNED_GATES.key)
    examples = setting.recipe.gating.epochs * len(setting.data.train)
    return Merged(
        network=choice.cut(big_graph).eval(),
        learned=choice.open_probability,
        sources=None,
        training_flops=STEP_COST * examples * sum(flops(big, setting.example).values()),
    )
