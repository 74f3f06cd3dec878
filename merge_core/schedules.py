"""λ schedules as values: the weight of the half-open penalty over the gate stage (no torch).

A schedule is a curve over the *progress* of the stage, from 0 at its first step to 1 at its end, so
that the same schedule fits a stage of any length.
"""

import math
from dataclasses import dataclass

import numpy as np

from merge_core.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class GrowthLaw:
    """The paper's schedule: λ starts small and grows by g·√λ per epoch, about quadratically.

    Source: Pašen and Boža, "Merging of neural networks", section 2.2 and Fig. 5.

    Attributes:
        start: λ₀, the weight in the first epoch; positive.
        growth: g, positive.
        epochs: how many epochs of growth are spread over the stage. A stage of this many epochs
            follows the paper to the letter; a shorter or longer one runs through the same values
            faster or slower.
    """

    start: float
    growth: float
    epochs: int

    def __post_init__(self) -> None:
        for key in ("start", "growth"):
            value = getattr(self, key)
            if not (math.isfinite(value) and 0 < value <= 1e3):
                raise RecipeError(
                    f"The λ schedule got {key}={value}, but it must be above 0 and at most 1000; "
                    f"choose a positive number such as 0.05."
                )
        if not 1 <= self.epochs <= 10_000:
            raise RecipeError(
                f"The λ schedule got epochs={self.epochs}, but it must lie between 1 and 10000; "
                f"the paper's sine problem has 150."
            )

    def values(self) -> np.ndarray:
        """λ in each epoch of growth; shape `(epochs,)`, float64."""
        values = np.empty(self.epochs)
        weight = self.start
        for epoch in range(self.epochs):
            values[epoch] = weight
            weight += self.growth * math.sqrt(weight)
        return values

    def at(self, progress: float) -> float:
        """λ at `progress` in [0, 1]: constant within each epoch of growth, as in the paper."""
        epoch = min(int(progress * self.epochs), self.epochs - 1)
        return float(self.values()[epoch])

    def over(self, steps: int) -> np.ndarray:
        """λ as `at` has it in each of `steps` steps of a stage; shape `(steps,)`, float64."""
        epochs = (np.arange(steps) / max(steps, 1) * self.epochs).astype(int)
        return self.values()[np.minimum(epochs, self.epochs - 1)]
