"""The queue: runs wait for a turn and are started as places become free (no torch).

There is no process that watches over it. Whoever starts a run, every worker that ends, and every
look at the dashboard or at a waiting run calls `dispatch`, which starts what may start. It may be
killed at any moment: a run whose start it did not get to note is found by its lock, and a second
worker for it would find the lock and leave.

A GPU has one run at a time. On the CPU, runs share the cores: those of small networks take one
thread each, others all of them, and `NETWELD_SLOTS` sets how many share them instead. A run that
has been paused for a while leaves its place on the CPU to others; it goes on at once when told to,
even if they must share then.

First come, first served among the runs of one owner; between owners, whoever has the fewest
running goes first, then whoever has had the least of late.

Tables, labs and searches wait among the runs and count as they do. A process for each is there
already and waits for its turn to begin (see `merge_core.crew`).
"""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from merge_core import owners, places, processes
from merge_core.errors import StoreError
from merge_core.recipes import Experiment
from merge_core.store import Limits, Spent, Store, Turn, Turns, folder_of, held, kind_of

SMALL = ("sine-mlp", "digits-cnn", "lenet", "patch-cnn")
"""Networks so small that a second thread makes them slower (LeNet) or hardly faster. So two runs
share two cores without loss, and whoever watches one leaves it its core."""

LOCK_SECONDS = 5.0
"""How long to wait for whoever gives turns at this moment; starting a worker takes them 10 ms."""

WAIT_SECONDS = 0.1
"""From one look at a run to the next."""

PAUSE_SECONDS = 30.0
"""How long a worker may have paused in all before its place goes to others. Whoever pauses to look
and think goes on in a moment, and would share the cores with a run that began meanwhile."""

Standing = Literal["waiting", "busy", "over"]


def enqueue(store: Store, name: str, data: Path | None = None, after: int = 0) -> list[str]:
    """Let a run wait for its turn, and start what may start; returns the runs that were started.

    Args:
        store: where the run is.
        name: a run that nobody works on and that is not finished.
        data: where data sets lie.
        after: commands up to this id were meant for an earlier worker.

    Raises:
        StoreError: the run is unknown, a sample, worked on or somebody else's; or something
            cannot be written.
    """
    store.require_command(name)
    with store.open(name) as reader:
        device, recipe = reader.facts()["device_asked"], reader.recipe
    turns = Turns(store.home)
    try:
        turns.mark(name, "queued")
    except BlockingIOError as error:
        raise StoreError(f"Run {name} is being worked on; there is nothing to start.") from error
    turns.ask(
        name,
        owners.acting().owner,
        device=device,
        threads=threads_for(recipe),
        data=str((data or places.data_directory()).expanduser().resolve()),
        after=after,
    )
    return dispatch(store)


def dispatch(store: Store) -> list[str]:
    """Let those begin whose turn it is, and forget those that have ended; returns who begins."""
    turns = Turns(store.home)
    if not turns.all():
        return []
    try:
        lock = turns.lock(LOCK_SECONDS)
    except OSError:  # somebody else gives turns, or this user may only look
        return []
    started = []
    with lock:
        while (turn := _next(store, turns)) is not None:
            gpu = _free_gpu(turns.all()) if _on_gpu(turn) else None
            pid = turn.pid  # of a process that waits for these words
            if turn.kind == "run":
                try:
                    pid = processes.start(store, turn, gpu).pid
                except StoreError as error:
                    turns.end(turn)
                    with suppress(OSError, StoreError):  # it was deleted at this moment
                        turns.mark(turn.run, "failed", str(error))
                    continue
            turns.begun(turn.run, pid, gpu)
            started.append(turn.run)
    return started


def leave(store: Store, name: str) -> None:
    """The last deed of whoever worked on something and has let go of it: the next ones begin."""
    turn = Turns(store.home).of(name)
    mine = turn is not None and turn.pid in (None, os.getpid())
    if turn is not None and mine and not held(folder_of(store.home, name)):
        Turns(store.home).end(turn)
    dispatch(store)


def withdraw(store: Store, *names: str) -> list[str]:
    """Take who waits out of the queue; it counts as stopped and can go on later.

    Args:
        store: where the runs are.
        names: some runs, tables, labs or searches; all that wait when none is named.

    Returns:
        Those that waited.

    Raises:
        StoreError: a run is unknown or somebody else's, only an instructor may clear the queue,
            somebody else gives turns all the time, or something cannot be written.
    """
    for name in names:
        require = store.require_command if kind_of(name) == "run" else store.require_owner
        require(name)
    if not names and not owners.acting().instructor:
        raise StoreError("Only an instructor can clear the queue; take out runs of your own.")
    turns = Turns(store.home)
    if not turns.all():
        return []
    try:
        lock = turns.lock(LOCK_SECONDS)
    except BlockingIOError as error:
        raise StoreError("The queue is busy at this moment; try again.") from error
    taken = []
    with lock:
        for turn in turns.all():
            if turn.run in (names or (turn.run,)) and standing(store, turn) == "waiting":
                turns.end(turn)
                if turn.kind == "run":
                    turns.mark(turn.run, "stopped", "It was taken out of the queue.")
                taken.append(turn.run)
    return taken


