"""Figures: what is drawn is what the frames say."""

import base64
import dataclasses
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merge_core.plots.channels import origins
from merge_core.plots.curves import MOST_LINES, learning_curves
from merge_core.plots.evolution import (
    FORKS,
    MOST_CELLS,
    Steered,
    epochs_per_column,
    evolution_height,
    gate_evolution,
    gate_histogram,
)
from merge_core.plots.family import beside
from merge_core.plots.filters import filter_bands, hinges, scales, to_pixels
from merge_core.plots.scores import strip
from merge_core.store import Store
from merge_core.views.channels import openness, share_frame
from merge_core.views.family import Course
from merge_core.views.filters import first_layer, hinge_frame, sine_target, tile_frame
from merge_core.views.runs import curve_frame, stage_frame


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", tmp_path / "no samples")


def traces(figure: go.Figure) -> list[Any]:
    """A figure's traces; Plotly's own types do not tell what they are."""
    return list(figure.data)


FILTERS = hnp.arrays(np.float64, (4, 3, 5, 5), elements=st.floats(-10, 10, width=32))


@given(FILTERS)
def test_zero_is_mid_grey_and_signs_are_opposite(filters: np.ndarray) -> None:
    scale = scales([filters], "filter")[0]
    light, dark = to_pixels(filters, scale).astype(int), to_pixels(-filters, scale).astype(int)
    assert np.abs(light + dark - 255).max() <= 1
    assert set(np.unique(to_pixels(np.zeros_like(filters), scale))) == {128}


@given(FILTERS, st.floats(0.1, 100))
def test_contrast_per_filter_does_not_depend_on_a_filters_size(
    filters: np.ndarray, factor: float
) -> None:
    filters[np.abs(filters) < 1e-3] = 1.0  # far from the smallest scale there is
    small, large = (
        to_pixels(f, scales([f], "filter")[0]).astype(int) for f in (filters, factor * filters)
    )
    assert np.abs(small - large).max() <= 1


def test_contrast_globally_keeps_networks_comparable() -> None:
    weak, strong = np.full((2, 3, 3, 3), 0.1), np.full((2, 3, 3, 3), 1.0)
    assert [set(scale) for scale in scales([weak, strong], "globally")] == [{1.0}, {1.0}]
    assert [set(scale) for scale in scales([weak, strong], "layer")] == [{0.1}, {1.0}]


def test_one_channel_is_shown_in_grey() -> None:
    pixels = to_pixels(np.random.default_rng(0).normal(size=(3, 1, 4, 4)), 1.0)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def decoded(source: str) -> np.ndarray:
    """A PNG as an array, read by the format's own rules."""
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    place, body, size = 8, b"", (0, 0)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind = data[place + 4 : place + 8]
        content = data[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content)
        if kind == b"IHDR":
            size = struct.unpack(">II", content[:8])
        if kind == b"IDAT":
            body += content
        place += 12 + length
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(size[1], 1 + 4 * size[0])
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(size[1], size[0], 4)


@pytest.mark.parametrize("order", ["original", "gate"])
def test_each_tile_lies_under_its_marker(store: Store, order: str) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        layer = first_layer(reader, "norms")
    assert layer is not None
    tiles = tile_frame(layer, order)
    figure = filter_bands(tiles, layer.weights, "layer")
    image = decoded(traces(figure)[0].source)
    over = traces(figure)[-1]
    limits = scales(layer.weights, "layer")
    for place, row in enumerate(tiles.to_dict("records")):
        top, left = round(over.y[place] + 0.5 - 3.5), round(over.x[place] + 0.5 - 3.5)
        shown = image[top : top + 7, left : left + 7, :3]
        band = row["band"]
        expected = to_pixels(layer.weights[band], limits[band])[row["row"]]
        np.testing.assert_array_equal(shown, expected)
        assert f"channel {row['row']}" in over.customdata[place][1]


