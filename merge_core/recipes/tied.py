"""Trainings that tie several networks together while they learn: a pull, or regular averaging."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from merge_core.errors import RecipeError
from merge_core.recipes.experiment import Experiment
from merge_core.recipes.parts import Training, require
from merge_core.recipes.reading import as_text

Start = Literal["same", "own"]


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What holds two teachers together: the term Σ_l w_l ‖θ_A,l − θ_B,l‖² beside their losses.

    Each teacher takes the other one as fixed. A layer is a module with a weight of two dimensions
    or more, with the norms that follow it; layers count from 0 in the order in which the network
    holds them.

    Attributes:
        strength: w, one number for all layers or one for each in their order; 0 leaves a layer to
            itself.
        law: "constant", or "growing" in equal steps from 0 to w over the training.
        heads_from: the first layer that each teacher has for itself. All layers before it are the
            same tensors in both, which is the limit of an infinite strength. Empty: none is shared.
    """

    strength: tuple[float, ...] = (0.01,)
    law: Literal["constant", "growing"] = "constant"
    heads_from: str = ""

    def __post_init__(self) -> None:
        require(
            bool(self.strength) and all(math.isfinite(w) and w >= 0 for w in self.strength),
            "pull.strength",
            as_text(self.strength),
            "one number for all layers or one for each is expected, 0 or more, as 1,1,0.1,0; "
            "layers are shared with pull.heads_from",
        )

    def by_layer(self, layers: Sequence[str]) -> dict[str, float]:
        """Layer → how strongly it is pulled.

        RecipeError if there are several strengths, and not one for each layer.
        """
        given = self.strength * len(layers) if len(self.strength) == 1 else self.strength
        require(
            len(given) == len(layers),
            "pull.strength",
            as_text(given),
            f"the network has {len(layers)} layers ({', '.join(layers)}); give one number for "
            f"each, or one for all",
        )
        return dict(zip(layers, given, strict=True))

    @staticmethod
    def renewed(value: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON as earlier versions wrote it, with one strength and a factor from layer to layer.

        RecipeError where the factor is not 1: how many layers there are, only the network knows.
        """
        if "per_layer" not in value:
            return value
        factor = value["per_layer"]
        if factor != 1:
            raise RecipeError(
                f"The recipe got pull.per_layer={factor!r}, but this netweld expects a strength "
                f"for each layer; give pull.strength, as 1,0.1,0.01 for three layers."
            )
        rest = {key: each for key, each in value.items() if key != "per_layer"}
        return rest | {"strength": [value.get("strength")]}


@dataclass(frozen=True, kw_only=True)
class Coupling(Experiment):
    """The frozen settings of two teachers that are trained together, and of their average.

    The control, one network trained alone on all examples, takes as many steps as both teachers
    together.

    Attributes:
        name: the recipe's name, e.g. "digits-coupled".
        preset: the preset it started from.
        seed: decides every random draw.
        data: the examples; with disjoint halves each teacher learns from its own.
        model: the architecture of both.
        start: "same": both start with the same weights; "own": as the teachers of a merge do.
        teacher: training of each teacher, and of the control.
        pull: what holds them together.
    """

    kind = "coupling"

    start: Start = "same"
    teacher: Training
    pull: Pull

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.teacher.epochs > 0,
            "teacher.epochs",
            self.teacher.epochs,
            "teachers must be trained; give 1 epoch or more",
        )
        # What the teachers differ by is multiplied by 1 − 4·rate·w in every step, momentum aside.
        most = (1 + self.teacher.momentum) / (2 * self.teacher.learning_rate)
        require(
            max(self.pull.strength) < most,
            "pull.strength",
            as_text(self.pull.strength),
            f"from {most:.3g} on each step at this learning rate throws the teachers further "
            f"apart; lower one of both, or share layers with pull.heads_from",
        )

    @property
    def alone(self) -> Training:
        """The training of the control: as many steps as both teachers together."""
        halved = self.data.halves == "disjoint"
        return self.teacher if halved else self.teacher.over(2 * self.teacher.epochs)


@dataclass(frozen=True, kw_only=True)
class Averaging(Experiment):
    """The frozen settings of workers that learn from parts of the data and are averaged regularly.

    In every epoch the training split is dealt anew, an equal part to each worker. There are two
    controls: one worker alone, and one network that learns from all examples with as many steps as
    all workers together.

    Source: Stich (2019), "Local SGD converges fast and communicates little", Algorithm 1.

    Attributes:
        name: the recipe's name, e.g. "digits-averaged".
        preset: the preset it started from.
        seed: decides every random draw.
        data: the examples.
        model: the architecture of all workers.
        start: "same": all workers start with the same weights; "own": each with its own.
        workers: how many there are.
        training: training of each worker, on its part of every epoch, and of the controls.
        every: steps from one averaging to the next; 0 averages at the end of each epoch.
        average: "plain", or "matched": the channels of all workers are first brought to the order
            of the first worker's by weight matching.
        share: how far each worker then moves to the average; 1 goes on from the average itself.
    """

    kind = "averaging"

    start: Start = "same"
    workers: int = 2
    training: Training
    every: int = 0
    average: Literal["plain", "matched"] = "plain"
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.training.epochs > 0,
            "training.epochs",
            self.training.epochs,
            "workers must be trained; give 1 epoch or more",
        )
        require(2 <= self.workers <= 20, "workers", self.workers, "2 to 20 workers can be averaged")
        require(
            0 <= self.every <= 1_000_000,
            "every",
            self.every,
            "it must be 0, for once per epoch, or a number of steps",
        )
        require(0 < self.share <= 1, "share", self.share, "it must be above 0 and at most 1")
        require(
            self.data.halves == "shared",
            "data.halves",
            self.data.halves,
            "workers are dealt their parts anew in every epoch; leave it at 'shared'",
        )
