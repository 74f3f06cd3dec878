"""Long work in worker processes, one for each core, and what they say (no torch).

It waits for a turn among the runs (see `merge_core.queue`): the process that carries it out is
there at once, holds the file and begins when its turn does. It leaves the queue by its end, however
that comes.

Small networks are too small for several threads, so every worker takes a share of the work and
computes in one thread, unless more are asked for. Who carries the work out listens to the workers
and alone writes down what they find (see `merge_core.carriers`): the process of a command, or one
of its own that a page starts and that goes on when the page is closed.
"""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any

from merge_core import owners, processes, queue
from merge_core.carriers import ALIVE, Carrier, claim, folder, progress_of, store_of
from merge_core.errors import NetweldError, StoreError
from merge_core.store import Turns, key_of

HOLD_SECONDS = 10.0
"""How long to wait for a carrier to take hold of its file."""

LOOK_SECONDS = 0.5
"""From one look at its turn to the next, for whoever waits in the queue."""

DISPATCH_SECONDS = 3.0
"""How often whoever waits looks whether a place has become free. Who ends lets the next begin at
once; only who was killed does not, and many may wait."""


class Withdrawn(StoreError):
    """Work that was taken out of the queue before its turn came."""


@dataclass(frozen=True, kw_only=True)
class Headway:
    """How far the work is.

    Attributes:
        fraction: of the FLOPs that were missing at the start, 0 to 1.
        left: seconds to go at the speed so far; None when too little is done to tell.
        rows: results since the start.
        waits: whether it waits for its turn.
    """

    fraction: float
    left: float | None
    rows: int
    waits: bool = False


_NOTHING_YET = Headway(fraction=0.0, left=None, rows=0)


def carry(carrier: Carrier, work: Generator[Headway, None, None]) -> Generator[Headway, None, None]:
    """Do some work and report on it, to its end, its failure or until nobody listens any more."""
    try:
        try:
            carrier.begin()  # from here on whoever reads of it may stop it
            with closing(work):
                for headway in work:
                    carrier.report(headway.fraction, headway.left, waits=headway.waits)
                    yield headway
        except Withdrawn:
            carrier.end("stopped")
            raise
        except Exception as error:
            carrier.end("failed", str(error))
            raise
        except BaseException:  # whoever listened has stopped listening
            carrier.end("stopped")
            raise
        carrier.report(1.0, None)
        carrier.end("finished")
    finally:
        queue.leave(store_of(carrier.table), key_of(carrier.table))


def turn(carrier: Carrier, threads: int) -> Generator[Headway, None, dict[str, str]]:
    """Wait for the carrier's turn.

    Args:
        carrier: whose; its file has an owner (`merge_core.carriers.claim`).
        threads: how many its workers will use together.

    Returns:
        What its workers have in their environment beside the usual, when the turn has begun.

    Raises:
        Withdrawn: it was taken out of the queue.
        StoreError: the queue cannot be read or written.
    """
    store, key = store_of(carrier.table), key_of(carrier.table)
    turns = Turns(store.home)
    killed = turns.of(key)  # another process held the file, and did not live to leave the queue
    if killed is not None:
        turns.end(killed)
    turns.ask(
        key,
        owners.acting().owner,
        device=carrier.asked.device,
        threads=threads,
        data=carrier.asked.data,
        pid=os.getpid(),
    )
    looked = -math.inf
    while True:
        if time.monotonic() - looked >= DISPATCH_SECONDS:
            queue.dispatch(store)
            looked = time.monotonic()
        mine = turns.of(key)
        if mine is None:
            raise Withdrawn(f"{carrier.table.stem} was taken out of the queue; it can go on later.")
        if mine.began is not None:
            return processes.only(mine.gpu)
        yield replace(_NOTHING_YET, waits=True)
        time.sleep(LOOK_SECONDS)


def work(
    module: str,
    shares: Sequence[Mapping[str, Any]],
    hear: Callable[[dict[str, Any]], bool],
    threads: int = 1,
    extra: Mapping[str, str] | None = None,
) -> Generator[Headway, None, None]:
    """Let a worker process do each share, and tell how far all are together.

    A worker is `python -P -m MODULE JSON`. It prints JSON lines: `{"planned": FLOPs}` once,
    `{"done": FLOPs}` since the last such line, and what it finds. What else it prints, as a
    person's own network may, is passed over. Whoever stops listening stops the workers.

    Args:
        module: what a worker runs.
        shares: what each is asked for.
        hear: told every other line; returns whether it is a result.
        threads: how many each worker computes in.
        extra: what they have in their environment beside the usual.

    Raises:
        NetweldError: a worker failed; says why.
    """
    environment = {**processes.environment(threads), **(extra or {})}
    running: list[_Worker] = []
    try:
        for share in shares:
            running.append(_Worker(module, share, environment))
        yield from _listened(running, hear)
    finally:
        for worker in running:
            worker.stop()


