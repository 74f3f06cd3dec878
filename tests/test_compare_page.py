"""The page Compare as Streamlit runs it, and the command that prints the same."""

import json
import re
from pathlib import Path

import fake_runs
import fake_tables
import pytest
from streamlit.testing.v1 import AppTest
from test_pages import opened, store, words

from merge_core import carriers, places, tabled
from merge_core.carriers import Asked, Carrier
from merge_core.cli import main
from merge_core.errors import StoreError
from merge_core.repetitions import STRATEGIES, Row
from merge_core.store import Store
from merge_core.views.compare import Table
from pages import compared_tables

__all__ = ["store"]  # the fixture


def charts(app: AppTest) -> list[str]:
    return [json.loads(each.proto.spec)["data"][0]["type"] for each in app.get("plotly_chart")]


def notes(app: AppTest) -> list[str]:
    """What the charts themselves say that they rest on."""
    titles = [
        json.loads(each.proto.spec)["layout"]["title"]["text"] for each in app.get("plotly_chart")
    ]
    return [re.sub("</?span.*?>", "", title).replace("<br>", " ") for title in titles]


def test_without_a_table_it_says_how_to_begin(store: Store) -> None:
    app = opened("compare")
    assert not app.exception
    assert "No experiment has been repeated yet" in words(app)
    assert app.button(key="start-table").label == "Start"
    assert not charts(app)


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_the_answer_then_charts_then_figures(store: Store, name: str) -> None:
    fake_tables.make(store.home, name)
    app = opened("compare")
    assert not app.exception
    assert not app.error
    text = words(app)
    assert " bo3 (" in text[text.index("clearly better than") :]
    (note,) = set(notes(app))
    assert "n = 6, seeds 0 to 5, equal training epochs, test" in note
    assert len(notes(app)) == len(charts(app)) == 3
    assert text.count(note) == 1, "once more, for the figures"
    assert len(app.dataframe[0].value) == len(STRATEGIES)
    assert app.code[0].value == f"netweld table {name} --preset quick --n 6 --budget epochs"
    last = {"sine": "curves", "digits": "classes"}[name]
    for view in ("stages", last):
        app.segmented_control(key="view").set_value(view).run()
        assert not app.exception
        assert notes(app) == [note] * 3


def test_another_strategy_on_another_split(store: Store) -> None:
    fake_tables.make(store.home)
    app = opened("compare")
    app.selectbox(key="first").set_value("bo3").run()
    assert "**Bo3** has a mean test loss" in words(app)
    app.segmented_control(key="compare-split").set_value("heldout").run()
    assert "**Bo3** has a mean held-out loss" in words(app)
    assert "flatter" in words(app)


def test_the_address_picks_the_table(store: Store) -> None:
    older = fake_tables.make(store.home, "digits")
    fake_tables.make(store.home, "sine")
    app = opened("compare")
    assert str(app.selectbox(key="table").value).startswith("sine-")
    app.selectbox(key="table").set_value(older.path.stem).run()
    assert "mean test accuracy" in words(app)


def test_ones_own_repetition_of_a_sample_is_beside_it(store: Store) -> None:
    shipped = fake_tables.make(places.samples(), n=6)
    own = fake_tables.make(store.home, n=2)
    assert own.path.name == shipped.path.name
    app = opened("compare")
    assert app.selectbox(key="table").value == shipped.path.stem
    assert "n = 2)" in words(app)
    app.selectbox(key="table").set_value(f"{shipped.path.stem}-sample").run()
    assert "n = 6)" in words(app)
    assert "This table came with netweld" in words(app)


def asked(n: int = 4) -> Asked:
    return Asked(seed=0, n=n, device="cpu", data="nowhere", workers=0)


