"""The parts of a recipe: its data, its stages of training, its gates."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from merge_core.architectures import SHAPES, Shape
from merge_core.errors import RecipeError
from merge_core.schedules import PAPER_SCHEDULE, Schedule


def require(ok: bool, key: str, value: object, expected: str) -> None:
    """RecipeError with the setting and what was expected of it, unless it is as it should be."""
    if not ok:
        raise RecipeError(f"The recipe got {key}={value!r}, but {expected}.")


Precision = Literal["float32", "bfloat16", "auto"]
"""Numbers that networks compute with while they learn; `merge_core.precision` carries them out."""

Code = Literal["eager", "compiled"]
"""Code as which networks learn; `merge_core.compiling` compiles."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which examples a recipe learns from.

    Attributes:
        name: a data set known to `merge_core.data`.
        train, heldout, test: numbers of examples in each split; 0 takes all there are.
        noise: standard deviation of what the recipe adds: to the targets of `sine`, to the pixels
            of `textures`; the other data sets take none.
        augment: random changes of the training images, redrawn for every batch.
        halves: "shared": every teacher learns from the whole training split; "disjoint": teacher A
            from one half of it, teacher B from the other, and all later stages from the whole.
        normalise: "data" brings colours to mean 0 and deviation 1 over the data set; "imagenet"
            uses the figures of ImageNet, as many public checkpoints for other data sets do.
        source: for `images` and `imagewoof`: name of a folder, `.zip` or `.npz` file in the data
            directory; empty for `images` and for `imagewoof2-64`.
        side: for `images` and `imagewoof`: pixels along a side, to which images are resized; 0
            for 64.
        classes: for `images`: how many there are; 0 for 10.
    """

    name: Literal[
        "sine",
        "digits",
        "photos",
        "textures",
        "mnist",
        "cifar10",
        "cifar100",
        "imagewoof",
        "images",
    ]
    train: int = 0
    heldout: int = 0
    test: int = 0
    noise: float = 0.0
    augment: Literal[
        "none",
        "flips",
        "flips and quarter turns",
        "shifts",
        "flips and shifts",
        "flips and crops",
        "flips, crops and colours",
    ] = "none"
    halves: Literal["shared", "disjoint"] = "shared"
    normalise: Literal["data", "imagenet"] = "data"
    source: str = ""
    side: int = 0
    classes: int = 0

    def __post_init__(self) -> None:
        for key in ("train", "heldout", "test"):
            value = getattr(self, key)
            require(
                0 <= value <= 10_000_000,
                f"data.{key}",
                value,
                "a split has 0 (all there are) to 10,000,000 examples",
            )
        require(
            math.isfinite(self.noise) and 0 <= self.noise <= 10,
            "data.noise",
            self.noise,
            "the noise's standard deviation lies between 0 and 10",
        )
        require(
            self.normalise == "data" or self.name in (*_PUBLISHED_COLOUR, *_FROM_FILES),
            "data.normalise",
            self.normalise,
            f"{self.name!r} is not made of photographs in files; leave it at 'data'",
        )
        require(
            "colours" not in self.augment or self.name in (*_PUBLISHED_COLOUR, *_FROM_FILES),
            "data.augment",
            self.augment,
            f"{self.name!r} is not made of colour photographs in files; choose another",
        )
        for key in ("source", "side"):
            value = getattr(self, key)
            require(
                not value or self.name in _FROM_FILES,
                f"data.{key}",
                value,
                f"it is only for {' and '.join(_FROM_FILES)}; leave it out",
            )
        require(
            _is_inside(self.source),
            "data.source",
            self.source,
            "the name of a folder or file inside the data directory is expected",
        )
        require(
            self.side == 0 or 8 <= self.side <= 1024,
            "data.side",
            self.side,
            "images have 8 to 1,024 pixels along a side",
        )
        require(
            self.classes == 0 or (self.name == "images" and 2 <= self.classes <= 100_000),
            "data.classes",
            self.classes,
            "it is only for images, which have 2 to 100,000 classes",
        )

    @property
    def shape(self) -> Shape:
        """What a network for these examples takes and gives."""
        usual = SHAPES[self.name]
        return Shape(usual.channels, self.side or usual.side, self.classes or usual.classes)

    @property
    def place(self) -> str:
        """Name of the folder or file in the data directory that `images` are read from."""
        return self.source or {"imagewoof": "imagewoof2-64"}.get(self.name, self.name)


_PUBLISHED_COLOUR = ("cifar10", "cifar100")
_FROM_FILES = ("images", "imagewoof")


def _is_inside(source: str) -> bool:
    """Whether a name can only mean something inside a directory, on any system."""
    parts = source.split("/") if source else []
    return all(
        part.strip(". ") and part.isprintable() and not set(part) & set('\\:*?"<>|')
        for part in parts
    )


@dataclass(frozen=True, kw_only=True)
class Training:
    """One stage of training by stochastic gradient descent.

    Attributes:
        epochs: passes over the training split; 0 skips the training.
        batch_size: examples per step.
        learning_rate: the highest learning rate of the stage.
        rate: how it moves. "one-cycle" rises over the first 30 % of the steps and falls to nothing;
            "steps" is divided by ten at each milestone; "warm-up and steps" is the same after it
            rose from nothing in the first two epochs; "constant" stays.
        milestones: epochs at which it is divided by ten.
        momentum: 0 to below 1.
        weight_decay: added to the gradient of every weight; never to gates.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    rate: Literal["one-cycle", "steps", "warm-up and steps", "constant"] = "one-cycle"
    milestones: tuple[int, ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.epochs <= 100_000, "epochs", self.epochs, "it must be 0 to 100,000")
        require(
            1 <= self.batch_size <= 1_000_000, "batch_size", self.batch_size, "it must be 1 or more"
        )
        require(
            math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 100,
            "learning_rate",
            self.learning_rate,
            "it must be above 0 and at most 100",
        )
        require(0 <= self.momentum < 1, "momentum", self.momentum, "it must be 0 to below 1")
        require(
            math.isfinite(self.weight_decay) and 0 <= self.weight_decay <= 1,
            "weight_decay",
            self.weight_decay,
            "it must lie between 0 and 1",
        )
        require(
            list(self.milestones) == sorted(set(self.milestones))
            and all(m > 0 for m in self.milestones),
            "milestones",
            self.milestones,
            "milestones are growing epochs above 0",
        )

    def over(self, epochs: int) -> "Training":
        """The same training in another number of epochs, milestones moved in proportion."""
        milestones = {max(1, round(m * epochs / max(self.epochs, 1))) for m in self.milestones}
        return dataclasses.replace(self, epochs=epochs, milestones=tuple(sorted(milestones)))


