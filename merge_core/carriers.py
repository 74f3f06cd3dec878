"""Who carries a table, a lab or a search out, and how far: a lock and a small file (no torch).

```
<home>/tables/<table>.jsonl           the rows; written by the carrier alone
<home>/tables/<table>/progress.json   what was asked for, and how far it is
<home>/tables/<table>/worker.lock     held by the carrier while it works
<home>/tables/<table>/worker.log      what it printed, where a page started it
```

Labs lie in `<home>/labs`, and each seed is one of their repetitions; searches lie in
`<home>/searches`, and their repetitions are trials.

Whoever lets work on one of them begin first owns it, as whoever starts a run owns that.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from merge_core import owners
from merge_core.clocks import SteadyClock
from merge_core.errors import StoreError
from merge_core.store import Store, Turns, key_of
from merge_core.store.databases import RunLock, held

State = Literal["waiting", "running", "finished", "stopped", "failed", "lost"]
ALIVE = ("waiting", "running")
"""The states in which a process holds the file."""

_SECONDS = 0.4
"""At least so much time lies between two reports on disk."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a table shall have.

    Attributes:
        seed: of the first repetition.
        n: how many repetitions.
        device: where they are computed.
        data: where data sets lie.
        workers: how many processes; 0 for one on each core.
        minutes: how long a search may take; 0 for no limit.
        run: whose teachers a search uses.
    """

    seed: int
    n: int
    device: str
    data: str
    workers: int
    minutes: float = 0.0
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a table is.

    Attributes:
        asked: what it shall have.
        state: "waiting" for a turn; "lost" when the process that carried it out is gone without a
            word.
        fraction: of what was missing at the start, 0 to 1.
        left: seconds to go; None when that cannot be told.
        message: why it failed; else empty.
        pid: the process.
        started: when the work began, or the waiting for a turn, in seconds since the epoch.
    """

    asked: Asked
    state: State
    fraction: float = 0.0
    left: float | None = None
    message: str = ""
    pid: int
    started: float


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A table, a lab or a search as it is now.

    Attributes:
        path: its file.
        progress: how far who works on it is; None where nobody has.
    """

    path: Path
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """What it is called in the address: the name of its file."""
        return self.path.stem

    @property
    def running(self) -> bool:
        """Whether somebody works on it, or waits for a turn to."""
        return self.progress is not None and self.progress.state in ALIVE

    @property
    def mark(self) -> str:
        """What is put behind its name while somebody works on it; empty otherwise."""
        if self.progress is None or not self.running:
            return ""
        return " · ⏳ waiting" if self.progress.state == "waiting" else " · ▶ running"


def folder(table: Path) -> Path:
    """Where the lock and the progress of a table lie."""
    return table.with_suffix("")


def store_of(table: Path) -> Store:
    """The home directory that a table lies in."""
    return Store(table.parent.parent)


def claim(table: Path) -> None:
    """Become the owner of a table that is about to be begun, or be allowed to add to it.

    Raises:
        StoreError: it is somebody else's, as one of an older netweld is for many people; or the
            home directory cannot be written.
    """
    store, key = store_of(table), key_of(table)
    turns = Turns(store.home)
    if turns.owner(key) is None:
        if table.exists() or folder(table).exists():
            store.require_owner(key)
        try:
            store.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(table, error) from error
        turns.claim(key, owners.acting().owner)
    store.require_owner(key)


def progress_of(table: Path) -> Progress | None:
    """How far a table is; None for one that nobody has reported on."""
    try:
        values = json.loads((folder(table) / "progress.json").read_text(encoding="utf-8"))
        told = Progress(**{**values, "asked": Asked(**values["asked"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if told.state in ALIVE and not held(folder(table)):
        return replace(told, state="lost")
    return told


def stop(table: Path) -> None:
    """Ask whoever carries a table out, or waits to, to stop; what is finished stays.

    Raises:
        StoreError: nobody carries it out, or it is somebody else's.
    """
    store_of(table).require_owner(key_of(table))
    told = progress_of(table)
    if told is None or told.state not in ALIVE:
        raise StoreError(f"Nobody works on {table.stem}; there is nothing to stop.")
    with suppress(psutil.NoSuchProcess):
        psutil.Process(told.pid).terminate()


class Carrier:
    """The right to carry a table out, and the reports on it. This process holds it until `end`.

    Raises:
        StoreError: somebody else carries it out, or the folder cannot be written.
    """

    def __init__(self, table: Path, asked: Asked) -> None:
        self._table = table
        self._written = 0.0
        self._clock = SteadyClock()
        try:
            folder(table).mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(folder(table))
        except BlockingIOError as error:
            raise StoreError(
                f"Another process works on {table.stem} already; wait for its end, or stop "
                f"it in the dashboard."
            ) from error
        except OSError as error:
            raise _unwritable(table, error) from error
        self._progress = Progress(
            asked=asked,
            state="running",
            pid=os.getpid(),
            started=self._clock.now(),
        )

    @property
    def table(self) -> Path:
        """What this process carries out."""
        return self._table

    @property
    def asked(self) -> Asked:
        """What it shall have."""
        return self._progress.asked

    def begin(self) -> None:
        """Tell others that it is carried out, and by which process."""
        self._write()

    def report(self, fraction: float, left: float | None, *, waits: bool = False) -> None:
        """Say how far it is, or that it waits for its turn; a few times a second at most."""
        state: State = "waiting" if waits else "running"
        changed = state != self._progress.state
        if changed:
            self._progress = replace(self._progress, started=self._clock.now())
        self._progress = replace(self._progress, state=state, fraction=fraction, left=left)
        if changed or time.monotonic() - self._written > _SECONDS:
            self._write()

    def end(self, state: State, message: str = "") -> None:
        """Say how it ended, and let others carry it out."""
        self._progress = replace(self._progress, state=state, left=None, message=message)
        try:
            self._write()
        finally:
            self._lock.release()

    def _write(self) -> None:
        to = folder(self._table) / "progress.json"
        draft = to.with_suffix(".part")
        try:
            draft.write_text(json.dumps(asdict(self._progress)), encoding="utf-8")
            draft.replace(to)
        except OSError as error:
            raise StoreError(
                f"The file {to} cannot be written ({error}); make room and go on."
            ) from error
        self._written = time.monotonic()


def _unwritable(table: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The file {table} cannot be written ({error}); set NETWELD_HOME to a directory that can."
    )
