"""Steered runs and forks of real merges: a recipe's numbers, whatever way led to it."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small import small

from merge_core import commanding, forking, hearing, launch, worker
from merge_core.errors import RecipeError, StoreError
from merge_core.events import EpochFinished, Event
from merge_core.presets import preset_of
from merge_core.recipes import Recipe
from merge_core.schedules import Constant, Linear
from merge_core.steering import CutEarly, NewRate, NewSchedule, NewSeed, Steer
from merge_core.store import ForkPoint, Store

EPOCHS = 6
HIGH = Constant(weight=20.0)
LAMBDA = NewSchedule(epoch=3, schedule=HIGH)


def recipe(*steering: Steer, **settings: str) -> Recipe:
    made = small("sine", **({"gating.epochs": str(EPOCHS), "teacher.epochs": "1"} | settings))
    return dataclasses.replace(made, steering=steering)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks wait to be worked on in this process, which has imported torch already."""
    monkeypatch.setattr(launch, "start", lambda store, name, data=None, after=0: None)
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with runs that several tests look at; none of them changes one."""
    return Store(tmp_path_factory.mktemp("home"), samples=tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def parent(shared: Store) -> str:
    return finished(shared, recipe())


def work(store: Store, name: str, strategy: worker.Strategy = worker.carry_out) -> str:
    assert worker.run(store, name, strategy) == 0
    return name


def finished(store: Store, made: Recipe) -> str:
    return work(store, store.create(made, "cpu"))


def numbers(store: Store, name: str) -> dict[str, Any]:
    """Everything that a recipe decides."""
    with store.open(name) as reader:
        return {
            "recipe": reader.recipe,
            "stages": [(row["stage"], row["epochs"], row["steps"]) for row in reader.stages()],
            "metrics": reader.metrics(),
            "scores": reader.scores(),
            "learned": {row["stage"]: row["facts"]["learned"] for row in reader.stages()},
            "openness": [
                (r["epoch"], r["space"], r["probabilities"].tolist()) for r in reader.openness()
            ],
            "kept": [(r["space"], r["kept"].tolist(), r["gate"].tolist()) for r in reader.kept()],
            "networks": [
                (r["name"], r["sha256"]) for r in reader.artifacts() if "@" not in r["name"]
            ],
            "returned": reader.facts()["returned"],
        }


def live(store: Store, commands: dict[int, list[Callable[[str], int]]]) -> str:
    """A run that somebody steers after some epochs of the gate stage."""
    name = store.create(recipe(), "cpu")

    def strategy(given: worker.Work) -> Iterator[Event]:
        for event in worker.carry_out(given):
            if isinstance(event, EpochFinished) and event.stage == "gates":
                for command in commands.get(event.epoch, []):
                    command(name)
            yield event

    return work(store, name, strategy)


def test_a_steered_run_is_what_its_recipe_says(shared: Store, parent: str):
    def high(name: str) -> int:
        return commanding.change_schedule(shared, name, HIGH, epoch=4)

    def fast(name: str) -> int:
        return commanding.change_rate(shared, name, 5.0)

    steered = live(shared, {1: [high], 3: [fast], 4: [lambda n: commanding.cut_now(shared, n)]})
    with shared.open(steered) as reader:
        assert reader.merge.steering == (
            NewSchedule(epoch=4, schedule=HIGH),
            NewRate(epoch=4, learning_rate=5.0),
            CutEarly(epoch=5),
        )
        assert [row["epochs"] for row in reader.stages() if row["stage"] == "gates"] == [4]
        made = reader.merge
    found = numbers(shared, steered)
    assert found == numbers(shared, finished(shared, made))
    plain = numbers(shared, parent)["metrics"]
    past = [row for row in plain if row["stage"] == "gates" and row["epoch"] < 4]
    now = [row for row in found["metrics"] if row["stage"] == "gates"]
    assert [row for row in now if row["epoch"] < 4] == past, "the past is as it was"
    assert now[-1] not in plain, "what was changed has an effect"


@pytest.mark.parametrize(
    "steer",
    [LAMBDA, NewRate(epoch=3, learning_rate=5.0), NewSeed(epoch=3, seed=5), CutEarly(epoch=3)],
)
def test_every_change_acts_from_its_epoch_on(shared: Store, parent: str, steer: Steer):
    before, after = numbers(shared, parent), numbers(shared, finished(shared, recipe(steer)))

    def gates(found: dict[str, Any], epoch: int) -> list[Any]:
        return [r for r in found["metrics"] if r["stage"] == "gates" and r["epoch"] == epoch]

    for epoch in range(1, 3):
        assert gates(after, epoch) == gates(before, epoch)
    for epoch in range(3, EPOCHS + 1):
        assert gates(after, epoch) != gates(before, epoch)


def points(store: Store, name: str) -> list[ForkPoint]:
    with store.open(name) as reader:
        return reader.fork_points()


def test_all_epochs_and_all_ends_can_be_forked(shared: Store, parent: str):
    found = points(shared, parent)
    assert [p.epoch for p in found if p.stage == "gates"] == [1, 2, 3, 4, 5, 6, None]
    ends = [p.stage for p in found if p.epoch is None]
    with shared.open(parent) as reader:
        assert ends == [row["stage"] for row in reader.stages()]


@pytest.mark.parametrize(
    "point",
    [
        ForkPoint(stage="teacher_a"),
        ForkPoint(stage="big"),
        *[ForkPoint(stage="gates", epoch=epoch) for epoch in range(1, EPOCHS + 1)],
        ForkPoint(stage="gates"),
        ForkPoint(stage="cut"),
        ForkPoint(stage="fine_tune"),
        ForkPoint(stage="trained_on"),
    ],
    ids=str,
)
def test_an_unchanged_fork_gives_its_parents_numbers(shared: Store, parent: str, point: ForkPoint):
    name, _ = forking.fork(shared, parent, point)
    with shared.open(name) as reader:
        assert reader.status()["state"] == "queued"
        assert 0 < reader.headway().fraction <= 1
        branch = reader.branch()
    assert branch is not None
    assert (branch.parent, branch.point) == (parent, point)
    assert branch in shared.forks()
    assert numbers(shared, work(shared, name)) == numbers(shared, parent)
    assert points(shared, name) == points(shared, parent)


@pytest.mark.parametrize(
    ("point", "changes", "expected"),
    [
        (ForkPoint(stage="gates", epoch=2), {"schedule": HIGH}, (LAMBDA,)),
        (
            ForkPoint(stage="gates", epoch=2),
            {"settings": {"gates.schedule.kind": "constant", "gates.schedule.weight": "20"}},
            (LAMBDA,),
        ),
        (ForkPoint(stage="gates", epoch=4), {"seed": 9}, (NewSeed(epoch=5, seed=9),)),
        (
            ForkPoint(stage="gates", epoch=4),
            {"rate": 3.0},
            (NewRate(epoch=5, learning_rate=3.0),),
        ),
        (ForkPoint(stage="gates"), {"seed": 9}, (NewSeed(epoch=7, seed=9),)),
        (ForkPoint(stage="gates"), {"settings": {"gates.selection": "largest weights"}}, ()),
        (ForkPoint(stage="gates", epoch=5), {"settings": {"gates.selection": "same share"}}, ()),
        (ForkPoint(stage="big"), {"settings": {"gates.start": "2", "gating.epochs": "3"}}, ()),
        (ForkPoint(stage="cut"), {"settings": {"fine_tune.epochs": "1"}}, ()),
    ],
    ids=str,
)
def test_a_changed_fork_is_what_its_recipe_says(
    shared: Store, parent: str, point: ForkPoint, changes: dict[str, Any], expected: tuple[Any, ...]
):
    name, _ = forking.fork(shared, parent, point, **changes)
    with shared.open(name) as reader:
        assert reader.merge.steering == expected
        made = reader.merge
    found = numbers(shared, work(shared, name))
    assert found == numbers(shared, finished(shared, made))
    assert found["scores"] != numbers(shared, parent)["scores"]


@pytest.mark.parametrize(
    ("point", "changes", "expected"),
    [
        (ForkPoint(stage="gates", epoch=3), {"settings": {"teacher.epochs": "9"}}, "teacher"),
        (ForkPoint(stage="gates", epoch=3), {"settings": {"gates.start": "2"}}, "gates.start"),
        (ForkPoint(stage="gates", epoch=3), {"settings": {"gating.epochs": "9"}}, "gating"),
        (ForkPoint(stage="gates", epoch=3), {"settings": {"seed": "9"}}, "'seed'"),
        (ForkPoint(stage="gates", epoch=3), {"settings": {"gates.selection": "best"}}, "best"),
        (ForkPoint(stage="gates"), {"schedule": HIGH}, "λ"),
        (ForkPoint(stage="gates", epoch=6), {"rate": 1.0}, "learning rate"),
        (ForkPoint(stage="fine_tune"), {"seed": 1}, "seed"),
        (ForkPoint(stage="cut"), {"settings": {"gates.selection": "same share"}}, "selection"),
    ],
    ids=str,
)
def test_a_fork_cannot_change_its_past(
    shared: Store, parent: str, point: ForkPoint, changes: dict[str, Any], expected: str
):
    before = shared.names()
    with pytest.raises(RecipeError, match=expected):
        forking.fork(shared, parent, point, **changes)
    assert shared.names() == before


def test_a_moment_of_which_nothing_is_kept_is_refused(shared: Store, parent: str):
    with pytest.raises(StoreError, match="gates, epoch 99"):
        forking.fork(shared, parent, ForkPoint(stage="gates", epoch=99))


def test_a_fork_shares_files_and_survives_its_parent(tmp_path: Path, shared: Store, parent: str):
    expected = numbers(shared, parent)
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    first = finished(store, recipe())
    fork, _ = forking.fork(store, first, ForkPoint(stage="gates", epoch=4))
    of_fork, _ = forking.fork(store, fork, ForkPoint(stage="gates", epoch=2))
    files = list(store.directory(fork).glob("*.safetensors"))
    assert len(files) == 6  # two teachers and four epochs
    assert all(file.stat().st_nlink >= 2 for file in files), "nothing is copied"
    store.delete(first)
    assert numbers(store, work(store, fork)) == expected
    store.delete(fork)
    assert numbers(store, work(store, of_fork)) == expected
    assert [branch.run for branch in store.forks()] == [of_fork]


def test_without_hard_links_files_are_copied(
    tmp_path: Path, shared: Store, parent: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    name, _ = forking.fork(shared, parent, ForkPoint(stage="gates", epoch=4))
    assert numbers(shared, work(shared, name)) == numbers(shared, parent)


def test_a_missing_file_leaves_no_half_fork(shared: Store, parent: str, tmp_path: Path):
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    shutil.copytree(shared.home, store.home)
    (store.directory(parent) / "teacher_b.safetensors").unlink()
    before = sorted(path.name for path in (store.home / "runs").iterdir())
    with pytest.raises(StoreError, match="cannot be forked"):
        forking.fork(store, parent, ForkPoint(stage="gates", epoch=4))
    assert sorted(path.name for path in (store.home / "runs").iterdir()) == before


def test_undo_returns_to_before_the_last_change(shared: Store, parent: str):
    def change(schedule: Linear, epoch: int) -> Callable[[str], int]:
        return lambda name: commanding.change_schedule(shared, name, schedule, epoch)

    first, second = Linear(start=0.1, end=30), Linear(start=30, end=0.1)
    steered = live(shared, {1: [change(first, 3)], 3: [change(second, 5)]})
    once, _ = forking.undo(shared, steered)
    with shared.open(once) as reader:
        branch = reader.branch()
        assert branch is not None
        assert branch.point == ForkPoint(stage="gates", epoch=4)
        assert [answer.words for answer in reader.answers()] == [
            "λ from epoch 3 on: Linear, 0.1 to 30"
        ]
    made = recipe(NewSchedule(epoch=3, schedule=first))
    assert numbers(shared, work(shared, once)) == numbers(shared, finished(shared, made))
    twice, _ = forking.undo(shared, once)
    assert numbers(shared, work(shared, twice)) == numbers(shared, parent)
    with pytest.raises(StoreError, match="nothing to undo"):
        forking.undo(shared, twice)


def test_undo_of_a_cut_goes_on_with_the_gates(shared: Store, parent: str):
    cut = live(shared, {3: [lambda name: commanding.cut_now(shared, name)]})
    undone, _ = forking.undo(shared, cut)
    assert numbers(shared, work(shared, undone)) == numbers(shared, parent)


def test_only_merges_are_steered_and_forked(shared: Store):
    coupled = shared.create(preset_of("digits-coupled", "quick").recipe, "cpu")
    for ask in (commanding.cut_now, forking.undo):
        with pytest.raises(StoreError, match="without a gate stage"):
            ask(shared, coupled)
    shared.delete(coupled)
