"""The kinds of recipes: a merge, a comparison of ways to merge, and trainings that tie networks."""

import dataclasses
import difflib
from dataclasses import dataclass

from merge_core.catalogue import METHOD_BY_KEY
from merge_core.errors import RecipeError
from merge_core.recipes.experiment import FIRST_KIND, Experiment, parsed
from merge_core.recipes.methods import MethodSettings
from merge_core.recipes.parts import Gates, Training, require
from merge_core.recipes.reading import build
from merge_core.recipes.refit import Refit
from merge_core.recipes.tied import Averaging, Coupling
from merge_core.steering import MOST_STEERS, Steer, Steering, length, require_fitting


@dataclass(frozen=True, kw_only=True)
class Recipe(Experiment):
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
        steering: what changed in the gate stage while it ran, in the order in which it was changed;
            see `merge_core.steering`. A recipe with it gives the numbers of the steered run.
    """

    kind = FIRST_KIND

    teacher: Training
    gates: Gates
    gating: Training
    fine_tune: Training
    steering: Steering = ()

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
        require(
            len(self.steering) <= MOST_STEERS,
            "steering",
            f"{len(self.steering)} changes",
            f"at most {MOST_STEERS} can be kept",
        )
        for steer in self.steering:
            require_fitting(steer, self.gating.epochs)

    @property
    def gate_epochs(self) -> int:
        """Epochs of the gate stage, which steering may cut short."""
        return length(self.gating.epochs, self.steering)

    @property
    def extra_epochs(self) -> int:
        """Epochs that the merge spends after the teachers; each control gets as many."""
        return self.gate_epochs + self.fine_tune.epochs

    def steered(self, steer: Steer) -> "Recipe":
        """The recipe with one more change.

        Raises:
            RecipeError: the change does not fit the gate stage.
        """
        return dataclasses.replace(self, steering=(*self.steering, steer))


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment, MethodSettings):
    """The frozen settings of a comparison: the same teachers, aligned, and merged in many ways.

    The settings that single methods have are its own: see `MethodSettings`.

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
        self.require_valid(count)
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


KINDS: dict[str, type[Experiment]] = {
    each.kind: each for each in (Recipe, Comparison, Coupling, Averaging, Refit)
}


def from_json(text: str) -> Experiment:
    """Read a recipe of any kind back; one that names no kind is a merge.

    Raises:
        RecipeError: the text is not JSON, lacks a key, has an unknown one or a bad value.
    """
    kind, value = parsed(text)
    if kind not in list(KINDS):
        raise RecipeError(
            f"The recipe got kind={kind!r}, but this netweld knows {', '.join(KINDS)}; "
            f"use the netweld that wrote it."
        )
    return build(KINDS[kind], value, "")
