"""The worker: whatever ends it, the run goes on to the same numbers and no written row is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_run import PLAN, made_up, recipe

from merge_core import hearing, worker
from merge_core.errors import DataError, StoreError
from merge_core.events import EpochFinished, Event, Resume, StageStarted
from merge_core.progress import Reading
from merge_core.store import Store

SLOW = """
import sys, time
from pathlib import Path
from made_up_run import made_up
from merge_core import worker
from merge_core.store import Store

def slow(work):
    for event in made_up(work.resume):
        yield event
        time.sleep(0.06)

worker.CHECKPOINT_SECONDS = 0.05
worker.BEAT_SECONDS = 0.05
sys.exit(worker.run(Store(Path(sys.argv[1])), sys.argv[2], slow))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", samples=tmp_path / "samples")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every epoch and a look for commands after every event."""
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)


def plain(work: worker.Work) -> Iterator[Event]:
    work.note("device", "cpu")
    return made_up(work.resume)


def rows(store: Store, name: str) -> dict[str, Any]:
    """Everything that must not depend on how often a run was interrupted."""
    with store.open(name) as reader:
        return {
            "metrics": reader.metrics(),
            "scores": reader.scores(),
            "openness": [(r["epoch"], r["probabilities"].tolist()) for r in reader.openness()],
            "kept": [(r["space"], r["kept"].tolist()) for r in reader.kept()],
            "arrays": [(r["name"], r["sha256"]) for r in reader.artifacts()],
            "returned": reader.facts().get("returned"),
            "state": reader.status()["state"],
        }


@pytest.fixture
def uninterrupted(store: Store) -> dict[str, Any]:
    name = store.create(recipe(), "cpu")
    assert worker.run(store, name, plain) == 0
    return rows(store, name)


def test_finished_run_holds_every_epoch(store: Store, uninterrupted: dict[str, Any]):
    assert uninterrupted["state"] == "finished"
    epochs = {(row["stage"], row["epoch"]) for row in uninterrupted["metrics"]}
    assert epochs == {(s, e) for s, n in PLAN.items() for e in range(1, n + 1)}


def test_finished_run_is_not_run_again(store: Store):
    name = store.create(recipe(), "cpu")
    assert worker.run(store, name, plain) == 0
    with pytest.raises(StoreError, match="finished"):
        worker.run(store, name, plain)


@pytest.mark.parametrize("at", [3, 11, 16, 30])
def test_stop_command_then_resume(store: Store, uninterrupted: dict[str, Any], at: int):
    name = store.create(recipe(), "cpu")

    def stopped(work: worker.Work) -> Iterator[Event]:
        for i, event in enumerate(made_up(work.resume)):
            if i == at:
                store.command(name, "stop")
            yield event

    assert worker.run(store, name, stopped) == 3
    with store.open(name) as reader:
        status = reader.status()
        assert status["state"] == "stopped"
        (told,) = reader.answers()
        assert (told.stage, told.step) == (status["stage"], status["step"])
    last = store.commands(name)[-1].id
    assert worker.run(store, name, plain, after=last) == 0
    assert rows(store, name) == uninterrupted


def test_old_stop_does_not_end_a_new_session(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name):
        pass  # a worker that died before it could hear
    command = store.command(name, "stop")
    assert worker.run(store, name, plain, after=command) == 0


def test_stop_before_the_worker_came_up_is_heard(store: Store):
    name = store.create(recipe(), "cpu")
    store.command(name, "stop")
    assert worker.run(store, name, plain) == 3


