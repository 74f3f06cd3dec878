"""All runs: the index, the command queue, and the samples that come with netweld."""

import difflib
import json
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_core import owners, places
from merge_core.errors import RecipeError, StoreError
from merge_core.recipes import Experiment, Recipe
from merge_core.store.databases import (
    INDEX_TABLES,
    RUN_TABLES,
    SCHEMA,
    RunLock,
    create,
    look,
    unreadable,
    version,
)
from merge_core.store.forks import take_over
from merge_core.store.reader import INPUTS, RunReader
from merge_core.store.steered import Branch, ForkPoint
from merge_core.store.summaries import RunSummary, parsed, summary, unreadable_run
from merge_core.store.turns import Turns, file_of, folder_of, kind_of, others
from merge_core.store.writer import RunWriter

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-[a-z0-9]+-s\d+-[0-9a-f]{4}")
"""`<recipe>-<preset>-s<seed>-<4 hex digits>`."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A wish for a run, e.g. verb "stop"; its worker acknowledges it when it takes effect."""

    id: int
    run: str
    verb: str
    arguments: dict[str, Any]
    issued: float


class Store:
    """The runs of one home directory, and the samples beside them.

    Attributes:
        home: the directory of the index and the runs.
    """

    def __init__(self, home: Path | None = None, samples: Path | None = None) -> None:
        """Name a store; nothing is touched until something is asked.

        Args:
            home: where the runs are; by default `NETWELD_HOME` or `~/.netweld`.
            samples: where the samples are; by default those that come with netweld.
        """
        self.home = places.home() if home is None else home.resolve()
        self._samples = places.samples() if samples is None else samples
        self._index = self.home / "index.sqlite"

    def create(
        self,
        recipe: Experiment,
        device: str,
        inputs: Sequence[Path] = (),
        code: Path | None = None,
    ) -> str:
        """Enter a new run in the index; returns its name. Starting its worker comes after.

        Args:
            recipe: its settings.
            device: the device asked for.
            inputs: the file of each teacher of a comparison; they are copied.
            code: the folder in which a person's own network is found.

        Raises:
            StoreError: an input cannot be read, or the home directory cannot be written.
            RecipeError: the recipe's name or preset cannot be part of a run's name.
        """
        stem = f"{recipe.name}-{recipe.preset}-s{recipe.seed}"
        if not NAME.fullmatch(f"{stem}-0000"):
            raise RecipeError(
                f"The recipe is named {recipe.name!r} with preset {recipe.preset!r}, but a run is "
                f"named after both: use small letters, digits and single hyphens."
            )
        for path in inputs:
            _require_readable(path)
        created = time.time()
        try:
            name, directory = self._new_directory(stem)
            copies = [f"{number}/{path.name}" for number, path in enumerate(inputs)]
            for path, copy in zip(inputs, copies, strict=True):
                into = directory / INPUTS / copy
                into.parent.mkdir(parents=True)
                shutil.copyfile(path, into)
            with closing(create(directory / "run.sqlite", RUN_TABLES)) as database:
                facts = {
                    "name": name,
                    "schema": SCHEMA,
                    "recipe": json.loads(recipe.to_json()),
                    "device_asked": device,
                    "created": created,
                }
                if copies:
                    facts["inputs"] = copies
                if code is not None:
                    facts["code"] = str(code)
                database.execute("BEGIN")
                database.executemany(
                    "INSERT INTO facts VALUES (?, ?)",
                    [(key, json.dumps(value)) for key, value in facts.items()],
                )
                database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The directory {self.home} cannot be written ({error}); "
                f"set NETWELD_HOME to one that can."
            ) from error
        with self._steering() as index:
            index.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, recipe.to_json(), recipe.name, recipe.preset, recipe.seed, device, created),
            )
            index.execute("INSERT INTO owners VALUES (?, ?)", (name, owners.acting().owner))
        return name

    def fork(self, parent: str, recipe: Recipe, point: ForkPoint) -> str:
        """Enter a new run that shares another one's past; returns its name.

        It is queued: its worker goes on from the point. Deleting the parent leaves it whole.

        Args:
            parent: a merge in any state, or a sample.
            recipe: the fork's; it gives the parent's numbers up to the point.
            point: where it branches off.

        Raises:
            StoreError: there is no such run, it has no such point, one of its files is missing, or
                the home directory cannot be written.
        """
        created = time.time()
        with self.open(parent) as reader:
            if point not in reader.fork_points():
                raise StoreError(
                    f"Run {parent} cannot be forked from {point}, of which nothing was kept; "
                    f"`netweld show {parent}` lists the moments that it can be forked from."
                )
            try:
                name, directory = self._new_directory(
                    f"{recipe.name}-{recipe.preset}-s{recipe.seed}"
                )
                facts = {
                    "name": name,
                    "schema": SCHEMA,
                    "recipe": json.loads(recipe.to_json()),
                    "device_asked": reader.device,
                    "created": created,
                    "forked": {"parent": parent, "stage": point.stage, "epoch": point.epoch},
                }
                try:
                    take_over(reader, directory, facts, point)
                except BaseException:
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
            except (OSError, sqlite3.Error) as error:
                raise StoreError(
                    f"Run {parent} cannot be forked ({error}); mend that and try again."
                ) from error
            row = (name, recipe.to_json(), recipe.name, recipe.preset, recipe.seed, reader.device)
        with self._steering() as index:
            index.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, created))
            index.execute(
                "INSERT INTO forks VALUES (?, ?, ?, ?)", (name, parent, point.stage, point.epoch)
            )
            index.execute("INSERT INTO owners VALUES (?, ?)", (name, owners.acting().owner))
        return name

    def forks(self) -> list[Branch]:
        """Every run that was forked from another, oldest first; the other may be gone."""
        rows = self._indexed("SELECT * FROM forks ORDER BY rowid", since=2)
        return [
            Branch(
                run=row["run"],
                parent=row["parent"],
                point=ForkPoint(stage=row["stage"], epoch=row["epoch"]),
            )
            for row in rows
        ]

    def _new_directory(self, stem: str) -> tuple[str, Path]:
        """A fresh run name and its directory; making the directory is what claims the name."""
        while True:
            name = f"{stem}-{secrets.token_hex(2)}"
            directory = self.home / "runs" / name
            directory.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            return name, directory

    def runs(self, samples: bool = True) -> list[RunSummary]:
        """The runs, newest first, then the samples.

        A run whose recipe this version of netweld cannot read is left out; opening it says why.
        """
        found = []
        for row in self._indexed("SELECT * FROM runs ORDER BY created DESC, rowid DESC"):
            try:
                recipe = parsed(row["recipe"])
            except RecipeError:
                continue
            try:
                with RunReader(self._directory(row["name"]), row["name"]) as reader:
                    found.append(summary(reader, recipe, row["created"]))
            except StoreError as error:
                found.append(unreadable_run(row, recipe, str(error)))
        if samples:
            for path in self._sample_paths().values():
                with RunReader(path, path.name, sample=True) as reader:
                    found.append(summary(reader, reader.recipe, reader.facts()["created"]))
        return found

    def names(self, samples: bool = True) -> list[str]:
        """The names of the runs, newest first, then those of the samples."""
        rows = self._indexed("SELECT name FROM runs ORDER BY created DESC, rowid DESC")
        return [row["name"] for row in rows] + (list(self._sample_paths()) if samples else [])

    def find(self, text: str, *, every: bool = False) -> str:
        """The run that somebody means: a name, the beginning of exactly one name, or "latest".

        Args:
            text: what they say.
            every: they may mean a table, a lab or a search as well; what it is known by is returned
                (see `Turn`).

        Raises:
            StoreError: nothing fits, or several do.
        """
        if text == "latest":
            own = self.names(samples=False)
            if not own:
                raise StoreError("There are no runs yet; start one with `netweld merge textures`.")
            return own[0]
        names = self.names() + (others(self.home) if every else [])
        if text in names:
            return text
        short = {name: name.rpartition("/")[2] for name in names}
        fitting = [name for name in names if text and short[name].startswith(text)]
        fitting = [name for name in fitting if short[name] == text] or fitting
        if not fitting:
            raise _unknown(text, list(short.values()))
        if len(fitting) > 1:
            raise StoreError(
                f"{text!r} could mean {len(fitting)} {'of them' if every else 'runs'}, among them "
                f"{fitting[0]} and {fitting[1]}; give more of the name."
            )
        return fitting[0]

    def open(self, name: str) -> RunReader:
        """A run or sample for looking.

        Raises:
            StoreError: there is no run of that name, or its database cannot be read.
        """
        if self._known(name):
            return RunReader(self._directory(name), name)
        sample = self._sample_paths().get(name)
        if sample is None:
            raise _unknown(name, self.names())
        return RunReader(sample, name, sample=True)

    def writer(self, name: str) -> RunWriter:
        """Hold a run for working on it; only its worker does.

        Raises:
            StoreError: another live worker holds it, it is unknown or a sample, or cannot be used.
        """
        self._require_own(name)
        return RunWriter(self._directory(name), name)

    def command(self, name: str, verb: str, **arguments: object) -> int:
        """Put a command for a run's worker into the queue; returns its id.

        Raises:
            StoreError: the run is unknown, a sample or somebody else's.
        """
        self.require_command(name)
        with self._steering() as index:
            command = index.execute(
                "INSERT INTO commands(run, verb, arguments, issued) VALUES (?, ?, ?, ?)",
                (name, verb, json.dumps(arguments), time.time()),
            ).lastrowid
        assert command is not None
        return command

    def commands(self, name: str, after: int = 0) -> list[Command]:
        """The commands for a run with ids above `after`, oldest first.

        Raises:
            StoreError: the run is not, or no longer, in the index.
        """
        self._require_own(name)
        rows = self._indexed(
            "SELECT * FROM commands WHERE run = ? AND id > ? ORDER BY id", name, after
        )
        return [Command(**{**dict(row), "arguments": json.loads(row["arguments"])}) for row in rows]

    def delete(self, name: str) -> None:
        """Remove a run, a table, a lab or a search and its files for good.

        Args:
            name: of the run; or what the other is known by (see `Turn`).

        Raises:
            StoreError: it is unknown, a sample, somebody else's, or being worked on.
        """
        self.require_command(name)
        directory, kind, short = folder_of(self.home, name), kind_of(name), name.rpartition("/")[2]
        held = None
        if directory.is_dir():
            try:
                held = RunLock(directory)
            except BlockingIOError as error:
                raise StoreError(
                    f"{kind.capitalize()} {short} is running; stop it with `netweld stop {short}` "
                    f"first."
                ) from error
        if kind != "run":
            file_of(self.home, name).unlink(missing_ok=True)
        with self._steering() as index:
            index.execute("DELETE FROM runs WHERE name = ?", (name,))
            index.execute("DELETE FROM commands WHERE run = ?", (name,))
            index.execute("DELETE FROM forks WHERE run = ?", (name,))
            index.execute("DELETE FROM owners WHERE run = ?", (name,))
            index.execute("DELETE FROM turns WHERE run = ?", (name,))
        if held is not None:
            held.release()
            shutil.rmtree(directory, ignore_errors=True)

    def require_command(self, name: str) -> None:
        """Refuse to change what is not of whoever asks (see `merge_core.owners`).

        Raises:
            StoreError: it is unknown, a sample or somebody else's.
        """
        if kind_of(name) == "run":
            self._require_own(name)
        elif name not in others(self.home):
            raise _unknown(name, others(self.home))
        self.require_owner(name)

    def require_owner(self, key: str) -> None:
        """Refuse to change what is somebody else's.

        Args:
            key: a run's name; or what a table, a lab or a search is known by (see `Turn`).

        Raises:
            StoreError: it is somebody else's.
        """
        who = owners.acting()
        if not who.commands_all:
            who.require(key, Turns(self.home).owner(key), kind_of(key))

    def directory(self, name: str) -> Path:
        """Where the files of a run are.

        Raises:
            StoreError: the run is unknown or a sample.
        """
        self._require_own(name)
        return self._directory(name)

    def _directory(self, name: str) -> Path:
        """The place of a name that came from the index, never from a user."""
        return self.home / "runs" / name

    def _sample_paths(self) -> dict[str, Path]:
        return {
            path.parent.name: path.parent
            for path in sorted(self._samples.glob("*/run.sqlite"))
            if NAME.fullmatch(path.parent.name)
        }

    def _known(self, name: str) -> bool:
        return bool(self._indexed("SELECT 1 FROM runs WHERE name = ?", name))

    def _require_own(self, name: str) -> None:
        if not self._known(name):
            if name in self._sample_paths():
                raise StoreError(
                    f"Run {name} is a sample that comes with netweld and stays as it is; "
                    f"start a run of your own with `netweld merge`."
                )
            raise _unknown(name, self.names())

    def _indexed(self, query: str, *values: object, since: int = 1) -> list[sqlite3.Row]:
        """What a query finds; nothing in an index of a version before `since`."""
        if not self._index.exists():
            return []
        with closing(look(self._index)) as index:
            try:
                return index.execute(query, values).fetchall() if version(index) >= since else []
            except sqlite3.Error as error:
                raise unreadable(self._index, error) from error

    @contextmanager
    def _steering(self) -> Iterator[sqlite3.Connection]:
        """The index in one write transaction."""
        with closing(create(self._index, INDEX_TABLES)) as index:
            try:
                index.execute("BEGIN IMMEDIATE")
                yield index
                index.execute("COMMIT")
            except sqlite3.Error as error:
                raise unreadable(self._index, error) from error


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise StoreError(
            f"The file {str(path)!r} cannot be read ({error.strerror}); check the path."
        ) from error


def _unknown(name: str, names: list[str]) -> StoreError:
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "list them with `netweld runs`."
    return StoreError(f"There is no {kind_of(name)} {name!r}; {hint}")
