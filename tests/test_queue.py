"""The queue: fair, safe against kills at any moment, and nobody waits for nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import recipe

from merge_core import (
    carriers,
    inspected,
    lab_work,
    launch,
    owners,
    processes,
    queue,
    search_work,
    tabled,
)
from merge_core.carriers import Asked
from merge_core.cli import queueing
from merge_core.errors import StoreError
from merge_core.lab import Lab, LabFile
from merge_core.owners import Visitor
from merge_core.presets import find_preset
from merge_core.queue import Crowd
from merge_core.repetitions import Results
from merge_core.search import Search, SearchFile
from merge_core.store import Limits, Spent, Store, Turn, Turns, held
from merge_core.views import queued

TESTS = Path(__file__).resolve().parent
WORKER = f"""
import sys, time
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
from made_up_run import made_up
from merge_core import processes, worker

processes.WORKER = tuple(sys.orig_argv[1:3])  # whom it starts in turn is like it

def fake(work):
    for event in made_up(work.resume):
        time.sleep(PAUSE)
        yield event

worker.carry_out = fake
sys.exit(worker.main())
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETWELD_SLOTS", raising=False)
    monkeypatch.setattr(processes, "visible_gpus", list)
    workers(monkeypatch, 0.0)
    made = Store(tmp_path / "home", samples=tmp_path / "samples")
    yield made
    for turn in Turns(made.home).all():
        if turn.pid is not None and processes.is_worker(turn.pid, turn.run):
            os.kill(turn.pid, signal.SIGKILL)


def workers(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """From now on, workers make runs up, with a pause after every event."""
    monkeypatch.setattr(processes, "WORKER", ("-c", f"PAUSE = {pause}\n{WORKER}"))


def acts_as(monkeypatch: pytest.MonkeyPatch, owner: str, *, instructor: bool = False) -> None:
    who = Visitor(owner=owner, commands_all=instructor, instructor=instructor)
    monkeypatch.setattr(owners, "_source", lambda: who)


def until(what, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def turn(number: int, owner: str, *, began: float | None = None, threads: int = 1) -> Turn:
    return Turn(
        id=number,
        run=f"r{number}",
        owner=owner,
        device="cpu",
        threads=threads,
        data="",
        after=0,
        pid=None if began is None else number,
        gpu=None,
        began=began,
    )


def crowd(waiting, busy=(), spent=None, limits=None, paused=()) -> Crowd:
    return Crowd(
        waiting=waiting,
        busy=busy,
        paused=frozenset(paused),
        spent=spent or {},
        limits=limits or Limits(),
    )


crowds = st.lists(st.sampled_from("abcd"), max_size=8)


@given(waiting=crowds, busy=crowds, recent=st.lists(st.floats(0, 1e4), min_size=4, max_size=4))
def test_whose_turn_is_next(waiting: list[str], busy: list[str], recent: list[float]):
    spent = {o: Spent(seconds=s, recent=s) for o, s in zip("abcd", recent, strict=True)}
    asked = [turn(i, owner) for i, owner in enumerate(waiting)]
    running = [turn(100 + i, owner, began=time.monotonic()) for i, owner in enumerate(busy)]
    first = crowd(asked, running, spent).first(asked)
    assert (first is None) == (not asked)
    if first is None:
        return
    assert busy.count(first.owner) == min(busy.count(owner) for owner in waiting)
    assert first.id == min(each.id for each in asked if each.owner == first.owner)
    rivals = {o for o in waiting if busy.count(o) == busy.count(first.owner)}
    assert spent[first.owner].recent <= min(spent[o].recent for o in rivals) + 1.0


@given(owners=st.lists(st.sampled_from("abc"), min_size=1, max_size=12), slots=st.integers(1, 4))
def test_shares_never_differ_by_more_than_one_while_somebody_waits(owners: list[str], slots: int):
    waiting, busy = [turn(i, owner) for i, owner in enumerate(owners)], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETWELD_SLOTS", str(slots))
        patch.setattr(processes, "visible_gpus", list)
        while (following := crowd(waiting, busy).next()) is not None:
            waiting.remove(following)
            busy.append(following)
    assert len(busy) == min(slots, len(owners))
    for left in {each.owner for each in waiting}:
        has = sum(each.owner == left for each in busy)
        assert all(sum(b.owner == o for b in busy) <= has + 1 for o in set(owners))


def test_cores_decide_how_many_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NETWELD_SLOTS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "available_cores", lambda: 4)
    monkeypatch.setattr(processes, "visible_gpus", list)
    small, large = (find_preset(name, "quick").recipe for name in ("textures", "cifar100-resnet20"))
    assert (queue.threads_for(small), queue.threads_for(large)) == (1, 4)
    three = [turn(i, "a", began=0.0) for i in range(3)]
    assert crowd([], three).fits(turn(9, "b"))
    assert not crowd([], three).fits(turn(9, "b", threads=4))
    assert crowd([], three, paused=["r0", "r1", "r2"]).fits(turn(9, "b", threads=4))
    assert crowd([]).fits(turn(9, "b", threads=64)), "a run is never too large to run alone"
    waiting = [turn(5, "b", threads=4), turn(6, "c")]
    assert crowd(waiting, three[:1]).next() is None, "nobody overtakes the first"
    monkeypatch.setenv("NETWELD_SLOTS", "2")
    assert queue.threads_for(large) == 2
    assert crowd([], three[:1]).fits(turn(9, "b", threads=4))
    assert not crowd([], three[:2]).fits(turn(9, "b"))
    monkeypatch.setenv("NETWELD_SLOTS", "many")
    with pytest.raises(StoreError, match="NETWELD_SLOTS"):
        queue.slots()


def test_a_gpu_has_one_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["0"])
    gpu = [replace(turn(i, "a"), device="auto") for i in range(2)]
    cpu = turn(7, "a")
    assert crowd(gpu).next() == gpu[0]
    assert crowd([gpu[1]], [gpu[0]]).next() is None
    assert crowd([gpu[1], cpu], [gpu[0]]).next() == cpu, "the CPU is free"


