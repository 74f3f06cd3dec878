"""λ schedules of two numbers or one: from a first λ to a last."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from merge_core.errors import RecipeError
from merge_core.schedules.base import Curve, require_weight


@dataclass(frozen=True, kw_only=True)
class Constant(Curve):
    """The same λ all the time.

    Attributes:
        weight: λ.
    """

    kind: Literal["constant"] = field(default="constant", init=False)
    weight: float

    def __post_init__(self) -> None:
        require_weight("weight", self.weight)

    def curve(self, progress: np.ndarray) -> np.ndarray:
        """The weight at each progress."""
        return np.full(progress.shape, self.weight)


@dataclass(frozen=True, kw_only=True)
class _Between(Curve):
    """From one λ to another, never turning back."""

    start: float
    end: float

    def __post_init__(self) -> None:
        require_weight("start", self.start)
        require_weight("end", self.end)

    def curve(self, progress: np.ndarray) -> np.ndarray:
        """λ between its ends, which no rounding oversteps."""
        weights = self._inside(progress)
        return np.clip(weights, min(self.start, self.end), max(self.start, self.end))

    @abstractmethod
    def _inside(self, progress: np.ndarray) -> np.ndarray:
        """λ at each progress, to rounding."""


@dataclass(frozen=True, kw_only=True)
class Linear(_Between):
    """λ moves at a constant rate.

    Attributes:
        start: λ at the start of the stage.
        end: λ at its end.
    """

    kind: Literal["linear"] = field(default="linear", init=False)

    def _inside(self, progress: np.ndarray) -> np.ndarray:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True, kw_only=True)
class Exponential(_Between):
    """λ grows by the same factor in each part of the stage: a straight line on a log scale.

    Attributes:
        start: λ at the start of the stage.
        end: λ at its end.
    """

    kind: Literal["exponential"] = field(default="exponential", init=False)

    def _inside(self, progress: np.ndarray) -> np.ndarray:
        return _log_between(self.start, self.end, progress)


@dataclass(frozen=True, kw_only=True)
class Cosine(_Between):
    """λ moves along half a cosine: slowly at first, fastest in the middle, slowly at the end.

    Attributes:
        start: λ at the start of the stage.
        end: λ at its end.
    """

    kind: Literal["cosine"] = field(default="cosine", init=False)

    def _inside(self, progress: np.ndarray) -> np.ndarray:
        return self.start + (self.end - self.start) * (1 - np.cos(np.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class Stairs(_Between):
    """λ climbs in stairs, equally long and each the same factor above the one before.

    Attributes:
        start: λ on the first stair.
        end: λ on the last.
        stairs: how many there are; with 2, λ jumps once, in the middle of the stage.
    """

    kind: Literal["step"] = field(default="step", init=False)
    stairs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.stairs <= 1000:
            raise RecipeError(
                f"The λ schedule got stairs={self.stairs}, but there must be 2 to 1000; "
                f"choose for example 4, or the kind 'constant'."
            )

    def _inside(self, progress: np.ndarray) -> np.ndarray:
        stair = np.minimum((progress * self.stairs).astype(int), self.stairs - 1)
        return _log_between(self.start, self.end, stair / (self.stairs - 1))


def _log_between(start: float, end: float, where: np.ndarray) -> np.ndarray:
    """Between two numbers on a log scale; `where` goes from 0 to 1."""
    low, high = math.log(start), math.log(end)
    return np.exp(low + (high - low) * where)
