"""A workshop on one machine: many browsers watch while some of their owners start and steer merges.

The browsers are real WebSocket sessions that speak Streamlit's protocol, without a browser's
drawing (`merge_core.bench_browser`), and each is somebody else by its signed cookie. Some start a
merge on the page Merge and steer it on the page Gates with the fields and buttons that are there:
they pause it, change λ and the learning rate of the gates, and let it go on. Everybody has Gates
drawn again and again as the server asks for it. Goals: no error, no lost command, 95 % of answers
within 2 s, and no run slower than its fair share of the machine by more than a quarter. Other
programs of the machine make runs slow, too, so it is also told how evenly those at work shared the
processor time that they had. With five browsers or fewer, each may cost the server 15 % of a core;
more of them are drawn for less often.
"""

import math
import secrets
import statistics
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from merge_core import owners, processes, queue
from merge_core.bench_browser import PATIENCE, Browser, Record, opened
from merge_core.bench_pages import dashboard
from merge_core.errors import NetweldError
from merge_core.store import Store, Turns

ANSWER_GOAL = 2.0
SHARE_GOAL = 0.25
CORE_GOAL = "15 % for up to 5"
EPOCHS = 12
"""Of each stage: shorter than the quick preset, so that twelve merges are over in a minute."""
WEIGHT, RATE = 2.0, 0.3
"""λ₀ and the learning rate of the gates that every merge is steered to."""
SEND = "Send: from the next epoch on"
TURN = 900.0
"""Seconds in which every merge has its turn."""
LOOK_SECONDS = 0.5
"""From one look at all runs to the next: looking takes the processor from what is measured."""


@dataclass(kw_only=True)
class Guest(ABC):
    """Somebody at a browser.

    Attributes:
        address: of the dashboard.
        over: when to leave.
        began: there once the page that is watched is on the screen.
        record: what the browser met with.
    """

    address: str
    over: threading.Event
    began: threading.Event = field(default_factory=threading.Event)
    record: Record = field(default_factory=Record)

    def attend(self) -> None:
        """Come, and stay to the end; what goes wrong is written down."""
        try:
            self.act()
        except NetweldError as error:
            self.record.errors.append(str(error))
        finally:
            self.began.set()

    @abstractmethod
    def act(self) -> None:
        """What they come for."""

    def look(self, browser: Browser, run: str) -> None:
        """Look at the page Gates of a run until it is over."""
        browser.visit("gates", f"run={run}")
        self.began.set()
        browser.watch(self.over.is_set, math.inf)


@dataclass(kw_only=True)
class Watcher(Guest):
    """Watches somebody else's merge.

    Attributes:
        commander: whose.
    """

    commander: "Commander"

    def act(self) -> None:
        """Wait until there is something to watch, and watch it."""
        with opened(self.address, self.record) as browser:
            if run := self.commander.run.result():
                self.look(browser, run)


