"""Tables, labs and searches in the queue: as fair and as safe there as runs are."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import fake_labs
import pytest
import stand_in
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import recipe
from test_queue import acts_as, crowd, store, turn, until, workers

from merge_core import carriers, crew, lab_work, launch, processes, queue, search_work, tabled
from merge_core.carriers import Asked, Carrier
from merge_core.cli import main
from merge_core.cli.working import show_work
from merge_core.crew import Headway, Withdrawn
from merge_core.errors import NetweldError, StoreError
from merge_core.presets import find_preset
from merge_core.search import Search, SearchFile
from merge_core.store import Limits, Spent, Store, Turn, Turns, folder_of, key_of, kind_of
from merge_core.store.index import NAME
from merge_core.views import queued

__all__ = ["store"]  # the fixture
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

KINDS = ("", "tables/", "labs/", "searches/")


@pytest.fixture
def lab(store: Store) -> Iterator[Path]:
    path = store.home / "labs" / "some.jsonl"
    yield path
    told = carriers.progress_of(path)
    if told is not None and told.state in carriers.ALIVE and told.pid != os.getpid():
        os.kill(told.pid, signal.SIGKILL)


@pytest.fixture
def full(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run that has the only place."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    acts_as(monkeypatch, "user:first")
    name = store.create(recipe(), "cpu")
    Turns(store.home).ask(name, "user:first", device="cpu", threads=1, data="")
    with store.writer(name) as writer:
        yield name
        writer.finish("stopped")


def state(path: Path) -> str:
    told = carriers.progress_of(path)
    assert told is not None
    return told.state


def waiting(store: Store) -> list[str]:
    return [turn.run for turn in queue.crowd(store).waiting]


@given(
    waits=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(KINDS)), max_size=7),
    busy=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(KINDS)), max_size=4),
    slots=st.integers(1, 5),
    most=st.none() | st.integers(1, 3),
    spent=st.lists(st.floats(0, 1e4), min_size=3, max_size=3),
)
def test_what_a_turn_is_for_does_not_change_whose_it_is(
    waits: list[tuple[str, str]],
    busy: list[tuple[str, str]],
    slots: int,
    most: int | None,
    spent: list[float],
) -> None:
    had = {o: Spent(seconds=s, recent=s) for o, s in zip("abc", spent, strict=True)}

    def following(*, kinds: bool) -> int | None:
        def made(number: int, owner: str, kind: str, began: float | None) -> Turn:
            plain = turn(number, owner, began=began)
            return replace(plain, run=kind + plain.run) if kinds else plain

        asked = [made(i, *each, None) for i, each in enumerate(waits)]
        working = [made(100 + i, *each, 0.0) for i, each in enumerate(busy)]
        found = crowd(asked, working, had, Limits(running=most)).next()
        return None if found is None else found.id

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETWELD_SLOTS", str(slots))
        patch.setattr(processes, "visible_gpus", list)
        assert following(kinds=True) == following(kinds=False)


@given(
    folder=st.sampled_from(["tables", "labs", "searches"]),
    stem=st.from_regex(NAME, fullmatch=True)
    | st.from_regex(r"[a-z0-9]+([.-][a-z0-9]+)*\Z", fullmatch=True),
)
def test_nothing_else_is_known_by_the_name_of_a_run(folder: str, stem: str) -> None:
    path = Path("home") / folder / f"{stem}.jsonl"
    key = key_of(path)
    assert NAME.fullmatch(key) is None
    assert folder_of(Path("home"), key) == carriers.folder(path)
    assert kind_of(key) == {"tables": "table", "labs": "lab", "searches": "search"}[folder]
    for other in (f"{key}/..", f"../{key}", f"{folder}/", f"{folder}s/{stem}", stem):
        assert kind_of(other) == "run", "it is looked for among the runs"


def test_who_can_use_all_cores_counts_as_a_large_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("NETWELD_SLOTS", raising=False)
    monkeypatch.setattr(processes, "available_cores", lambda: 6)
    large = find_preset("cifar100-resnet20", "quick").recipe
    assert queue.share() == queue.threads_for(large) == 6
    monkeypatch.setenv("NETWELD_SLOTS", "3")
    assert queue.share() == queue.threads_for(large) == 2


def test_a_lab_waits_among_the_runs_and_all_go_one_after_the_other(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks on: whoever ends lets the next begin."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    workers(monkeypatch, 0.02)
    first, _ = launch.begin(store, recipe(), "cpu")
    process = stand_in.begin(monkeypatch, lab, 0.3)
    until(lambda: waiting(store) == [key_of(lab)] and state(lab) == "waiting")
    workers(monkeypatch, 0.0)
    last, started = launch.begin(store, recipe(), "cpu")
    assert not started
    assert queued.queue_frame(store)[["Kind", "Name"]].to_numpy().tolist() == [
        ["run", first],
        ["lab", "some"],
        ["run", last],
    ]
    assert process.wait(60) == 0
    assert state(lab) == "finished"
    until(lambda: {run.state for run in store.runs()} == {"finished"})
    until(lambda: not Turns(store.home).all())
    spans = []
    for name in (first, last):
        with store.open(name) as reader:
            (session,) = reader.sessions()
            spans.append((session["started"], session["ended"]))
    told = carriers.progress_of(lab)
    assert told is not None
    assert spans[0][1] <= told.started <= spans[1][0]


def test_two_at_once_have_one_place(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    table = store.home / "tables" / "other.jsonl"
    one, two = stand_in.carried(lab, 0.1), stand_in.carried(table, 0.1)
    assert not next(one).waits
    assert next(two).waits
    assert [state(path) for path in (lab, table)] == ["running", "waiting"]
    assert [place.run for place in queued.places(store)] == ["tables/other"]
    assert not any(headway.waits for headway in one)
    assert [state(path) for path in (lab, table)] == ["finished", "waiting"]
    assert not [headway.waits for headway in two][-1]
    assert state(table) == "finished"
    assert Turns(store.home).all() == []
    (had,) = Turns(store.home).spent().values()
    assert had.seconds >= 0.2
    monkeypatch.setenv("NETWELD_SLOTS", "2")
    one, two = stand_in.carried(lab), stand_in.carried(table)
    assert not next(one).waits
    assert not next(two).waits
    with closing(one), closing(two):
        pass


def test_a_file_has_one_carrier_and_the_second_takes_nobodys_turn(
    full: str, store: Store, lab: Path
) -> None:
    with closing(stand_in.carried(lab)) as first:
        assert next(first).waits
        with pytest.raises(StoreError, match="works on some already"):
            next(stand_in.carried(lab))
        assert waiting(store) == [key_of(lab)]
    assert waiting(store) == []


@pytest.mark.parametrize("moment", ["waiting", "at work"])
def test_a_killed_carrier_makes_room(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(crew, "DISPATCH_SECONDS", 0.1)
    other = stand_in.carried(store.home / "searches" / "other.jsonl")
    if moment == "waiting":
        next(other)
    process = stand_in.begin(monkeypatch, lab, 60.0)
    until(lambda: state(lab) == ("waiting" if moment == "waiting" else "running"))
    until(lambda: Turns(store.home).of(key_of(lab)) is not None)
    process.kill()
    process.wait()
    assert state(lab) == "lost"
    assert waiting(store) == []
    assert not any(headway.waits for headway in other)
    assert Turns(store.home).all() == []
    again = stand_in.carried(lab)
    assert not next(again).waits
    again.close()


def test_who_goes_on_after_a_kill_asks_anew(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn of the killed one is no turn of the next, also where nobody looked in between."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    first = store.create(recipe(), "cpu")
    Turns(store.home).ask(key_of(lab), "user:a", device="cpu", threads=1, data="", pid=1)
    Turns(store.home).begun(key_of(lab), 1, None)
    Turns(store.home).ask(first, "user:b", device="cpu", threads=1, data="")
    with store.writer(first) as writer, closing(stand_in.carried(lab)) as listening:
        assert next(listening).waits
        assert waiting(store) == [key_of(lab)]
        writer.finish("stopped")


def test_a_signal_ends_the_waiting(
    full: str, store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = stand_in.begin(monkeypatch, lab, 60.0)
    until(lambda: waiting(store) == [key_of(lab)])
    carriers.stop(lab)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert (state(lab), waiting(store)) == ("stopped", [])


def test_a_signal_while_a_worker_is_being_heard_is_a_stop(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came once between the making of the thread that listens and its start."""

    def start(thread: threading.Thread) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    store.home.mkdir(parents=True)
    with monkeypatch.context() as patch, closing(stand_in.carried(lab, None)) as work:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(SystemExit):
            list(work)
    assert (state(lab), waiting(store)) == ("stopped", [])


