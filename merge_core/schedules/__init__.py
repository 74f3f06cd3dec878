"""λ schedules as values: the weight of the half-open penalty over the gate stage (no torch).

A schedule is a frozen value with a `kind`. Most are a `Curve` over the *progress* of the stage,
from 0 at its first step to 1 at its end, so that the same schedule fits a stage of any length.
`Closing` is not: it sets λ while the gates learn, by how far they are open.

    curve.at(progress)             λ at a moment of the stage
    curve.over(steps)              λ in each step of a stage: over(steps)[i] == at(i / steps)
    closing.weight(progress, mean) λ where the mean P[open] of the spaces is `mean`
    as_kind("linear", schedule)    a schedule of another kind between the same ends

As JSON a schedule is an object of its fields, "kind" among them: `dataclasses.asdict` writes it,
`merge_core.recipes.reading.build(Schedule, value, path)` reads and checks it. One without "kind" is
a `GrowthLaw`, the only kind that early versions knew.
"""

from merge_core.schedules.base import Curve
from merge_core.schedules.closing import Closing
from merge_core.schedules.growth import PAPER_SCHEDULE, GrowthLaw
from merge_core.schedules.kinds import KINDS, TITLES, Schedule, as_kind
from merge_core.schedules.laws import Constant, Cosine, Exponential, Linear, Stairs
from merge_core.schedules.points import Points

__all__ = [
    "KINDS",
    "PAPER_SCHEDULE",
    "TITLES",
    "Closing",
    "Constant",
    "Cosine",
    "Curve",
    "Exponential",
    "GrowthLaw",
    "Linear",
    "Points",
    "Schedule",
    "Stairs",
    "as_kind",
]
