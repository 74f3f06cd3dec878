"""The settings that single methods of a comparison have."""

import math
from dataclasses import dataclass

from merge_core.recipes.parts import require


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What single methods of `merge_core.catalogue` can be told; their cards say which have what.

    Attributes:
        weights: of "fixed_weights": one for each teacher; empty for the best of a grid.
        top_k: of "soft_top_k": how many channels of each other teacher go into one.
        temperature: of "soft_top_k": of the weights, in units of Fisher's z; higher, and the other
            teachers blur and fade away.
        entropy: of "transport": its weight in units of the mean distance; higher, and the other
            teachers fade away.
        up_to: of "zip": how many channel spaces from the input are zipped; 0 for all of them.
    """

    weights: tuple[float, ...] = ()
    top_k: int = 3
    temperature: float = 0.2
    entropy: float = 0.03
    up_to: int = 0

    def require_valid(self, teachers: int) -> None:
        """RecipeError for a value that does not fit, or does not fit so many teachers."""
        fitting = len(self.weights) == teachers and all(0 <= each <= 1 for each in self.weights)
        require(
            not self.weights or (fitting and abs(sum(self.weights) - 1) < 1e-6),
            "weights",
            self.weights,
            f"{teachers} teachers need {teachers} weights from 0 to 1 with sum 1, as 0.7,0.3 for "
            f"two",
        )
        require(
            1 <= self.top_k <= 10_000,
            "top_k",
            self.top_k,
            "1 or more of the most similar channels are averaged",
        )
        for key in ("temperature", "entropy"):
            value = getattr(self, key)
            require(
                math.isfinite(value) and 0.001 <= value <= 1000,
                key,
                value,
                "it must lie between 0.001 and 1,000",
            )
        require(
            0 <= self.up_to <= 100_000,
            "up_to",
            self.up_to,
            "it must be 0, for all channel spaces, or how many of them are zipped",
        )
