"""What `netweld bench survival` counts, with made-up runs instead of training, a few times each."""

import os
import random
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import stand_in

from merge_core import bench_survival, processes
from merge_core.bench_survival import Count
from merge_core.errors import NetweldError
from merge_core.store import Store

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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(processes, "WORKER", ("-c", WORKER))
    return Store(tmp_path / "home", samples=tmp_path / "samples")


def assert_survived(count: Count) -> None:
    assert count.tried > 0
    assert count.survived == count.tried, count.note


def test_killed_workers(store: Store):
    reference = bench_survival.whole(store)
    assert_survived(bench_survival.kill_workers(store, reference, 6, random.Random(0)))


def test_workers_that_are_left_alone_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(processes, "WORKER", ("-c", WORKER))

    def begin(store: Store) -> "subprocess.Popen[bytes]":
        return stand_in.begin(monkeypatch, store.home / "labs" / "some.jsonl", None)

    assert_survived(bench_survival.orphan_workers(tmp_path, 2, random.Random(0), begin))


@pytest.mark.slow
def test_real_workers_killed_twenty_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    reference = bench_survival.whole(store)
    assert_survived(bench_survival.kill_workers(store, reference, 20, random.Random(0)))


def test_damaged_files(store: Store):
    reference = bench_survival.whole(store)
    before = bench_survival.numbers(store, reference)
    assert_survived(bench_survival.damage_files(store, reference, 6, random.Random(0)))
    assert bench_survival.numbers(store, reference) == before


def test_a_full_disk(store: Store):
    expected = bench_survival.numbers(store, bench_survival.whole(store))
    try:
        count = bench_survival.fill_disks(expected, 1, random.Random(0))
    except NetweldError as error:
        pytest.skip(str(error))
    assert_survived(count)


def test_killed_dashboards(store: Store):
    reference = bench_survival.whole(store)
    assert_survived(bench_survival.kill_dashboards(store, reference, 1, random.Random(0)))


def test_a_run_that_ended_otherwise_does_not_count_as_survived(store: Store):
    reference = bench_survival.whole(store)
    expected = bench_survival.numbers(store, reference)
    with closing(sqlite3.connect(store.directory(reference) / "run.sqlite")) as database:
        database.execute("UPDATE metrics SET value = value + 1e-9 WHERE epoch = 2")
        database.commit()
    assert bench_survival.numbers(store, reference) != expected
