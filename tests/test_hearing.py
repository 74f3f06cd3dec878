"""Commands on their way: pauses, steps, refusals, and what a steer leaves in the store."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from made_up_run import made_up, recipe

from merge_core import hearing, worker
from merge_core.errors import StoreError
from merge_core.events import EpochFinished, Event, Progress, StageFinished
from merge_core.schedules import Constant
from merge_core.steering import CutEarly, NewRate, NewSchedule
from merge_core.store import Answer, ForkPoint, Store

NEW = Constant(weight=0.5)
ASKED = {"schedule": dataclasses.asdict(NEW)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", samples=tmp_path / "samples")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for commands after every event."""
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)


def saying(store: Store, name: str, when: Callable[[Event], bool], *commands: tuple[str, dict]):
    """A strategy of a made-up run during which somebody gives commands at some event."""

    def strategy(work: worker.Work) -> Iterator[Event]:
        for event in made_up(work.resume):
            if when(event):
                for verb, arguments in commands:
                    store.command(name, verb, **arguments)
            yield event

    return strategy


def at(stage: str, epoch: int) -> Callable[[Event], bool]:
    return lambda e: isinstance(e, EpochFinished) and (e.stage, e.epoch) == (stage, epoch)


def within(stage: str, epoch: int) -> Callable[[Event], bool]:
    return lambda e: isinstance(e, Progress) and (e.stage, e.step) == (stage, 10 * epoch - 5)


def answers(store: Store, name: str) -> list[Answer]:
    with store.open(name) as reader:
        return reader.answers()


def made(store: Store) -> str:
    return store.create(recipe().changed({"gating.epochs": "6"}), "cpu")


def steered(store: Store, when: Callable[[Event], bool], verb: str, **arguments: object) -> Answer:
    name = made(store)
    assert worker.run(store, name, saying(store, name, when, (verb, arguments))) == 0
    (answer,) = answers(store, name)
    return answer


@pytest.mark.parametrize(
    ("when", "epoch"),
    [(at("teacher_a", 2), 1), (at("gates", 3), 4), (within("gates", 3), 4), (at("gates", 5), 6)],
)
def test_the_next_epoch_is_the_earliest_and_the_usual_one(
    store: Store, when: Callable[[Event], bool], epoch: int
):
    answer = steered(store, when, "lambda", **ASKED)
    assert (answer.refused, answer.stage) == (False, "gates")
    assert (answer.epoch, answer.step) == (epoch, 10 * (epoch - 1))
    assert not steered(store, when, "lambda", **ASKED, epoch=epoch).refused
    if epoch > 1:
        early = steered(store, when, "lambda", **ASKED, epoch=epoch - 1)
        assert early.refused
        assert f"give epoch {epoch}" in early.words


def test_what_changes_numbers_is_part_of_the_recipe(store: Store):
    name = made(store)
    commands = [("lambda", {**ASKED, "epoch": 5}), ("rate", {"rate": 2})]
    assert worker.run(store, name, saying(store, name, at("gates", 2), *commands)) == 0
    with store.open(name) as reader:
        assert reader.merge.steering == (
            NewSchedule(epoch=5, schedule=NEW),
            NewRate(epoch=3, learning_rate=2.0),
        )


def test_a_change_is_stored_before_it_acts(store: Store):
    """A worker that dies right after it heard knows the change when it goes on."""
    name = made(store)
    seen = []

    def mortal(work: worker.Work) -> Iterator[Event]:
        for event in made_up(work.resume):
            if at("gates", 3)(event):
                store.command(name, "cut")
            yield event
            if at("gates", 3)(event):
                with store.open(name) as reader:
                    seen.append((reader.merge.steering, work.steering()))
                raise StoreError("Killed.")

    assert worker.run(store, name, mortal) == 1
    assert seen == [((CutEarly(epoch=4),), (CutEarly(epoch=4),))]

    def resumed(work: worker.Work) -> Iterator[Event]:
        seen.append(work.steering())
        return made_up(work.resume)

    assert worker.run(store, name, resumed) == 0
    assert seen[1] == (CutEarly(epoch=4),)


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        ("lambda", ASKED | {"epoch": 7}, "7"),
        ("lambda", {"schedule": {"kind": "constant", "weight": -3}}, "weight=-3"),
        ("lambda", {}, "JSON object"),
        ("lambda", ASKED | {"epoch": "soon"}, "whole number"),
        ("rate", {"rate": 0}, "above 0"),
        ("rate", {"rate": "fast"}, "a number"),
        ("go", {}, "not paused"),
        ("dance", {}, "no command 'dance'"),
    ],
)
def test_what_cannot_be_is_answered_with_a_sentence(
    store: Store, verb: str, arguments: dict[str, object], expected: str
):
    answer = steered(store, at("gates", 2), verb, **arguments)
    assert answer.refused
    assert expected in answer.words
    assert answer.words.endswith(".")
    (name,) = store.names()
    with store.open(name) as reader:
        assert reader.merge.steering == ()


@pytest.mark.parametrize(
    "when",
    [
        at("gates", 6),
        lambda e: isinstance(e, StageFinished) and e.stage == "gates",
        at("fine_tune", 1),
    ],
)
@pytest.mark.parametrize("verb", ["lambda", "cut"])
def test_gates_that_have_learned_cannot_be_steered(
    store: Store, when: Callable[[Event], bool], verb: str
):
    answer = steered(store, when, verb, **(ASKED if verb == "lambda" else {}))
    assert answer.refused
    assert "fork it" in answer.words


def test_nothing_changes_behind_a_cut(store: Store):
    name = made(store)
    commands = [("cut", {}), ("lambda", ASKED)]
    assert worker.run(store, name, saying(store, name, at("gates", 3), *commands)) == 0
    cut, change = answers(store, name)
    assert (cut.refused, cut.epoch, cut.words) == (False, 4, "cut after epoch 3")
    assert change.refused


