"""A clock that jumps an hour forth and a day back: numbers, states and times stay right."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_run import made_up
from made_up_run import recipe as made_up_recipe
from test_worker_killed import TINY

from merge_core import bench_survival, launch, owners, queue
from merge_core.carriers import Asked, Carrier, progress_of
from merge_core.events import EpochFinished, StageStarted
from merge_core.hearing import Ears
from merge_core.owners import Visitor
from merge_core.presets import find_preset
from merge_core.store import Store, Turns
from merge_core.views.steerable import steerable

JUMPS = (0.0, 3600.0, -86400.0)
CUSTOMISED = f"""
import atexit, itertools, time

real, jumps, seen = time.time, itertools.cycle({JUMPS}), []

def jumping():
    seen.append(next(jumps))
    return real() + seen[-1]

time.time = jumping
atexit.register(lambda: print("looked at the clock", len(seen), "times"))
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETWELD_SLOTS", "2")
    return Store(tmp_path / "home", samples=tmp_path / "samples")


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(time, "time", lambda: now)


def wait_for(store: Store, name: str, state: str) -> None:
    deadline = time.monotonic() + 60
    with store.open(name) as reader:
        while reader.status()["state"] != state:
            assert time.monotonic() < deadline, f"it is {reader.status()}, not {state}"
            time.sleep(0.02)


def looked_at_the_clock(log: Path) -> int:
    """How often a worker did, which it tells with its very last breath."""
    deadline = time.monotonic() + 60
    while not (told := re.findall(r"^looked at the clock (\d+) times$", log.read_text(), re.M)):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return int(told[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the same numbers are promised on one system")
def test_a_merge_whose_worker_sees_it_jump(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = find_preset("sine", "quick").recipe.changed(TINY["sine"])
    whole, _ = launch.begin(store, recipe, "cpu")
    (tmp_path / "sitecustomize.py").write_text(CUSTOMISED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    name, _ = launch.begin(store, recipe, "cpu")
    store.command(name, "pause")
    wait_for(store, name, "paused")
    assert not queue.ended(store, name)
    time.sleep(0.3)
    store.command(name, "go")
    for each in (whole, name):
        queue.wait(store, each)
    took = time.monotonic() - began
    assert bench_survival.numbers(store, name) == bench_survival.numbers(store, whole)
    assert looked_at_the_clock(store.directory(name) / "worker.log") >= len(JUMPS)
    with store.open(name) as reader:
        assert [answer.verb for answer in reader.answers()] == ["pause", "go"]
        (session,) = reader.sessions()
        assert 0.2 < session["paused"] < took
        assert 0 < reader.headway().elapsed < took
        assert reader.status()["state"] == "finished"
        for stage in reader.stages():
            assert 0 <= stage["finished"] - stage["started"] < took


@pytest.mark.parametrize("jump", JUMPS)
def test_time_spent_and_left_of_a_run_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Both that of the worker and that of whoever looks jump."""
    name, real = store.create(made_up_recipe(), "cpu"), time.time()
    began = time.monotonic()
    with store.writer(name) as writer, store.open(name) as reader:
        for event in made_up():
            writer.write(event)
            if isinstance(event, StageStarted):
                set_clock(monkeypatch, real + jump)
            if isinstance(event, EpochFinished):
                time.sleep(0.005)
                writer.heartbeat()
                headway, took = reader.headway(), time.monotonic() - began
                assert 0 < headway.elapsed <= took + 0.1
                if headway.left is not None:
                    assert 0 <= headway.left <= took * (1 - headway.fraction) / 0.01
        writer.finish("stopped")
        assert 0 < reader.headway().elapsed <= time.monotonic() - began


def test_shares_of_a_queue_stay_fair(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, real = Turns(store.home), time.time()
    waits = {}
    for owner in ("bob", "ada"):
        monkeypatch.setattr(owners, "_source", lambda owner=owner: Visitor(owner=owner))
        waits[owner] = store.create(made_up_recipe(), "cpu")
    had = {"ada": 0.0, "bob": 0.0}
    for jump in (0.0, 3600.0, -86400.0, 0.0):
        set_clock(monkeypatch, real + jump)
        for owner, seconds in (("bob", 100.0), ("ada", 10.0)):
            name = f"{owner}-{jump}"
            turns.ask(name, owner, device="cpu", threads=1, data="")
            turn = turns.of(name)
            assert turn is not None
            turns.end(replace(turn, began=time.monotonic() - seconds))
            had[owner] += seconds
        spent = turns.spent()
        for owner, seconds in had.items():
            assert spent[owner].seconds == pytest.approx(seconds, abs=1)
            assert 0 < spent[owner].recent <= spent[owner].seconds
        assert spent["ada"].recent < spent["bob"].recent
    for owner, name in waits.items():
        turns.ask(name, owner, device="cpu", threads=1, data="")
    for jump in JUMPS:
        set_clock(monkeypatch, real + jump)
        first = queue.crowd(store).next()
        assert first is not None
        assert first.owner == "ada"


def test_a_lab_begins_when_it_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the clock was set since its process came."""
    came, began = time.time(), time.monotonic()
    asked = Asked(seed=0, n=1, device="cpu", data="", workers=1)
    carrier = Carrier(store.home / "labs" / "some.jsonl", asked)
    for number, jump in enumerate(JUMPS[1:]):
        set_clock(monkeypatch, came + jump)
        carrier.report(0.0, None, waits=number == 0)
        told = progress_of(carrier.table)
        assert told is not None
        assert told.state == ("waiting", "running")[number]
        assert came <= told.started <= came + time.monotonic() - began + 0.1
    carrier.end("stopped")


@pytest.mark.parametrize("jump", JUMPS)
def test_a_run_that_goes_epoch_by_epoch_is_known_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Only the commands of this session count, and the clock may have been set since it began."""
    name, real = store.create(made_up_recipe(), "cpu"), time.time()
    with store.writer(name) as writer, store.open(name) as reader:
        set_clock(monkeypatch, real + jump)
        command = store.command(name, "step")
        ears = Ears(
            store, writer, name, reader.recipe, 0, keep=lambda event: None, check=lambda: None
        )
        ears.obey()
        (answer,) = reader.answers()
        found = steerable(store, reader)
        assert found is not None
        assert (answer.command, found.stepping) == (command, True)
        writer.finish("stopped")
