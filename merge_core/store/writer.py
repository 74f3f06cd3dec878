"""One run as its worker writes it: every event is one transaction."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from merge_core.clocks import SteadyClock
from merge_core.errors import StoreError
from merge_core.events import (
    Arrays,
    ChannelsKept,
    EpochFinished,
    Event,
    Progress,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.progress import Reading, flops_done
from merge_core.recipes import Experiment
from merge_core.store import artifacts
from merge_core.store.databases import RUN_TABLES, RunLock, create, unreadable
from merge_core.store.steered import Answer, kept_name

RUN_FACTS = ("parameters", "forward_flops", "first_layer", "class_names")
"""Facts of a stage that hold for the whole run; the first stage that knows one gives it."""
_NOT_READING = "DELETE FROM facts WHERE key = 'reading'"


class RunWriter:
    """A run held by its worker; a context manager.

    The methods may be called from several threads. Each raises StoreError when the run's database
    was deleted or cannot be written.

    Attributes:
        resumed: whether a worker had worked on this run before, or on the one it was forked from.
        stage: the key of the current stage, None before the first.
        step: optimizer steps done in it.
    """

    def __init__(self, directory: Path, name: str) -> None:
        """Take hold of a run and begin a session.

        Raises:
            StoreError: another live worker holds it, or its database cannot be used.
        """
        self._directory = directory
        self._name = name
        self._path = directory / "run.sqlite"
        try:
            self._held = RunLock(directory)
        except BlockingIOError as error:
            raise StoreError(
                f"Run {name} is being worked on by another process; "
                f"watch it with `netweld show {name}`."
            ) from error
        except OSError as error:
            raise _unwritable(name, error) from error
        try:
            self._identity = _identity(self._path)
            self._database = create(self._path, RUN_TABLES)
        except BaseException as error:
            self._held.release()
            if isinstance(error, OSError):
                raise _unwritable(name, error) from error
            raise
        self._clock = SteadyClock()
        self._lock = threading.Lock()
        self._planned: dict[str, int] = {}
        self._pause_counted: float | None = None
        self.stage: str | None = None
        self.step = 0
        try:
            self.resumed, self._session = self._begin()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the run."""
        with self._lock:
            self._database.close()
            self._held.release()

    def now(self) -> float:
        """Seconds since the epoch, by a clock that stays steady for as long as the run is held."""
        return self._clock.now()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on a database that is still where readers look for it."""
        with self._lock:
            try:
                there = _identity(self._path) == self._identity
            except OSError:
                there = False
            if not there:
                raise StoreError(f"Run {self._name} was deleted while it ran; nothing is kept.")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise unreadable(self._path, error) from error

    def _begin(self) -> tuple[bool, int]:
        with self._transaction() as database:
            # Asked while the run is held: another worker may have ended just before that.
            if database.execute("SELECT 1 FROM status WHERE state = 'finished'").fetchone():
                raise StoreError(
                    f"Run {self._name} is finished; look at it with `netweld show {self._name}`."
                )
            (resumed,) = database.execute(
                "SELECT EXISTS (SELECT 1 FROM status) OR EXISTS (SELECT 1 FROM stages)"
            ).fetchone()
            origin = None
            if resumed:
                row = database.execute(
                    "SELECT stage, epoch FROM artifacts WHERE name = 'checkpoint'"
                ).fetchone()
                over = database.execute(
                    "SELECT stage FROM stages WHERE finished IS NOT NULL ORDER BY position DESC"
                ).fetchone()
                if row:
                    origin = f"{row['stage']}, epoch {row['epoch']}"
                else:
                    origin = f"the end of {over['stage']}" if over else "the start"
            now = self.now()
            # A killed process could not write its end: its last sign of life stands for it.
            database.execute(
                "UPDATE sessions SET ended = (SELECT heartbeat FROM status) WHERE ended IS NULL"
            )
            database.execute(_NOT_READING)
            # Stage and step stay until the first stage goes on, so that no bar falls to zero.
            database.execute(
                "INSERT INTO status VALUES (1, 'running', ?, ?, NULL, 0, '') "
                "ON CONFLICT(one) DO UPDATE SET state = excluded.state, pid = excluded.pid, "
                "heartbeat = excluded.heartbeat, message = excluded.message",
                (os.getpid(), now),
            )
            session = database.execute(
                "INSERT INTO sessions(pid, started, resumed_from) VALUES (?, ?, ?)",
                (os.getpid(), now, origin),
            ).lastrowid
        assert session is not None
        return bool(resumed), session

    def _sweep(self) -> None:
        """Remove what a killed worker left half done: files that no row names."""
        with self._transaction() as database:
            known = {row["file"] for row in database.execute("SELECT file FROM artifacts")}
        leftovers = [*self._directory.glob("*.safetensors"), *self._directory.glob(".*.part")]
        for path in leftovers:
            if path.name not in known:
                path.unlink(missing_ok=True)

    def write(self, event: Event) -> None:
        """Store one event; when this returns, it survives the death of the process."""
        match event:
            case StagePlanned():
                self._planned_stage(event)
            case StageStarted():
                self._started(event)
            case Progress():
                self._moved(event.stage, event.step)
            case EpochFinished():
                self._epoch(event)
            case ChannelsKept():
                self._kept(event)
            case StageFinished():
                self._finished(event)
            case StudentReturned():
                for key, value in {"returned": event.stage, **event.facts}.items():
                    self.fact(key, value)

    def _planned_stage(self, event: StagePlanned) -> None:
        position = self._planned.setdefault(event.stage, len(self._planned))
        with self._transaction() as database:
            database.execute(
                "INSERT INTO stages(stage, position, epochs, steps, flops) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT(stage) DO UPDATE SET position = excluded.position, "
                "epochs = excluded.epochs, steps = excluded.steps, flops = excluded.flops",
                (event.stage, position, event.epochs, event.steps, event.flops),
            )

    def _started(self, event: StageStarted) -> None:
        now = self.now()
        with self._transaction() as database:
            row = database.execute(
                "SELECT epochs, steps FROM stages WHERE stage = ?", (event.stage,)
            ).fetchone()
            assert row is not None, f"stage {event.stage} was not planned"
            step = row["steps"] * event.epoch // row["epochs"] if event.epoch else 0
            self._at(database, event.stage, step)
            if event.epoch == 0:
                database.execute(
                    "UPDATE stages SET started = ? WHERE stage = ?", (now, event.stage)
                )
            stages = database.execute("SELECT stage, steps, flops, finished FROM stages").fetchall()
            database.execute(
                "UPDATE sessions SET working = ?, flops_before = ? "
                "WHERE id = ? AND working IS NULL",
                (now, flops_done(stages, event.stage, step), self._session),
            )

    def _moved(self, stage: str, step: int) -> None:
        with self._transaction() as database:
            self._at(database, stage, step)

    def _at(self, database: sqlite3.Connection, stage: str, step: int) -> None:
        self.stage, self.step = stage, step
        database.execute(
            "UPDATE status SET stage = ?, step = ?, heartbeat = ?", (stage, step, self.now())
        )

    def _epoch(self, event: EpochFinished) -> None:
        with self._transaction() as database:
            self._at(database, event.stage, event.step)
            database.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)",
                [
                    (event.stage, event.epoch, event.step, name, float(value))
                    for name, value in event.metrics.items()
                ],
            )
            database.executemany(
                "INSERT OR REPLACE INTO openness VALUES (?, ?, ?, ?)",
                [
                    (event.stage, event.epoch, space, _blob(probabilities, "<f4"))
                    for space, probabilities in event.open_probabilities.items()
                ],
            )

    def _kept(self, event: ChannelsKept) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)",
                (
                    event.space,
                    _blob(event.kept, "<i8"),
                    _blob(event.open_probability, "<f4"),
                    _blob(event.gate, "<f4"),
                    event.teachers,
                ),
            )

    def _finished(self, event: StageFinished) -> None:
        stored = self._save(f"{event.stage}.safetensors", event.arrays) if event.arrays else None
        with self._transaction() as database:
            if stored:
                database.execute(
                    "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, NULL)",
                    (event.stage, *stored, self.now(), event.stage),
                )
            database.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)",
                [
                    (event.stage, split, metric, float(value))
                    for split, scores in event.scores.items()
                    for metric, value in scores.items()
                ],
            )
            database.execute(
                "UPDATE stages SET finished = ?, seconds = ?, facts = ? WHERE stage = ?",
                (self.now(), event.seconds, json.dumps(dict(event.facts)), event.stage),
            )
            database.executemany(
                "INSERT OR IGNORE INTO facts VALUES (?, ?)",
                [(key, json.dumps(event.facts[key])) for key in RUN_FACTS if key in event.facts],
            )
            database.execute("UPDATE status SET stage = ?", (event.stage,))
            old = self._unnamed(database, "DELETE FROM artifacts WHERE name = 'checkpoint'")
        for file in old:
            (self._directory / file).unlink(missing_ok=True)

    def checkpoint(self, stage: str, epoch: int, arrays: Arrays, *, kept: bool = False) -> None:
        """Replace the checkpoint by the state after `epoch` epochs of `stage`.

        The new file is whole before the row names it, and the old one goes last.

        Args:
            stage: a stage's key.
            epoch: how many of its epochs are done.
            arrays: the state.
            kept: whether it stays as long as the run, so that the run can be forked from there.
        """
        file = f"{stage}-epoch-{epoch}" if kept else f"checkpoint-{stage}-{epoch}"
        stored = self._save(f"{file}.safetensors", arrays)
        names = ["checkpoint", *([kept_name(stage, epoch)] if kept else [])]
        with self._transaction() as database:
            old = self._unnamed(
                database,
                "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?)",
                *[(name, *stored, self.now(), stage, epoch) for name in names],
            )
        for each in old:
            (self._directory / each).unlink(missing_ok=True)

    def _unnamed(
        self, database: sqlite3.Connection, change: str, *rows: tuple[object, ...]
    ) -> set[str]:
        """Change the table of artifacts; the files that no row names any more."""
        files = "SELECT file FROM artifacts"
        before = {row["file"] for row in database.execute(files)}
        database.executemany(change, rows or [()])
        return before - {row["file"] for row in database.execute(files)}

    def _save(self, file: str, arrays: Arrays) -> tuple[str, str, int]:
        try:
            return (file, *artifacts.save(self._directory / file, arrays))
        except OSError as error:
            raise StoreError(
                f"Run {self._name} could not write {file}: {error.strerror}; "
                f"mend that and resume the run."
            ) from error

    def fact(self, key: str, value: Any) -> None:
        """Store one small JSON fact about the run."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    def reading(self, told: Reading | None) -> None:
        """Say how far the run is with reading its images; None when it has them."""
        with self._transaction() as database:
            database.execute(_NOT_READING)
            if told is not None:
                told_as = json.dumps(asdict(told))
                database.execute("INSERT INTO facts VALUES ('reading', ?)", (told_as,))

    def heartbeat(self) -> None:
        """Say that the worker is alive."""
        with self._transaction() as database:
            database.execute("UPDATE status SET heartbeat = ?", (self.now(),))
            self._count_pause(database)

    def pause(self) -> None:
        """Say that the worker waits until it is told to go on."""
        with self._transaction() as database:
            database.execute("UPDATE status SET state = 'paused', heartbeat = ?", (self.now(),))
            self._pause_counted = time.monotonic()

    def go_on(self) -> None:
        """Say that the pause is over."""
        with self._transaction() as database:
            database.execute("UPDATE status SET state = 'running', heartbeat = ?", (self.now(),))
            self._count_pause(database)
            self._pause_counted = None

    def _count_pause(self, database: sqlite3.Connection) -> None:
        """Add the time since the last count to the session's, while the worker waits."""
        if self._pause_counted is not None:
            now = time.monotonic()
            database.execute(
                "UPDATE sessions SET paused = paused + ? WHERE id = ?",
                (now - self._pause_counted, self._session),
            )
            self._pause_counted = now

    def answer(self, answer: Answer, recipe: Experiment | None = None) -> None:
        """Say what becomes of a command.

        Args:
            answer: what is said.
            recipe: the recipe of the run with the change that the command makes, which is in the
                store before it acts; None when it changes no numbers.
        """
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO acknowledgements"
                "(command, verb, arguments, stage, epoch, step, refused, words, time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    answer.command,
                    answer.verb,
                    json.dumps(dict(answer.arguments)),
                    answer.stage,
                    answer.epoch,
                    answer.step,
                    answer.refused,
                    answer.words,
                    answer.time,
                ),
            )
            if recipe is not None:
                database.execute(
                    "UPDATE facts SET value = ? WHERE key = 'recipe'", (recipe.to_json(),)
                )

    def finish(self, state: Literal["finished", "stopped", "failed"], message: str = "") -> None:
        """End the session: the last thing that a worker writes."""
        now = self.now()
        with self._transaction() as database:
            database.execute(
                "UPDATE status SET state = ?, message = ?, heartbeat = ?", (state, message, now)
            )
            self._count_pause(database)
            database.execute("UPDATE sessions SET ended = ? WHERE id = ?", (now, self._session))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _unwritable(name: str, error: OSError) -> StoreError:
    return StoreError(
        f"Run {name} cannot be written ({error.strerror}); mend that, or start the recipe again."
    )


def _blob(array: np.ndarray, kind: str) -> bytes:
    return np.asarray(array, dtype=kind).tobytes()