def test_only_who_began_it_commands_it(
    full: str, store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts_as(monkeypatch, "browser:a")
    process = stand_in.begin(monkeypatch, lab, 60.0)
    until(lambda: waiting(store) == [key_of(lab)])
    assert Turns(store.home).owner(key_of(lab)) == "browser:a", "not who has the process"
    (found,) = queued.places(store)
    assert (found.owner, found.words) == ("browser:a", "Waits for its turn (next)")
    acts_as(monkeypatch, "browser:b")
    for deed in (
        lambda: carriers.stop(lab),
        lambda: carriers.claim(lab),
        lambda: crew.begin(lab, "stand_in", {}),
        lambda: next(stand_in.carried(lab)),
        lambda: queue.withdraw(store, key_of(lab)),
    ):
        with pytest.raises(StoreError, match=r"^Lab some is somebody else's; look at it"):
            deed()
    assert waiting(store) == [key_of(lab)]
    acts_as(monkeypatch, "browser:i", instructor=True)
    assert queue.withdraw(store) == [key_of(lab)]
    assert process.wait(60) == 1
    assert state(lab) == "stopped"
    acts_as(monkeypatch, "browser:a")
    with closing(stand_in.carried(lab)) as again:
        assert next(again).waits
        assert queue.withdraw(store, key_of(lab)) == [key_of(lab)]
        with pytest.raises(Withdrawn, match="taken out of the queue"):
            next(again)


def test_what_has_no_owner_is_whoevers_machine_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run of an older netweld."""
    file = fake_labs.make(store.home)
    acts_as(monkeypatch, "browser:a")
    with pytest.raises(StoreError, match="somebody else's"):
        lab_work.begin(file)
    assert Turns(store.home).owner(key_of(file.path)) is None
    monkeypatch.undo()
    carriers.claim(file.path)
    assert str(Turns(store.home).owner(key_of(file.path))).startswith("user:")


@pytest.mark.parametrize("kind", ["table", "lab", "search"])
def test_nothing_is_begun_or_made_for_somebody_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    search, made = SearchFile(Search(recipe=recipe())), fake_labs.make(store.home)
    asked = Asked(seed=0, n=1, device="cpu", data="", workers=1)
    deeds = {
        "table": [lambda: tabled.begin(recipe(), "epochs", 1)],
        "lab": [lambda: lab_work.begin(made), lambda: next(lab_work.carry_out(made))],
        "search": [
            lambda: search_work.asked_for(search, 3, device="cpu"),
            lambda: search_work.begin(search, asked),
        ],
    }[kind]
    path = {
        "table": tabled.Results(recipe(), "epochs").path,
        "lab": made.path,
        "search": search.path,
    }[kind]
    Turns(store.home).claim(key_of(path), "browser:a")
    acts_as(monkeypatch, "browser:b")
    for deed in deeds:
        with pytest.raises(StoreError, match=f"^{kind.capitalize()} .* is somebody else's"):
            deed()
    assert store.names() == [], "a search begins no run for its teachers either"
    assert carriers.progress_of(path) is None


def test_limits_hold_for_them_too(store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETWELD_SLOTS", "5")
    monkeypatch.setattr(crew, "DISPATCH_SECONDS", 0.0)
    acts_as(monkeypatch, "browser:a")
    turns = Turns(store.home)
    store.home.mkdir(parents=True)
    turns.allow(Limits(running=1))
    table = store.home / "tables" / "other.jsonl"
    with closing(stand_in.carried(lab, 5.0)) as first, closing(stand_in.carried(table)) as second:
        assert not next(first).waits
        assert next(second).waits
        (place,) = queued.places(store)
        assert place.words == "Waits for its turn (next)", "it begins when the first ends"
        turns.allow(Limits(minutes=1e-5))
        assert next(second).waits
        (place,) = queued.places(store)
        assert place.words == "Waits: its owner has as much as an instructor allows"
        turns.allow(Limits())
        assert not next(second).waits


CHATTY = r"""
import json, sys
print("made with 6 units")
print(5)
print({"a": 1})
print('{"half of": ')
sys.stdout.buffer.write(b"\xff\n")
print("loading", end=" ")
print(json.dumps({"planned": 2.0}))
print(json.dumps({"done": 2.0}))
print(json.dumps({"row": {"a": 1}}))
print("ready")
"""


@pytest.mark.timeout(60)
def test_what_a_worker_prints_besides_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own network may print whatever it likes while a worker imports it."""
    (tmp_path / "chatty.py").write_text(CHATTY)
    (tmp_path / "silent.py").write_text(CHATTY + "sys.exit(3)")
    (tmp_path / "failing.py").write_text(CHATTY + "sys.exit('The disk is full.')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    heard = []
    *_, last = crew.work("chatty", [{}, {}], lambda said: heard.append(said) is None)
    assert heard == [{"row": {"a": 1}}] * 2
    assert (last.fraction, last.rows) == (1.0, 2)
    for module, words in (("silent", "ready"), ("failing", "The disk is full.")):
        with pytest.raises(NetweldError, match=f"A worker failed: {words}"):
            list(crew.work(module, [{}], lambda said: True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"done": 5.0}', {"done": 5.0}),
        ('half {"done": 5.0}', {"done": 5.0}),
        ('{"loss": 0.3}{"done": 5.0}', {"done": 5.0}),
        ('{"a": {"b": 1} {"session": {"c": 2}}', {"session": {"c": 2}}),
        ('{"a": 1} and more', None),
        ("nothing", None),
    ],
)
def test_what_a_worker_says_is_what_its_line_ends_in(line: str, said: object) -> None:
    assert crew._said(line + "\n") == said


def test_a_gpu_has_one_and_its_workers_see_only_that(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["3", "7"])
    turns, told = Turns(store.home), []

    def work(carrier: Carrier):
        told.append((yield from crew.turn(carrier, 1)))
        yield Headway(fraction=0.5, left=None, rows=0)

    def carried(name: str):
        asked = Asked(seed=0, n=1, device="cuda", data="", workers=1)
        carrier = Carrier(lab.with_name(f"{name}.jsonl"), asked)
        return crew.carry(carrier, work(carrier))

    store.home.mkdir(parents=True)
    with closing(carried("a")) as a, closing(carried("b")) as b, closing(carried("c")) as c:
        assert not next(a).waits
        assert not next(b).waits
        assert next(c).waits
        assert [turn.gpu for turn in turns.all()] == [0, 1, None]
        assert [each["CUDA_VISIBLE_DEVICES"] for each in told] == ["3", "7"]
        list(a)
        assert not next(c).waits
        assert told[-1] == {"CUDA_VISIBLE_DEVICES": "3", processes.GPUS: "3,7"}


def test_a_search_takes_no_place_before_its_teachers_are_there(
    full: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that trains them waits for a place, too; with one place both would wait for ever."""
    monkeypatch.setattr(search_work, "_LOOK_SECONDS", 0.01)
    run, _ = launch.begin(store, recipe(), "cpu")
    file = SearchFile(Search(recipe=recipe()))
    asked = Asked(seed=0, n=1, device="cpu", data="", workers=1, run=run)
    with closing(search_work.carry_out(file, asked)) as listening:
        assert [next(listening).waits for _ in range(3)] == [False] * 3
        assert waiting(store) == [run]


def test_the_terminal_says_where_it_waits_and_an_interrupt_takes_it_out(
    full: str, store: Store, lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted():
        with closing(stand_in.carried(lab)) as work:
            for _ in range(3):
                yield next(work)
            assert waiting(store) == [key_of(lab)]
            raise KeyboardInterrupt

    with pytest.raises(NetweldError, match="The lab was stopped; the same command goes on"):
        show_work(interrupted(), lab, "Schedules", "The lab")
    assert capsys.readouterr().err == "Waits for its turn (next).\n"
    assert (state(lab), waiting(store)) == ("stopped", [])


def test_how_long_one_takes_is_told_by_its_report(
    store: Store, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    table = store.home / "tables" / "other.jsonl"
    with closing(stand_in.carried(lab, 90.0)) as first, closing(stand_in.carried(table)) as second:
        next(first)
        time.sleep(carriers._SECONDS)
        next(first)
        next(second)
        (place,) = queued.places(store)
        assert place.seconds == pytest.approx(90.0, abs=5.0)


def test_it_is_stopped_and_deleted_by_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a run is: by its beginning, by its owner only, and not while it is worked on."""
    path = store.home / "searches" / "some-1a2b.jsonl"
    acts_as(monkeypatch, "browser:a")
    process = stand_in.begin(monkeypatch, path, 60.0)
    path.write_text("{}")
    until(lambda: state(path) == "running")

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["netweld", *words])
        with suppress(SystemExit):
            main()
        told = capsys.readouterr()
        return told.out + told.err

    assert f"stop it with `netweld stop {path.stem}` first" in said("delete", "some", "--yes")
    acts_as(monkeypatch, "browser:b")
    for words in (("stop", "some"), ("delete", "some", "--yes")):
        assert said(*words).startswith("Search some-1a2b is somebody else's")
    assert state(path) == "running"
    acts_as(monkeypatch, "browser:a")
    assert "Search some-1a2b has stopped" in said("stop", "some")
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "Nobody works on some-1a2b" in said("stop", "some-1a2b")
    assert said("delete", key_of(path), "--yes") == "Search some-1a2b is deleted.\n"
    assert list(path.parent.iterdir()) == []
    assert Turns(store.home).owner(key_of(path)) is None
    assert "There is no run 'some'" in said("delete", "some", "--yes")


def test_a_name_that_could_mean_several_is_not_guessed(store: Store) -> None:
    file, run = fake_labs.make(store.home), store.create(recipe(), "cpu")
    fake_labs.make(store.home, shape=(2, 2))
    key = key_of(file.path)
    assert store.find(file.path.stem[:20], every=True) == store.find(key, every=True) == key
    assert store.find(run, every=True) == store.find("latest", every=True) == run
    with pytest.raises(StoreError, match="could mean 2 of them"):
        store.find("sine", every=True)
    with pytest.raises(StoreError, match="There is no run"):
        store.find(file.path.stem)
