"""The kinds of λ schedules, and how one becomes another."""

import math

from merge_core.errors import RecipeError
from merge_core.schedules.base import Curve
from merge_core.schedules.closing import Closing
from merge_core.schedules.growth import PAPER_SCHEDULE, GrowthLaw
from merge_core.schedules.laws import Constant, Cosine, Exponential, Linear, Stairs
from merge_core.schedules.points import Points

Schedule = GrowthLaw | Constant | Linear | Exponential | Cosine | Stairs | Points | Closing

KINDS: dict[str, type[Schedule]] = {
    "growth": GrowthLaw,
    "constant": Constant,
    "linear": Linear,
    "exponential": Exponential,
    "cosine": Cosine,
    "step": Stairs,
    "points": Points,
    "closing": Closing,
}
TITLES = {
    "growth": "Growth law",
    "constant": "Constant",
    "linear": "Linear",
    "exponential": "Exponential",
    "cosine": "Cosine",
    "step": "Steps",
    "points": "Points",
    "closing": "Controlled",
}
"""What each kind is called where people choose."""


def as_kind(kind: str, schedule: Schedule) -> Schedule:
    """A schedule of another kind with the first and the last λ of this one.

    A constant lies midway on a log scale. Where λ is controlled, its ends are those of the paper's
    schedule.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind not in KINDS:
        raise RecipeError(
            f"The λ schedule got kind={kind!r}, but there are {', '.join(KINDS)}; choose one."
        )
    if kind == schedule.kind:
        return schedule
    curve: Curve = PAPER_SCHEDULE if isinstance(schedule, Closing) else schedule
    start, end = curve.at(0), curve.at(1)
    match kind:
        case "growth":
            return GrowthLaw.between(start, end)
        case "constant":
            return Constant(weight=math.sqrt(start * end))
        case "linear":
            return Linear(start=start, end=end)
        case "exponential":
            return Exponential(start=start, end=end)
        case "cosine":
            return Cosine(start=start, end=end)
        case "step":
            return Stairs(start=start, end=end)
        case "points":
            return Points.along(curve)
        case _:
            return Closing()
