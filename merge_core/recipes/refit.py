"""The recipe of a merge without gates."""

from dataclasses import dataclass
from typing import Literal

from merge_core.recipes.experiment import Experiment
from merge_core.recipes.parts import Training, require

MOST_TEACHERS = 4


@dataclass(frozen=True, kw_only=True)
class Refit(Experiment):
    """The frozen settings of a merge without gates.

    Teachers, the channels of all of them that explain most by least squares, readers refitted to
    make up for the others, fine-tuning on what the teachers give together. See `merge_core.refits`.

    Attributes:
        name: the recipe's name, e.g. "textures".
        preset: the preset it started from.
        seed: decides every random draw.
        data: the examples.
        model: the architecture of all teachers.
        teachers: how many there are.
        teacher: training of each teacher.
        examples: how many training examples the channels are chosen on.
        start: what is fine-tuned: "selected": the student of the selected channels; "random": one
            of random channels of the teachers, which leads further where the student imitates them
            for long.
        fine_tune: training of the student after the cut.
        mixes: for classes, how many mixed pairs the student is fine-tuned on for each training
            example, as the teachers see them; an epoch of `fine_tune` is a pass over all of them.
            0 fine-tunes on the training examples themselves.
        labels: the share of the examples' own classes in what is learned from mixed pairs, 0 to 1;
            the rest is what the teachers give.
    """

    kind = "refit"

    teachers: int = 2
    teacher: Training
    examples: int = 2000
    start: Literal["selected", "random"] = "selected"
    fine_tune: Training
    mixes: int = 0
    labels: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            2 <= self.teachers <= MOST_TEACHERS,
            "teachers",
            self.teachers,
            f"2 to {MOST_TEACHERS} teachers can be merged",
        )
        require(
            self.teacher.epochs > 0,
            "teacher.epochs",
            self.teacher.epochs,
            "teachers must be trained; give 1 epoch or more",
        )
        require(
            10 <= self.examples <= 10_000_000,
            "examples",
            self.examples,
            "channels are chosen on 10 examples or more",
        )
        require(0 <= self.mixes <= 100, "mixes", self.mixes, "it must be 0 to 100")
        require(
            self.mixes == 0 or self.metric == "accuracy",
            "mixes",
            self.mixes,
            "teachers are imitated on mixed examples only for classes; leave it at 0",
        )
        require(0 <= self.labels <= 1, "labels", self.labels, "it must be 0 to 1")
        require(
            self.data.halves == "shared",
            "data.halves",
            self.data.halves,
            "all teachers learn from the same examples; leave it at 'shared'",
        )

    @property
    def tuning_passes(self) -> int:
        """Fine-tuning in passes over as many examples as the training split has."""
        return self.fine_tune.epochs * max(1, self.mixes)
