"""The paper's λ schedule."""

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from merge_core.errors import RecipeError
from merge_core.schedules.base import Curve, require_weight


@dataclass(frozen=True, kw_only=True)
class GrowthLaw(Curve):
    """λ starts small and grows by g·√λ per epoch, about quadratically; it never falls.

    Source: Pašen and Boža, "Merging of neural networks", section 2.2 and Fig. 5.

    Attributes:
        start: λ₀, the weight in the first epoch; positive.
        growth: g, positive.
        epochs: how many epochs of growth are spread over the stage. A stage of this many epochs
            follows the paper to the letter; a shorter or longer one runs through the same values
            faster or slower.
    """

    kind: Literal["growth"] = field(default="growth", init=False)
    start: float
    growth: float
    epochs: int

    def __post_init__(self) -> None:
        require_weight("start", self.start)
        require_weight("growth", self.growth)
        if not 1 <= self.epochs <= 10_000:
            raise RecipeError(
                f"The λ schedule got epochs={self.epochs}, but it must lie between 1 and 10000; "
                f"the paper's sine problem has 150."
            )

    @classmethod
    def between(cls, start: float, end: float) -> Self:
        """The law of 150 epochs from one λ to another; from a λ to a lower one it hardly grows."""
        law = cls(start=start, growth=1e-6, epochs=150)
        low, high = math.log(1e-6), math.log(1e3)
        for _ in range(50):
            growth = math.exp((low + high) / 2)
            tried = cls(start=start, growth=growth, epochs=150)
            if tried.values()[-1] < end:
                law, low = tried, math.log(growth)
            else:
                high = math.log(growth)
        return law

    def values(self) -> np.ndarray:
        """λ in each epoch of growth; shape `(epochs,)`, float64."""
        values = np.empty(self.epochs)
        weight = self.start
        for epoch in range(self.epochs):
            values[epoch] = weight
            weight += self.growth * math.sqrt(weight)
        return values

    def curve(self, progress: np.ndarray) -> np.ndarray:
        """λ at each progress: constant within each epoch of growth, as in the paper."""
        epochs = (progress * self.epochs).astype(int)
        return self.values()[np.minimum(epochs, self.epochs - 1)]


PAPER_SCHEDULE = GrowthLaw(start=0.01, growth=0.05, epochs=150)
"""λ as the paper's code has it for the sine problem: 0.01 at the start, 14.5 at the end."""
