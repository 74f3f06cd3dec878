"""What looking costs a merge: it trains in its worker unwatched and watched, in turns.

The dashboard is served all the time. While a merge is watched, its pages Gates and Overview are
open in a real Chromium on the same machine, as two windows of one person. Steps per second are
those of the gate stage, the one that moves most. Goal: watched, at least 80 % of the unwatched
speed.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merge_core import launch, processes, queue
from merge_core.bench_pages import chromium, dashboard
from merge_core.errors import NetweldError, StoreError
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOAL = 0.8
SETTINGS = {"teacher.epochs": "1", "gating.epochs": "3"}
"""Of `textures`, preset quick: epochs as long as ever, and fewer of them."""
PAGES = ("gates", "")
"""What is watched, as in the address: the second is Overview."""
DRAWN = ".st-key-evolution canvas"
"""What the first of them has once the gates have learned for an epoch."""
_LOOK = 0.2
"""Seconds from one look at the run to the next."""
_PATIENCE = 300.0
"""Seconds that a merge may take to get through its gates."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Steps per second of the gate stage, one for each merge.

    Attributes:
        unwatched, watched: in the order measured.
        threads: of a worker.
    """

    unwatched: list[float]
    watched: list[float]
    threads: int

    @property
    def fraction(self) -> float:
        """The watched speed as a part of the unwatched one."""
        return statistics.median(self.watched) / statistics.median(self.unwatched)

    def lines(self) -> Iterator[str]:
        """The lines of a Markdown table."""
        yield "| gate stage of `textures` | steps/s, median | every one |"
        yield "| --- | --- | --- |"
        for what, speeds in (("unwatched", self.unwatched), ("watched", self.watched)):
            every = ", ".join(f"{speed:.1f}" for speed in speeds)
            yield f"| {what} | {statistics.median(speeds):.1f} | {every} |"
        yield ""
        cores = processes.available_cores()
        yield (
            f"Watched, a merge with {self.threads} threads on {cores} cores has "
            f"{100 * self.fraction:.0f} % of its unwatched speed "
            f"({'reaches' if self.fraction >= GOAL else 'misses'} the goal of {100 * GOAL:.0f} %)."
        )


def recipe() -> Recipe:
    """The merge that is measured."""
    made = find_preset("textures", "quick").recipe.changed(SETTINGS)
    assert isinstance(made, Recipe)
    return made


def measure(repeats: int = 3, home: Path | None = None) -> Outcome:
    """Let merges train unwatched and watched in turns.

    Args:
        repeats: merges of each kind.
        home: where the runs are; a place of its own by default.

    Raises:
        NetweldError: the server, Playwright or Chromium is missing, or a merge fails.
    """
    if home is None:
        with tempfile.TemporaryDirectory() as place:
            return measure(repeats, Path(place))
    store = Store(home)
    found: dict[bool, list[float]] = {False: [], True: []}
    with dashboard(home) as address, chromium() as browser:
        for _ in range(repeats):
            for watched, speeds in found.items():
                speeds.append(_speed(store, browser if watched else None, address))
    return Outcome(unwatched=found[False], watched=found[True], threads=queue.threads_for(recipe()))


def _speed(store: Store, browser: "Browser | None", address: str) -> float:
    """Steps per second in the gate stage of a new merge, watched in a browser or not at all."""
    name, _ = launch.begin(store, recipe(), "cpu")
    with ExitStack() as windows:
        opened = []
        if browser is not None:
            for page in PAGES:
                window = windows.enter_context(browser.new_context()).new_page()
                window.goto(f"{address}/{page}?run={name}")
                opened.append(window)
        speed = _through_gates(store, name)
        for window in opened[:1]:
            window.wait_for_selector(DRAWN, state="attached")  # or it has not been watched
    launch.stop(store, name)
    queue.wait(store, name)
    return speed


def _through_gates(store: Store, name: str) -> float:
    """Wait until the gates of a run have learned; returns the steps per second."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        queue.dispatch(store)
        with store.open(name) as reader:
            planned = {row["stage"]: row for row in reader.stages()}.get("gates")
            if planned is not None and planned["seconds"] is not None:
                return planned["steps"] / planned["seconds"]
            status = reader.status()
        if queue.ended(store, name):
            raise StoreError(f"Run {name} is {status['state']}. {status['message']}")
        time.sleep(_LOOK)
    raise NetweldError(
        f"The gates of run {name} have not learned within {_PATIENCE:.0f} seconds; close other "
        f"programs and try again."
    )