def test_a_running_table_shows_how_far_it_is_and_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = fake_tables.make(store.home).path
    carrier = Carrier(table, asked())
    carrier.report(0.25, 90.0)
    carrier.report(0.5, 60.0)  # too soon after the first to be written
    stopped: list[Path] = []
    monkeypatch.setattr(carriers, "stop", stopped.append)
    app = opened("compare")
    assert not app.exception
    assert "of 4 repetitions of every strategy" in app.get("progress")[0].proto.text
    app.button(key="stop-table").click().run()
    assert stopped == [table]
    carrier.end("stopped")


def test_a_table_that_ends_while_the_page_is_drawn_is_shown_as_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the picker, which says whether somebody works on it, and the table below."""
    carrier = Carrier(fake_tables.make(store.home).path, asked())
    carrier.report(0.25, 90.0)
    label = compared_tables.label

    def end(table: Table) -> str:
        monkeypatch.setattr(compared_tables, "label", label)
        said = label(table)
        carrier.end("stopped")
        return said

    monkeypatch.setattr(compared_tables, "label", end)
    app = opened("compare")
    assert not app.exception
    assert "This table was stopped" in words(app)
    assert "running" not in words(app)


def test_a_stopped_table_can_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    results = fake_tables.make(store.home, n=2)
    Carrier(results.path, asked(7)).end("stopped")
    begun: list[tuple] = []
    monkeypatch.setattr(tabled, "begin", lambda *what, **more: begun.append((*what, more)))
    app = opened("compare")
    assert "This table was stopped" in words(app)
    app.button(key="go-on").click().run()
    ((recipe, budget, n, more),) = begun
    assert (recipe, budget, n, more["device"]) == (results.recipe, "epochs", 7, "cpu")


def test_starting_a_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple] = []
    monkeypatch.setattr(tabled, "begin", lambda *what, **more: begun.append((*what, more)))
    app = opened("compare")
    app.number_input(key="table-n").set_value(3).run()
    app.number_input(key="table-seed").set_value(11).run()
    app.button(key="start-table").click().run()
    assert not app.exception
    ((recipe, budget, n, _),) = begun
    assert (recipe.name, recipe.seed, budget, n) == ("sine", 11, "flops", 3)


def test_stored_runs_have_the_views_of_tables(store: Store) -> None:
    names = [fake_runs.make(store, "textures", seed=seed) for seed in (0, 1)]
    fake_runs.make(store, "sine")
    app = opened("compare")
    app.segmented_control(key="what").set_value("runs").run()
    assert not app.exception
    app.segmented_control(key="runs-metric").set_value("accuracy").run()
    assert not app.exception
    assert len(charts(app)) == 3
    (note,) = set(notes(app))
    assert "n = 2, seeds 0 and 1, its recipe's own budget (" in note
    assert len(notes(app)) == 3
    assert words(app).count(note) == 1
    assert all(f"# {name}" in app.code[0].value for name in names)
    app.segmented_control(key="view").set_value("stages").run()
    assert not app.exception
    assert charts(app)[-1] == "scatter"
    (first,) = (box for box in app.selectbox if box.label == "Compare")
    assert first.value == "0:returned"
    first.set_value("0:trained_on").run()
    assert "Control: teacher A trained on, minus each other" in words(app)
    app.multiselect(key="compared-runs").set_value([]).run()
    assert "Choose one run or more" in words(app)


def runs_compared(*names: str) -> AppTest:
    """The page with these runs picked."""
    app = opened("compare")
    app.segmented_control(key="what").set_value("runs").run()
    app.multiselect(key="compared-runs").set_value(list(names)).run()
    assert not app.exception
    return app


def test_learned_curves_of_picked_runs(store: Store) -> None:
    now = [fake_runs.make(store, "sine", seed=seed) for seed in (0, 1)]
    early = fake_runs.make(store, "sine", seed=2, early=True)
    app = runs_compared(*now, early)
    app.segmented_control(key="view").set_value("curves").run()
    assert not app.exception
    figure = json.loads(app.get("plotly_chart")[-1].proto.spec)
    titles = [each["text"] for each in figure["layout"]["annotations"]]
    assert "<b>Teacher A</b><br>2 of 2 miss a peak" in titles
    assert "<b>Returned</b><br>0 of 2 miss a peak" in titles
    missing = "Without learned curves, which an earlier version of netweld did not keep: "
    assert f"{missing}{early}." in words(app)
    app = runs_compared(early)
    assert app.segmented_control(key="view").options == ["Score against FLOPs", "After each stage"]
    assert "Without learned curves" in words(app)


def test_classes_of_picked_runs(store: Store) -> None:
    app = runs_compared(*(fake_runs.make(store, "textures", seed=seed) for seed in (0, 1)))
    assert "Without" not in words(app)
    app.segmented_control(key="view").set_value("classes").run()
    app.segmented_control(key="compare-split").set_value("heldout").run()
    assert not app.exception
    traces = json.loads(app.get("plotly_chart")[-1].proto.spec)["data"]
    assert [trace["name"] for trace in traces] == ["Teacher A", "Teacher B", "Returned"]
    assert sorted(traces[0]["customdata"]) == sorted(fake_runs.NAMES)
    assert set(traces[0]["x"]) == {0.68}
    assert notes(app)[-1].endswith("held-out (chooses) accuracy.")
    assert len({trace["marker"]["color"] for trace in traces}) == 3
    assert "seeds 0 and 1" in words(app)
    (shown,) = (each for each in app.multiselect if each.label == "Shown")
    shown.set_value([]).run()
    assert "Choose networks that tell the same classes apart" in words(app)


def test_a_table_has_one_carrier_at_a_time(tmp_path: Path) -> None:
    table = tmp_path / "tables" / "some.jsonl"
    assert carriers.progress_of(table) is None
    first = Carrier(table, asked())
    assert carriers.progress_of(table) is None
    first.begin()
    told = carriers.progress_of(table)
    assert told is not None
    assert (told.state, told.asked) == ("running", asked())
    with pytest.raises(StoreError, match="already"):
        Carrier(table, asked())
    first.end("failed", "No room.")
    told = carriers.progress_of(table)
    assert told is not None
    assert (told.state, told.message) == ("failed", "No room.")
    with pytest.raises(StoreError, match="Nobody works"):
        carriers.stop(table)
    Carrier(table, asked()).end("finished")


def test_a_carrier_that_is_gone_is_lost(tmp_path: Path) -> None:
    table = tmp_path / "tables" / "some.jsonl"
    Carrier(table, asked()).end("stopped")
    file = carriers.folder(table) / "progress.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "running"}))
    told = carriers.progress_of(table)
    assert told is not None
    assert told.state == "lost"
    file.write_text("junk")
    assert carriers.progress_of(table) is None


def test_rows_of_early_versions_are_read(tmp_path: Path) -> None:
    results = fake_tables.make(tmp_path, n=1)
    old = {"seed": 9, "strategy": "student", "heldout": 1.0, "test": 2.0, "epochs": 3, "flops": 4.0}
    with results.path.open("a") as file:
        file.write(json.dumps(old) + "\n")
    assert results.rows()[-1] == Row(**old)
    (session,) = results.sessions()
    assert session == fake_tables.SESSION


def test_the_command_prints_differences_and_writes_latex(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fake_tables.make(tmp_path)
    shown = ["netweld", "table", "sine", "--preset", "quick", "--n", "6"]
    monkeypatch.setattr("sys.argv", [*shown, "--latex", "sine.tex"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    rows = said[said.index("student − …") :].splitlines()
    bo3 = next(line for line in rows if line.strip().startswith("bo3 "))
    assert bo3.split()[1] == "6"
    assert bo3.rstrip().endswith("clearly better")
    assert " bo3 (" in said[said.index("It is clearly better than") :]
    assert "9,999 resamples" in said
    assert "a made-up processor" in said
    assert r"\toprule" in (tmp_path / "sine.tex").read_text()
    monkeypatch.setattr("sys.argv", [*shown, "--of", "nobody"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code
    assert "There is no strategy 'nobody'" in capsys.readouterr().err