def test_a_run_that_reads_its_images_says_how_far_it_is_and_can_be_stopped(
    store: Store, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker, "PROGRESS_SECONDS", 0.0)
    name = store.create(recipe(), "cpu")
    seen: list[Reading | None] = []

    def reads(work: worker.Work) -> Iterator[Event]:
        with store.open(name) as reader:
            for done in (10, 20, 30):
                work.reading(done, 30)
                seen.append(reader.reading())
        return made_up(work.resume)

    def stopped(work: worker.Work) -> Iterator[Event]:
        work.reading(10, 30)
        store.command(name, "lambda", schedule={})  # is for later, when a stage is there
        store.command(name, "stop")
        work.reading(20, 30)
        raise AssertionError("it was not heard")

    assert worker.run(store, name, stopped) == 3
    with store.open(name) as reader:
        assert reader.status()["state"] == "stopped"
        assert reader.reading() is not None
    assert worker.run(store, name, reads, after=store.commands(name)[-1].id) == 0
    first, second, last = seen
    assert first == Reading(done=10, of=30, left=None)
    assert second is not None
    assert (second.done, second.of) == (20, 30)
    assert second.left is not None
    assert second.left >= 0
    assert last is None
    assert rows(store, name) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_like_the_command(store: Store, number: signal.Signals):
    name = store.create(recipe(), "cpu")
    before = signal.getsignal(number)

    def signalled(work: worker.Work) -> Iterator[Event]:
        for i, event in enumerate(made_up(work.resume)):
            if i == 12:
                os.kill(os.getpid(), number)
            yield event

    assert worker.run(store, name, signalled) == 3
    assert signal.getsignal(number) is before
    with store.open(name) as reader:
        assert reader.status()["state"] == "stopped"
        assert number.name in reader.status()["message"]


def test_error_for_users_fails_the_run_with_its_sentence(store: Store, uninterrupted: Any):
    name = store.create(recipe(), "cpu")

    def broken(work: worker.Work) -> Iterator[Event]:
        yield from list(made_up(work.resume))[:13]
        raise DataError("MNIST is not in the data directory; download it.")

    assert worker.run(store, name, broken) == 1
    with store.open(name) as reader:
        assert reader.status()["state"] == "failed"
        assert reader.status()["message"] == "MNIST is not in the data directory; download it."
    assert worker.run(store, name, plain) == 0, "mended, it goes on"
    assert rows(store, name) == uninterrupted


def test_unexpected_error_is_a_sentence_and_a_trace(
    store: Store, capsys: pytest.CaptureFixture[str]
):
    name = store.create(recipe(), "cpu")

    def broken(work: worker.Work) -> Iterator[Event]:
        raise ZeroDivisionError("secret detail")
        yield

    assert worker.run(store, name, broken) == 1
    with store.open(name) as reader:
        message = reader.status()["message"]
    assert "worker.log" in message
    assert "secret detail" not in message
    assert "secret detail" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["run", "home"])
def test_worker_ends_when_its_run_is_removed(store: Store, what: str):
    name = store.create(recipe(), "cpu")
    seen = []

    def removed(work: worker.Work) -> Iterator[Event]:
        for i, event in enumerate(made_up(work.resume)):
            if i == 12:
                shutil.rmtree(store.directory(name) if what == "run" else store.home)
            seen.append(event)
            yield event

    with pytest.raises(StoreError, match="deleted"):
        worker.run(store, name, removed)
    assert len(seen) == 13
    assert not (store.home / "runs" / name).exists(), "nothing comes back"


def test_heart_beats_through_a_long_step(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.02)
    name = store.create(recipe(), "cpu")
    beats = set()

    def slow(work: worker.Work) -> Iterator[Event]:
        with store.open(name) as reader:
            for _ in range(10):
                time.sleep(0.03)
                beats.add(reader.status()["heartbeat"])
        return made_up(work.resume)

    assert worker.run(store, name, slow) == 0
    assert len(beats) > 5


def test_heart_that_cannot_write_ends_the_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.01)
    name = store.create(recipe(), "cpu")

    def removed(work: worker.Work) -> Iterator[Event]:
        events = made_up(work.resume)
        yield next(events)
        (store.directory(name) / "run.sqlite").unlink()
        time.sleep(0.1)
        yield from events

    with pytest.raises(StoreError, match="deleted"):
        worker.run(store, name, removed)


