"""Trainings that tie networks together, as runs: worker, store, commands, pages."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import app_test
from test_pages import MetNavigation, opened, words

from merge_core import compared, export, hearing, places, worker
from merge_core.cli import results
from merge_core.data import load
from merge_core.errors import StoreError
from merge_core.events import EpochFinished, Event
from merge_core.models import load_student
from merge_core.presets import preset_of
from merge_core.recipes import Averaging, Coupling, Experiment
from merge_core.store import Store
from merge_core.training import evaluate
from merge_core.views.runs import (
    budget,
    curve_frame,
    recipe_title,
    runs_frame,
    stage_frame,
    verdict,
)

NAMES = ("digits-coupled", "digits-averaged")


def small(name: str) -> Experiment:
    epochs = "teacher.epochs" if name.endswith("coupled") else "training.epochs"
    return preset_of(name, "quick").recipe.changed(
        {"data.train": "210", "data.heldout": "60", "data.test": "60", epochs: "3"}
    )


def carried_out(store: Store, name: str) -> str:
    run = store.create(small(name), "cpu")
    assert worker.run(store, run, worker.carry_out) == 0
    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("home"), samples=tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def made(store: Store) -> dict[str, str]:
    """A finished run of each recipe."""
    return {name: carried_out(store, name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(
    store: Store, made: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)
    run = store.create(small(name), "cpu")
    seen: list[Event] = []

    def interrupted(work: worker.Work) -> Iterator[Event]:
        for event in worker.carry_out(work):
            seen.append(event)
            if isinstance(event, EpochFinished) and event.epoch == 2:
                store.command(run, "stop")
            yield event

    assert worker.run(store, run, interrupted) == 3
    assert isinstance(seen[-1], EpochFinished)
    heard = store.commands(run)[-1].id
    assert worker.run(store, run, worker.carry_out, after=heard) == 0
    with store.open(run) as one, store.open(made[name]) as other:
        assert one.status()["state"] == "finished"
        assert one.scores() == other.scores()
        assert one.metrics() == other.metrics()
        assert one.sessions()[1]["resumed_from"] == f"{seen[-1].stage}, epoch 2"


@pytest.mark.parametrize("name", NAMES)
def test_show_prints_every_stage_and_the_verdict(
    store: Store, made: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.open(made[name]) as reader:
        results.show_run(reader)
        stages = stage_frame(reader)
    said = " ".join(capsys.readouterr().out.split())
    for title in stages["title"]:
        assert title in said
    assert "★ returned" in said
    assert "The returned network (average" in said
    assert "n = 1" in said
    assert "controls are missing" not in said
    key = "pull.strength=0.1" if name == "digits-coupled" else "workers=2"
    assert key in said


@pytest.mark.parametrize(
    ("name", "rivals", "words"),
    [
        ("digits-coupled", ("teacher", "one network trained alone"), "Epochs: 2 × 3 teachers"),
        ("digits-averaged", ("one worker alone", "one network on all data"), "2 workers"),
    ],
)
def test_verdict_budget_and_curves(
    store: Store, made: dict[str, str], name: str, rivals: tuple[str, ...], words: str
) -> None:
    with store.open(made[name]) as reader:
        stages, curves, recipe = stage_frame(reader), curve_frame(reader), reader.recipe
        learned = {row["stage"] for row in reader.stages() if "learned" in row["facts"]}
    assert learned == {row["stage"] for row in stages.to_dict("records") if row["test"] > 0}
    found = verdict(recipe, stages)
    assert found is not None
    for rival in rivals:
        assert rival in found.sentence
    assert words in budget(recipe, "cpu", stages)
    assert {"heldout_accuracy", "train_loss", "distance"} <= set(curves)
    epochs = curves["run_epoch"].tolist()
    assert epochs == sorted(epochs)
    assert epochs[-1] == max(curves["planned"])
    without = stages.loc[stages["role"] != "control"]
    alone = verdict(recipe, without)
    assert alone is not None
    assert "controls are missing" in alone.caution
    titles = runs_frame(store.runs())["Recipe"]
    assert f"{recipe_title(recipe)} (quick)" in set(titles)


@pytest.mark.parametrize("name", NAMES)
def test_the_average_is_exported(
    store: Store, made: dict[str, str], name: str, tmp_path: Path
) -> None:
    with store.open(made[name]) as reader:
        weights, program = export.write(reader, tmp_path)
        recipe, returned = reader.recipe, export.returned_stage(reader)
        expected = reader.score(returned, "test", "accuracy")
    data = load(recipe.data, recipe.seed, tmp_path)
    assert evaluate(load_student(weights), data.test)["accuracy"] == expected
    runpy.run_path(str(program))


def test_coupled_teachers_can_be_compared_and_workers_cannot(
    store: Store, made: dict[str, str]
) -> None:
    with store.open(made["digits-coupled"]) as reader:
        comparison, files = compared.of_run(reader, ("uniform",), examples=100)
        teachers = [reader.artifact(stage) for stage in compared.TEACHERS]
    assert (comparison.of, comparison.model) == (made["digits-coupled"], "digits-cnn")
    assert [path.name for path in files] == ["teacher_a.safetensors", "teacher_b.safetensors"]
    assert all("classifier.weight" in arrays for arrays in teachers)
    with (
        store.open(made["digits-averaged"]) as reader,
        pytest.raises(StoreError, match="averages workers and has no two teachers"),
    ):
        compared.of_run(reader, ("uniform",))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_another_kind_says_what_it_is(
    store: Store, made: dict[str, str], name: str
) -> None:
    with store.open(made[name]) as reader:
        kind = {Coupling: "a coupling", Averaging: "an averaging"}[type(reader.recipe)]
        with pytest.raises(StoreError, match=f"is {kind}, but a merge was expected"):
            _ = reader.merge
        with pytest.raises(StoreError, match=f"is {kind}, but a comparison was expected"):
            _ = reader.comparison


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "page",
    ["overview", "merge", "filters", "gates", "channels", "network", "methods", "similarity",
     "matching"],
)  # fmt: skip
def test_every_page_shows_it_or_says_why_not(
    store: Store,
    made: dict[str, str],
    name: str,
    page: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(store.home))
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "no samples")
    monkeypatch.setattr(app_test, "PagesManager", MetNavigation)
    app: Any = opened(page, made[name])
    assert not app.exception
    assert not app.error
    text = words(app)
    if page == "overview":
        assert "The returned network (average" in text
        assert "Held-out chose the returned stage" in text
    elif page == "merge":
        assert "progress" in text
    elif page in ("filters", "gates", "channels", "network"):
        assert "ties networks together while they train" in text
