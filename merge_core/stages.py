"""The stages of every kind of run, in order: keys, titles and roles (no torch).

A stage's key names its row in every table, its artifact in the store and its mark in every chart.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run.

    Attributes:
        key: the word in stores and URLs.
        title: the words on a page.
        role: "teacher", "merge" (the way from the big student to the student), "bound" (costs
            more than one network at test time), "control" (what an honest reading compares with)
            or "measure" (leaves no network that is judged).
        note: one sentence for people who see the stage for the first time.
    """

    key: str
    title: str
    role: str
    note: str


STAGES: tuple[Stage, ...] = (
    Stage(
        key="teacher_a",
        title="Teacher A",
        role="teacher",
        note="A network trained from the first seed.",
    ),
    Stage(
        key="teacher_b",
        title="Teacher B",
        role="teacher",
        note="The same architecture trained from the second seed.",
    ),
    Stage(
        key="ensemble",
        title="Output ensemble",
        role="bound",
        note="The mean of both teachers' outputs; costs two networks at test time.",
    ),
    Stage(
        key="big",
        title="Big student",
        role="merge",
        note="The teachers side by side in one network, gates open: computes their mean exactly.",
    ),
    Stage(
        key="gates",
        title="Gated",
        role="merge",
        note="The big student after its gates have learned which half of the channels to keep.",
    ),
    Stage(
        key="cut",
        title="Cut",
        role="merge",
        note="Back to the original size: only the kept channels are left.",
    ),
    Stage(
        key="norms",
        title="Norms re-estimated",
        role="merge",
        note="The cut network with its batch-norm statistics measured afresh.",
    ),
    Stage(
        key="fine_tune",
        title="Fine-tuned",
        role="merge",
        note="The cut network trained on for a while.",
    ),
    Stage(
        key="random_half",
        title="Control: random half",
        role="control",
        note="A random half of the big student's channels, trained for the merge's extra epochs.",
    ),
    Stage(
        key="trained_on",
        title="Control: teacher A trained on",
        role="control",
        note="Teacher A with the merge's extra epochs spent on itself instead.",
    ),
)

COMPARISON_STAGES: tuple[Stage, ...] = (
    Stage(
        key="teachers",
        title="Teachers",
        role="teacher",
        note="The networks that are compared, each judged by itself.",
    ),
    Stage(
        key="alignment",
        title="Alignment",
        role="measure",
        note="How similar the channels of the first two teachers are, and which match which.",
    ),
    Stage(
        key="barrier",
        title="Barrier",
        role="measure",
        note="Loss and accuracy on the line between the first two teachers, before and after "
        "matching.",
    ),
)
"""What a comparison does before its methods; each method is a stage of its own, with its key."""

_AVERAGE = (
    Stage(
        key="average",
        title="Average",
        role="merge",
        note="One network whose weights are the mean of those of all networks that were tied.",
    ),
    Stage(
        key="average_norms",
        title="Average, norms re-estimated",
        role="merge",
        note="The average with its batch-norm statistics measured afresh.",
    ),
)

COUPLING_STAGES: tuple[Stage, ...] = (
    Stage(
        key="coupled",
        title="Coupled training",
        role="measure",
        note="Both teachers learn at once, pulled together or with shared layers.",
    ),
    *(stage for stage in STAGES if stage.key in ("teacher_a", "teacher_b", "ensemble")),
    *_AVERAGE,
    Stage(
        key="alone",
        title="Control: one network alone",
        role="control",
        note="One network, all examples, as many steps as both teachers together.",
    ),
)
"""Two teachers that are pulled together while they train, and their average."""

AVERAGING_STAGES: tuple[Stage, ...] = (
    Stage(
        key="workers",
        title="Workers",
        role="measure",
        note="Several networks learn from parts of the data and are averaged regularly.",
    ),
    *_AVERAGE,
    Stage(
        key="worker_alone",
        title="Control: one worker alone",
        role="control",
        note="One worker that is never averaged: its part of the data in every epoch.",
    ),
    Stage(
        key="one_on_all",
        title="Control: one network on all data",
        role="control",
        note="One network, all examples, as many steps as all workers together.",
    ),
)
"""Workers that are averaged regularly."""

_LETTERS = ("a", "b", "c", "d")
REFIT_STAGES: tuple[Stage, ...] = (
    *(
        Stage(
            key=f"teacher_{letter}",
            title=f"Teacher {letter.upper()}",
            role="teacher",
            note="A network trained from a seed of its own.",
        )
        for letter in _LETTERS
    ),
    Stage(
        key="ensemble",
        title="Output ensemble",
        role="bound",
        note="The mean of all teachers' outputs; costs as many networks at test time.",
    ),
    Stage(
        key="selected",
        title="Selected",
        role="merge",
        note="The channels of all teachers that explain most, readers refitted; no training.",
    ),
    Stage(
        key="selected_norms",
        title="Selected, norms re-estimated",
        role="merge",
        note="The same with its batch-norm statistics measured afresh.",
    ),
    Stage(
        key="tuned",
        title="Fine-tuned",
        role="merge",
        note="The student trained on, for classes also on what the teachers give together.",
    ),
    Stage(
        key="refitted",
        title="Output refitted",
        role="merge",
        note="The fine-tuned student with its output layer fitted once more in closed form.",
    ),
    Stage(
        key="untrained",
        title="Control: untrained student",
        role="control",
        note="An untrained network instead of the teachers' channels, fine-tuned in the same way.",
    ),
    *(stage for stage in STAGES if stage.role == "control"),
)
"""A merge without gates."""

STAGE_BY_KEY = {
    stage.key: stage
    for stage in (*REFIT_STAGES, *STAGES, *COMPARISON_STAGES, *COUPLING_STAGES, *AVERAGING_STAGES)
}
RETURNABLE = ("cut", "norms", "fine_tune")
"""The stages whose network may be a merge's result; the best by held-out score is returned."""
RETURNABLE_AVERAGE = ("average", "average_norms")
"""The same where networks were tied while they trained."""
RETURNABLE_REFIT = ("selected", "selected_norms", "tuned", "refitted")
"""The same of a merge without gates."""
