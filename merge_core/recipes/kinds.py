"""The kinds of recipes: a merge of two teachers, and a comparison of the ways to merge."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from merge_core.architectures import architectures_for
from merge_core.catalogue import METHOD_BY_KEY
from merge_core.errors import RecipeError
from merge_core.recipes.parts import Data, Gates, Training, require
from merge_core.recipes.reading import build, replaced


@dataclass(frozen=True, kw_only=True)
class _Experiment:
    """What recipes of all kinds have: a name, a seed, data and a model that fits it."""

    kind: ClassVar[str]

    name: str
    preset: str
    seed: int = 0
    data: Data
    model: str

    def __post_init__(self) -> None:
        require(
            0 <= self.seed < 2**31, "seed", self.seed, "a seed is a whole number from 0 to 2³¹−1"
        )
        fitting = architectures_for(self.data.shape)
        if self.model not in fitting:
            near = difflib.get_close_matches(self.model, fitting, n=1) or fitting[:1]
            raise RecipeError(
                f"The recipe got model={self.model!r}, but the data set {self.data.name!r} needs "
                f"one of {len(fitting)} that fit it; choose for example {near[0]!r}."
            )

    @property
    def metric(self) -> Literal["accuracy", "loss"]:
        """What the recipe is judged by: accuracy (higher is better), on `sine` the loss."""
        return "loss" if self.data.name == "sine" else "accuracy"

    def better(self, score: float, other: float) -> bool:
        """Whether `score` is strictly better than `other` under the recipe's metric."""
        return score > other if self.metric == "accuracy" else score < other

    def to_json(self) -> str:
        """The recipe as one line of JSON; `from_json` reads it back equal."""
        settings = {"kind": self.kind, **dataclasses.asdict(self)}
        return json.dumps(settings, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe of this kind back.

        Raises:
            RecipeError: the text is not JSON, lacks a key, has an unknown one or a bad value, or
                is a recipe of another kind.
        """
        recipe = from_json(text)
        if not isinstance(recipe, cls):
            raise RecipeError(
                f"The recipe {recipe.name!r} is a {recipe.kind}, but a {cls.kind} was expected; "
                f"give the recipe of a {cls.kind}."
            )
        return recipe

    def changed(self, settings: Mapping[str, str]) -> Self:
        """A copy with some settings replaced, as `--set gating.epochs=8` does.

        Args:
            settings: dotted key → value as text, in the type of the value it replaces; tuples as
                comma-separated values.

        Raises:
            RecipeError: a key that does not exist, or a value that does not fit it.
        """
        recipe = self
        for key, text in settings.items():
            recipe = replaced(recipe, key.split("."), text, key)
        return recipe


@dataclass(frozen=True, kw_only=True)
class Recipe(_Experiment):
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

    kind = "merge"

    teacher: Training
    gates: Gates
    gating: Training
    fine_tune: Training

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.teacher.epochs > 0,
            "teacher.epochs",
            self.teacher.epochs,
            "teachers must be trained; give 1 epoch or more",
        )
        require(
            self.gating.epochs > 0,
            "gating.epochs",
            self.gating.epochs,
            "gates must learn before the cut; give 1 epoch or more",
        )

    @property
    def extra_epochs(self) -> int:
        """Epochs that the merge spends after the teachers; each control gets as many."""
        return self.gating.epochs + self.fine_tune.epochs


@dataclass(frozen=True, kw_only=True)
class Comparison(_Experiment):
    """The frozen settings of a comparison: the same teachers, aligned, and merged in many ways.

    Attributes:
        name: the comparison's name, e.g. "compare-textures".
        preset: the preset of the merge it is of; "files" for teachers from checkpoint files.
        seed: decides every random draw; of a comparison of a merge run it is that run's, so that
            the splits are the same.
        data: the examples.
        model: the architecture of all teachers.
        of: name of the merge run whose teachers these are; empty for teachers from files.
        teachers: one label for each teacher, two or more.
        methods: keys of `merge_core.catalogue`; none for the alignment and the barrier alone.
        examples: how many training examples statistics are measured on. Train scores are of these,
            and a barrier takes no more than so many examples of a split.
        gates: the gates of the method that has them.
        gating: training inside the methods that train: gates, learned weights.
        fine_tune: training of every method's network after it; 0 epochs for none.
    """

    kind = "comparison"

    of: str = ""
    teachers: tuple[str, ...]
    methods: tuple[str, ...] = ()
    examples: int = 2000
    gates: Gates
    gating: Training
    fine_tune: Training

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.teachers)
        require(count >= 2, "teachers", self.teachers, "two or more teachers can be compared")
        require(
            10 <= self.examples <= 10_000_000,
            "examples",
            self.examples,
            "statistics need 10 examples or more",
        )
        require(
            self.gating.epochs > 0,
            "gating.epochs",
            self.gating.epochs,
            "the methods that train need 1 epoch or more",
        )
        for key in self.methods:
            if key not in METHOD_BY_KEY:
                near = difflib.get_close_matches(key, METHOD_BY_KEY, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed()}."
                raise RecipeError(f"There is no method {key!r}; {hint}")
            most = METHOD_BY_KEY[key].teachers
            if most and count > most:
                raise RecipeError(
                    f"The method {key!r} takes at most {most} teachers, but {count} were given; "
                    f"leave it out or give fewer teachers."
                )
        twice = sorted({key for key in self.methods if self.methods.count(key) > 1})
        require(not twice, "methods", self.methods, f"{', '.join(twice)} is named more than once")


def _listed() -> str:
    return ", ".join(METHOD_BY_KEY)


KINDS: dict[str, type[Recipe] | type[Comparison]] = {
    Recipe.kind: Recipe,
    Comparison.kind: Comparison,
}


def from_json(text: str) -> Recipe | Comparison:
    """Read a recipe of any kind back; one that names no kind is a merge.

    Raises:
        RecipeError: the text is not JSON, lacks a key, has an unknown one or a bad value.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RecipeError(
            f"The recipe is not valid JSON ({error}); expected what `Recipe.to_json` wrote."
        ) from error
    kind = value.pop("kind", Recipe.kind) if isinstance(value, dict) else Recipe.kind
    if kind not in list(KINDS):
        raise RecipeError(
            f"The recipe got kind={kind!r}, but this netweld knows {' and '.join(KINDS)}; "
            f"use the netweld that wrote it."
        )
    return build(KINDS[kind], value, "")
