"""What looking costs a merge that trains in its worker.

The gates of one merge learn while the dashboard's pages Gates and Overview are open on it in a real
Chromium on the same machine, as two windows of one person, and while these windows are empty: in
turns of some seconds, so that other programs disturb both alike. Steps per second are compared turn
by turn. Goal: watched, at least 80 % of the unwatched speed.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from merge_core import launch, processes, queue
from merge_core.bench_pages import DRAWN, chromium, dashboard
from merge_core.errors import StoreError
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import RunReader, Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

GOAL = 0.8
MODEL = "patch-cnn"
"""The network of `textures`, which is small: it trains on one thread."""
SETTINGS = {"teacher.epochs": "1", "gating.epochs": "100"}
"""Of `textures`, preset quick: epochs as long as ever, and so many that the gates do not end."""
LARGER = {"data.train": "1000"}
"""For any other network, which takes longer over an epoch; pages draw when one is over."""
PAGES = {"gates": "Gates", "": "Overview"}
"""What is watched: the page's place in the address, and its name."""
SECONDS = 6.0
"""How long a turn is."""
_SETTLES = 3.0
"""Seconds from the moment that all is drawn, or gone, to a turn: opening a page is not watching."""
_LOOK = 0.02
"""Seconds from one look at the run to the next."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Some seconds of the gate stage.

    Attributes:
        speed: steps per second.
        looking: processor cores that the server and Chromium took meanwhile.
    """

    speed: float
    looking: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was measured.

    Attributes:
        unwatched, watched: turns in the order of measuring, each watched one after the unwatched
            one of the same place.
        model: the network that learned.
        threads: of the worker.
    """

    unwatched: list[Turn]
    watched: list[Turn]
    model: str
    threads: int

    @property
    def fraction(self) -> float:
        """The watched speed as a part of the unwatched one just before; the median of all turns."""
        pairs = zip(self.watched, self.unwatched, strict=True)
        return statistics.median(watched.speed / unwatched.speed for watched, unwatched in pairs)

    def lines(self) -> Iterator[str]:
        """The lines of a Markdown table."""
        yield f"| gates of {self.model} | steps/s, median | every turn | server and Chromium |"
        yield "| --- | --- | --- | --- |"
        for what, turns in (("unwatched", self.unwatched), ("watched", self.watched)):
            looking = statistics.median(turn.looking for turn in turns)
            yield (
                f"| {what} | {statistics.median(turn.speed for turn in turns):.1f} "
                f"| {', '.join(f'{turn.speed:.1f}' for turn in turns)} | {looking:.2f} cores |"
            )
        yield ""
        yield (
            f"Watched, a merge with {self.threads} thread{'s' if self.threads > 1 else ''} on "
            f"{processes.available_cores()} cores "
            f"has {100 * self.fraction:.0f} % of its unwatched speed "
            f"({'reaches' if self.fraction >= GOAL else 'misses'} the goal of {100 * GOAL:.0f} %)."
        )


def recipe(model: str = MODEL) -> Recipe:
    """The merge that is measured.

    Raises:
        RecipeError: no network of this name fits the images of `textures`.
    """
    settings = SETTINGS if model == MODEL else {**SETTINGS, **LARGER, "model": model}
    made = find_preset("textures", "quick").recipe.changed(settings)
    assert isinstance(made, Recipe)
    return made


def measure(repeats: int = 5, model: str = MODEL, home: Path | None = None) -> Outcome:
    """Let the gates of a merge learn unwatched and watched, in turns.

    Args:
        repeats: turns of each kind.
        model: the network that learns.
        home: where the run is; a place of its own by default.

    Raises:
        NetweldError: the server, Playwright or Chromium is missing, or the merge fails.
    """
    if home is None:
        with tempfile.TemporaryDirectory() as place:
            return measure(repeats, model, Path(place))
    store, asked = Store(home), recipe(model)
    unwatched, watched = [], []
    with dashboard(home) as address, chromium() as browser:
        windows = {page: browser.new_context().new_page() for page in PAGES}
        name, _ = launch.begin(store, asked, "cpu")
        with store.open(name) as reader:
            _next_step(store, reader)
            for _ in range(repeats):
                for window in windows.values():
                    window.goto("about:blank")
                unwatched.append(_turn(store, reader))
                for page, window in windows.items():
                    _watch(window, f"{address}/{page}?run={name}", PAGES[page])
                watched.append(_turn(store, reader))
        launch.stop(store, name)
        queue.wait(store, name)
    return Outcome(
        unwatched=unwatched, watched=watched, model=model, threads=queue.threads_for(asked)
    )


def _watch(window: "Page", address: str, title: str) -> None:
    """Open a page, and wait until its chart is drawn; an epoch of gates must be over for that."""
    window.goto(address)
    window.wait_for_selector(DRAWN[title], state="attached", timeout=60_000)


def _turn(store: Store, reader: RunReader) -> Turn:
    """The training from now on, for some seconds."""
    time.sleep(_SETTLES)
    step, begun = _next_step(store, reader)
    took = _spent()
    time.sleep(SECONDS)
    took = _spent() - took
    last, ended = _next_step(store, reader)
    return Turn(speed=(last - step) / (ended - begun), looking=took / SECONDS)


def _next_step(store: Store, reader: RunReader) -> tuple[int, float]:
    """Wait until another step of the gate stage is told; returns it, and when that was.

    Raises:
        StoreError: the run has ended.
    """
    before = None
    while True:
        status = reader.status()
        if status["state"] == "queued":
            queue.dispatch(store)
        elif status["state"] != "running":
            raise StoreError(f"Run {reader.name} is {status['state']}. {status['message']}")
        if status["stage"] == "gates":
            if before is not None and status["step"] != before:
                return status["step"], time.monotonic()
            before = status["step"]
        time.sleep(_LOOK)


def _spent() -> float:
    """Processor seconds that all processes started from here have had, but for workers."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "merge_core.worker" not in process.cmdline():
                times = process.cpu_times()
                seconds += times.user + times.system
    return seconds