@dataclass(kw_only=True)
class Commander(Guest):
    """Starts a merge and steers it, with what is on the pages.

    Attributes:
        run: the name of the merge; empty where it could not be started.
        pressed: the verbs of the commands whose buttons were pressed.
    """

    run: Future[str] = field(default_factory=Future)
    pressed: list[str] = field(default_factory=list)

    def act(self) -> None:
        """Start, steer, and look on until it is over."""
        try:
            with opened(self.address, self.record) as browser:
                browser.visit("merge")
                cookies = browser.cookies
            # The server knows it again by what it was given, as after a reload.
            with opened(self.address, self.record, cookies) as browser:
                run = self._start(browser)
                browser.visit("gates", f"run={run}")
                self.run.set_result(run)
                self.began.set()
                self._steer(browser)
                self.look(browser, run)
        finally:
            if not self.run.done():
                self.run.set_result("")

    def _start(self, browser: Browser) -> str:
        browser.visit("merge")
        browser.pick("Recipe", "Sine")
        for label in ("each teacher", "gates", "fine-tuning"):
            browser.type(label, EPOCHS)
        before = browser.widgets["Run"].value
        browser.press("Start the merge")
        run = browser.widgets["Run"].value
        if run == before:
            raise NetweldError("The merge could not be started from the page Merge.")
        return run

    def _steer(self, browser: Browser) -> None:
        """Pause, change λ and the learning rate of the gates, go on."""
        browser.watch(lambda: browser.can("Pause"), TURN)
        self._press(browser, "pause", "Pause")
        browser.watch(lambda: browser.can("Go on"))
        browser.unfold("Change λ or the learning rate of the gates")
        browser.type("λ₀", WEIGHT)
        self._press(browser, "lambda", SEND)
        browser.watch(lambda: browser.can("Undo"))  # answered: the fields below begin anew then
        browser.choose("What to change", "Learning rate")
        browser.type("Learning rate of the gates", RATE)
        self._press(browser, "rate", SEND)
        self._press(browser, "go", "Go on")

    def _press(self, browser: Browser, verb: str, label: str) -> None:
        browser.require(label)
        self.pressed.append(verb)
        browser.press(label)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a crowd.

    Attributes:
        watchers: how many browsers.
        runs: how many merges.
        answers: of the server, in order of time taken, seconds.
        errors: of browsers and runs.
        commands: that were given.
        lost: that were never answered.
        slower: by how much the slowest run's time with a worker exceeds the mean, as a fraction.
        less: by how much the run with the smallest part of the processor time fell short of an
            equal share of what the runs beside it had, as a fraction.
        core: what the server took of a core, for each browser, as a fraction.
        seconds: from the first start to the end of the last run.
    """

    watchers: int
    runs: int
    answers: list[float]
    errors: list[str]
    commands: int
    lost: int
    slower: float
    less: float
    core: float
    seconds: float

    def lines(self) -> Iterator[str]:
        """The lines of a Markdown table."""
        late = self.answers[int(0.95 * (len(self.answers) - 1))] if self.answers else float("nan")
        yield "| what | measured | goal |"
        yield "| --- | --- | --- |"
        yield f"| browsers watching, merges | {self.watchers}, {self.runs} | |"
        yield f"| errors | {len(self.errors)} | 0 |"
        yield f"| commands lost | {self.lost} of {self.commands} | 0 |"
        yield (
            f"| answers of the server | {len(self.answers)}: median "
            f"{statistics.median(self.answers or [0]):.2f} s, 95 % within {late:.2f} s "
            f"| {ANSWER_GOAL:g} s |"
        )
        slower, most = f"{100 * self.slower:+.0f} %", f"{100 * SHARE_GOAL:+.0f} %"
        yield f"| slowest run over the mean | {slower} | {most} |"
        yield f"| least processor time under an equal share | {-100 * self.less:+.0f} % | |"
        yield f"| the server, for each browser | {100 * self.core:.1f} % of a core | {CORE_GOAL} |"
        yield f"| all merges | {self.seconds:.0f} s | |"


def measure(watchers: int = 30, merges: int = 12, home: Path | None = None) -> Outcome:
    """Let a crowd in, and wait until all of its merges are over.

    Args:
        watchers: how many browsers there are.
        merges: how many of them start a merge of their own and steer it, at most all; the others
            watch these.
        home: where the runs are; a place of its own by default.
    """
    if home is None:
        with tempfile.TemporaryDirectory() as place:
            return measure(watchers, merges, Path(place))
    store, over, shares = Store(home), threading.Event(), Shares()
    with dashboard(home, environment={owners.INSTRUCTOR_KEY: secrets.token_hex(8)}) as address:
        children = psutil.Process().children()
        (server,) = [each for each in children if "streamlit" in each.cmdline()]
        begun = time.monotonic()
        commanders = [Commander(address=address, over=over) for _ in range(min(merges, watchers))]
        others = [
            Watcher(address=address, over=over, commander=commanders[i % len(commanders)])
            for i in range(watchers - len(commanders))
        ]
        crowd = [*commanders, *others]
        threads = [threading.Thread(target=each.attend, daemon=True) for each in crowd]
        for thread in threads:
            thread.start()
        for each in crowd:
            each.began.wait()
        came, before = time.monotonic(), _cpu(server)
        while any(
            thread.is_alive() and not queue.ended(store, each.run.result())
            for each, thread in zip(commanders, threads, strict=False)
        ):
            shares.look(_taken(Turns(store.home)))
            time.sleep(LOOK_SECONDS)
        ended, core = time.monotonic(), _cpu(server) - before
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
        seconds = time.monotonic() - begun
    processes.end(store, PATIENCE)  # what is left paused by somebody whose browser failed
    errors = [error for each in crowd for error in each.record.errors]
    took, lost = [], 0
    for each in commanders:
        if not (name := each.run.result()):
            continue
        with store.open(name) as reader:
            status, answers = reader.status(), reader.answers()
            took.append(reader.headway().elapsed)
        if status["state"] != "finished":
            errors.append(f"{name} is {status['state']}. {status['message']}")
        errors += [f"{name}: {answer.words}" for answer in answers if answer.refused]
        lost += sum((Counter(each.pressed) - Counter(each.verb for each in answers)).values())
    return Outcome(
        watchers=watchers,
        runs=len(took),
        answers=sorted(answer for each in crowd for answer in each.record.answers),
        errors=errors,
        commands=sum(len(each.pressed) for each in commanders),
        lost=lost,
        slower=max(took, default=0.0) / statistics.mean(took or [1.0]) - 1,
        less=shares.less(),
        core=core / (ended - came) / watchers,
        seconds=seconds,
    )


def _cpu(process: psutil.Process) -> float:
    """Seconds of a core that a process has taken so far."""
    times = process.cpu_times()
    return times.user + times.system


@dataclass
class Shares:
    """How the workers shared the processor: unlike times, it does not move with other programs.

    Attributes:
        seen: worker → seconds of a core that it has had so far.
        had: worker → seconds of a core that it had between looks.
        fair: worker → seconds that it would have had if all at work had had the same.
    """

    seen: dict[int, float] = field(default_factory=dict)
    had: dict[int, float] = field(default_factory=dict)
    fair: dict[int, float] = field(default_factory=dict)

    def look(self, taken: Mapping[int, float]) -> None:
        """Add what the workers, known by their process, have had since the last look.

        Args:
            taken: worker → seconds of a core since its start. Who is new since the last look, or
                gone, was at work for a part of the time, which is left out.
        """
        spans = {pid: taken[pid] - self.seen[pid] for pid in taken if pid in self.seen}
        if spans.keys() == taken.keys() == self.seen.keys():
            for pid, span in spans.items():
                self.had[pid] = self.had.get(pid, 0.0) + span
                self.fair[pid] = self.fair.get(pid, 0.0) + statistics.mean(spans.values())
        self.seen = dict(taken)

    def less(self) -> float:
        """By how much the worker that fared worst fell short of its share, as a fraction."""
        return max((1 - self.had[pid] / fair for pid, fair in self.fair.items() if fair), default=0)


def _taken(turns: Turns) -> dict[int, float]:
    """What every worker has had of the processor, in seconds of a core."""
    found = {}
    for turn in turns.all():
        if turn.pid is not None:
            with suppress(psutil.Error):
                found[turn.pid] = _cpu(psutil.Process(turn.pid))
    return found
