"""The queue in words and as a table: who waits, for what, and for about how long (no torch)."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from merge_core import queue
from merge_core.carriers import progress_of
from merge_core.errors import NetweldError
from merge_core.queue import Crowd
from merge_core.recipes import Experiment
from merge_core.store import Spent, Store, Turn, Turns, kind_of
from merge_core.views.runs import duration

LOOKED_AT = 50
"""How many of the newest runs are asked how long a run of a recipe takes."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run, a table, a lab or a search is in the queue.

    Attributes:
        run: its name, or what something else is known by (see `merge_core.store.Turn`).
        owner: whose it is.
        ahead: how many begin before it; None when its owner may have no more for now.
        seconds: until it begins, about; None when that cannot be told.
    """

    run: str
    owner: str
    ahead: int | None
    seconds: float | None

    @property
    def words(self) -> str:
        """A clause for a terminal or a page."""
        if self.ahead is None:
            return "Waits: its owner has as much as an instructor allows"
        before = "next" if self.ahead == 0 else f"{self.ahead} before it"
        if self.seconds is None:
            return f"Waits for its turn ({before})"
        return f"Waits for its turn ({before}, about {duration(self.seconds)})"

    @property
    def brief(self) -> str:
        """The same where there is room for few words only: "next", "2 before, 40 s"."""
        if self.ahead is None:
            return "limit"
        before = "next" if self.ahead == 0 else f"{self.ahead} before"
        return before if self.seconds is None else f"{before}, {duration(self.seconds)}"


def place(store: Store, name: str) -> Place | None:
    """Where a run or something else is in the queue; None when it does not wait."""
    turn = Turns(store.home).of(name)
    if turn is None or queue.standing(store, turn) != "waiting":
        return None
    return next((found for found in places(store) if found.run == name), None)


def places(store: Store) -> list[Place]:
    """Everybody who waits, in the order in which they will begin as far as that can be told.

    It is played through: a running run ends when its headway says so, one that waits takes as long
    as the newest finished run of its recipe did. Whoever joins later can change it.
    """
    crowd = queue.crowd(store)
    took = _took(store, [*crowd.waiting, *crowd.busy])
    ends = {turn.run: _left(store, turn, took) for turn in crowd.busy}
    found: list[Place] = []
    now = 0.0
    while crowd.waiting:
        turn = crowd.next()
        if turn is not None:
            seconds = None if math.isinf(now) else now
            found.append(Place(run=turn.run, owner=turn.owner, ahead=len(found), seconds=seconds))
            ends[turn.run] = now + took.get(turn.run, math.inf)
            crowd = _begun(crowd, turn)
        elif ends:
            first = min(ends, key=ends.__getitem__)
            now = max(now, ends.pop(first))
            crowd = _ended(crowd, first, took.get(first, math.inf))
        else:
            break
    found += [
        Place(run=turn.run, owner=turn.owner, ahead=None, seconds=None) for turn in crowd.waiting
    ]
    return found


def queue_frame(store: Store, *, brief: bool = False) -> pd.DataFrame:
    """Everybody's turns: those that have begun in the order of asking, then those that wait.

    Columns: Kind (run, table, lab or search), Name, Owner, Turn ("has it" or what `Place.words`
    says; `Place.brief` if asked for).
    """
    rows = [(turn.run, turn.owner, "has it") for turn in queue.crowd(store).busy]
    rows += [
        (found.run, found.owner, found.brief if brief else found.words) for found in places(store)
    ]
    return pd.DataFrame(
        [(kind_of(key), key.rpartition("/")[2], *rest) for key, *rest in rows],
        columns=["Kind", "Name", "Owner", "Turn"],
    )


def _begun(crowd: Crowd, turn: Turn) -> Crowd:
    return dataclasses.replace(
        crowd,
        waiting=[other for other in crowd.waiting if other.run != turn.run],
        busy=[*crowd.busy, turn],
    )


def _ended(crowd: Crowd, run: str, took: float) -> Crowd:
    """A crowd in which a run has ended, which its owner has had then."""
    (turn,) = [turn for turn in crowd.busy if turn.run == run]
    had = crowd.spent.get(turn.owner, Spent())
    seconds = took if math.isfinite(took) else 1.0
    now = Spent(seconds=had.seconds + seconds, recent=had.recent + seconds)
    return dataclasses.replace(
        crowd,
        busy=[other for other in crowd.busy if other.run != run],
        spent={**crowd.spent, turn.owner: now},
    )


def _left(store: Store, turn: Turn, took: dict[str, float]) -> float:
    """Seconds until what has a turn ends; infinite when that cannot be told."""
    if turn.kind != "run":
        told = progress_of(store.home / f"{turn.run}.jsonl")
        return math.inf if told is None or told.left is None else told.left
    try:
        with store.open(turn.run) as reader:
            headway = reader.headway()
    except NetweldError:
        return 0.0
    if headway.left is not None:
        return headway.left
    return max(took.get(turn.run, math.inf) - headway.elapsed, 0.0)


def _took(store: Store, turns: Sequence[Turn]) -> dict[str, float]:
    """Run → how long the newest finished run of the same recipe took, seeds and tuning aside."""
    known: dict[tuple[str, str], float] = {}
    turns = [turn for turn in turns if turn.kind == "run"]
    for name in store.names(samples=False)[:LOOKED_AT] if turns else ():
        try:
            recipe, seconds = _finished(store.home, name)
        except (NetweldError, LookupError):
            continue
        known.setdefault((recipe.name, recipe.preset), seconds)
    found = {}
    for turn in turns:
        try:
            with store.open(turn.run) as reader:
                recipe = reader.recipe
        except NetweldError:
            continue
        if (recipe.name, recipe.preset) in known:
            found[turn.run] = known[recipe.name, recipe.preset]
    return found


@lru_cache(maxsize=1024)
def _finished(home: Path, name: str) -> tuple[Experiment, float]:
    """The recipe of a finished run and the seconds that it took; LookupError while it is none."""
    with Store(home).open(name) as reader:
        if reader.status()["state"] != "finished":
            raise LookupError(name)
        return reader.recipe, reader.headway().elapsed
