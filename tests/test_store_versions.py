"""A store of an older netweld: read as it is, brought up to date by whoever writes to it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from made_up_run import made_up, recipe

from merge_core.errors import StoreError
from merge_core.store import ForkPoint, Store
from merge_core.store.databases import SCHEMA

INDEX_1 = """
CREATE TABLE runs(
    name TEXT PRIMARY KEY, recipe TEXT NOT NULL, recipe_name TEXT NOT NULL, preset TEXT NOT NULL,
    seed INTEGER NOT NULL, device TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE commands(
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, verb TEXT NOT NULL,
    arguments TEXT NOT NULL, issued REAL NOT NULL);
CREATE INDEX commands_of_run ON commands(run, id);
PRAGMA user_version = 1;
"""
RUN_1 = """
DROP TABLE acknowledgements;
DROP TABLE sessions;
CREATE TABLE acknowledgements(
    command INTEGER PRIMARY KEY, stage TEXT, step INTEGER NOT NULL, time REAL NOT NULL);
CREATE TABLE sessions(
    id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, started REAL NOT NULL, working REAL,
    flops_before REAL, ended REAL, resumed_from TEXT);
INSERT INTO acknowledgements VALUES (3, 'gates', 25, 1000.0);
INSERT INTO sessions VALUES (1, 4711, 900.0, 901.0, 0.0, 1000.0, NULL);
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> tuple[Store, str]:
    """A store of the first version with a run that was stopped in its gate stage."""
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        for event in list(made_up())[:38]:
            writer.write(event)
        writer.finish("stopped", "Stopped as asked.")
    with closing(sqlite3.connect(store.home / "index.sqlite")) as index:
        rows = index.execute(
            "SELECT name, recipe, recipe_name, preset, seed, device, created FROM runs"
        ).fetchall()
    for path in store.home.glob("index.sqlite*"):
        path.unlink()
    with closing(sqlite3.connect(store.home / "index.sqlite")) as index:
        index.executescript(INDEX_1)
        index.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        index.execute("INSERT INTO commands VALUES (3, ?, 'stop', '{}', 999.0)", (name,))
        index.commit()
    with closing(sqlite3.connect(store.directory(name) / "run.sqlite")) as database:
        database.executescript(RUN_1)
    return store, name


def versions(store: Store, name: str) -> list[int]:
    found = []
    for path in (store.home / "index.sqlite", store.directory(name) / "run.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            found += database.execute("PRAGMA user_version").fetchone()
    return found


def look(store: Store, name: str) -> None:
    (summary,) = [run for run in store.runs() if run.name == name]
    assert summary.recipe == recipe()
    with store.open(name) as reader:
        (answer,) = reader.answers()
        assert (answer.command, answer.verb, answer.stage, answer.step) == (3, "stop", "gates", 25)
        assert not answer.refused
        assert reader.sessions()[0]["paused"] == 0
        assert reader.headway().elapsed >= 100
        assert ForkPoint(stage="big") in reader.fork_points()
        assert reader.branch() is None


def test_old_store_is_read_and_left_as_it_is(old: tuple[Store, str]):
    store, name = old
    look(store, name)
    assert store.forks() == []
    assert len(store.commands(name)) == 1
    assert versions(store, name) == [1, 1]


def test_writing_brings_it_up_to_date(old: tuple[Store, str]):
    store, name = old
    store.command(name, "pause")
    assert versions(store, name) == [SCHEMA, 1]
    with store.writer(name) as writer:
        assert writer.resumed
        writer.finish("stopped", "Stopped as asked.")
    assert versions(store, name) == [SCHEMA, SCHEMA]
    look(store, name)


def test_an_old_run_can_be_forked(old: tuple[Store, str]):
    store, name = old
    fork = store.fork(name, recipe(), ForkPoint(stage="big"))
    assert versions(store, name) == [SCHEMA, 1], "the parent is only read"
    assert versions(store, fork) == [SCHEMA, SCHEMA]
    with store.open(fork) as reader:
        assert reader.status()["state"] == "queued"
        assert list(reader.resume().finished) == ["teacher_a", "teacher_b", "ensemble", "big"]
        assert reader.answers() == []


def test_a_later_version_is_refused(old: tuple[Store, str]):
    store, name = old
    with closing(sqlite3.connect(store.directory(name) / "run.sqlite")) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(StoreError, match=f"version {SCHEMA + 1}"):
        store.open(name)
