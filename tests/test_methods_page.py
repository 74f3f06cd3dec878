"""The page Methods as Streamlit runs it, and the frames and figures that it shows."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_comparisons
import fake_runs
import plotly.graph_objects as go
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_pages import opened, store, words

from merge_core import compared, launch
from merge_core.catalogue import METHOD_BY_KEY, METHODS
from merge_core.errors import RecipeError
from merge_core.plots.methods import by_method, by_seconds
from merge_core.recipes import Comparison, MethodSettings
from merge_core.store import Store
from merge_core.views.comparisons import comparisons_of, pickable
from merge_core.views.methods import findings, offered, quick
from merge_core.views.outcomes import Chance, outcome_table, outcomes

__all__ = ["store"]  # the fixture

METHODS_OF = ("uniform", "fixed_weights", "weight_matching", "output_ensemble", "zip")
"""In the made-up comparison the last one fails."""


def compare(store: Store, run: str, *, methods: Sequence[str] = METHODS_OF, stop: str = "") -> str:
    return fake_comparisons.make(
        store, run, fake_runs.SIZES["textures"], methods=methods, stop=stop
    )


def drawn(app: AppTest) -> list[dict]:
    """The traces of the page's chart."""
    return json.loads(app.get("plotly_chart")[0].proto.spec)["data"]


def traces(figure: go.Figure) -> list[dict[str, Any]]:
    return figure.to_dict()["data"]


def test_outcomes_are_what_was_stored(store: Store) -> None:
    name = compare(store, fake_runs.make(store, "textures"))
    with store.open(name) as reader:
        found = outcomes(reader)
        facts = {row["stage"]: row["facts"] for row in reader.stages()}
    assert set(found.failed) == {"zip"}
    assert {method.card.key for method in found.methods} == {*METHODS_OF} - {"zip"}
    for method in found.methods:
        stored = facts[method.card.key]
        assert [network.state for network in method.networks] == list(stored["after"])
        assert method.best.state == stored["best"]
        assert method.flops == stored["flops"]
        for network in method.networks:
            for split in ("train", "heldout", "test"):
                assert network.scores[split] == stored["after"][network.state][split]["accuracy"]
            told = stored["chance"][network.state]
            gain, error = told["minus"][0]
            assert network.chance == Chance(error=told["error"], gain=gain, gain_error=error)
    (uniform,) = [each for each in found.methods if each.card.key == "uniform"]
    seconds = [network.seconds for network in uniform.networks]
    assert seconds == [1.0, 3.0, 7.0]  # each state counts what it rests on
    heldout = [method.best.scores["heldout"] for method in found.methods]
    assert heldout == sorted(heldout, reverse=True)


def test_held_out_chooses_and_an_average_that_is_one_teacher_is_no_merge(store: Store) -> None:
    name = compare(store, fake_runs.make(store, "textures"))
    with store.open(name) as reader:
        found = outcomes(reader)
    assert found.best is not None
    # On test the uniform average is best; held-out prefers later methods.
    assert found.best.card.key == "weight_matching"
    alone = {method.card.key: method.alone for method in found.methods if method.alone}
    assert alone == {"fixed_weights": "A"}
    text = findings(found)
    assert "**Weight matching** (repaired)" in text
    assert "**0.680**" in text
    assert "at 2 times the work" in text
    assert "they chose one teacher: Fixed weights (A)" in text


def test_the_table_has_every_number_of_the_charts(store: Store) -> None:
    name = compare(store, fake_runs.make(store, "textures"))
    with store.open(name) as reader:
        found = outcomes(reader)
    table = outcome_table(found)
    networks = [network for method in found.methods for network in method.networks]
    assert len(table) == len(found.teachers) + len(networks)
    assert table["Network"].tolist()[:2] == ["Teacher A", "Teacher B"]
    for split, head in (("heldout", "Held-out accuracy"), ("test", "Test accuracy")):
        for figure, axis in ((by_method(found, split), "x"), (by_seconds(found, split), "y")):
            marks = [trace for trace in traces(figure) if trace["mode"] == "markers"]
            shown = sorted(value for trace in marks for value in trace[axis])
            wanted = table if axis == "x" else table[table["Network"] != "Output ensemble"]
            assert shown == pytest.approx(sorted(wanted[head]))


