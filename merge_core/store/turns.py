"""Who waits for a turn on the machine, who has one, and whose each run is: tables of the index.

A table, a lab or a search has turns and an owner as a run has. It is known by the place of its file
in the home directory without the ending, such as "labs/sine-quick-growth-8x8-0a1b2c3d", which no
run can be called.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from merge_core.store.databases import (
    INDEX_TABLES,
    RUN_TABLES,
    RunLock,
    create,
    look,
    unreadable,
    version,
)

HALF_LIFE = 1800.0
"""Seconds after which computing counts half in who has had the least of late."""

_SINCE = 3
"""The first version of the index that has these tables."""


_KINDS = {"tables": "table", "labs": "lab", "searches": "search"}


def key_of(file: Path) -> str:
    """What a table, a lab or a search is known by; see above."""
    return f"{file.parent.name}/{file.stem}"


def kind_of(key: str) -> str:
    """What somebody waits for: "run", "table", "lab" or "search"."""
    folder, _, name = key.partition("/")
    return _KINDS.get(folder, "run") if name and "/" not in name else "run"


def folder_of(home: Path, key: str) -> Path:
    """Where the lock of a run, a table, a lab or a search is."""
    return home / "runs" / key if kind_of(key) == "run" else home / key


def file_of(home: Path, key: str) -> Path:
    """The file of a table, a lab or a search."""
    return home / f"{key}.jsonl"


def others(home: Path) -> list[str]:
    """What the tables, labs and searches of a home directory are known by."""
    return [
        f"{folder}/{name}"
        for folder in _KINDS
        for name in sorted(
            {path.stem for path in (home / folder).glob("*.jsonl")}
            | {path.name for path in (home / folder).glob("*") if path.is_dir()}
        )
    ]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A run that waits for a worker, or has one; or a table, a lab or a search likewise.

    The process that works on these is there before their turn and waits for it, see
    `merge_core.crew`.

    Attributes:
        id: grows from turn to turn: the order of asking.
        run: its name; see above for what is no run.
        owner: who asked for it.
        device: the device asked for.
        threads: how many its worker uses.
        data: where data sets lie.
        after: commands up to this id were meant for an earlier worker.
        pid: of its worker; None while a run waits.
        gpu: which of several GPUs it has; None when there is nothing to choose.
        began: when its turn began, by the machine's monotonic clock; None while it waits.
    """

    id: int
    run: str
    owner: str
    device: str
    threads: int
    data: str
    after: int
    pid: int | None
    gpu: int | None
    began: float | None

    @property
    def kind(self) -> str:
        """What it is for: "run", "table", "lab" or "search"."""
        return kind_of(self.run)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """How long an owner's runs had a turn: seconds in all, and of late (see `HALF_LIFE`)."""

    seconds: float = 0.0
    recent: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What each user may have; None where there is no limit.

    Attributes:
        running: runs at once.
        minutes: of turns in all.
    """

    running: int | None = None
    minutes: float | None = None


class Turns:
    """The turns of one home directory. Readers never block writers, nor the other way round."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "index.sqlite"

    def all(self) -> list[Turn]:
        """Every turn in the order of asking: of runs that wait, run, or have just ended."""
        return [Turn(**dict(row)) for row in self._rows("SELECT * FROM turns ORDER BY id")]

    def of(self, run: str) -> Turn | None:
        """The turn of one run; None when it neither waits nor has a worker."""
        rows = self._rows("SELECT * FROM turns WHERE run = ?", run)
        return Turn(**dict(rows[0])) if rows else None

    def owners(self) -> dict[str, str]:
        """Run → owner; runs of older versions of netweld have none."""
        return {row["run"]: row["owner"] for row in self._rows("SELECT * FROM owners")}

    def owner(self, run: str) -> str | None:
        """Whose a run is."""
        rows = self._rows("SELECT owner FROM owners WHERE run = ?", run)
        return rows[0]["owner"] if rows else None

    def spent(self) -> dict[str, Spent]:
        """Owner → what they have had."""
        now = time.time()
        return {
            row["owner"]: Spent(
                seconds=row["seconds"], recent=row["recent"] * _faded(now - row["at"])
            )
            for row in self._rows("SELECT * FROM spent")
        }

    def limits(self) -> Limits:
        """What an instructor allows each user."""
        found = {row["key"]: row["value"] for row in self._rows("SELECT * FROM limits")}
        running = found.get("running")
        return Limits(
            running=None if running is None else int(running), minutes=found.get("minutes")
        )

    def claim(self, run: str, owner: str) -> None:
        """Say whose a run, a table, a lab or a search is, where nobody has said so before.

        Raises:
            StoreError: the index cannot be written.
        """
        with self._writing() as index:
            index.execute("INSERT OR IGNORE INTO owners VALUES (?, ?)", (run, owner))

    def ask(
        self,
        run: str,
        owner: str,
        *,
        device: str,
        threads: int,
        data: str,
        after: int = 0,
        pid: int | None = None,
    ) -> None:
        """Enter a run at the end of the queue; its owner is whoever asked first.

        Args:
            run: its name, or what something else is known by.
            owner: who asks.
            device: the device asked for.
            threads: how many its worker will use.
            data: where data sets lie.
            after: commands up to this id were meant for an earlier worker.
            pid: the process that waits for this turn; None where one is started then.

        Raises:
            StoreError: the index cannot be written.
        """
        with self._writing() as index:
            index.execute("INSERT OR IGNORE INTO owners VALUES (?, ?)", (run, owner))
            (first,) = index.execute("SELECT owner FROM owners WHERE run = ?", (run,)).fetchone()
            index.execute("DELETE FROM turns WHERE run = ?", (run,))
            index.execute(
                "INSERT INTO turns(run, owner, device, threads, data, after, pid) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (run, first, device, threads, data, after, pid),
            )

    def begun(self, run: str, pid: int | None, gpu: int | None) -> None:
        """Say that a run has a worker, and which."""
        with self._writing() as index:
            index.execute(
                "UPDATE turns SET pid = ?, gpu = ?, began = ? WHERE run = ?",
                (pid, gpu, time.monotonic(), run),
            )

    def end(self, turn: Turn) -> None:
        """Take a turn out, and add its time to its owner's."""
        seconds = 0.0 if turn.began is None else max(time.monotonic() - turn.began, 0.0)
        now = time.time()
        with self._writing() as index:
            if not index.execute("DELETE FROM turns WHERE id = ?", (turn.id,)).rowcount:
                return  # somebody else saw its end, too
            row = index.execute("SELECT * FROM spent WHERE owner = ?", (turn.owner,)).fetchone()
            before = (row["seconds"], row["recent"] * _faded(now - row["at"])) if row else (0, 0)
            index.execute(
                "INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)",
                (turn.owner, before[0] + seconds, before[1] + seconds, now),
            )

    def allow(self, limits: Limits) -> None:
        """Set what each user may have."""
        rows = [("running", limits.running), ("minutes", limits.minutes)]
        with self._writing() as index:
            index.execute("DELETE FROM limits")
            index.executemany(
                "INSERT INTO limits VALUES (?, ?)", [row for row in rows if row[1] is not None]
            )

    def lock(self, seconds: float) -> RunLock:
        """The right to give turns; for a moment only.

        Raises:
            BlockingIOError: somebody has had it all that time.
        """
        return RunLock(self._home, "turns.lock", seconds)

    def mark(self, run: str, state: str, message: str = "") -> None:
        """Write the state of a run that nobody works on into its database.

        Raises:
            BlockingIOError: a worker holds it.
            StoreError: the database cannot be written.
        """
        directory = self._home / "runs" / run
        path = directory / "run.sqlite"
        with RunLock(directory), closing(create(path, RUN_TABLES)) as database:
            try:
                if state == "queued":  # a new run is that without a row
                    database.execute("UPDATE status SET state = 'queued', message = ''")
                    return
                database.execute(
                    "INSERT INTO status VALUES (1, ?, 0, ?, NULL, 0, ?) ON CONFLICT(one) "
                    "DO UPDATE SET state = excluded.state, message = excluded.message",
                    (state, time.time(), message),
                )
            except sqlite3.Error as error:
                raise unreadable(path, error) from error

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        if not self._path.exists():
            return []
        with closing(look(self._path)) as index:
            try:
                return index.execute(query, values).fetchall() if version(index) >= _SINCE else []
            except sqlite3.Error as error:
                raise unreadable(self._path, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(create(self._path, INDEX_TABLES)) as index:
            try:
                index.execute("BEGIN IMMEDIATE")
                try:
                    yield index
                except BaseException:
                    with suppress(sqlite3.Error):
                        index.execute("ROLLBACK")
                    raise
                index.execute("COMMIT")
            except sqlite3.Error as error:
                raise unreadable(self._path, error) from error


def _faded(seconds: float) -> float:
    """How much of what was spent so long ago still counts; a clock put back makes nothing grow."""
    return 0.5 ** (max(seconds, 0.0) / HALF_LIFE)
