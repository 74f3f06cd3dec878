"""The repetitions of a table: every strategy, for many seeds at once.

All strategies get the same epochs (the paper's rule) or the same training FLOPs. Where the paper
drew fresh data for every stage, a repetition has one training split. The held-out split chooses,
the test split only reports.
"""

from collections.abc import Iterator
from typing import Protocol

from merge_core.repetitions import Row
from merge_core.tables.block import Block, Epochs
from merge_core.tables.ours import Ours
from merge_core.tables.paper import BestOfThreeBig, Merge, OneModel
from merge_core.tables.rivals import SharedStart, WeightAverage

__all__ = ["Block", "Epochs", "planned", "rows"]


class Unit(Protocol):
    """What a worker trains in one go."""

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        ...

    def rows(self, block: Block) -> Iterator[Row]:
        """Train what it needs in all repetitions, and judge it."""
        ...


_UNITS: dict[str, Unit] = {
    "merge": Merge(),
    "one_model": OneModel("one_model", wide=False),
    "shared_start": SharedStart(),
    "weight_average": WeightAverage(),
    "ours": Ours(),
    "bo3_big": BestOfThreeBig(),
    "long_big": OneModel("long_big", wide=True),
}
"""The units of `repetitions.UNITS`."""


def planned(block: Block, unit: str) -> float:
    """FLOPs of a unit's training, all repetitions of the block together."""
    return len(block.all) * _UNITS[unit].planned(block)


def rows(block: Block, unit: str) -> Iterator[Row]:
    """Train what a unit needs, and judge it: a row for each of its strategies and repetitions."""
    return _UNITS[unit].rows(block)
