"""The page Lab's search as Streamlit runs it, its charts, and the commands that it prints."""

import shlex
from pathlib import Path

import fake_searches
import pytest
from streamlit.testing.v1 import AppTest
from test_pages import opened, store, words

from merge_core import carriers, launch, search_work
from merge_core.carriers import Asked, Carrier
from merge_core.cli import main
from merge_core.plots.search import trial_map, trial_scores
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.schedules import Closing, Points
from merge_core.search import Search, SearchFile, Trial
from merge_core.store import Store
from merge_core.views.search import (
    findings,
    merge_command,
    read_search,
    search_command,
    trial_frame,
)

__all__ = ["store"]  # the fixture


def opened_search() -> AppTest:
    app = opened("lab")
    return app.segmented_control(key="how").set_value("search").run()


def asked(n: int, run: str = "") -> Asked:
    return Asked(seed=0, n=n, device="cpu", data="nowhere", workers=1, minutes=2.0, run=run)


def test_a_search_is_begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[SearchFile, Asked]] = []
    monkeypatch.setattr(
        search_work, "begin", lambda file, asked: begun.append((file, asked)) or file.begin()
    )
    monkeypatch.setattr(
        launch, "begin", lambda store, recipe, device, data: (store.create(recipe, device), [])
    )
    app = opened_search()
    assert not app.exception
    assert "There is no search yet" in words(app)
    app.selectbox(key="search-recipe").set_value("digits").run()
    assert "A merge of the recipe goes first" in words(app)
    app.number_input(key="search-seed").set_value(3).run()
    app.number_input(key="search-trials").set_value(7)
    app.number_input(key="search-minutes").set_value(5.0).run()
    assert "end after 5 minutes" in words(app)
    app.button(key="start-search").click().run()
    assert not app.exception
    ((file, given),) = begun
    assert (file.search.recipe.name, file.search.recipe.seed, given.n) == ("digits", 3, 7)
    assert given.minutes == 5
    assert store.names() == [given.run]
    assert app.selectbox(key="search").value == file.path.stem


def test_trials_are_shown_and_the_best_is_merged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []

    def begin(store: Store, recipe: Recipe, device: str) -> tuple[str, list[str]]:
        begun.append(recipe)
        return store.create(recipe, device), []

    monkeypatch.setattr(launch, "begin", begin)
    file = fake_searches.make(store.home)
    app = opened_search()
    assert not app.exception
    text = words(app)
    assert "at **λ₀ = 0.05, g = 0.2** (trial 4;" in text
    assert "Trial 3: The loss is not finite" in text
    assert "this is one seed" in text
    app.button(key="run-best").click().run()
    assert not app.exception
    assert begun == [file.search.recipe_of(fake_searches.TRIED[4])]


def test_a_search_on_its_way_can_be_stopped_and_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fake_searches.make(store.home, name="digits")
    run = store.create(file.search.recipe, "cpu")
    stopped = []
    monkeypatch.setattr(carriers, "stop", stopped.append)
    carrier = Carrier(file.path, asked(9, run))
    carrier.begin()
    try:
        app = opened_search()
        assert not app.exception
        assert f"Run {run} goes first" in words(app)
        carrier.report(0.25, 30.0)
        assert "of 9 trials or 2 minutes" in app.progress[0].text
        app.button(key="stop-search").click().run()
        assert stopped == [file.path]
    finally:
        carrier.end("stopped")
    app = opened_search()
    assert "was stopped" in words(app)
    begun = []
    monkeypatch.setattr(search_work, "begin", lambda file, asked: begun.append(asked))
    app.button(key="search-go-on").click().run()
    assert not app.exception
    assert [(each.n, each.minutes, each.run) for each in begun] == [(9, 2.0, run)]


