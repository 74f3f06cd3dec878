"""What λ schedules that are known beforehand have in common: one curve function."""

import math
from abc import ABC, abstractmethod

import numpy as np

from merge_core.errors import RecipeError

LEAST, MOST = 1e-9, 1e3
"""The smallest and the largest λ that a schedule takes."""


class Curve(ABC):
    """A λ schedule that is known before the stage begins."""

    @abstractmethod
    def curve(self, progress: np.ndarray) -> np.ndarray:
        """λ at each `progress` in [0, 1]; positive, same shape, float64."""

    def at(self, progress: float) -> float:
        """λ at `progress` in [0, 1]."""
        return float(self.curve(np.array([progress]))[0])

    def over(self, steps: int) -> np.ndarray:
        """λ in each of `steps` steps of a stage; shape `(steps,)`, float64."""
        return self.curve(np.arange(steps) / max(steps, 1))


def require_weight(key: str, value: float) -> None:
    """RecipeError unless the setting is a λ."""
    if not (math.isfinite(value) and LEAST <= value <= MOST):
        raise RecipeError(
            f"The λ schedule got {key}={value}, but it must be above 0 and at most 1000 (no less "
            f"than 1e-9); choose a positive number such as 0.05."
        )


def require_progress(key: str, value: float) -> None:
    """RecipeError unless the setting is a moment of the stage."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise RecipeError(
            f"The λ schedule got {key}={value}, but it must lie between 0, the start of the gate "
            f"stage, and 1, its end; choose for example 0.5."
        )