def test_resume_hands_over_checkpoint_and_finished_stages(store: Store):
    name = store.create(recipe(), "cpu")
    given: list[Resume | None] = []

    def watched(work: worker.Work) -> Iterator[Event]:
        given.append(work.resume)
        for event in made_up(work.resume):
            yield event
            at = isinstance(event, EpochFinished) and (event.stage, event.epoch) == ("gates", 3)
            if at and len(given) == 1:
                raise DataError("Cut off.")

    assert worker.run(store, name, watched) == 1
    assert worker.run(store, name, watched) == 0
    fresh, resumed = given
    assert fresh is None
    assert resumed is not None
    assert resumed.stage == "gates"
    assert int(resumed.checkpoint["epoch"]) == 3
    assert list(resumed.finished) == ["teacher_a", "teacher_b", "ensemble", "big"]
    with store.open(name) as reader:
        assert [s["resumed_from"] for s in reader.sessions()] == [None, "gates, epoch 3"]


def start(store: Store, name: str) -> subprocess.Popen[bytes]:
    """A real process that runs a slowed made-up run."""
    root = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root.parent)])}
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(store.home), name],
        env=environment,
        start_new_session=True,
    )


def test_killed_again_and_again(store: Store, uninterrupted: dict[str, Any]):
    """SIGKILL at moments spread over the run; each session starts where the last was killed."""
    name = store.create(recipe(), "cpu")
    acknowledged: set[tuple[Any, ...]] = set()
    for kill in range(6):
        process = start(store, name)
        wait_for_session(store, name, kill + 1)
        time.sleep(0.1 + 0.05 * kill)
        process.kill()
        process.wait()
        with store.open(name) as reader:
            assert reader.status()["state"] == "lost"
            now = {tuple(row.values()) for row in reader.metrics()}
            assert acknowledged <= now
            acknowledged = now
    process = start(store, name)
    assert process.wait(60) == 0
    result = rows(store, name)
    assert result == uninterrupted
    assert acknowledged <= {tuple(row.values()) for row in result["metrics"]}
    assert acknowledged, "it was killed too early to show anything"
    with store.open(name) as reader:
        sessions = reader.sessions()
        assert len(sessions) == 7
        assert all(session["ended"] is not None for session in sessions)
        assert not list(reader.directory.glob("checkpoint*"))


def test_two_workers_cannot_share_a_run(store: Store):
    name = store.create(recipe(), "cpu")
    process = start(store, name)
    wait_for_session(store, name, 1)
    with pytest.raises(StoreError, match="another process"):
        worker.run(store, name, plain)
    process.kill()
    process.wait()


def wait_for_session(store: Store, name: str, count: int) -> None:
    """Wait until the worker of the `count`th session has begun a stage."""
    deadline = time.monotonic() + 30
    with store.open(name) as reader:
        while True:
            sessions = reader.sessions()
            if len(sessions) >= count and sessions[count - 1]["working"] is not None:
                return
            assert time.monotonic() < deadline, "the worker did not come up"
            time.sleep(0.01)


def test_progress_is_continuous_over_a_resume(store: Store):
    """What a resumed session has found done counts for the bar, but not for its speed."""
    name = store.create(recipe(), "cpu")

    def half(work: worker.Work) -> Iterator[Event]:
        for event in made_up(work.resume):
            yield event
            if isinstance(event, StageStarted) and event.stage == "gates":
                raise DataError("Cut off.")

    seen = []

    def watched(work: worker.Work) -> Iterator[Event]:
        with store.open(name) as reader:
            for event in made_up(work.resume):
                seen.append(reader.headway().fraction)
                yield event

    worker.run(store, name, half)
    worker.run(store, name, watched)
    assert seen[0] == pytest.approx(8 / 17)
    assert seen == sorted(seen)
    with store.open(name) as reader:
        assert reader.sessions()[1]["flops_before"] == pytest.approx(8000)
