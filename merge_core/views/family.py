"""A run beside a relative: the gates' course of both, their scores, and how they are related."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merge_core.recipes import Recipe
from merge_core.steering import words
from merge_core.store import ForkPoint, RunReader, Store
from merge_core.views.runs import stage_frame, stage_title


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the gates of a run have moved so far, space by space.

    Attributes:
        run: its name.
        epochs: epochs of the gate stage that are over, `(epochs,)` int64.
        means: mean P[open] of each space after each of them, `(epochs,)` each.
        weights: λ in the last step of each, `(epochs,)`; NaN where the run did not say.
        planned: epochs that the gate stage has by the recipe.
    """

    run: str
    epochs: np.ndarray
    means: Mapping[str, np.ndarray]
    weights: np.ndarray
    planned: int


def gate_course(reader: RunReader) -> Course:
    """The course of a run's gates; without epochs before the gates have learned for one."""
    means: dict[str, dict[int, float]] = {}
    for row in reader.openness():
        means.setdefault(row["space"], {})[row["epoch"]] = float(row["probabilities"].mean())
    weights = {
        row["epoch"]: row["value"] for row in reader.metrics("gates") if row["name"] == "lambda"
    }
    epochs = sorted(next(iter(means.values()), {}))
    planned = [row["epochs"] for row in reader.stages() if row["stage"] == "gates"]
    return Course(
        run=reader.name,
        epochs=np.array(epochs, dtype=np.int64),
        means={space: np.array([each[e] for e in epochs]) for space, each in means.items()},
        weights=np.array([weights.get(epoch, np.nan) for epoch in epochs]),
        planned=max([*planned, *epochs[-1:]], default=0),
    )


@dataclass(frozen=True, kw_only=True)
class Relative:
    """A run of the same family as another.

    Attributes:
        run: its name.
        relation: what it is to the other: "parent", "fork" or "sibling".
        point: where it and the other parted.
    """

    run: str
    relation: str
    point: ForkPoint

    @property
    def label(self) -> str:
        """For a list: what it is, where they parted, its name."""
        return f"{self.relation} {self.run}, parted {parted(self.point)}"


def parted(point: ForkPoint) -> str:
    """The moment of a fork in words: "after epoch 5 of the gates"."""
    if point.stage == "gates" and point.epoch is not None:
        return f"after epoch {point.epoch} of the gates"
    if point.stage == "big":
        return "before the first epoch of the gates"
    return f"at the end of the stage {stage_title(point.stage)}"


def relatives(store: Store, reader: RunReader) -> list[Relative]:
    """The parent of a run, its forks (oldest first), and the other forks of its parent.

    Runs that have been deleted since are left out.
    """
    branches, mine = store.forks(), reader.branch()
    found = []
    if mine is not None:
        found.append(Relative(run=mine.parent, relation="parent", point=mine.point))
    found += [
        Relative(run=each.run, relation="fork", point=each.point)
        for each in branches
        if each.parent == reader.name
    ]
    if mine is not None:
        found += [
            Relative(run=each.run, relation="sibling", point=_earlier(mine.point, each.point))
            for each in branches
            if each.parent == mine.parent and each.run != reader.name
        ]
    if not found:
        return found
    known = set(store.names())
    return [each for each in found if each.run in known]


def _earlier(one: ForkPoint, other: ForkPoint) -> ForkPoint:
    """Where two forks of one run parted: with the one that left first."""

    def order(point: ForkPoint) -> tuple[int, float]:
        if point.stage == "big":
            return 0, 0
        if point.stage == "gates":
            return 1, np.inf if point.epoch is None else point.epoch
        return 2, 0

    return min(one, other, key=order)


def scores_beside(here: RunReader, there: RunReader) -> pd.DataFrame:
    """Test scores of two runs of one recipe side by side, from the gate stage on.

    Columns: title (of the stage), here, there (in the recipe's metric; NaN before the stage is
    over), difference (here − there). Without rows before a stage of either is over.
    """
    rows = []
    other = {row["stage"]: row["test"] for row in stage_frame(there).to_dict("records")}
    for row in stage_frame(here).to_dict("records"):
        if row["stage"] in _BEFORE or row["stage"] not in other:
            continue
        mine, theirs = float(row["test"]), float(other[row["stage"]])
        if not (np.isnan(mine) and np.isnan(theirs)):
            rows.append((row["title"], mine, theirs, mine - theirs))
    return pd.DataFrame(rows, columns=["title", "here", "there", "difference"])


_BEFORE = ("teacher_a", "teacher_b", "ensemble", "big")
"""The stages that a fork always shares."""


def differences(here: Recipe, there: Recipe) -> list[str]:
    """What was done in one run and not in the other, each as words; none for equal recipes."""
    found = []
    for who, mine, other in (("this run", here, there), ("the other", there, here)):
        found += [f"{who}: {words(each)}" for each in mine.steering if each not in other.steering]
        if mine.gates.selection != other.gates.selection:
            found.append(f"{who}: the cut keeps the {mine.gates.selection!r} channels")
    return found