def test_the_charts_have_every_trial(tmp_path: Path) -> None:
    now = read_search(fake_searches.make(tmp_path).path)
    over = [trial for trial in now.trials if not trial.failed]
    known = {trial.number: trial.heldout for trial in over if trial.heldout is not None}
    best, scores = trial_scores(now.search, now.trials)["series"]
    assert scores["data"] == [[trial.number, trial.heldout] for trial in over]
    assert best["markLine"]["data"] == [{"yAxis": over[0].heldout}]
    assert [value for _, value in best["data"]] == [
        min(score for number, score in known.items() if number <= trial.number)
        for trial in now.trials
    ]
    marks, crosses = trial_map(now.search, now.trials)["series"]
    assert [mark["value"] for mark in marks["data"]] == [
        [*(trial.numbers or ()), trial.heldout] for trial in over
    ]
    labels = [mark["label"]["formatter"] for mark in marks["data"]]
    assert labels == ["own", "", "", "★ best"]
    assert [cross["value"] for cross in crosses["data"]] == [[2.0, 4.0]]
    frame = trial_frame(now)
    assert frame["Trial"].tolist() == [0, 1, 2, 3, 4]
    assert frame["Note"].tolist()[0] == "the recipe's own schedule"
    assert frame["λ₀"].tolist() == [0.01, 0.3, 0.02, 2.0, 0.05]


def test_a_schedule_of_another_kind_has_no_place_on_the_map() -> None:
    recipe = find_preset("digits", "quick").recipe.changed({"gates.schedule.kind": "closing"})
    trials = [Trial(number=0, numbers=None, cut_heldout=0.5, heldout=0.7, test=0.7)]
    search = Search(recipe=recipe)
    marks, _ = trial_map(search, trials)["series"]
    assert not marks["data"]
    _, scores = trial_scores(search, trials)["series"]
    assert scores["data"] == [[0, 0.7]]
    assert isinstance(search.schedule(None), Closing)


def test_what_is_typed_gives_the_same_search_and_the_same_merge(tmp_path: Path) -> None:
    recipe = find_preset("sine", "quick").recipe.changed(
        {"gating.epochs": "7", "gates.schedule.kind": "points", "seed": "4"}
    )
    file = SearchFile(Search(recipe=recipe, family="cosine", seed=2), tmp_path)
    trial = Trial(number=0, numbers=(0.25, 12.0), cut_heldout=0.1, heldout=0.1, test=0.1)
    file.append([trial])
    now = read_search(file.path)
    for typed, expected in {
        search_command(now): recipe,
        merge_command(now.search, trial): now.search.recipe_of((0.25, 12.0)),
    }.items():
        said = shlex.split(typed)
        settings = dict(said[i + 1].split("=", 1) for i, word in enumerate(said) if word == "--set")
        seed = said[said.index("--seed") + 1]
        found = find_preset("sine", "quick").recipe.changed({"seed": seed, **settings})
        assert found == expected
    assert isinstance(recipe.gates.schedule, Points)
    said = shlex.split(search_command(now))
    assert said[:3] == ["netweld", "search", "sine"]
    assert said[said.index("--family") + 1] == "cosine"
    assert said[said.index("--sampler-seed") + 1] == "2"


def test_the_command_prints_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    now = read_search(fake_searches.make(tmp_path).path)
    run = Store(tmp_path).create(now.search.recipe, "cpu")
    for what in ("sine", run):
        monkeypatch.setattr("sys.argv", ["netweld", "search", what, "--trials", "5"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        said = capsys.readouterr().out
        assert findings(now).replace("**", "") in said
        assert now.best is not None
        assert merge_command(now.search, now.best) in said
        assert "- Trial 3: The loss is not finite" in said
        lines = [line.split() for line in said.splitlines()]
        best = next(line for line in lines if line and line[0].isdigit())
        assert best[:4] == ["4", "0.05", "0.2", "0.5"]
    monkeypatch.setattr("sys.argv", ["netweld", "search", "sine", "--device", "abacus"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "no device 'abacus'" in capsys.readouterr().err
