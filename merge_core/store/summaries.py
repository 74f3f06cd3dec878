"""One line per run: what lists and pickers show."""

import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from merge_core.progress import headway
from merge_core.recipes import Experiment, Recipe, from_json
from merge_core.store.reader import RunReader

parsed = lru_cache(maxsize=1024)(from_json)
"""Recipes of listed runs: parsing them again would be half the time of a list."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of a list of runs.

    Attributes:
        state: as in `RunReader.status`.
        stage: key of the current or last stage, or None.
        fraction: of the planned FLOPs, 0 to 1.
        message: why it failed or stopped; else empty.
        sample: whether it came with netweld.
        returned: the stage whose network is the result, once there is one.
        score: that network's score on the test split, in the recipe's metric.
        created: seconds since the epoch.
    """

    name: str
    recipe: Experiment
    device: str
    created: float
    state: str
    stage: str | None
    fraction: float
    message: str
    sample: bool
    returned: str | None
    score: float | None

    @property
    def merge(self) -> Recipe:
        """The recipe of a run that is known to be a merge."""
        assert isinstance(self.recipe, Recipe), self.name
        return self.recipe


def summary(reader: RunReader, recipe: Experiment, created: float) -> RunSummary:
    """The line of a run that can be read."""
    status = reader.status()
    facts = reader.facts()
    returned = facts.get("returned")
    return RunSummary(
        name=reader.name,
        recipe=recipe,
        device=facts.get("device", facts["device_asked"]),
        created=created,
        state=status["state"],
        stage=status["stage"],
        fraction=headway(reader.plan(), status, []).fraction,
        message=status["message"],
        sample=reader.sample,
        returned=returned,
        score=reader.score(returned, "test", recipe.metric) if returned else None,
    )


def unreadable_run(row: sqlite3.Row, recipe: Experiment, message: str) -> RunSummary:
    """The line of a run that is in the index but whose own database cannot be read."""
    return RunSummary(
        name=row["name"],
        recipe=recipe,
        device=row["device"],
        created=row["created"],
        state="failed",
        stage=None,
        fraction=0.0,
        message=message,
        sample=False,
        returned=None,
        score=None,
    )
