"""One run as its readers see it: read-only, never blocking the worker."""

import json
import math
import sqlite3
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from merge_core.errors import StoreError
from merge_core.events import ChannelsKept, Resume, StageFinished
from merge_core.progress import Headway, Reading, headway
from merge_core.recipes import Comparison, Experiment, Recipe, from_json, with_article
from merge_core.store import artifacts
from merge_core.store.databases import held, look, unreadable
from merge_core.store.steered import Answer, Branch, ForkPoint

_parsed = lru_cache(256)(from_json)
"""Pages that move read the same recipe again and again."""
_PLAN = "stage, epochs, steps, flops, started, finished, seconds"
INPUTS = "inputs"
"""The folder of a run with the files that were given to it."""


class RunReader:
    """A run opened for looking; a context manager.

    Every method reads what is there now and raises StoreError when the database or a file of the
    run is missing or damaged.

    Attributes:
        name: the run's name.
        sample: whether it is one of the finished runs that come with netweld.
        directory: where its files are.
    """

    def __init__(self, directory: Path, name: str, *, sample: bool = False) -> None:
        self.name = name
        self.sample = sample
        self.directory = directory
        self._path = directory / "run.sqlite"
        self._database = look(self._path, immutable=sample)

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
        """Close the database; the reader is of no use afterwards."""
        self._database.close()

    def _rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        try:
            return [dict(row) for row in self._database.execute(query, values)]
        except sqlite3.Error as error:
            raise unreadable(self._path, error) from error

    def facts(self) -> dict[str, Any]:
        """Small facts about the run: "created", "device", "versions", "first_layer", ..."""
        rows = self._rows("SELECT key, value FROM facts")
        return {row["key"]: json.loads(row["value"]) for row in rows}

    @property
    def recipe(self) -> Experiment:
        """The recipe of the run, as steered so far: a new run of it gives the same numbers.

        RecipeError when this version of netweld cannot read it.
        """
        (row,) = self._rows("SELECT value FROM facts WHERE key = 'recipe'")
        return _parsed(row["value"])

    @property
    def merge(self) -> Recipe:
        """The recipe of a run that merges; StoreError for any other."""
        recipe = self.recipe
        if isinstance(recipe, Recipe):
            return recipe
        raise StoreError(
            f"Run {self.name} is {with_article(recipe.kind)}, but a merge was expected; give a "
            f"run of a recipe that merges."
        )

    @property
    def comparison(self) -> Comparison:
        """The recipe of a run that compares; StoreError for any other."""
        recipe = self.recipe
        if isinstance(recipe, Comparison):
            return recipe
        raise StoreError(
            f"Run {self.name} is {with_article(recipe.kind)}, but a comparison was expected; "
            f"compare its teachers with `netweld compare {self.name}`."
        )

    def inputs(self) -> list[Path]:
        """The files that were given to the run when it was made, in the order of the teachers."""
        return [self.directory / INPUTS / file for file in self.facts().get("inputs", [])]

    @property
    def code(self) -> Path | None:
        """The folder in which the run's own network is found; None where it has none."""
        folder = self.facts().get("code")
        return Path(folder) if folder else None

    @property
    def device(self) -> str:
        """The device that the run uses, once known; before, the one that was asked for."""
        facts = self.facts()
        return facts.get("device", facts["device_asked"])

    @property
    def place(self) -> str:
        """The device, and how networks learn there if not in float32 by eager code."""
        return f"{self.device}{self.facts().get('computing', self.recipe.computing)}"

    def status(self) -> dict[str, Any]:
        """What the run is doing.

        Returns:
            "state" ("queued", "running", "paused", "finished", "stopped", "failed" or "lost": it
            should be running, but its worker is gone), "stage", "step", "message" (a sentence or
            empty), "pid" and "heartbeat" of the last worker.
        """
        rows = self._rows("SELECT state, stage, step, message, pid, heartbeat FROM status")
        if not rows:
            return {
                "state": "queued",
                "stage": None,
                "step": 0,
                "message": "",
                "pid": None,
                "heartbeat": None,
            }
        status = rows[0]
        if status["state"] in ("running", "paused") and not held(self.directory):
            status["state"] = "lost"
            status["message"] = "Its worker process is gone; resume it to go on."
        return status

    def plan(self) -> list[dict[str, Any]]:
        """The planned stages in order: "stage", "epochs", "steps", "flops", "started", "finished"
        and "seconds" (None until then).
        """
        return self._rows(f"SELECT {_PLAN} FROM stages ORDER BY position")

    def stages(self) -> list[dict[str, Any]]:
        """`plan` with the "facts" of each stage, which are longer than all the rest."""
        rows = self._rows(f"SELECT {_PLAN}, facts FROM stages ORDER BY position")
        for row in rows:
            row["facts"] = json.loads(row["facts"])
        return rows

    def reading(self) -> Reading | None:
        """How far a run that works is with reading its images; None where it reads none."""
        rows = self._rows("SELECT value FROM facts WHERE key = 'reading'")
        told = json.loads(rows[0]["value"]) if rows else None
        return Reading(**told) if told else None

    def headway(self) -> Headway:
        """How far the run is and how long it will take."""
        return headway(self.plan(), self.status(), self.sessions())

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Rows "stage", "epoch", "step", "name", "value", of one stage or of all, in order."""
        rows = self._rows(
            "SELECT stage, epoch, step, name, value FROM metrics JOIN stages USING (stage) "
            "WHERE ?1 IS NULL OR stage = ?1 ORDER BY position, epoch, name",
            stage,
        )
        return [_with_nan(row) for row in rows]

    def epochs_done(self, stage: str) -> int:
        """How many epochs of a stage are over."""
        (row,) = self._rows("SELECT max(epoch) AS last FROM metrics WHERE stage = ?", stage)
        return row["last"] or 0

    def latest(self, stage: str, name: str) -> float | None:
        """A metric after the last epoch of a stage so far; None before there is one."""
        rows = self._rows(
            "SELECT value FROM metrics WHERE stage = ? AND name = ? ORDER BY epoch DESC LIMIT 1",
            stage,
            name,
        )
        return _with_nan(rows[0])["value"] if rows else None

    def scores(self) -> list[dict[str, Any]]:
        """Rows "stage", "split", "metric", "value" of the finished stages, in order."""
        rows = self._rows(
            "SELECT stage, split, metric, value FROM scores JOIN stages USING (stage) "
            "ORDER BY position, split, metric"
        )
        return [_with_nan(row) for row in rows]

    def score(self, stage: str, split: str, metric: str) -> float | None:
        """One score of a finished stage; None when there is none."""
        rows = self._rows(
            "SELECT value FROM scores WHERE stage = ? AND split = ? AND metric = ?",
            stage,
            split,
            metric,
        )
        return _with_nan(rows[0])["value"] if rows else None

    def openness(self, space: str | None = None) -> list[dict[str, Any]]:
        """P[gate open] after every epoch of the gate stage, of one space or of all.

        Returns:
            Rows "stage", "epoch", "space", "probabilities" (`(channels,)` float32), by epoch.
        """
        rows = self._rows(
            "SELECT stage, epoch, space, probabilities FROM openness "
            "WHERE ?1 IS NULL OR space = ?1 ORDER BY epoch, rowid",
            space,
        )
        for row in rows:
            row["probabilities"] = np.frombuffer(row["probabilities"], "<f4")
        return rows

    def kept(self) -> list[dict[str, Any]]:
        """The channels that the cut kept, one row per space in the order of the network.

        Returns:
            Rows "space", "kept" (`(size,)` int64 into the big student's space),
            "open_probability" and "gate" (`(teachers * size,)` float32), "teachers".
        """
        rows = self._rows(
            "SELECT space, kept, open_probability, gate, teachers FROM kept ORDER BY rowid"
        )
        for row in rows:
            row["kept"] = np.frombuffer(row["kept"], "<i8")
            row["open_probability"] = np.frombuffer(row["open_probability"], "<f4")
            row["gate"] = np.frombuffer(row["gate"], "<f4")
        return rows

    def provenance(self) -> dict[str, np.ndarray]:
        """Where each kept channel comes from: `{space: (size, 2) int64}`.

        Column 0 is the teacher (0 for A, 1 for B), column 1 the channel's index there.
        """
        origin = {}
        for row in self.kept():
            size = len(row["open_probability"]) // row["teachers"]
            origin[row["space"]] = np.stack(np.divmod(row["kept"], size), axis=1)
        return origin

    def artifacts(self) -> list[dict[str, Any]]:
        """Rows "name", "file", "sha256", "bytes", "written", "stage", "epoch" (of a checkpoint)."""
        return self._rows(
            "SELECT name, file, sha256, bytes, written, stage, epoch FROM artifacts ORDER BY name"
        )

    def artifact(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one artifact: a stage's key, or "checkpoint".

        Raises:
            StoreError: there is none of that name, or its file is missing or damaged.
        """
        rows = self._rows("SELECT file, sha256 FROM artifacts WHERE name = ?", name)
        if not rows:
            known = ", ".join(row["name"] for row in self.artifacts()) or "none yet"
            raise StoreError(f"Run {self.name} has no artifact {name!r}; it has these: {known}.")
        return artifacts.load(self.directory / Path(rows[0]["file"]).name, rows[0]["sha256"])

    def resume(self) -> Resume:
        """What an interrupted run already has.

        A damaged checkpoint is left out: its stage then starts again and gives the same numbers.

        Raises:
            StoreError: the arrays of a finished stage are missing or damaged.
        """
        stored = {row["name"]: row for row in self.artifacts()}
        scores: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.scores():
            splits = scores.setdefault(row["stage"], {})
            splits.setdefault(row["split"], {})[row["metric"]] = row["value"]
        finished = {
            row["stage"]: StageFinished(
                stage=row["stage"],
                scores=scores.get(row["stage"], {}),
                seconds=row["seconds"],
                arrays=self.artifact(row["stage"]) if row["stage"] in stored else {},
                facts=row["facts"],
            )
            for row in self.stages()
            if row["finished"] is not None
        }
        stage, checkpoint = None, {}
        if "checkpoint" in stored:
            try:
                checkpoint = self.artifact("checkpoint")
                stage = stored["checkpoint"]["stage"]
            except StoreError:
                checkpoint = {}
        return Resume(
            finished=finished,
            kept=tuple(ChannelsKept(**row) for row in self.kept()),
            stage=stage,
            checkpoint=checkpoint,
        )

    def answers(self) -> list[Answer]:
        """What became of each command, in the order of the commands."""
        found = []
        for row in self._rows("SELECT * FROM acknowledgements ORDER BY command"):
            # A run of the first version of the tables knew no command but this.
            row = {"verb": "stop", "epoch": None, "words": "stopped", **row}
            row["refused"] = bool(row.get("refused"))
            row["arguments"] = json.loads(row.get("arguments", "{}"))
            found.append(Answer(**row))
        return found

    def fork_points(self) -> list[ForkPoint]:
        """The moments that the run can be forked from, in order.

        They are the epochs of the gate stage whose state was kept, and the ends of all stages whose
        network is there.
        """
        stored = self.artifacts()
        names = {row["name"] for row in stored}
        points = []
        for row in self.stages():
            stage = row["stage"]
            points += [
                ForkPoint(stage=stage, epoch=epoch)
                for epoch in sorted(
                    each["epoch"]
                    for each in stored
                    if each["stage"] == stage and each["name"] not in (stage, "checkpoint")
                )
            ]
            # A sample goes without the network that all stages after its gates are made from.
            if row["finished"] is None or (stage == "gates" and stage not in names):
                break
            points.append(ForkPoint(stage=stage))
        return points

    def branch(self) -> Branch | None:
        """Where the run was forked from; None when it was not."""
        fact = self.facts().get("forked")
        if fact is None:
            return None
        point = ForkPoint(stage=fact["stage"], epoch=fact["epoch"])
        return Branch(run=self.name, parent=fact["parent"], point=point)

    def sessions(self) -> list[dict[str, Any]]:
        """One row per worker process that worked on the run, in order.

        Returns:
            Rows "id", "pid", "started", "working" (when its first stage began, or None),
            "flops_before" (done by then), "ended" (None while it runs; the last heartbeat of a
            process that was killed, filled in by the next one), "resumed_from" (words, None
            for the first) and "paused" (seconds).
        """
        rows = self._rows("SELECT * FROM sessions ORDER BY id")
        return [{"paused": 0.0, **row} for row in rows]


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    """SQLite stores NaN as NULL."""
    if row["value"] is None:
        row["value"] = math.nan
    return row
