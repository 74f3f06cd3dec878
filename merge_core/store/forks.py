"""The past of a run, taken over by a fork: rows are copied, files are shared."""

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from merge_core.store.databases import RUN_TABLES, create, look
from merge_core.store.reader import RunReader
from merge_core.store.steered import ForkPoint, kept_name

_OWN_FACTS = ("returned", "inputs")
"""Facts that a fork does not take over."""


def take_over(
    reader: RunReader, directory: Path, facts: Mapping[str, Any], point: ForkPoint
) -> None:
    """Write the database of a fork, and give it the files that it needs.

    Files are hard links, so that they take no room and stay when the parent is deleted; where the
    file system has no hard links, they are copies.

    Args:
        reader: the parent, which may be running.
        directory: of the fork, empty.
        facts: the fork's own facts, which replace the parent's.
        point: one of the parent's `fork_points`.

    Raises:
        OSError, sqlite3.Error: something cannot be read or written.
    """
    path = reader.directory / "run.sqlite"
    with closing(look(path, immutable=reader.sample)) as parent:
        parent.execute("BEGIN")  # a running parent writes on meanwhile: all is of one moment
        past = _Past(parent, point)
    with closing(create(directory / "run.sqlite", RUN_TABLES)) as fork:
        fork.execute("BEGIN")
        past.facts = {k: v for k, v in past.facts.items() if k not in _OWN_FACTS} | {
            key: json.dumps(value) for key, value in facts.items()
        }
        past.write(fork)
        fork.execute("COMMIT")
    for file in {row["file"] for row in past.rows["artifacts"]}:
        _share(reader.directory / file, directory / file)


class _Past:
    """What a run has had up to a point.

    Attributes:
        facts: key → JSON.
        rows: table → its rows.
    """

    def __init__(self, parent: sqlite3.Connection, point: ForkPoint) -> None:
        def read(table: str) -> list[dict[str, Any]]:
            return [dict(row) for row in parent.execute(f"SELECT * FROM {table}")]

        self.facts = {row["key"]: row["value"] for row in read("facts")}
        stages = {row["stage"]: row for row in read("stages")}
        at = stages[point.stage]
        epochs = at["epochs"] if point.epoch is None else point.epoch
        over = {
            stage
            for stage, row in stages.items()
            if row["position"] < at["position"] + (point.epoch is None)
        }
        for stage, row in stages.items():
            if stage not in over:
                started = row["started"] if stage == point.stage else None
                row |= {"started": started, "finished": None, "seconds": None, "facts": "{}"}

        def past(row: Mapping[str, Any], moment: int, latest: float) -> bool:
            return row["stage"] in over or (row["stage"] == point.stage and moment <= latest)

        steps = at["steps"] * epochs / max(at["epochs"], 1)
        artifacts = [
            row
            for row in read("artifacts")
            if row["name"] != "checkpoint"
            and past(row, epochs + 1 if row["epoch"] is None else row["epoch"], epochs)
        ]
        if point.epoch is not None:
            name = kept_name(point.stage, point.epoch)
            (here,) = [row for row in artifacts if row["name"] == name]
            artifacts.append({**here, "name": "checkpoint"})
        self.rows = {
            "stages": list(stages.values()),
            "metrics": [row for row in read("metrics") if past(row, row["epoch"], epochs)],
            "openness": [row for row in read("openness") if past(row, row["epoch"], epochs)],
            "scores": [row for row in read("scores") if row["stage"] in over],
            "kept": read("kept") if "cut" in over else [],
            "artifacts": artifacts,
            "acknowledgements": [
                row
                for row in read("acknowledgements")
                if row["stage"] is None or past(row, *_moment(row, steps, epochs))
            ],
        }

    def write(self, fork: sqlite3.Connection) -> None:
        """Insert it all into empty tables."""
        fork.executemany("INSERT INTO facts VALUES (?, ?)", self.facts.items())
        for table, rows in self.rows.items():
            for row in rows:
                columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
                fork.execute(f"INSERT INTO {table}({columns}) VALUES ({values})", row)


def _moment(answer: Mapping[str, Any], steps: float, epochs: int) -> tuple[int, float]:
    """When a command takes effect, and the latest such moment of the past."""
    epoch = answer.get("epoch")
    # A change that holds from an epoch on belongs to the past once that epoch is over.
    return (answer["step"], steps) if epoch is None else (epoch, epochs)


def _share(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
