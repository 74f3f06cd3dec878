"""What a network has learned, as plain numbers that tables and runs keep (no torch).

For a fit of numbers that is the curve it has learned, for classes how many of each it tells right.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CURVE_POINTS = 200


def curve_places() -> list[float]:
    """Where a learned curve is looked at: the middles of `CURVE_POINTS` equal parts of (0, 1)."""
    return [(i + 0.5) / CURVE_POINTS for i in range(CURVE_POINTS)]


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """How many of each class a network tells right.

    Attributes:
        right: one number for each class.
        examples: how many there are, likewise.
    """

    right: tuple[int, ...]
    examples: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a network answers.

    Attributes:
        classes: "heldout" and "test" → how many of each class it tells right; empty where numbers
            are fitted.
        curve: what it gives at `curve_places()`, where it is a function of one number.
    """

    classes: Mapping[str, ClassCounts] = field(default_factory=dict)
    curve: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Learned":
        """From what `to_dict` gave; empty from nothing."""
        classes = {
            split: ClassCounts(right=tuple(each["right"]), examples=tuple(each["examples"]))
            for split, each in values.get("classes", {}).items()
        }
        return cls(classes=classes, curve=tuple(values.get("curve", ())))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what it does not have."""
        return {key: value for key, value in asdict(self).items() if value}

    def accuracies(self, split: str) -> tuple[float | None, ...]:
        """The share of each class that is told right, to four places; None without examples."""
        if split not in self.classes:
            return ()
        counts = self.classes[split]
        return tuple(
            round(right / count, 4) if count else None
            for right, count in zip(counts.right, counts.examples, strict=True)
        )
