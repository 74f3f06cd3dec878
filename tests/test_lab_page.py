"""The page Lab as Streamlit runs it, its chart, and the command that prints the same."""

import shlex
from contextlib import closing
from pathlib import Path

import fake_labs
import numpy as np
import pytest
import stand_in
from test_pages import opened, store, words

from merge_core import carriers, lab_work, launch, owners, processes
from merge_core.carriers import Asked, Carrier
from merge_core.cli import main
from merge_core.lab import Lab, LabFile, best_cells, landscape
from merge_core.plots.lab import cell_curves, landscape_map
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import Store, Turns, key_of
from merge_core.views.lab import (
    cell_text,
    findings,
    lab_command,
    lab_frame,
    lambda_curve,
    merge_command,
    read_lab,
)
from pages import identity

__all__ = ["store"]  # the fixture

EPOCHS = 100


def test_without_a_lab_the_page_offers_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(
        lab_work, "begin", lambda file, n, device: begun.append((file, n, device)) or file.begin()
    )
    app = opened("lab")
    assert not app.exception
    assert "There is no lab yet" in words(app)
    app.number_input(key="lab-seeds").set_value(2)
    app.button(key="start-lab").click().run()
    assert not app.exception
    ((file, n, device),) = begun
    assert (file.lab.shape, n, device) == ((8, 8), 2, "cpu")
    assert app.selectbox(key="lab").value == file.path.stem


def test_a_lab_is_shown_and_its_cell_starts_a_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []

    def begin(store: Store, recipe: Recipe, device: str) -> tuple[str, list[str]]:
        begun.append(recipe)
        return store.create(recipe, device), []

    monkeypatch.setattr(launch, "begin", begin)
    file = fake_labs.make(store.home)
    app = opened("lab")
    assert not app.exception
    text = words(app)
    assert "This lab is not finished" in text
    assert "at **λ₀ = 0.01, g = " in text
    assert "That is the paper's schedule" in text
    app.segmented_control(key="measure").set_value("undecided").run()
    assert "the cut decides about them" in words(app)
    app.button(key="run-cell").click().run()
    assert not app.exception
    assert file.lab.paper is not None
    assert begun == [file.lab.recipe_of(file.lab.paper, 0)]


def test_a_lab_on_its_way_can_be_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fake_labs.make(store.home, name="digits", seeds=2)
    stopped = []
    monkeypatch.setattr(carriers, "stop", stopped.append)
    carrier = Carrier(file.path, Asked(seed=0, n=2, device="cpu", data="", workers=0))
    try:
        carrier.report(0.25, 30.0)
        app = opened("lab")
        assert not app.exception
        assert "16 schedules × 2 seeds" in app.progress[0].text
        app.button(key="stop-lab").click().run()
        assert stopped == [file.path]
    finally:
        carrier.end("stopped")
    app = opened("lab")
    assert "was stopped" in words(app)
    asked = []
    monkeypatch.setattr(lab_work, "begin", lambda file, n, **more: asked.append((n, more["seed"])))
    app.button(key="lab-go-on").click().run()
    assert asked == [(2, 0)]


def test_a_lab_is_deleted_by_who_began_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fake_labs.make(store.home)
    key = key_of(file.path)
    who = [owners.new_browser() for _ in range(2)]
    Turns(store.home).claim(key, who[0].owner)
    for visitor in reversed(who):
        monkeypatch.setattr(identity, "visitor", lambda visitor=visitor: visitor)
        app = opened("lab")
        app.session_state[f"delete-{key}"] = True
        app.run()
        assert f"Delete {file.path.stem}?" in words(app)
        assert "Its schedules are lost for good: 1 file, which frees" in words(app)
        button = app.button(key=f"delete-{key}-now")
        assert button.disabled == (visitor is who[1])
        if not button.disabled:
            button.click().run()
            assert not app.exception
            assert "There is no lab yet" in words(app)
    assert not file.path.exists()