def test_limits_of_an_instructor_hold(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "9")
    mine, other = turn(1, "a"), turn(2, "b")
    busy = [turn(5, "a", began=time.monotonic())]
    assert crowd([mine], busy, limits=Limits(running=1)).next() is None
    assert crowd([mine, other], busy, limits=Limits(running=1)).next() == other
    spent = {"a": Spent(seconds=601.0)}
    assert crowd([mine], spent=spent, limits=Limits(minutes=10)).next() is None
    assert crowd([mine], spent=spent, limits=Limits(minutes=11)).next() == mine


def test_runs_go_one_after_the_other_and_nobody_needs_to_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    begun = [launch.begin(store, recipe(), "cpu") for _ in range(3)]
    names = [name for name, _ in begun]
    assert [name in started for name, started in begun] == [True, False, False]
    until(lambda: [run.state for run in store.runs()] == ["finished"] * 3)
    sessions = []
    for name in names:
        with store.open(name) as reader:
            (session,) = reader.sessions()
            sessions.append(session)
    assert all(a["ended"] <= b["started"] for a, b in pairwise(sessions))
    until(lambda: not queue.dispatch(store) and not Turns(store.home).all())
    (had,) = Turns(store.home).spent().values()
    assert had.seconds > 0


def test_a_waiting_run_knows_its_place_and_can_be_taken_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    workers(monkeypatch, 30.0)
    names = []
    for owner in ("user:a", "user:a", "user:b"):
        acts_as(monkeypatch, owner)
        names.append(launch.begin(store, recipe(), "cpu")[0])
    until(lambda: held(store.directory(names[0])))
    assert [found.run for found in queued.places(store)] == [names[2], names[1]]
    found = queued.place(store, names[1])
    assert found is not None
    assert (found.ahead, found.seconds) == (1, None)
    assert found.words == "Waits for its turn (1 before it)"
    assert found.brief == "1 before"
    assert replace(found, ahead=0, seconds=40.0).brief == "next, 40 s"
    assert replace(found, ahead=None).brief == "limit"
    assert queued.place(store, names[0]) is None
    assert queued.queue_frame(store)["Name"].tolist() == [names[0], names[2], names[1]]
    with pytest.raises(StoreError, match="somebody else's"):
        launch.stop(store, names[1])
    with pytest.raises(StoreError, match="Only an instructor"):
        queue.withdraw(store)
    acts_as(monkeypatch, "user:a")
    assert launch.stop(store, names[1]) is None
    with store.open(names[1]) as reader:
        assert reader.status()["state"] == "stopped"
    with pytest.raises(StoreError, match="nothing to stop"):
        launch.stop(store, names[1])
    assert launch.resume(store, names[1]) == []
    with pytest.raises(StoreError, match="queued already"):
        launch.resume(store, names[1])
    acts_as(monkeypatch, "user:i", instructor=True)
    assert set(queue.withdraw(store)) == {names[1], names[2]}
    assert queued.places(store) == []


