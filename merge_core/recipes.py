"""Recipes: the frozen, validated, JSON-serialisable settings of one merge (no torch).

A recipe with its seed and the device decides every number of a run. Presets are values, too: see
`PRESETS` at the end of `merge_core.presets`.
"""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from merge_core.architectures import architectures_for
from merge_core.errors import RecipeError
from merge_core.schedules import GrowthLaw


def _require(ok: bool, key: str, value: object, expected: str) -> None:
    if not ok:
        raise RecipeError(f"The recipe got {key}={value!r}, but {expected}.")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which examples a recipe learns from.

    Attributes:
        name: a data set known to `merge_core.data`.
        train, heldout, test: numbers of examples in each split; 0 takes all there are.
        noise: standard deviation of what the recipe adds: to the targets of `sine`, to the pixels
            of `textures`; the other data sets take none.
        augment: random changes of the training images, redrawn for every batch.
    """

    name: Literal["sine", "digits", "photos", "textures", "mnist"]
    train: int = 0
    heldout: int = 0
    test: int = 0
    noise: float = 0.0
    augment: Literal["none", "flips", "flips and quarter turns", "shifts"] = "none"

    def __post_init__(self) -> None:
        for key in ("train", "heldout", "test"):
            value = getattr(self, key)
            _require(
                0 <= value <= 10_000_000,
                f"data.{key}",
                value,
                "a split has 0 (all there are) to 10,000,000 examples",
            )
        _require(
            math.isfinite(self.noise) and 0 <= self.noise <= 10,
            "data.noise",
            self.noise,
            "the noise's standard deviation lies between 0 and 10",
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """One stage of training by stochastic gradient descent.

    Attributes:
        epochs: passes over the training split; 0 skips the training.
        batch_size: examples per step.
        learning_rate: the highest learning rate of the stage.
        rate: how it moves. "one-cycle" rises over the first 30 % of the steps and falls to nothing;
            "steps" is divided by ten at each milestone; "constant" stays.
        milestones: epochs at which "steps" divides by ten.
        momentum: 0 to below 1.
        weight_decay: added to the gradient of every weight; never to gates.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    rate: Literal["one-cycle", "steps", "constant"] = "one-cycle"
    milestones: tuple[int, ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.epochs <= 100_000, "epochs", self.epochs, "it must be 0 to 100,000")
        _require(
            1 <= self.batch_size <= 1_000_000, "batch_size", self.batch_size, "it must be 1 or more"
        )
        _require(
            math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 100,
            "learning_rate",
            self.learning_rate,
            "it must be above 0 and at most 100",
        )
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "it must be 0 to below 1")
        _require(
            math.isfinite(self.weight_decay) and 0 <= self.weight_decay <= 1,
            "weight_decay",
            self.weight_decay,
            "it must lie between 0 and 1",
        )
        _require(
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


PAPER_SCHEDULE = GrowthLaw(start=0.01, growth=0.05, epochs=150)
"""λ as the paper's code has it for the sine problem: 0.01 at the start, 14.5 at the end."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """How the gates of the big student learn beside its weights.

    Attributes:
        start: every gate's logit at the start; 3 leaves a gate open with probability 0.99.
        spread: standard deviation of the start logits.
        learning_rate: of the gates; constant, with the stage's momentum, without weight decay.
        schedule: λ over the stage.
        pull: how long the penalty pulls at each gate, in units of learning rate × steps / gates of
            the space, momentum included. It makes the penalty bring a space to half at any width
            and any length of the stage; see `merge_core.gates`. The paper's sine problem has 234.
    """

    start: float = 3.0
    spread: float = 0.01
    learning_rate: float = 0.1
    schedule: GrowthLaw = PAPER_SCHEDULE
    pull: float = 234.0

    def __post_init__(self) -> None:
        _require(-5 <= self.start <= 10, "gates.start", self.start, "it must lie in -5 to 10")
        _require(0 <= self.spread <= 5, "gates.spread", self.spread, "it must lie in 0 to 5")
        _require(
            0 < self.learning_rate <= 100,
            "gates.learning_rate",
            self.learning_rate,
            "it must be above 0 and at most 100",
        )
        _require(
            math.isfinite(self.pull) and 0 < self.pull <= 1e7,
            "gates.pull",
            self.pull,
            "it must be above 0 and at most 10,000,000",
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The frozen settings of one merge of two teachers.

    The controls have no settings of their own: they spend the epochs of `gating` and `fine_tune`
    together, with the optimizer settings of `fine_tune` (random half) and of `teacher` (teacher A
    trained on).

    Attributes:
        name: the recipe's name, e.g. "textures".
        preset: the preset it started from; "paper" or "quick".
        seed: decides every random draw.
        data: the examples.
        model: an architecture of `merge_core.architectures` that fits the data.
        teacher: training of each teacher.
        gates: the gates of the big student.
        gating: training of the big student's weights while the gates learn.
        fine_tune: training of the student after the cut.
    """

    name: str
    preset: str
    seed: int = 0
    data: Data
    model: str
    teacher: Training
    gates: Gates
    gating: Training
    fine_tune: Training

    def __post_init__(self) -> None:
        _require(
            0 <= self.seed < 2**31, "seed", self.seed, "a seed is a whole number from 0 to 2³¹−1"
        )
        fitting = architectures_for(self.data.name)
        if self.model not in fitting:
            near = difflib.get_close_matches(self.model, fitting, n=1) or fitting[:1]
            raise RecipeError(
                f"The recipe got model={self.model!r}, but the data set {self.data.name!r} needs "
                f"one of {len(fitting)} that fit it; choose for example {near[0]!r}."
            )
        _require(
            self.teacher.epochs > 0,
            "teacher.epochs",
            self.teacher.epochs,
            "teachers must be trained; give 1 epoch or more",
        )
        _require(
            self.gating.epochs > 0,
            "gating.epochs",
            self.gating.epochs,
            "gates must learn before the cut; give 1 epoch or more",
        )

    @property
    def metric(self) -> Literal["accuracy", "loss"]:
        """What the recipe is judged by: accuracy (higher is better), on `sine` the loss."""
        return "loss" if self.data.name == "sine" else "accuracy"

    @property
    def extra_epochs(self) -> int:
        """Epochs that the merge spends after the teachers; each control gets as many."""
        return self.gating.epochs + self.fine_tune.epochs

    def better(self, score: float, other: float) -> bool:
        """Whether `score` is strictly better than `other` under the recipe's metric."""
        return score > other if self.metric == "accuracy" else score < other

    def to_json(self) -> str:
        """The recipe as one line of JSON; `from_json` reads it back equal."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read a recipe back.

        Raises:
            RecipeError: the text is not JSON, lacks a key, has an unknown one or a bad value.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise RecipeError(
                f"The recipe is not valid JSON ({error}); expected what `Recipe.to_json` wrote."
            ) from error
        return _build(cls, value, "")

    def changed(self, settings: Mapping[str, str]) -> "Recipe":
        """A copy with some settings replaced, as `--set gating.epochs=8` does.

        Args:
            settings: dotted key → value as text, in the type of the value it replaces; tuples as
                comma-separated numbers.

        Raises:
            RecipeError: a key that does not exist, or a value that does not fit it.
        """
        recipe = self
        for key, text in settings.items():
            recipe = _replaced(recipe, key.split("."), text, key)
        return recipe


def _fields(kind: type) -> dict[str, Any]:
    """Field name → resolved type of a settings class."""
    return typing.get_type_hints(kind)


def _unknown(key: str, name: str, known: list[str]) -> RecipeError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
    return RecipeError(f"The recipe has no setting {key!r}: {name!r} is unknown; {hint}")


def _build(kind: Any, value: Any, path: str) -> Any:
    """A settings value from parsed JSON, checked against the field types."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        where = path or "the recipe"
        if not isinstance(value, dict):
            raise RecipeError(f"The recipe's {where} is {value!r}, but a JSON object was expected.")
        hints = _fields(kind)
        for key in value:
            if key not in hints:
                raise _unknown(f"{path}.{key}".lstrip("."), key, list(hints))
        required = {
            field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING
        }
        missing = sorted(required - value.keys())
        if missing:
            raise RecipeError(f"The recipe lacks {', '.join(missing)} in {where}; add it.")
        return kind(
            **{key: _build(hints[key], v, f"{path}.{key}".lstrip(".")) for key, v in value.items()}
        )
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, list):
            raise RecipeError(f"The recipe's {path} is {value!r}, but a list was expected.")
        return tuple(_build(inner, item, path) for item in value)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise RecipeError(
                f"The recipe got {path}={value!r}, but it must be one of {', '.join(choices)}."
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"The recipe got {path}={value!r}, but {_KIND_WORDS[kind]} was expected.")
    return value


_KIND_WORDS = {int: "a whole number", float: "a number", str: "a word"}


def _parse(kind: Any, text: str, key: str) -> Any:
    """A value of type `kind` from what a user typed."""
    if typing.get_origin(kind) is tuple:
        return [_parse(typing.get_args(kind)[0], part, key) for part in text.split(",") if part]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise RecipeError(
                f"The recipe got {key}={text!r}, but {_KIND_WORDS[kind]} was expected."
            ) from error
    return text


def _replaced(value: Any, path: list[str], text: str, key: str) -> Any:
    """`value` with the setting at `path` replaced by what `text` says."""
    hints = _fields(type(value))
    name = path[0]
    if name not in hints:
        raise _unknown(key, name, list(hints))
    kind = hints[name]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if len(path) == 1:
            parts = ", ".join(f"{key}.{part}" for part in _fields(kind))
            raise RecipeError(f"The setting {key!r} has parts; set one of {parts}.")
        new = _replaced(getattr(value, name), path[1:], text, key)
    elif len(path) > 1:
        raise RecipeError(
            f"The setting {name!r} has no parts, but {key!r} was given; set {name!r}."
        )
    else:
        new = _build(kind, _parse(kind, text, key), key)
    return dataclasses.replace(value, **{name: new})
