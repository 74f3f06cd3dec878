"""A workshop on one machine: many browsers watch while some of their owners start and steer merges.

The browsers are real WebSocket sessions that speak Streamlit's protocol, without a browser's
drawing: each opens the page Gates of a run, and its parts are drawn again and again as the server
asks for it. Goals: no error, no lost command, 95 % of answers within 2 s, and no run slower than
its fair share of the machine by more than a quarter. Other programs of the machine make runs slow,
too, so it is also told how evenly those at work shared the processor time that they had. With five
browsers or fewer, each may cost the server 15 % of a core; more of them are drawn for less often.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from merge_core import commanding, places, queue
from merge_core.bench_pages import dashboard
from merge_core.errors import StoreError
from merge_core.presets import find_preset
from merge_core.store import Store, Turns

ANSWER_GOAL = 2.0
SHARE_GOAL = 0.25
CORE_GOAL = "15 % for up to 5"
EPOCHS = "12"
SETTINGS = {"teacher.epochs": EPOCHS, "gating.epochs": EPOCHS, "fine_tune.epochs": EPOCHS}
PATIENCE = 60.0
"""Seconds after which an answer of the server counts as an error."""
LOOK_SECONDS = 0.5
"""From one look at all runs to the next: looking takes the processor from what is measured."""


@dataclass
class Watcher:
    """One browser: what it asked for, and how long the answers took.

    Attributes:
        answers: seconds from asking for a page, or a part of one, to its last element.
        errors: what went wrong, in the server's or our words.
    """

    address: str
    run: str
    over: threading.Event
    answers: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Look at the page Gates until it is over."""
        try:
            with connect(
                self.address.replace("http", "ws", 1) + "/_stcore/stream",
                subprotocols=[Subprotocol("streamlit")],
                origin=None,
                max_size=None,
                ping_interval=None,  # a busy server is slow, not gone
                open_timeout=PATIENCE,
            ) as server:
                self._look(server)
        except (OSError, TimeoutError, ConnectionClosed) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def _look(self, server: ClientConnection) -> None:
        parts = self._ask(server, "") or {}
        due = dict.fromkeys(parts, 0.0)
        while not self.over.wait(0.02):
            for part in [part for part, at in due.items() if time.monotonic() >= at]:
                anew = self._ask(server, part)
                if anew is not None:  # the whole page was drawn, and has other parts now
                    parts, due = anew, dict.fromkeys(anew, time.monotonic() + 1.0)
                    break
                due[part] = time.monotonic() + parts[part]

    def _ask(self, server: ClientConnection, part: str) -> dict[str, float] | None:
        """Ask for the page, or a part of it.

        Returns:
            Where the whole page was drawn, the parts to ask for again, and seconds in between.
        """
        begun = time.monotonic()
        message = BackMsg()
        message.rerun_script.query_string = f"run={self.run}"
        message.rerun_script.page_name = "gates"
        if part:
            message.rerun_script.fragment_id = part
            message.rerun_script.is_auto_rerun = True
        server.send(message.SerializeToString())
        found: dict[str, float] = {}
        while True:
            told = ForwardMsg()
            received = server.recv(timeout=PATIENCE)
            assert isinstance(received, bytes)
            told.ParseFromString(received)
            match told.WhichOneof("type"):
                case "auto_rerun":
                    found[told.auto_rerun.fragment_id] = told.auto_rerun.interval
                case "delta" if told.delta.new_element.WhichOneof("type") == "exception":
                    self.errors.append(told.delta.new_element.exception.message)
                case "script_finished" if (
                    told.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
                ):
                    found = {}  # it starts over at once, and has not answered yet
                case "script_finished":
                    self.answers.append(time.monotonic() - begun)
                    whole = told.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
                    return found if whole else None


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
        watchers: how many browsers look on.
        merges: how many merges are started, each by another owner, and steered.
        home: where the runs are; a place of its own by default.
    """
    if home is None:
        with tempfile.TemporaryDirectory() as place:
            return measure(watchers, merges, Path(place))
    store, over = Store(home), threading.Event()
    recipe = find_preset("sine", "quick").recipe.changed(SETTINGS)
    errors: list[str] = []
    with dashboard(home) as address:
        children = psutil.Process().children()
        (server,) = [each for each in children if "streamlit" in each.cmdline()]
        begun, before = time.monotonic(), _cpu(server)
        names = []
        for number in range(merges):
            name = store.create(recipe, "cpu")
            Turns(home).ask(
                name,
                f"browser:{number}",
                device="cpu",
                threads=queue.threads_for(recipe),
                data=str(places.data_directory()),
                after=0,
            )
            names.append(name)
        crowd = [Watcher(address, names[i % merges], over) for i in range(watchers)]
        threads = [threading.Thread(target=each.watch, daemon=True) for each in crowd]
        for thread in threads:
            thread.start()
        shares = Shares()
        given = _steer(store, names, shares)
        seconds, core = time.monotonic() - begun, _cpu(server) - before
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    took = []
    for name in names:
        with store.open(name) as reader:
            if reader.status()["state"] != "finished":
                errors.append(f"{name} is {reader.status()['state']}")
            took.append(reader.headway().elapsed)
    lost = sum(commanding.answer(store, name, command) is None for name, command in given)
    return Outcome(
        watchers=watchers,
        runs=merges,
        answers=sorted(answer for each in crowd for answer in each.answers),
        errors=errors + [error for each in crowd for error in each.errors],
        commands=len(given),
        lost=lost,
        slower=max(took) / statistics.mean(took) - 1,
        less=shares.less(),
        core=core / seconds / watchers,
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


def _steer(store: Store, names: list[str], shares: Shares) -> list[tuple[str, int]]:
    """See every run through, and steer each once: pause, go on, another learning rate."""
    given: list[tuple[str, int]] = []
    steered: set[str] = set()
    while not all(queue.ended(store, name) for name in names):
        queue.dispatch(store)
        shares.look(_taken(Turns(store.home)))
        for name in names:
            if name in steered:
                continue
            try:
                with store.open(name) as reader:
                    if reader.status()["stage"] is None:
                        continue
                for give in (commanding.pause, commanding.go_on):
                    given.append((name, give(store, name)))
                given.append((name, commanding.change_rate(store, name, 0.3)))
            except StoreError:  # it has ended meanwhile
                pass
            steered.add(name)
        time.sleep(LOOK_SECONDS)
    return given