def test_the_ensemble_is_a_line_and_the_states_of_a_method_are_joined(store: Store) -> None:
    name = compare(store, fake_runs.make(store, "textures"))
    with store.open(name) as reader:
        found = outcomes(reader)
    lines = [trace for trace in traces(by_method(found, "test")) if trace["mode"] == "lines"]
    (line,) = [trace for trace in lines if trace["line"].get("dash") == "dash"]
    assert found.ensemble is not None
    assert set(line["x"]) == {found.ensemble.best.scores["test"]}
    ways = [list(trace["x"]) for trace in lines if "dash" not in trace["line"]]
    assert ways == [
        [network.scores["test"] for network in method.networks] for method in found.methods
    ]


def test_named_are_the_methods_that_no_other_beats_in_less_time(store: Store) -> None:
    name = compare(store, fake_runs.make(store, "textures"))
    with store.open(name) as reader:
        found = outcomes(reader)
    (named,) = [trace for trace in traces(by_seconds(found, "test")) if trace["mode"] == "text"]
    single = [method for method in found.methods if method.card.size == "one network"]
    points = [
        (network.seconds, network.scores["heldout"], method.card.title)
        for method in single
        for network in method.networks
    ]
    unbeaten = {
        title
        for seconds, score, title in points
        if not any(s <= seconds and other > score for s, other, _ in points)
    }
    assert {words.strip() for words in named["text"]} == unbeaten
    assert 0 < len(unbeaten) < len(single)


