"""A λ schedule drawn by hand."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Self

import numpy as np

from merge_core.errors import RecipeError
from merge_core.schedules.base import Curve, require_progress, require_weight

MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Points(Curve):
    """λ goes through points, along straight lines on a log scale; level before and after them.

    Attributes:
        points: pairs of a progress, from 0 at the start of the stage to 1 at its end, and the λ
            there; each after the one before.
    """

    kind: Literal["points"] = field(default="points", init=False)
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.points) <= MOST_POINTS:
            raise RecipeError(
                f"The λ schedule got {len(self.points)} points, but it needs 1 to {MOST_POINTS}; "
                f"give pairs of progress and λ, for example points=0:0.01,1:10."
            )
        for place, weight in self.points:
            require_progress("a point's progress", place)
            require_weight("a point's λ", weight)
        if any(b[0] <= a[0] for a, b in pairwise(self.points)):
            places = ", ".join(f"{place:g}" for place, _ in self.points)
            raise RecipeError(
                f"The λ schedule got points at {places}, but each must lie after the one before; "
                f"sort them and leave out doubles."
            )

    @classmethod
    def along(cls, curve: Curve, count: int = 6) -> Self:
        """Points at equal distances on another curve."""
        places = [i / (count - 1) for i in range(count)]
        return cls(points=tuple((place, curve.at(place)) for place in places))

    def curve(self, progress: np.ndarray) -> np.ndarray:
        """λ at each progress, between the points' logarithms."""
        places, weights = np.array(self.points).T
        return np.clip(
            np.exp(np.interp(progress, places, np.log(weights))), weights.min(), weights.max()
        )
