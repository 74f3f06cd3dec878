"""`netweld steer`, `netweld fork`, `netweld undo`: what they say and how they end."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_run import made_up, recipe
from test_cli import netweld

from merge_core import hearing, launch, places, worker
from merge_core.schedules import Exponential, GrowthLaw, Linear
from merge_core.steering import NewRate, NewSchedule
from merge_core.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "samples")
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(launch, "start", lambda store, name, data=None, after=0: None)
    return Store()


@pytest.fixture
def paused(store: Store) -> Iterator[str]:
    """A run that waits; it goes on when the test is over."""
    made = recipe().changed({"gating.epochs": "6"})
    name = store.create(made, "cpu")
    store.command(name, "pause")
    ready, over = threading.Event(), threading.Event()

    def work() -> None:
        with store.writer(name) as writer:
            ears = hearing.Ears(
                store, writer, name, made, 0, keep=lambda event: None, check=ready.set
            )
            for event in made_up():
                writer.write(event)
                ears.obey(event)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(20)
    yield name
    store.command(name, "go")
    thread.join(30)
    assert over.is_set()


Out = pytest.CaptureFixture[str]


def test_commands_reach_the_worker(
    paused: str, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Out
):
    for arguments, words in {
        "step": "goes on to the end of an epoch",
        "pause": "paused",
        "rate 0.25 --from 2": "gate learning rate from epoch 2 on: 0.25",
        "lambda exponential --set start=1 --set end=30": "Exponential, 1 to 30",
        "lambda linear --from 4": "λ from epoch 4 on: Linear, 1 to 30",
        "lambda --set end=9 --from 5": "λ from epoch 5 on: Linear, 1 to 9",
    }.items():
        assert netweld(monkeypatch, "steer", "latest", *arguments.split()) == 0
        assert words in capsys.readouterr().out
    with store.open(paused) as reader:
        assert reader.merge.steering == (
            NewRate(epoch=2, learning_rate=0.25),
            NewSchedule(epoch=1, schedule=Exponential(start=1, end=30)),
            NewSchedule(epoch=4, schedule=Linear(start=1, end=30)),
            NewSchedule(epoch=5, schedule=Linear(start=1, end=9)),
        )
    assert netweld(monkeypatch, "show", "latest") == 0
    shown = capsys.readouterr().out
    assert "λ from epoch 5 on: Linear, 1 to 9" in shown
    assert "steering=" not in shown
    assert netweld(monkeypatch, "steer", "latest", "rate", "0.5", "--from", "99") == 1
    assert "epoch 1 to 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("dance", "no command 'dance'"),
        ("pause 3", "takes neither"),
        ("cut --from 3", "takes neither"),
        ("step --set end=3", "is for the λ schedule"),
        ("rate", "a number was expected"),
        ("rate fast", "'fast'"),
        ("lambda", "nothing to change"),
        ("lambda wavy", "kind='wavy'"),
        ("lambda linear --set growth=1", "growth"),
        ("lambda constant --set weight=-1", "weight=-1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    paused: str, monkeypatch: pytest.MonkeyPatch, capsys: Out, arguments: str, words: str
):
    assert netweld(monkeypatch, "steer", paused, *arguments.split()) == 2
    assert words in capsys.readouterr().err


def test_a_run_without_a_worker_cannot_be_steered(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Out
):
    name = finished(store)
    assert netweld(monkeypatch, "steer", name, "pause") == 2
    assert "no worker can obey; fork it" in capsys.readouterr().err


def finished(store: Store) -> str:
    name = store.create(recipe().changed({"gating.epochs": "6"}), "cpu")
    assert worker.run(store, name, lambda work: made_up(work.resume)) == 0
    return name


def test_fork_and_undo(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Out):
    parent = finished(store)
    assert netweld(monkeypatch, "show", parent) == 0
    shown = capsys.readouterr().out
    assert "--epoch 1, 2, 3, 4, 5, 6." in shown
    assert "--after teacher_a, teacher_b, ensemble, big, gates, cut, fine_tune." in shown

    change = ("--set", "gates.schedule.kind=linear")
    assert netweld(monkeypatch, "fork", parent, "--epoch", "2", *change, "--no-wait") == 0
    assert f"goes on from gates, epoch 2, of {parent}." in capsys.readouterr().out
    (fork,) = [name for name in store.names() if name != parent]
    with store.open(fork) as reader:
        (steer,) = reader.merge.steering
        assert isinstance(steer, NewSchedule)
        assert steer.epoch == 3
        assert isinstance(steer.schedule, Linear)
        assert isinstance(reader.merge.gates.schedule, GrowthLaw)
    assert netweld(monkeypatch, "show", fork) == 0
    assert f"It goes on from gates, epoch 2, of {parent}." in capsys.readouterr().out

    assert netweld(monkeypatch, "undo", fork, "--no-wait") == 0
    (undone,) = [name for name in store.names() if name not in (parent, fork)]
    with store.open(undone) as reader:
        assert reader.merge.steering == ()

    assert netweld(monkeypatch, "fork", parent, "--after", "gates", "--seed", "3", "--no-wait") == 0
    assert f"goes on from the end of gates, of {parent}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("fork", "Say where to fork"),
        ("fork --epoch 2 --after gates", "Say where to fork"),
        ("fork --after trained_on", "of which nothing was kept"),
        ("fork --epoch 3 --set teacher.epochs=2", "cannot change the setting 'teacher.epochs'"),
        ("undo", "nothing to undo"),
    ],
)
def test_forks_that_cannot_be(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Out, arguments: str, words: str
):
    name = finished(store)
    verb, *rest = arguments.split()
    assert netweld(monkeypatch, verb, name, *rest) == 2
    assert words in capsys.readouterr().err
    assert store.names() == [name]
