"""What `netweld bench survival` counts, with made-up runs instead of training, a few times each."""

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import stand_in

from merge_core import bench_survival, processes
from merge_core.bench_survival import Count
from merge_core.errors import NetweldError
from merge_core.store import Store

REAL = processes.WORKER
TESTS = Path(__file__).resolve().parent
WORKER = f"""
import sys, time
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
from made_up_run import made_up
from merge_core import processes, worker

processes.WORKER = tuple(sys.orig_argv[1:3])
worker.CHECKPOINT_SECONDS = 0.1
worker.BEAT_SECONDS = 0.1

def fake(work):
    for event in made_up(work.resume):
        time.sleep(0.05)
        yield event

worker.carry_out = fake
sys.exit(worker.main())
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sends SIGKILL")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The store of all tests; its workers do a made-up run."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NETWELD_SLOTS", "1")
        patched.setattr(processes, "WORKER", ("-c", WORKER))
        yield Store(home, samples=home / "samples")


@pytest.fixture(scope="module")
def reference(store: Store) -> str:
    """A run that nothing happened to."""
    return bench_survival.whole(store)


def assert_survived(count: Count) -> None:
    assert count.tried > 0
    assert count.survived == count.tried, count.note


def test_killed_workers(store: Store, reference: str):
    assert_survived(bench_survival.kill_workers(store, reference, 6, random.Random(0)))


@pytest.mark.usefixtures("store")  # its workers
def test_workers_that_are_left_alone_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def begin(store: Store) -> "subprocess.Popen[bytes]":
        return stand_in.begin(monkeypatch, store.home / "labs" / "some.jsonl", None)

    assert_survived(bench_survival.orphan_workers(tmp_path, 2, random.Random(0), begin))


@pytest.mark.slow
def test_real_workers_killed_twenty_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(processes, "WORKER", REAL)
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    reference = bench_survival.whole(store)
    assert_survived(bench_survival.kill_workers(store, reference, 20, random.Random(0)))


def test_damaged_files(store: Store, reference: str):
    before = bench_survival.numbers(store, reference)
    assert_survived(bench_survival.damage_files(store, reference, 6, random.Random(0)))
    assert bench_survival.numbers(store, reference) == before


def test_a_full_disk(store: Store, reference: str):
    expected = bench_survival.numbers(store, reference)
    try:
        count = bench_survival.fill_disks(expected, 1, random.Random(0))
    except NetweldError as error:
        pytest.skip(str(error))
    assert_survived(count)


def test_killed_dashboards(store: Store, reference: str):
    assert_survived(bench_survival.kill_dashboards(store, reference, 1, random.Random(0)))


def test_a_run_that_ended_otherwise_does_not_count_as_survived(
    store: Store, reference: str, tmp_path: Path
):
    expected = bench_survival.numbers(store, reference)
    shutil.copytree(store.home, tmp_path / "home")
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    assert bench_survival.numbers(store, reference) == expected
    with closing(sqlite3.connect(store.directory(reference) / "run.sqlite")) as database:
        database.execute("UPDATE metrics SET value = value + 1e-9 WHERE epoch = 2")
        database.commit()
    assert bench_survival.numbers(store, reference) != expected