def standing(store: Store, turn: Turn) -> Standing:
    """Whether a turn's run waits, has a worker or is about to, or has ended."""
    directory = folder_of(store.home, turn.run)
    if turn.kind != "run":
        if not held(directory):
            return "over"
        return "waiting" if turn.began is None else "busy"
    if held(directory):
        return "busy"
    if turn.pid is None:
        return "waiting" if directory.is_dir() else "over"
    return "busy" if processes.is_worker(turn.pid, turn.run) else "over"


def waits(store: Store, name: str) -> bool:
    """Whether a run is on its way to a worker: it waits for its turn or is being started."""
    turn = Turns(store.home).of(name)
    return turn is not None and standing(store, turn) != "over"


def ended(store: Store, name: str) -> bool:
    """Whether a run is over for now: finished or interrupted, and let go of by its worker."""
    with store.open(name) as reader:
        if reader.status()["state"] == "queued":
            return not waits(store, name)
        return not held(store.directory(name)) and not waits(store, name)


def wait(store: Store, name: str) -> None:
    """Wait until a run is over, and see to it that it gets its turn."""
    while not ended(store, name):
        dispatch(store)
        time.sleep(WAIT_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Everybody's turns at one moment, and what may start next.

    Attributes:
        waiting: turns that have not begun, in the order of asking.
        busy: those that have.
        paused: runs of these that have been paused for so long that their place is free.
        spent: what each owner has had.
        limits: what each may have.
    """

    waiting: Sequence[Turn]
    busy: Sequence[Turn]
    paused: frozenset[str]
    spent: Mapping[str, Spent]
    limits: Limits

    def next(self) -> Turn | None:
        """The turn that may begin now; runs for GPUs and for the CPU do not wait for each other."""
        for gpu in (True, False):
            first = self.first([turn for turn in self.waiting if _on_gpu(turn) == gpu])
            if first is not None and self.fits(first):
                return first
        return None

    def first(self, waiting: Sequence[Turn]) -> Turn | None:
        """Whose turn is next by the rules of fairness, if anybody's."""
        running = Counter(turn.owner for turn in self.busy)
        now = time.monotonic()
        at_it: dict[str, float] = {}
        for turn in self.busy:
            took = 0.0 if turn.began is None else max(now - turn.began, 0.0)
            at_it[turn.owner] = at_it.get(turn.owner, 0.0) + took
        candidates = []
        for turn in waiting:
            had, more = self.spent.get(turn.owner, Spent()), at_it.get(turn.owner, 0.0)
            here, most = self.limits.running, self.limits.minutes
            if here is not None and running[turn.owner] >= here:
                continue
            if most is not None and had.seconds + more >= 60 * most:
                continue
            candidates.append((running[turn.owner], had.recent + more, turn.id, turn))
        return min(candidates, key=lambda each: each[:3])[3] if candidates else None

    def fits(self, turn: Turn) -> bool:
        """Whether there is room for it; the first of the queue is never overtaken."""
        if _on_gpu(turn):
            return sum(_on_gpu(other) for other in self.busy) < len(processes.visible_gpus())
        others = [each for each in self.busy if not _on_gpu(each) and each.run not in self.paused]
        most = slots()
        if most is not None:
            return len(others) < most
        used = sum(other.threads for other in others)
        return not others or used + turn.threads <= processes.available_cores()


def crowd(store: Store) -> Crowd:
    """Everybody's turns as they are now."""
    return _crowd(store, Turns(store.home), clean=False)


def _next(store: Store, turns: Turns) -> Turn | None:
    return _crowd(store, turns, clean=True).next()


def _crowd(store: Store, turns: Turns, *, clean: bool) -> Crowd:
    sorted_: dict[Standing, list[Turn]] = {"waiting": [], "busy": [], "over": []}
    for turn in turns.all():
        sorted_[standing(store, turn)].append(turn)
    if clean:
        for turn in sorted_["over"]:
            turns.end(turn)
    return Crowd(
        waiting=sorted_["waiting"],
        busy=sorted_["busy"],
        paused=frozenset(
            turn.run for turn in sorted_["busy"] if turn.kind == "run" and _paused(store, turn.run)
        ),
        spent=turns.spent(),
        limits=turns.limits(),
    )


def _paused(store: Store, name: str) -> bool:
    """Whether a run is paused, and has been for a while."""
    try:
        with store.open(name) as reader:
            if reader.status()["state"] != "paused":
                return False
            return reader.sessions()[-1]["paused"] >= PAUSE_SECONDS
    except StoreError:
        return False


def slots() -> int | None:
    """How many runs share the CPU, where `NETWELD_SLOTS` says so.

    Raises:
        StoreError: it is no whole number from 1 on.
    """
    text = os.environ.get("NETWELD_SLOTS", "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise StoreError(
            f"NETWELD_SLOTS is {text!r}, but it is the number of runs at once: 1 or more."
        )
    return int(text)


def threads_for(recipe: Experiment) -> int:
    """How many threads a new run gets."""
    return 1 if slots() is None and recipe.model in SMALL else share()


def share() -> int:
    """How many threads whoever can use all of them gets."""
    most = slots()
    if most is None:
        return processes.available_threads()
    return max(processes.available_cores() // most, 1)


def _on_gpu(turn: Turn) -> bool:
    return turn.device != "cpu" and bool(processes.visible_gpus())


def _free_gpu(turns: Sequence[Turn]) -> int | None:
    """The first GPU that no run has; None where there is nothing to choose."""
    count = len(processes.visible_gpus())
    taken = {turn.gpu for turn in turns}
    return None if count < 2 else next((i for i in range(count) if i not in taken), None)