def test_a_short_pause_keeps_the_place(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Only who has paused for long makes room, and who goes on has a place again."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(queue, "PAUSE_SECONDS", 0.3)
    paused = store.create(recipe(), "cpu")
    Turns(store.home).ask(paused, "user:a", device="cpu", threads=1, data="", after=0)
    with store.writer(paused) as writer:
        second, started = launch.begin(store, recipe(), "cpu")
        assert not started
        writer.pause()
        assert queue.dispatch(store) == []
        time.sleep(0.3)
        writer.heartbeat()
        assert queue.crowd(store).paused == {paused}
        writer.go_on()
        assert queue.crowd(store).paused == frozenset()
        assert queue.dispatch(store) == []
        writer.pause()
        assert queue.dispatch(store) == [second]
        queue.wait(store, second)
        writer.finish("stopped")


def test_only_its_owner_commands_a_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    workers(monkeypatch, 30.0)
    acts_as(monkeypatch, "browser:a")
    name, _ = launch.begin(store, recipe(), "cpu")
    assert Turns(store.home).owners() == {name: "browser:a"}
    acts_as(monkeypatch, "browser:b")
    for deed in (
        lambda: store.command(name, "stop"),
        lambda: store.command(name, "pause"),
        lambda: store.delete(name),
        lambda: queue.enqueue(store, name),
        lambda: queue.withdraw(store, name),
    ):
        with pytest.raises(StoreError, match="somebody else's"):
            deed()
    acts_as(monkeypatch, "browser:a")
    assert store.command(name, "stop")


def test_a_killed_worker_makes_room(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    workers(monkeypatch, 30.0)
    first, _ = launch.begin(store, recipe(), "cpu")
    workers(monkeypatch, 0.0)
    second, started = launch.begin(store, recipe(), "cpu")
    assert not started
    with store.open(first) as reader:
        until(lambda: reader.status()["state"] == "running")
        assert queue.dispatch(store) == []
        os.kill(reader.status()["pid"], signal.SIGKILL)
    until(lambda: not held(store.directory(first)))
    until(lambda: queue.dispatch(store) == [second])
    until(lambda: queue.ended(store, second))
    with store.open(first) as reader, store.open(second) as other:
        assert reader.status()["state"] == "lost"
        assert other.status()["state"] == "finished"


DYING = f"""
import os, signal, sys
sys.path[:0] = [{str(TESTS.parent)!r}]
from pathlib import Path
from merge_core import processes, queue
from merge_core.store import Store, Turns

def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[2]
if moment == "before the start":
    processes.start = die
elif moment == "after the start":
    Turns.begun = die
processes.WORKER = {("-c", f"PAUSE = 0.01{chr(10)}{WORKER}")!r}
queue.dispatch(Store(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("moment", ["before the start", "after the start"])
def test_whoever_gives_turns_may_be_killed(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
):
    """No run is stuck, and none is worked on twice."""
    monkeypatch.setattr(queue, "dispatch", lambda store: [])
    names = [launch.begin(store, recipe(), "cpu")[0] for _ in range(2)]
    monkeypatch.undo()
    monkeypatch.setenv("NETWELD_HOME", str(store.home))
    monkeypatch.setenv("NETWELD_SLOTS", "2")
    monkeypatch.setattr(processes, "visible_gpus", list)
    workers(monkeypatch, 0.01)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", DYING, str(store.home), moment], check=False)
        assert done.returncode == -signal.SIGKILL
    for name in names:
        queue.wait(store, name)
        with store.open(name) as reader:
            assert reader.status()["state"] == "finished"
            assert len(reader.sessions()) == 1
    until(lambda: not queue.dispatch(store) and not Turns(store.home).all())


def test_many_dispatchers_start_every_run_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_SLOTS", "3")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "dispatch", lambda store: [])
        names = [launch.begin(store, recipe(), "cpu")[0] for _ in range(5)]
    code = (
        f"import sys; sys.path[:0] = [{str(TESTS.parent)!r}]\n"
        "from pathlib import Path\n"
        "from merge_core import processes, queue\n"
        "from merge_core.store import Store\n"
        f"processes.WORKER = {processes.WORKER!r}\n"
        "print(len(queue.dispatch(Store(Path(sys.argv[1])))))\n"
    )
    many = [
        subprocess.Popen([sys.executable, "-c", code, str(store.home)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    started = sum(int(each.communicate()[0]) for each in many)
    assert started >= 3
    for name in names:
        queue.wait(store, name)
        with store.open(name) as reader:
            assert len(reader.sessions()) == 1
            assert reader.status()["state"] == "finished"


def test_no_process_survives_stop_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Runs of which one waits and one does not listen, an inspection, a table, a search, two labs
    of which one waits."""
    monkeypatch.setenv("NETWELD_SLOTS", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    workers(monkeypatch, 0.5)
    polite, _ = launch.begin(store, recipe(), "cpu")
    source = (
        processes.WORKER[1]
        .replace("def fake", "import signal\ndef fake")
        .replace(
            "    for event", "    signal.pthread_sigmask(signal.SIG_BLOCK, [15])\n    for event"
        )
    )
    monkeypatch.setattr(processes, "WORKER", ("-c", source.replace("PAUSE = 0.5", "PAUSE = 600")))
    deaf, _ = launch.begin(store, recipe(), "cpu")
    for name in (polite, deaf):
        with store.open(name) as reader:
            until(lambda reader=reader: reader.status()["state"] == "running")
    time.sleep(0.5)
    endless = recipe().changed({"teacher.epochs": "100000"})
    lab, other = (LabFile(Lab.usual(endless, "growth", (1, side))) for side in (1, 2))
    search = SearchFile(Search(recipe=endless))
    asked = Asked(seed=0, n=1, device="cpu", data="", workers=1, run=polite)
    carriers_of = {
        Results(endless, "epochs").path: tabled.begin(endless, "epochs", 1),
        lab.path: lab_work.begin(lab),
        search.path: search_work.begin(search, asked),  # its teachers are those of a run at work
    }
    until(lambda: len(queue.crowd(store).busy) == 4)
    waiting, _ = launch.begin(store, recipe(), "cpu")
    carriers_of[other.path] = lab_work.begin(other)
    until(lambda: len(queue.crowd(store).waiting) == 2)
    inspection = inspected.start("resnet18")
    monkeypatch.setattr(queueing, "PATIENCE_SECONDS", 5.0)
    until(lambda: len(processes.computing(store)) == 9)  # a table and a lab have workers of theirs
    pids = {process.pid for process in processes.computing(store)}
    assert pids > {inspection.process.pid, *(each.pid for each in carriers_of.values())}
    with inspection.errors:
        assert queueing.stop_all(store) == 0
    assert "1 runs that waited" in capsys.readouterr().out
    assert not pids & {p.pid for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE}
    states = {run.name: run.state for run in store.runs()}
    assert states == {polite: "stopped", deaf: "lost", waiting: "stopped"}
    ends = [carriers.progress_of(path) for path in carriers_of]
    assert [end and end.state for end in ends] == ["stopped"] * 4
    assert queue.dispatch(store) == []


def test_a_worker_in_a_long_step_ends_when_its_run_is_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    workers(monkeypatch, 600.0)
    source = processes.WORKER[1].replace(
        "worker.carry_out = fake", "worker.carry_out = fake\nworker.LAST_SECONDS = 0.5"
    )
    monkeypatch.setattr(processes, "WORKER", ("-c", source))
    name, _ = launch.begin(store, recipe(), "cpu")
    directory = store.directory(name)
    until(lambda: held(directory))
    (found,) = Turns(store.home).all()
    assert found.pid is not None
    shutil.rmtree(directory)
    pid = found.pid
    until(lambda: not processes.is_worker(pid, name), 20)
    assert queue.dispatch(store) == []
    assert Turns(store.home).all() == []