def test_as_many_outlines_and_ticks_as_kept_filters(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        layer = first_layer(reader, "norms")
    assert layer is not None
    figure = filter_bands(tile_frame(layer, "original"), layer.weights, "filter")
    outline, ticks = traces(figure)[1], traces(figure)[2]
    assert np.isnan(np.asarray(outline.x)).sum() == 16
    assert list(ticks.text) == ["✓"] * 16


def test_before_the_cut_nothing_is_outlined(store: Store) -> None:
    name = fake_runs.make(store, "digits", state="stopped", stop="gates")
    with store.open(name) as reader:
        layer = first_layer(reader, "")
    assert layer is not None
    figure = filter_bands(tile_frame(layer, "original"), layer.weights, "filter")
    assert [trace.type for trace in traces(figure)] == ["image", "scatter"]


def test_hinges_draw_every_neuron_once(store: Store) -> None:
    with store.open(fake_runs.make(store, "sine")) as reader:
        layer = first_layer(reader, "fine_tune")
    assert layer is not None
    neurons, _ = hinge_frame(layer)
    figure = hinges(neurons, sine_target())
    drawn = np.concatenate([trace.x for trace in traces(figure)[1:]])
    assert sorted(drawn) == sorted(neurons["bend"])


def test_strip_shows_test_scores_with_their_numbers(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        stages = stage_frame(reader)
    figure = strip(stages, "accuracy")
    texts = [trace.text for trace in traces(figure) if trace.mode == "markers+text"]
    shown = stages.loc[stages["stage"] != "ensemble", "test"]
    assert [text.strip("</b>").split()[0] for text in texts[0]] == [f"{s:.3f}" for s in shown]
    assert [text for text in texts[0] if "returned" in text] == ["<b>0.718 returned</b>"]
    assert any("output ensemble" in (trace.name or "") for trace in traces(figure))
    assert any(trace.name == "returned" for trace in traces(figure))


@pytest.mark.parametrize(("second", "place"), [(0.681, "top right"), (0.7, "top center")])
def test_words_of_teachers_that_are_near_each_other_stand_apart(
    store: Store, second: float, place: str
) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        stages = stage_frame(reader)
    stages.loc[stages["stage"] == "teacher_b", "test"] = second
    (marks,) = [t for t in traces(strip(stages, "accuracy")) if t.mode == "markers+text"]
    assert marks.textposition[:2] == ("top center", place)


@pytest.mark.parametrize("stop", ["teacher_a", "teacher_b", "gates", "fine_tune"])
def test_strip_of_a_run_on_its_way(store: Store, stop: str) -> None:
    name = fake_runs.make(store, "textures", state="stopped", stop=stop)
    with store.open(name) as reader:
        figure = strip(stage_frame(reader), "accuracy")
    assert not any(trace.name == "returned" for trace in traces(figure))


def test_no_figure_has_a_background_or_text_colour_of_its_own(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        layer = first_layer(reader, "norms")
        assert layer is not None
        figures = [
            strip(stage_frame(reader), "accuracy"),
            origins(share_frame(reader)),
            filter_bands(tile_frame(layer, "original"), layer.weights, "filter"),
        ]
    for figure in figures:
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
        assert figure.layout.font.color is None


def test_origins_adds_up_to_the_whole(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        figure = origins(share_frame(reader))
    a, b = traces(figure)
    np.testing.assert_allclose(np.asarray(a.x) + np.asarray(b.x), 1.0)


def test_curves_hold_every_epoch(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        curves = curve_frame(reader)
    option = learning_curves(curves, "accuracy", log=False)
    heldout = [s for s in option["series"] if s["lineStyle"]["type"] == "solid"]
    assert [point[0] for s in heldout for point in s["data"]] == list(curves["run_epoch"])
    assert option["xAxis"]["max"] == len(curves)


def test_the_distance_of_tied_networks_is_a_curve_of_its_own(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        curves = curve_frame(reader)
    apart = curves["stage"] == "teacher_a"
    curves["distance"] = curves["run_epoch"].where(apart) / 10
    (line,) = learning_curves(curves, "distance", log=False)["series"]
    drawn = curves[apart]
    assert line["data"] == [[e, e / 10] for e in drawn["run_epoch"]]


def test_options_are_plain_json(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        curves = curve_frame(reader)
        history = openness(reader, "conv1")
    assert history is not None
    options = [
        learning_curves(curves, "loss", log=True),
        learning_curves(curves.iloc[:0], "loss", log=True),
        gate_evolution(
            history.probability,
            history.epochs,
            history.labels,
            history.order("probability"),
            history.weights,
            list(range(MOST_LINES)),
            history.planned,
        ),
        gate_histogram(history.probability[0], 1),
    ]
    assert isinstance(options[2].pop("dataset")["source"], pd.DataFrame)  # Streamlit sends it
    for option in options:
        assert json.loads(json.dumps(option, allow_nan=False)) == option


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 6)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_heat_map_puts_each_probability_in_its_cell(probability: np.ndarray) -> None:
    count, channels = probability.shape
    order = np.argsort(probability[-1])
    option = gate_evolution(
        probability,
        np.arange(1, count + 1),
        [str(i) for i in range(channels)],
        order,
        np.ones(count),
        [],
        count + 2,
    )
    cells = option["dataset"]["source"]
    assert len(cells) == count * channels
    for cell in cells.to_dict("records"):
        channel = int(option["yAxis"][0]["data"][cell["row"]])
        assert cell["P[open]"] == probability[cell["column"], channel]
    assert len(option["xAxis"][0]["data"]) == count + 2


def test_a_long_gate_stage_is_averaged_in_columns_in_line_with_the_curves() -> None:
    random = np.random.default_rng(0)
    probability = random.uniform(size=(100, 200)).astype(np.float32)
    option = gate_evolution(
        probability,
        np.arange(1, 101),
        [str(i) for i in range(200)],
        np.arange(200),
        np.ones(100),
        [],
        150,
    )
    cells = option["dataset"]["source"]
    wide = epochs_per_column(150, 200)
    columns = option["xAxis"][0]["data"]
    assert len(columns) * 200 <= MOST_CELLS
    assert columns[:2] == [f"1–{wide}", f"{wide + 1}–{2 * wide}"]
    assert option["xAxis"][1]["max"] == len(columns) * wide + 0.5
    table = cells.pivot(index="column", columns="row", values="P[open]").to_numpy()
    expected = [probability[i : i + wide].mean(0) for i in range(0, 100, wide)]
    np.testing.assert_allclose(table, expected, rtol=1e-5)


def test_a_window_shows_its_epochs_alone() -> None:
    probability = np.linspace(0, 1, 30, dtype=np.float32).reshape(10, 3)
    option = gate_evolution(
        probability, np.arange(1, 11), ["a", "b", "c"], np.arange(3), np.ones(10), [], 12,
        window=(4, 6),
    )  # fmt: skip
    assert option["xAxis"][0]["data"] == ["4", "5", "6"]
    assert [(axis["min"], axis["max"]) for axis in option["xAxis"][1:]] == [(3.5, 6.5)] * 2
    table = option["dataset"]["source"].pivot(index="column", columns="row", values="P[open]")
    np.testing.assert_array_equal(table.to_numpy(), probability[3:6])


def test_commands_and_forks_stand_on_the_time_axis() -> None:
    def marker(verb: str, epoch: float, *, refused: bool = False, stage: str = "gates") -> dict:
        return {
            "verb": verb, "epoch": epoch, "stage": stage, "refused": refused, "words": f"{verb}!"
        }  # fmt: skip

    steered = Steered(
        course=pd.DataFrame(
            {"epoch": [1, 2, 3, 4], "value": [1.0, 1.0, 2.0, np.nan], "part": PARTS}
        ),
        ghosts=pd.DataFrame({"change": [0, 0], "epoch": [2, 3], "value": [1.0, 1.5], "words": "x"}),
        markers=pd.DataFrame(
            [
                marker("lambda", 2),
                marker("pause", 2),
                marker("cut", 2.5, refused=True),
                marker("stop", 1, stage="fine_tune"),
                marker("go", np.nan),
            ]
        ),
        forks=[0, 2],
    )
    option = gate_evolution(
        np.full((2, 3), 0.5, np.float32), np.array([1, 2]), ["a", "b", "c"], np.arange(3),
        np.ones(2), [], 4, steered=steered,
    )  # fmt: skip
    series = {each["name"]: each for each in option["series"]}
    commands = [(each["value"][0], each["name"]) for each in series["commands"]["data"]]
    assert commands == [(2.5, "lambda!; pause!"), (3.0, "refused: cut!")]
    assert [each["value"][0] for each in series[FORKS]["data"]] == [0.5, 2.5]
    assert series["λ"]["markLine"]["data"] == [{"xAxis": 2.5}]
    assert series["λ as planned"]["data"] == [[2.0, 1.0], [3.0, 2.0], [4.0, None]]
    assert series["λ before x"]["data"] == [[2.0, 1.0], [3.0, 1.5]]
    option.pop("dataset")
    assert json.loads(json.dumps(option, allow_nan=False)) == option
    bottom = max(grid["top"] + grid["height"] for grid in option["grid"])
    assert bottom < evolution_height(steered)


PARTS = ["past", "past", "future", "future"]


def test_a_run_and_its_relative_share_their_axes() -> None:
    here = Course(
        run="a", epochs=np.array([1, 2]), means={"h": np.array([0.9, 0.8])},
        weights=np.array([1.0, np.nan]), planned=5,
    )  # fmt: skip
    there = dataclasses.replace(here, run="b", epochs=np.array([1, 2]), planned=7)
    option = beside(here, there, 1)
    assert json.loads(json.dumps(option, allow_nan=False)) == option
    assert [axis["max"] for axis in option["xAxis"]] == [7.5, 7.5]
    lines = {line["name"]: line for line in option["series"]}
    assert lines["h, this run"]["data"] == lines["h, the other"]["data"] == [[1, 0.9], [2, 0.8]]
    assert lines["h, this run"]["lineStyle"]["type"] == "solid"
    assert lines["h, the other"]["lineStyle"]["type"] == "dashed"
    assert lines["λ, this run"]["data"] == [[1, 1.0], [2, None]]
    assert lines["h, this run"]["markLine"]["data"] == [{"xAxis": 1.5}]


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 1, width=32)))
def test_histogram_counts_every_channel(probability: np.ndarray) -> None:
    (series,) = gate_histogram(probability, 3)["series"]
    assert sum(bar["value"] for bar in series["data"]) == len(probability)
