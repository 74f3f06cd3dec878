"""What recipes of all kinds are: settings with a name, a seed, data and a model that fits it."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from merge_core.architectures import architectures_for, is_factory
from merge_core.errors import RecipeError
from merge_core.recipes.parts import Code, Data, Precision, require
from merge_core.recipes.reading import build, replaced

FIRST_KIND = "merge"
"""The kind of a recipe that names none: the only one that early versions knew."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What recipes of all kinds have: a name, a seed, data and a model that fits it.

    Attributes:
        precision: the numbers that networks compute with while they learn; see
            `merge_core.precision`. Averages whose weights are learned are float32 at any rate.
        code: whether networks learn as compiled code; see `merge_core.compiling`. Those with gates
            and averages whose weights are learned never do.
    """

    kind: ClassVar[str]

    name: str
    preset: str
    seed: int = 0
    data: Data
    model: str
    precision: Precision = "float32"
    code: Code = "eager"

    def __post_init__(self) -> None:
        require(
            0 <= self.seed < 2**31, "seed", self.seed, "a seed is a whole number from 0 to 2³¹−1"
        )
        fitting = architectures_for(self.data.shape)
        if self.model not in fitting and not is_factory(self.model):
            near = difflib.get_close_matches(self.model, fitting, n=1) or fitting[:1]
            raise RecipeError(
                f"The recipe got model={self.model!r}, but the data set {self.data.name!r} needs "
                f"one of {len(fitting)} that fit it; choose for example {near[0]!r}, or name a "
                f"network of your own as package.module:factory."
            )
        require(
            self.precision == "float32" or self.metric == "accuracy",
            "precision",
            self.precision,
            "two or three digits are too few to fit numbers; leave it at 'float32'",
        )
        require(
            self.code == "eager" or self.metric == "accuracy",
            "code",
            self.code,
            "networks that fit numbers take steps of their own; leave it at 'eager'",
        )

    @property
    def metric(self) -> Literal["accuracy", "loss"]:
        """What the recipe is judged by: accuracy (higher is better), on `sine` the loss."""
        return "loss" if self.data.name == "sine" else "accuracy"

    def better(self, score: float, other: float) -> bool:
        """Whether `score` is strictly better than `other` under the recipe's metric."""
        return score > other if self.metric == "accuracy" else score < other

    @property
    def computing(self) -> str:
        """How its networks compute while they learn, behind the name of a device; mostly ""."""
        precision = {"float32": "", "auto": ", precision auto"}.get(
            self.precision, f" in {self.precision}"
        )
        return f"{precision}{', compiled' if self.code == 'compiled' else ''}"

    def to_json(self) -> str:
        """The recipe as one line of JSON; `from_json` reads it back equal."""
        settings = {"kind": self.kind, **dataclasses.asdict(self)}
        # What is as it always was stays unsaid, as by early versions: files have names after it.
        if self.precision == "float32":
            del settings["precision"]
        if self.code == "eager":
            del settings["code"]
        return json.dumps(settings, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe of this kind back.

        Raises:
            RecipeError: the text is not JSON, lacks a key, has an unknown one or a bad value, or
                is a recipe of another kind.
        """
        kind, value = parsed(text)
        if kind != cls.kind:
            raise RecipeError(
                f"The recipe {value.get('name')!r} is {with_article(str(kind))}, but "
                f"{with_article(cls.kind)} was expected; give the recipe of "
                f"{with_article(cls.kind)}."
            )
        return build(cls, value, "")

    def changed(self, settings: Mapping[str, str]) -> Self:
        """A copy with some settings replaced, as `--set gating.epochs=8` does.

        Args:
            settings: dotted key → value as text, in the type of the value it replaces; tuples as
                comma-separated values, points as `0:0.01,1:10`. The kind of a λ schedule
                (`gates.schedule.kind`) comes before its other settings, wherever it stands.

        Raises:
            RecipeError: a key that does not exist, or a value that does not fit it.
        """
        recipe = self
        for key, text in sorted(settings.items(), key=lambda item: not item[0].endswith(".kind")):
            recipe = replaced(recipe, key.split("."), text, key)
        return recipe


def parsed(text: str) -> tuple[Any, dict[str, Any]]:
    """The kind that a recipe's JSON names, and its settings; neither is checked.

    Raises:
        RecipeError: the text is not the JSON of an object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(
            f"The recipe is not valid JSON ({error}); expected what `Recipe.to_json` wrote."
        ) from error
    if not isinstance(value, dict):
        raise RecipeError(f"The recipe is {value!r}, but a JSON object was expected.")
    return value.pop("kind", FIRST_KIND), value


def with_article(kind: str) -> str:
    """A kind in words: "a merge", "an averaging"."""
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"
