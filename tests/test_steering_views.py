"""What a page shows of a steered run: λ, ghosts, markers, moments to fork from, the family."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up_run import made_up, recipe

from merge_core import hearing, worker
from merge_core.errors import StoreError
from merge_core.events import EpochFinished, Event
from merge_core.plots.curves import learning_curves
from merge_core.recipes import Recipe
from merge_core.schedules import Closing, Constant
from merge_core.steering import NewSchedule, NewSeed
from merge_core.store import ForkPoint, Store
from merge_core.views import steering as views
from merge_core.views.runs import curve_frame

EPOCHS = 6
FIRST = Constant(weight=1.0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)
    return Store(tmp_path / "home", samples=tmp_path / "samples")


def made() -> Recipe:
    return recipe().changed(
        {
            "gating.epochs": str(EPOCHS),
            "gates.schedule.kind": "constant",
            "gates.schedule.weight": "1",
        }
    )


def run(store: Store, name: str, *commands: tuple[int, str, dict[str, object]]) -> str:
    """A made-up run that is steered after some epochs; it stops after five."""

    def strategy(work: worker.Work) -> Iterator[Event]:
        for event in made_up(work.resume):
            if isinstance(event, EpochFinished) and event.stage == "gates":
                event = dataclasses.replace(event, metrics={**event.metrics, "lambda": 1.0})
                for epoch, verb, arguments in commands:
                    if epoch == event.epoch:
                        store.command(name, verb, **arguments)
            yield event

    worker.run(store, name, strategy)
    return name


def schedule(weight: float) -> dict[str, object]:
    return {"schedule": {"kind": "constant", "weight": weight}}


def steered(store: Store) -> str:
    return run(
        store,
        store.create(made(), "cpu"),
        (1, "lambda", schedule(2) | {"epoch": 4}),
        (2, "lambda", schedule(3) | {"epoch": 6}),
        (2, "rate", {"rate": 0}),
        (5, "stop", {}),
    )


def test_lambda_has_a_past_and_a_future(store: Store):
    with store.open(steered(store)) as reader:
        frame = views.lambda_frame(reader)
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert frame["part"].tolist() == ["past"] * 5 + ["future"]
    # The past is what was measured; this made-up run did not listen.
    assert frame["value"].tolist() == [1, 1, 1, 1, 1, 3]


def test_ghosts_are_the_schedules_without_each_change(store: Store):
    with store.open(steered(store)) as reader:
        frame = views.ghost_frame(reader)
    ghosts = {
        change: list(zip(part["epoch"].tolist(), part["value"].tolist(), strict=True))
        for change, part in frame.groupby("change")
    }
    assert ghosts == {0: [(3, 1), (4, 1), (5, 1), (6, 1)], 1: [(5, 2), (6, 2)]}


def test_markers_stand_where_commands_take_effect(store: Store):
    with store.open(steered(store)) as reader:
        rows = views.marker_frame(reader).to_dict("records")
    found = [(row["verb"], row["epoch"], row["step"], bool(row["refused"])) for row in rows]
    assert found == [
        ("lambda", 3.0, 30, False),
        ("lambda", 5.0, 50, False),
        ("rate", 2.0, 20, True),
        ("stop", 5.0, 50, False),
    ]


@pytest.mark.parametrize("stage", ["teacher_b", "gates", "fine_tune"])
def test_what_was_asked_in_any_stage_stands_on_the_axis_of_the_whole_run(store: Store, stage: str):
    """Where the curves have the epoch after which it was answered."""
    name = store.create(made(), "cpu")

    def strategy(work: worker.Work) -> Iterator[Event]:
        for event in made_up(work.resume):
            if isinstance(event, EpochFinished) and (event.stage, event.epoch) == (stage, 2):
                for verb in ("pause", "go"):
                    store.command(name, verb)
            yield event

    worker.run(store, name, strategy)
    with store.open(name) as reader:
        curves, markers = curve_frame(reader), views.marker_frame(reader)
    (place,) = curves[(curves["stage"] == stage) & (curves["epoch"] == 2)]["run_epoch"].tolist()
    assert markers[["verb", "stage", "run_epoch"]].to_numpy().tolist() == [
        ["pause", stage, place],
        ["go", stage, place],
    ]
    for quantity in ("accuracy", "loss"):
        option = learning_curves(curves, quantity, log=False, markers=markers)
        (marks,) = [each["markLine"]["data"] for each in option["series"] if "markLine" in each]
        assert [(each["xAxis"], each["label"]["formatter"]) for each in marks] == [(place, "‖ ▶")]
        assert marks[0]["name"] == "paused; goes on"
    assert not any("markLine" in each for each in _drawn(curves, markers.iloc[:0]))


def _drawn(curves: pd.DataFrame, markers: pd.DataFrame) -> list[dict[str, Any]]:
    return learning_curves(curves, "loss", log=False, markers=markers)["series"]


def test_what_came_with_the_recipe_has_a_marker_too(store: Store):
    steering = (NewSchedule(epoch=3, schedule=Closing()), NewSeed(epoch=2, seed=4))
    given = made()
    for steer in steering:
        given = given.steered(steer)
    name = run(store, store.create(given, "cpu"), (1, "rate", {"rate": 2}), (3, "stop", {}))
    with store.open(name) as reader:
        rows = views.marker_frame(reader).to_dict("records")
        frame = views.lambda_frame(reader)
    assert [(row["command"] > 0, row["verb"], row["epoch"]) for row in rows] == [
        (False, "lambda", 2.0),
        (False, "seed", 1.0),
        (True, "rate", 1.0),
        (True, "stop", 3.0),
    ]
    assert math.isnan(float(frame["value"].tolist()[-1])), "nobody knows what a controller will do"


def test_epochs_behind_a_cut_are_left_out(store: Store):
    name = run(store, store.create(made(), "cpu"), (4, "cut", {}), (4, "stop", {}))
    with store.open(name) as reader:
        assert views.lambda_frame(reader)["part"].tolist() == ["past"] * 4 + ["left out"] * 2


def test_moments_and_family(store: Store):
    name = steered(store)
    with store.open(name) as reader:
        frame = views.fork_frame(reader)
        assert frame["epoch"].tolist() == [-1, -1, -1, -1, 1, 2, 3, 4, 5]
        assert frame["words"].tolist()[-2:] == ["Gated, after epoch 4", "Gated, after epoch 5"]
        assert views.fork_point(reader, 3) == ForkPoint(stage="gates", epoch=3)
        assert views.fork_point(reader, 99) == ForkPoint(stage="gates", epoch=5)
        assert views.fork_point(reader, 0) == ForkPoint(stage="big")
        assert views.parent(reader) is None
        given = reader.merge
    fork = store.fork(name, given, ForkPoint(stage="gates", epoch=3))
    (branch,) = views.children(store, name)
    assert (branch.run, branch.parent) == (fork, name)
    with store.open(fork) as reader:
        assert views.parent(reader) == branch
        assert views.marker_frame(reader)["command"].tolist()[:2] == [0, 0], "still to come"


def test_a_run_that_has_not_begun_has_nothing_to_show(store: Store):
    with store.open(store.create(made(), "cpu")) as reader:
        for frame in (views.lambda_frame(reader), views.ghost_frame(reader)):
            assert frame.empty
        assert views.marker_frame(reader).empty
        assert views.fork_frame(reader).empty
        with pytest.raises(StoreError, match="no gates that learn yet"):
            views.fork_point(reader, 1)
