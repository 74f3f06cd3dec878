"""A λ that is controlled: as large as it takes to close the gates at a constant rate."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from merge_core.errors import RecipeError
from merge_core.schedules.base import require_progress

_REACH = 1e3
"""λ stays between 1/reach and reach."""
_BAND = 0.05
"""So far above its path the mean has half of λ's way to the reach, in logarithms."""


@dataclass(frozen=True, kw_only=True)
class Closing:
    """λ follows the gates: it keeps the mean P[open] on a straight path down to ½.

    λ is 1 where the mean is on its path, larger the further it lags behind, smaller the further it
    runs ahead: with e = (mean − path) / 0.05, it is 1000 to the power of e / (1 + |e|). As the pull
    is in proportion to λ, a small distance from the path makes up for any size of the pull, of the
    error gradient and of the stage; there is nothing to tune. It depends on the mean alone, so a
    resumed stage goes on with the same numbers.

    Attributes:
        begin: the progress at which the path begins.
        opening: the mean P[open] that it begins at; ½ to 1.
        half: the progress at which the path reaches ½. By default where the closing part of the
            stage begins (`merge_core.gates`), so that it has nothing left to do.
    """

    kind: Literal["closing"] = field(default="closing", init=False)
    begin: float = 0.0
    opening: float = 1.0
    half: float = 0.9

    def __post_init__(self) -> None:
        require_progress("begin", self.begin)
        require_progress("half", self.half)
        if not self.begin < self.half:
            raise RecipeError(
                f"The λ schedule got begin={self.begin} and half={self.half}, but its path must "
                f"begin before it reaches half; choose a smaller begin."
            )
        if not 0.5 <= self.opening <= 1:
            raise RecipeError(
                f"The λ schedule got opening={self.opening}, but its path must begin at a mean "
                f"P[open] of 0.5 to 1; choose for example 1."
            )

    def path(self, progress: np.ndarray) -> np.ndarray:
        """The mean P[open] that is aimed at, at each progress; same shape."""
        return np.interp(progress, [self.begin, self.half], [self.opening, 0.5])

    def weight(self, progress: float, mean: Any) -> Any:
        """λ at a moment of the stage.

        Args:
            progress: in [0, 1].
            mean: the mean over the spaces of their mean P[open]; a number, an array or a tensor.

        Returns:
            λ in the type and shape of `mean`.
        """
        late = (mean - float(self.path(np.array(progress)))) / _BAND
        return _REACH ** (late / (1 + abs(late)))