Selection = Literal["most open", "largest weights", "same share"]
"""Rules by which half of the channels survives; `merge_core.methods.selection` carries them out."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """How the gates of the big student learn beside its weights.

    Attributes:
        start: every gate's logit at the start; 3 leaves a gate open with probability 0.99.
        spread: standard deviation of the start logits.
        learning_rate: of the gates; constant, with the stage's momentum, without weight decay.
        schedule: λ over the stage; `merge_core.schedules` has the kinds.
        pull: how long the penalty pulls at each gate, in units of learning rate × steps / gates of
            the space, momentum included. It makes the penalty bring a space to half at any width
            and any length of the stage; see `merge_core.gates`. The paper's sine problem has 234.
        selection: which channels survive the cut: the most open ones, as in the paper; those with
            the largest P[open] × incoming × outgoing weight; or as many of every teacher, each
            teacher's most open ones.
    """

    start: float = 3.0
    spread: float = 0.01
    learning_rate: float = 0.1
    schedule: Schedule = PAPER_SCHEDULE
    pull: float = 234.0
    selection: Selection = "most open"

    def __post_init__(self) -> None:
        require(-5 <= self.start <= 10, "gates.start", self.start, "it must lie in -5 to 10")
        require(0 <= self.spread <= 5, "gates.spread", self.spread, "it must lie in 0 to 5")
        require(
            0 < self.learning_rate <= 100,
            "gates.learning_rate",
            self.learning_rate,
            "it must be above 0 and at most 100",
        )
        require(
            math.isfinite(self.pull) and 0 < self.pull <= 1e7,
            "gates.pull",
            self.pull,
            "it must be above 0 and at most 10,000,000",
        )