def test_the_output_ensemble_alone_can_be_drawn(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    name = compare(store, run, methods=["output_ensemble", "uniform"], stop="uniform")
    with store.open(name) as reader:
        found = outcomes(reader)
    assert found.best is None
    for draw in (by_method, by_seconds):
        assert any("ensemble" in trace.get("name", "") for trace in traces(draw(found, "test")))


def test_comparisons_stand_with_their_run_or_for_themselves(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    names = [compare(store, run), compare(store, run)]
    runs = store.runs(samples=False)
    assert [each.name for each in pickable(runs)] == [run]
    assert [each.name for each in comparisons_of(runs, run)] == names[::-1]
    store.delete(run)
    left = store.runs(samples=False)
    assert [each.name for each in pickable(left)] == names[::-1]
    assert [each.name for each in comparisons_of(left, names[0])] == [names[0]]


def test_what_a_form_offers() -> None:
    two, three = offered(2), offered(3)
    assert list(two) == [card.key for card in METHODS]
    assert set(two) - set(three) == {card.key for card in METHODS if card.teachers == 2}
    assert "learned_gates" not in quick(two)
    assert "⏳" in two["learned_gates"]
    assert all("⏳" not in two[key] for key in quick(two))


def test_a_finished_comparison(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    compare(store, run)
    app = opened("methods", run)
    assert not app.exception
    text = words(app)
    assert "test never chooses" in text.lower()
    assert "n = 1" in text
    assert f"**Zip** failed. {fake_comparisons.FAILED}" in text
    for key in METHODS_OF:
        assert METHOD_BY_KEY[key].about in text
        assert METHOD_BY_KEY[key].source in text
    assert METHOD_BY_KEY["transport"].about not in text
    test = [trace["x"] for trace in drawn(app) if trace.get("name") == "repaired"]
    app.button_group(key="split").set_value("heldout").run()
    assert [t["x"] for t in drawn(app) if t.get("name") == "repaired"] != test
    app.button_group(key="cost").set_value("seconds").run()
    assert not app.exception
    assert "Seconds on this machine" in words(app)


def test_a_comparison_on_its_way_shows_what_it_has(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    compare(store, run, stop="weight_matching")
    app = opened("methods", run)
    assert not app.exception
    labels = [fold.label for fold in app.expander]
    assert "Uniform average" in labels
    assert "◌ Zip" in labels
    shown = {trace["name"] for trace in drawn(app) if trace.get("name")}
    assert {"after the merge", "repaired", "fine-tuned"} <= shown
    assert not any("ensemble" in name for name in shown)


@pytest.fixture
def begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Comparison, list[bytes]]]:
    """What the page asked to begin, with the files' contents; no worker starts."""
    asked = []

    def begin(
        store: Store, recipe: Comparison, device: str, *, inputs: Sequence[Path]
    ) -> tuple[str, None]:
        asked.append((recipe, [path.read_bytes() for path in inputs]))
        return store.create(recipe, device, inputs), None

    monkeypatch.setattr(launch, "begin", begin)
    return asked


def test_a_run_without_a_comparison_gets_a_form(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    run = fake_runs.make(store, "textures")
    app = opened("methods", run)
    assert "have not been compared yet" in words(app)
    app.button_group(key=f"methods-{run}").set_value(["uniform", "zip"])
    app.number_input(key=f"tuned-{run}").set_value(3)
    app.button(key="compare").click().run()
    assert not app.exception
    ((comparison, files),) = begun
    assert comparison.of == run
    assert comparison.methods == ("uniform", "zip")
    assert comparison.fine_tune.epochs == 3
    assert len(files) == 2
    assert app.selectbox(key="run").value == run
    assert "waits for its worker" in words(app)


def test_methods_are_told_their_settings_in_a_fold(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    run = fake_runs.make(store, "textures")
    app = opened("methods", run)
    app.button_group(key=f"methods-{run}").set_value(["uniform"]).run()
    assert f"top_k-{run}" not in [field.key for field in app.number_input]
    app.button_group(key=f"methods-{run}").set_value(["fixed_weights", "soft_top_k", "zip"]).run()
    app.text_input(key=f"weights-{run}").set_value("0.7,0.4")
    app.number_input(key=f"top_k-{run}").set_value(5)
    app.number_input(key=f"up_to-{run}").set_value(2)
    app.button(key="compare").click().run()
    assert not begun
    with pytest.raises(RecipeError) as sentence, store.open(run) as reader:
        compared.of_run(reader, ("fixed_weights",), settings={"weights": "0.7,0.4"})
    assert app.error[0].value == str(sentence.value)
    app.text_input(key=f"weights-{run}").set_value("0.7,0.3")
    app.button(key="compare").click().run()
    assert not app.exception
    ((comparison, _),) = begun
    assert (comparison.weights, comparison.top_k, comparison.up_to) == ((0.7, 0.3), 5, 2)
    assert comparison.temperature == MethodSettings().temperature


def test_a_comparison_made_again_has_the_settings_of_the_first(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    run = fake_runs.make(store, "textures")
    with store.open(run) as reader:
        comparison, inputs = compared.of_run(reader, ("zip",), settings={"up_to": "2"})
    first = store.create(comparison, "cpu", inputs)
    with store.writer(first) as writer:
        writer.finish("stopped")
    app = opened("methods", run)
    assert app.number_input(key=f"up_to-{first}").value == 2


def test_a_comparison_can_be_made_again_and_both_can_be_picked(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    run = fake_runs.make(store, "textures")
    first = compare(store, run)
    app = opened("methods", run)
    app.button_group(key=f"methods-{first}").set_value(["random_half"])
    app.button(key="compare").click().run()
    assert not app.exception
    ((comparison, _),) = begun
    assert (comparison.of, comparison.methods) == (run, ("random_half",))
    assert "waits for its worker" in words(app)
    app.selectbox(key="comparison").set_value(first).run()
    assert "Weight matching" in words(app)


def test_untrained_teachers_are_a_sentence(store: Store) -> None:
    run = fake_runs.make(store, "textures", state="stopped", stop="teacher_a")
    app = opened("methods", run)
    app.button(key="compare").click().run()
    assert not app.exception
    assert "has not trained both teachers" in app.error[0].value


def test_uploads_become_inputs_under_harmless_names(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    fake_runs.make(store, "textures")
    app = opened("methods")
    assert app.button(key="compare-files").disabled
    app.file_uploader(key="files").set_value(
        [("../../a b.th", b"first", ""), ("../../a b.th", b"second", "")]
    ).run()
    app.button(key="compare-files").click().run()
    assert not app.exception
    assert not app.error
    ((comparison, files),) = begun
    assert files == [b"first", b"second"]
    assert comparison.of == ""
    assert (comparison.model, comparison.data.name) == ("cifar-resnet20", "cifar10")
    (run,) = [each for each in store.runs(samples=False) if isinstance(each.recipe, Comparison)]
    assert app.selectbox(key="run").value == run.name
    with store.open(run.name) as reader:
        names = [path.name for path in reader.inputs()]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+\.th", name) for name in names)


def test_other_pages_say_where_a_comparison_of_files_is_shown(
    store: Store, begun: list[tuple[Comparison, list[bytes]]]
) -> None:
    test_uploads_become_inputs_under_harmless_names(store, begun)
    run = next(each for each in store.runs(samples=False) if isinstance(each.recipe, Comparison))
    for page in ("overview", "merge", "filters", "gates", "channels"):
        app = opened(page, run.name)
        assert not app.exception
        assert not app.error
        assert "compares trained networks from files" in words(app)


def test_the_overview_tells_of_a_comparison(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    assert "Compared with other ways" not in links(opened("overview", run))
    compare(store, run)
    st.cache_data.clear()  # a list of runs may be a moment old
    assert "5 methods · 1 epoch of fine-tuning" in links(opened("overview", run))


def links(app: AppTest) -> str:
    return "\n".join(link.proto.label for link in app.get("page_link"))