def begin(path: Path, module: str, asked: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start a process of its own that carries the work on a file out when its turn comes.

    Returns once it holds the file, so that nobody takes the old state for the new one.

    Args:
        path: the file that it will write.
        module: `python -P -m MODULE JSON` carries it out.
        asked: the JSON.

    Raises:
        StoreError: no process can be started, another one works on it, or it is somebody else's.
    """
    claim(path)
    before = progress_of(path)
    if before is not None and before.state in ALIVE:
        raise StoreError(f"Another process works on {path.stem} already; stop it first.")
    try:
        folder(path).mkdir(parents=True, exist_ok=True)
        with (folder(path) / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, json.dumps(asked)],
                env=processes.environment() | {"NETWELD_HOME": str(store_of(path).home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(
            f"The work on {path.stem} could not be started ({error}); mend that and try again."
        ) from error
    # Somebody must wait for a child, or it stays behind as a zombie that looks alive.
    threading.Thread(target=process.wait, name=f"reap {path.stem}", daemon=True).start()
    deadline = time.monotonic() + HOLD_SECONDS
    while progress_of(path) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


class _Worker:
    """A process that works on a share, and what it has said."""

    def __init__(
        self, module: str, asked: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        self.planned: float | None = None
        self.done = 0.0
        self.chatter = ""  # the last line that was for nobody
        self.listener: threading.Thread | None = None
        self.complaints = TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, json.dumps(asked)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches this process only, which stops it
        )

    def listen(self, lines: "SimpleQueue[tuple[_Worker, dict | None]]") -> None:
        """Have what it says put into the queue, and None at its end."""
        self.listener = threading.Thread(target=self._tell, args=(lines,), daemon=True)
        self.listener.start()

    def _tell(self, lines: "SimpleQueue[tuple[_Worker, dict | None]]") -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                if not line.endswith("\n"):  # whoever is killed may leave half a line
                    continue
                said = _said(line)
                if said is None:
                    self.chatter = line.strip() or self.chatter
                else:
                    lines.put((self, said))
        finally:  # or whoever listens would wait for ever
            lines.put((self, None))

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        # A signal may have come between the thread's making and its start.
        if self.listener is not None and self.listener.is_alive():
            self.listener.join()  # it still reads what was said last
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.complaints.close()

    def last_words(self) -> str:
        """The last line of what it complained about, or else of what it printed for nobody."""
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else self.chatter or "it said nothing"


def _said(line: str) -> dict[str, Any] | None:
    """The JSON object that a line ends in; None where it ends in none.

    What a person's own network printed without ending its line stands before what the worker says.
    """
    start = line.find('{"')
    while start >= 0:
        try:
            return json.loads(line[start:])
        except ValueError:
            start = line.find('{"', start + 1)
    return None


def _listened(
    running: Sequence[_Worker], hear: Callable[[dict[str, Any]], bool]
) -> Iterator[Headway]:
    """What the workers say as it comes, until every one has ended."""
    lines: SimpleQueue[tuple[_Worker, dict | None]] = SimpleQueue()
    for worker in running:
        worker.listen(lines)
    working, rows, begun = len(running), 0, None
    while working:
        worker, said = lines.get()
        if said is None:
            working -= 1
            if worker.process.wait():
                raise NetweldError(f"A worker failed: {worker.last_words()}")
        elif "planned" in said:
            worker.planned = said["planned"]
            begun = begun or time.monotonic()
        elif "done" in said:
            worker.done += said["done"]
        else:
            rows += hear(said)
        planned, done = sum(w.planned or 0 for w in running), sum(w.done for w in running)
        known = all(w.planned is not None for w in running)
        fraction = done / planned if planned and known else 0.0
        left = None
        if begun is not None and fraction > 0.01:
            left = (time.monotonic() - begun) * (1 - fraction) / fraction
        yield Headway(fraction=min(fraction, 1.0), left=left, rows=rows)