def test_a_waiting_lab_says_who_is_before_it_and_can_be_taken_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who began it; everybody else reads why not."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setattr(processes, "visible_gpus", list)
    file, stopped = fake_labs.make(store.home), []
    who = [owners.new_browser() for _ in range(2)]
    monkeypatch.setattr(identity, "visitor", lambda: who[0])
    monkeypatch.setattr(carriers, "stop", stopped.append)
    Turns(store.home).claim(key_of(file.path), who[0].owner)
    first = stand_in.carried(store.home / "tables" / "first.jsonl")
    with closing(first), closing(stand_in.carried(file.path)) as listening:
        assert not next(first).waits
        assert next(listening).waits
        app = opened("lab")
        assert not app.exception
        assert "Waits for its turn (next)" in words(app)
        assert "⏳ waiting" in words(app)
        app.button(key="stop-lab").click().run()
        assert stopped == [file.path]
        who.reverse()
        app = opened("lab")
        assert app.button(key="stop-lab").disabled
        assert f"Lab {file.path.stem} is somebody else's" in words(app)
    app = opened("lab")
    assert app.button(key="lab-go-on").disabled
    assert "is somebody else's" in words(app)
    who.reverse()
    assert not opened("lab").button(key="lab-go-on").disabled


def test_the_map_has_every_cell_in_its_place(tmp_path: Path) -> None:
    now = read_lab(fake_labs.make(tmp_path, shape=(4, 8)).path)
    lab, values = now.lab, landscape(now.lab, now.rows, "tuned_heldout")
    best = best_cells(lab, now.rows)[0]
    option = landscape_map(lab, values, "tuned_heldout", "loss", best=best, chosen=(0, 0))
    (series,) = option["series"]
    assert len(option["xAxis"]["data"]) == 4
    assert len(option["yAxis"]["data"]) == 8
    for index, item in enumerate(series["data"]):
        cell = divmod(index, 8)
        assert tuple(item["value"][:2]) == cell
        known = not np.isnan(values[cell])
        assert item["value"][2] == (pytest.approx(values[cell]) if known else "-")
        assert ("★" in item["label"]["formatter"]) == (cell == best)
        assert ("paper" in item["label"]["formatter"]) == (cell == lab.paper)
    assert len({item["name"] for item in series["data"]}) == 32
    assert [index for index, item in enumerate(series["data"]) if "itemStyle" in item] == [0]


def test_curves_of_a_cell(tmp_path: Path) -> None:
    now = read_lab(fake_labs.make(tmp_path).path)
    weights = lambda_curve(now.lab, (0, 0))
    option = cell_curves({"hidden": np.linspace(1, 0.5, EPOCHS)}, weights)
    mean, weight = option["series"]
    assert mean["data"][-1] == [EPOCHS, 0.5]
    assert [y for _, y in weight["data"]] == weights.tolist()


def test_what_is_typed_gives_the_same_lab_and_the_same_recipe(tmp_path: Path) -> None:
    recipe = find_preset("sine", "quick").recipe.changed({"gating.epochs": "7"})
    file = LabFile(Lab.usual(recipe, "cosine", (2, 3)), tmp_path)
    file.begin()
    now = read_lab(file.path)
    said = shlex.split(lab_command(now))
    assert said[:3] == ["netweld", "lab", "sine"]
    assert said[said.index("--grid") + 1] == "2x3"
    assert said[said.index("--set") + 1] == "gating.epochs=7"
    typed = shlex.split(merge_command(now.lab, (1, 2), 4))
    settings = dict(typed[i + 1].split("=", 1) for i, word in enumerate(typed) if word == "--set")
    found = find_preset("sine", "quick").recipe.changed({"seed": "4", **settings})
    assert found == now.lab.recipe_of((1, 2), 4)


def test_the_command_prints_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    file = fake_labs.make(tmp_path, shape=(1, 1))
    now = read_lab(file.path)
    monkeypatch.setattr("sys.argv", ["netweld", "lab", "sine", "--grid", "1x1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    assert findings(now).replace("**", "").split(".")[0] in said
    assert f"{lab_frame(now).iloc[0, -1]:.4g}" in said
    assert cell_text(now.lab, (0, 0)) in said
    monkeypatch.setattr("sys.argv", ["netweld", "lab", "sine", "--grid", "8"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "two sizes are expected" in capsys.readouterr().err
