"""The two SQLite databases: their tables, how they are opened, and who is alive."""

import sqlite3
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from merge_core.errors import StoreError

SCHEMA = 3
"""Version of the tables; kept as `user_version` in every database.

Whoever writes to a database of an older version brings it up to date first (`UPGRADES`); readers,
which never write, understand all versions from 1 on.
"""

LOCK = "worker.lock"
"""The file in a run's directory that its worker holds."""

INDEX_TABLES = """
CREATE TABLE runs(
    name TEXT PRIMARY KEY, recipe TEXT NOT NULL, recipe_name TEXT NOT NULL, preset TEXT NOT NULL,
    seed INTEGER NOT NULL, device TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE commands(
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, verb TEXT NOT NULL,
    arguments TEXT NOT NULL, issued REAL NOT NULL);
CREATE INDEX commands_of_run ON commands(run, id);
CREATE TABLE forks(
    run TEXT PRIMARY KEY, parent TEXT NOT NULL, stage TEXT NOT NULL, epoch INTEGER);
CREATE TABLE owners(run TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE turns(
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    device TEXT NOT NULL, threads INTEGER NOT NULL, data TEXT NOT NULL, after INTEGER NOT NULL,
    pid INTEGER, gpu INTEGER, began REAL);
CREATE TABLE spent(
    owner TEXT PRIMARY KEY, seconds REAL NOT NULL, recent REAL NOT NULL, at REAL NOT NULL);
CREATE TABLE limits(key TEXT PRIMARY KEY, value REAL NOT NULL);
"""

RUN_TABLES = """
CREATE TABLE facts(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE status(
    one INTEGER PRIMARY KEY CHECK(one = 1), state TEXT NOT NULL, pid INTEGER NOT NULL,
    heartbeat REAL NOT NULL, stage TEXT, step INTEGER NOT NULL, message TEXT NOT NULL);
CREATE TABLE stages(
    stage TEXT PRIMARY KEY, position INTEGER NOT NULL, epochs INTEGER NOT NULL,
    steps INTEGER NOT NULL, flops REAL NOT NULL, started REAL, finished REAL, seconds REAL,
    facts TEXT NOT NULL DEFAULT '{}');
CREATE TABLE metrics(
    stage TEXT, epoch INTEGER, step INTEGER NOT NULL, name TEXT, value REAL,
    PRIMARY KEY(stage, epoch, name)) WITHOUT ROWID;
CREATE TABLE scores(
    stage TEXT, split TEXT, metric TEXT, value REAL,
    PRIMARY KEY(stage, split, metric)) WITHOUT ROWID;
CREATE TABLE openness(
    stage TEXT, epoch INTEGER, space TEXT, probabilities BLOB NOT NULL,
    PRIMARY KEY(stage, epoch, space));
CREATE TABLE kept(
    space TEXT PRIMARY KEY, kept BLOB NOT NULL, open_probability BLOB NOT NULL,
    gate BLOB NOT NULL, teachers INTEGER NOT NULL);
CREATE TABLE artifacts(
    name TEXT PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    written REAL NOT NULL, stage TEXT NOT NULL, epoch INTEGER);
CREATE TABLE acknowledgements(
    command INTEGER PRIMARY KEY, stage TEXT, step INTEGER NOT NULL, time REAL NOT NULL,
    verb TEXT NOT NULL DEFAULT 'stop', arguments TEXT NOT NULL DEFAULT '{}', epoch INTEGER,
    refused INTEGER NOT NULL DEFAULT 0, words TEXT NOT NULL DEFAULT 'stopped');
CREATE TABLE sessions(
    id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, started REAL NOT NULL, working REAL,
    flops_before REAL, ended REAL, resumed_from TEXT, paused REAL NOT NULL DEFAULT 0);
"""