def test_commands_that_nobody_could_hear_are_refused(store: Store):
    name = made(store)
    with store.writer(name):
        pass  # a worker that was killed before it could hear
    last = store.command(name, "lambda", **ASKED)
    assert worker.run(store, name, lambda work: made_up(work.resume), after=last) == 0
    (answer,) = answers(store, name)
    assert answer.refused
    assert "ended before" in answer.words

    other = made(store)
    end = saying(store, other, lambda e: at("fine_tune", 3)(e), ("stop", {}), ("pause", {}))
    assert worker.run(store, other, end) == 3
    assert [(a.verb, a.refused) for a in answers(store, other)] == [
        ("stop", False),
        ("pause", False),
    ], "what came with the stop was heard with it"


class Person(threading.Thread):
    """Somebody who steers while the worker runs in this process's main thread."""

    def __init__(self, store: Store, name: str, script: Callable[["Person"], None]) -> None:
        super().__init__()
        self.store, self.name_of_run, self.script = store, name, script
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.script(self)
        except BaseException as error:
            self.failure = error
            self.store.command(self.name_of_run, "stop")

    def say(self, verb: str) -> Answer:
        """Give a command and wait for its answer."""
        command = self.store.command(self.name_of_run, verb)
        found: list[Answer] = []

        def answered() -> bool:
            found.extend(a for a in answers(self.store, self.name_of_run) if a.command == command)
            return bool(found)

        self.wait(answered)
        return found[0]

    def state(self) -> str:
        with self.store.open(self.name_of_run) as reader:
            return reader.status()["state"]

    def epochs(self) -> list[tuple[str, int]]:
        """The epochs that are done."""
        with self.store.open(self.name_of_run) as reader:
            return list(dict.fromkeys((row["stage"], row["epoch"]) for row in reader.metrics()))

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.01)


def run_beside(store: Store, name: str, script: Callable[[Person], None]) -> int:
    """A made-up run that starts paused, and somebody beside it."""
    store.command(name, "pause")
    person = Person(store, name, script)
    person.start()
    try:
        return worker.run(store, name, lambda work: made_up(work.resume))
    finally:
        person.join(30)
        if person.failure is not None:
            raise person.failure


def test_a_step_is_an_epoch_and_then_a_pause(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.01)
    name = made(store)

    def script(person: Person) -> None:
        person.wait(lambda: person.state() == "paused")
        assert person.epochs() == []
        for count in range(1, 4):
            assert not person.say("step").refused
            person.wait(lambda count=count: len(person.epochs()) == count)
            person.wait(lambda: person.state() == "paused")
            assert len(person.epochs()) == count
        assert not person.say("go").refused

    assert run_beside(store, name, script) == 0


def test_a_paused_worker_lives_and_rests(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Its heart beats, it uses no processor time, and the time does not count as work."""
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.05)
    name = made(store)
    this = psutil.Process()

    def script(person: Person) -> None:
        person.wait(lambda: person.state() == "paused")
        with store.open(name) as reader:
            beat, headway = reader.status()["heartbeat"], reader.headway()
            used = sum(this.cpu_times()[:2])
            time.sleep(1.0)
            assert sum(this.cpu_times()[:2]) - used < 0.3
            assert reader.status()["heartbeat"] > beat
            after = reader.headway()
            assert after.fraction == headway.fraction
            assert after.elapsed == pytest.approx(headway.elapsed, abs=0.3)
        person.say("go")

    assert run_beside(store, name, script) == 0
    with store.open(name) as reader:
        assert reader.sessions()[0]["paused"] > 0.9


def test_a_paused_run_can_be_stopped_and_resumed(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.01)
    name = made(store)

    def script(person: Person) -> None:
        person.wait(lambda: person.state() == "paused")
        assert person.say("stop").words == "stopped"

    assert run_beside(store, name, script) == 3
    last = store.commands(name)[-1].id
    assert worker.run(store, name, lambda work: made_up(work.resume), after=last) == 0
    assert len(answers(store, name)) == 2, "the old commands are not for the new worker"


def test_a_paused_worker_ends_when_its_run_is_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.01)
    name = made(store)

    def script(person: Person) -> None:
        person.wait(lambda: person.state() == "paused")
        (store.directory(name) / "run.sqlite").unlink()

    with pytest.raises(StoreError, match="deleted"):
        run_beside(store, name, script)


def test_epochs_that_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch):
    """At equal distances, and where somebody paused or changed what follows."""
    monkeypatch.setattr(worker, "SERIES", 2)
    name = made(store)
    change = saying(
        store, name, at("gates", 1), ("lambda", {**ASKED, "epoch": 5}), ("rate", {"rate": 1})
    )
    assert worker.run(store, name, change) == 0
    with store.open(name) as reader:
        kept = [point.epoch for point in reader.fork_points() if point.epoch is not None]
        assert kept == [1, 3, 4, 6]
        for epoch in kept:
            assert int(reader.artifact(f"gates@{epoch}")["epoch"]) == epoch
        ends = [point.stage for point in reader.fork_points() if point.epoch is None]
        assert ends == ["teacher_a", "teacher_b", "ensemble", "big", "gates", "cut", "fine_tune"]


def test_nothing_is_kept_of_what_is_too_large(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "SERIES_BYTES", 8)
    name = made(store)
    assert worker.run(store, name, lambda work: made_up(work.resume)) == 0
    with store.open(name) as reader:
        assert [point for point in reader.fork_points() if point.epoch is not None] == []
        assert ForkPoint(stage="big") in reader.fork_points()
