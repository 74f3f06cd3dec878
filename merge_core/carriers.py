"""Who carries a table, a lab or a search out, and how far: a lock and a small file (no torch).

```
<home>/tables/<table>.jsonl           the rows; written by the carrier alone
<home>/tables/<table>/progress.json   what was asked for, and how far it is
<home>/tables/<table>/worker.lock     held by the carrier while it works
<home>/tables/<table>/worker.log      what it printed, where a page started it
```

Labs lie in `<home>/labs`, and each seed is one of their repetitions; searches lie in
`<home>/searches`, and their repetitions are trials.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from merge_core.errors import StoreError
from merge_core.store.databases import RunLock, held

State = Literal["running", "finished", "stopped", "failed", "lost"]

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
        state: "lost" when the process that carried it out is gone without a word.
        fraction: of what was missing at the start, 0 to 1.
        left: seconds to go; None when that cannot be told.
        message: why it failed; else empty.
        pid: the process.
        started: when the work began, in seconds since the epoch.
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
        """Whether somebody works on it."""
        return self.progress is not None and self.progress.state == "running"


def folder(table: Path) -> Path:
    """Where the lock and the progress of a table lie."""
    return table.with_suffix("")


def progress_of(table: Path) -> Progress | None:
    """How far a table is; None for one that nobody has reported on."""
    try:
        values = json.loads((folder(table) / "progress.json").read_text(encoding="utf-8"))
        told = Progress(**{**values, "asked": Asked(**values["asked"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if told.state == "running" and not held(folder(table)):
        return replace(told, state="lost")
    return told


def stop(table: Path) -> None:
    """Ask whoever carries a table out to stop; what is finished stays.

    Raises:
        StoreError: nobody carries it out.
    """
    told = progress_of(table)
    if told is None or told.state != "running":
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
        try:
            folder(table).mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(folder(table))
        except BlockingIOError as error:
            raise StoreError(
                f"Another process works on {table.stem} already; wait for its end, or stop "
                f"it in the dashboard."
            ) from error
        except OSError as error:
            raise StoreError(
                f"The file {table} cannot be written ({error}); set NETWELD_HOME to a directory "
                f"that can."
            ) from error
        self._progress = Progress(
            asked=asked,
            state="running",
            pid=os.getpid(),
            started=time.time(),
        )
        self._write()

    def report(self, fraction: float, left: float | None) -> None:
        """Say how far it is, a few times a second at most."""
        self._progress = replace(self._progress, fraction=fraction, left=left)
        if time.monotonic() - self._written > _SECONDS:
            self._write()

    def end(self, state: State, message: str = "") -> None:
        """Say how it ended, and let others carry it out."""
        self._progress = replace(self._progress, state=state, left=None, message=message)
        self._write()
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