UPGRADES: dict[str, dict[int, str]] = {
    INDEX_TABLES: {
        1: """
CREATE TABLE forks(
    run TEXT PRIMARY KEY, parent TEXT NOT NULL, stage TEXT NOT NULL, epoch INTEGER);
""",
        2: """
CREATE TABLE owners(run TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE turns(
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    device TEXT NOT NULL, threads INTEGER NOT NULL, data TEXT NOT NULL, after INTEGER NOT NULL,
    pid INTEGER, gpu INTEGER, began REAL);
CREATE TABLE spent(
    owner TEXT PRIMARY KEY, seconds REAL NOT NULL, recent REAL NOT NULL, at REAL NOT NULL);
CREATE TABLE limits(key TEXT PRIMARY KEY, value REAL NOT NULL);
""",
    },
    # Version 1 knew no command but "stop".
    RUN_TABLES: {
        1: """
ALTER TABLE acknowledgements ADD COLUMN verb TEXT NOT NULL DEFAULT 'stop';
ALTER TABLE acknowledgements ADD COLUMN arguments TEXT NOT NULL DEFAULT '{}';
ALTER TABLE acknowledgements ADD COLUMN epoch INTEGER;
ALTER TABLE acknowledgements ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE acknowledgements ADD COLUMN words TEXT NOT NULL DEFAULT 'stopped';
ALTER TABLE sessions ADD COLUMN paused REAL NOT NULL DEFAULT 0;
""",
    },
}
"""Tables → version → what brings them to the next version."""


def create(path: Path, tables: str) -> sqlite3.Connection:
    """Open a database for writing; make its tables when it is new, upgrade them when they are old.

    Raises:
        StoreError: another version of netweld wrote it, or it cannot be opened.
    """
    database = None
    try:
        database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        if version(database) < SCHEMA:
            # Two processes may both see this: the second waits here and then finds it done.
            database.execute("BEGIN IMMEDIATE")
            found = version(database)
            scripts = [tables] if found == 0 else []
            scripts += [UPGRADES[tables].get(old, "") for old in range(found or SCHEMA, SCHEMA)]
            for statement in ";".join(scripts).split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {max(found, SCHEMA)}")
            database.execute("COMMIT")
        _check_version(database, path)
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise unreadable(path, error) from error
    except StoreError:
        if database is not None:
            database.close()
        raise
    return database


def look(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open an existing database read-only.

    Args:
        path: the database.
        immutable: it never changes (a sample that comes with netweld), so that nothing is ever
            written beside it, not even a lock.

    Raises:
        StoreError: it is missing or damaged, or another version of netweld wrote it.
    """
    address = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    database = None
    try:
        database = sqlite3.connect(
            address, uri=True, timeout=10, isolation_level=None, check_same_thread=False
        )
        database.row_factory = sqlite3.Row
        _check_version(database, path)
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise unreadable(path, error) from error
    except StoreError:
        if database is not None:
            database.close()
        raise
    return database


def version(database: sqlite3.Connection) -> int:
    """The version of a database's tables; 0 before it has any."""
    return database.execute("PRAGMA user_version").fetchone()[0]


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    found = version(database)
    if not 0 <= found <= SCHEMA:  # 0: somebody is making its tables at this moment
        raise StoreError(
            f"{path.name} in {path.parent} has table version {found}, but this netweld reads "
            f"versions 1 to {SCHEMA}; use the netweld that wrote it, or another NETWELD_HOME."
        )


def unreadable(path: Path, error: sqlite3.Error) -> StoreError:
    """The sentence for a database that SQLite cannot use."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreError(
            f"The disk is full, so {path.name} in {path.parent} cannot be written; make room, then "
            f"resume the run."
        )
    return StoreError(
        f"The database {path.name} in {path.parent} cannot be used ({error}); "
        f"restore it from a copy, or delete the run and start it again."
    )


LOCK_SECONDS = 0.3
"""How long to ask for a lock again: whoever only looks (`held`) has it for microseconds."""


class RunLock:
    """The right to work on something, held by one process at a time and freed when that one ends.

    The operating system frees it however the process ends, so nothing stale is left after a kill.
    """

    def __init__(self, directory: Path, file: str = LOCK, seconds: float = LOCK_SECONDS) -> None:
        """Take the lock.

        Args:
            directory: what it is about; by default a run.
            file: its name there.
            seconds: how long to wait for whoever holds it.

        Raises:
            BlockingIOError: another process holds it.
        """
        self._file = (directory / file).open("ab")
        until = time.monotonic() + seconds
        while not _taken(self._file, shared=False):
            if time.monotonic() > until:
                self._file.close()
                raise BlockingIOError(f"{directory / file} is held by another process")
            time.sleep(0.005)

    def release(self) -> None:
        """Give the lock back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def held(directory: Path) -> bool:
    """Whether a live process holds a run.

    No clock is asked: one that jumps makes no live worker look dead, and a worker that the machine
    has put to sleep is still there.
    """
    try:
        with (directory / LOCK).open("rb") as file:
            return not _taken(file, shared=True)
    except OSError:
        return False


def _taken(file: BinaryIO, *, shared: bool) -> bool:
    """Lock an open file if nobody else has locked it; it is locked until it is closed."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
    else:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
