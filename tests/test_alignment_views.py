"""An alignment as tables and heat maps, against its arrays taken by hand."""

import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path
from typing import Any

import fake_comparisons
import fake_runs
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.colors import sample_colorscale

from merge_core.errors import StoreError
from merge_core.plots.matching import band_channels, bands, filter_pairs, lines
from merge_core.plots.similarity import cka_map, similarity_map
from merge_core.store import Store
from merge_core.views.maps import CELLS, Look, Order, map_words, part, whole
from merge_core.views.matching import agreement, barrier, chosen_pairs, differences
from merge_core.views.selection import Channel
from merge_core.views.similarity import (
    MATCHINGS,
    MEASURES,
    Alignment,
    alignment,
    block_means,
    partners,
    spread,
)

SIZES = {"conv1": 16, "conv2": 150, "conv3": 600}
BY = "match_activations"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def name(store: Store) -> str:
    return fake_comparisons.make(store, fake_runs.make(store, "textures"), SIZES)


@pytest.fixture(scope="module")
def found(store: Store, name: str) -> Alignment:
    with store.open(name) as reader:
        read = alignment(reader)
    assert read is not None
    return read


def look(found: Alignment, space: str, order: Order = "original", pair: str = "ab") -> Look:
    return Look(
        found=found, space=space, measure="correlation", pair=pair, order=order, matching=BY
    )


def pairs_of(found: Alignment, space: str, measure: str = "correlation") -> pd.DataFrame:
    return partners(
        found.matrix(space, measure), found.order(space, BY), measure, found.dead(space)
    )


def traces(figure: go.Figure) -> list[dict[str, Any]]:
    """The traces of a figure, with places as arrays, which Plotly packs for the browser."""
    found = figure.to_dict()["data"]
    for trace in found:
        for axis in "xy":
            packed = trace.get(axis)
            if isinstance(packed, dict):
                trace[axis] = np.frombuffer(b64decode(packed["bdata"]), packed["dtype"])
    return found


def test_before_the_alignment_there_is_none(store: Store) -> None:
    run = fake_runs.make(store, "textures", seed=1)
    with store.open(fake_comparisons.make(store, run, SIZES, stop="alignment")) as reader:
        assert alignment(reader) is None
    with store.open(fake_comparisons.make(store, run, SIZES, stop="barrier")) as reader:
        assert alignment(reader) is not None
        assert barrier(reader) is None


def test_a_damaged_alignment_is_a_sentence(store: Store) -> None:
    name = fake_comparisons.make(store, fake_runs.make(store, "textures", seed=2), SIZES)
    (store.directory(name) / "alignment.safetensors").write_bytes(b"rubbish")
    with store.open(name) as reader, pytest.raises(StoreError, match="damaged"):
        alignment(reader)


@given(st.integers(1, 40), st.integers(1, 40))
def test_block_means_keep_the_mean_and_are_means(size: int, most: int) -> None:
    matrix = np.random.default_rng(size).normal(size=(size, size)).astype(np.float32)
    values, side = block_means(matrix, most)
    assert len(values) <= most
    for i in range(len(values)):
        for j in range(len(values)):
            block = matrix[i * side : (i + 1) * side, j * side : (j + 1) * side]
            assert values[i, j] == pytest.approx(block.mean(), abs=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_partners_by_hand(found: Alignment, measure: str) -> None:
    matrix, order = found.matrix("conv1", measure), found.order("conv1", BY)
    for row in pairs_of(found, "conv1", measure).to_dict("records"):
        line = matrix[row["A"]]
        near = -line if measure.endswith("l2") else line
        assert row["B"] == order[row["A"]]
        assert row["similarity"] == line[row["B"]]
        assert near[row["most_like"]] == near.max()
        assert row["rank"] == (near > near[row["B"]]).sum()
        assert row["dead"] == ("A dead" if row["A"] < fake_comparisons.DEAD else "")


def test_the_histogram_counts_every_pair_once(found: Alignment) -> None:
    frame = spread(found.matrix("conv1", "correlation"), found.order("conv1", BY))
    low, high, matched, unmatched = (
        frame[name].to_numpy() for name in ("low", "high", "matched", "unmatched")
    )
    assert matched.sum() == pytest.approx(1)
    assert unmatched.sum() == pytest.approx(1)
    middle = (low + high) / 2
    assert middle @ matched > middle @ unmatched + 0.3
    alone = spread(np.ones((1, 1), np.float32), np.zeros(1, int))
    assert not alone["unmatched"].to_numpy().any()


def test_both_orders_show_the_same_cells(found: Alignment) -> None:
    matrix, order = found.matrix("conv2", "correlation"), found.order("conv2", BY)
    original, matched = (
        whole(look(found, "conv2"), None),
        whole(look(found, "conv2", "matched"), None),
    )
    assert np.array_equal(original.values, matrix)
    assert np.array_equal(matched.values, matrix[:, order])
    assert matched.columns == [f"B {index}" for index in order]
    assert matched.matched is not None
    assert original.matched is not None
    assert np.array_equal(matched.matched, np.arange(150))
    assert np.array_equal(original.matched, order)


def test_a_large_space_is_shown_in_blocks(found: Alignment) -> None:
    shown = whole(look(found, "conv3"), Channel("conv3", "A", 599))
    assert shown.values.shape == (300, 300)
    assert shown.rows[1] == "A 2–3"
    assert shown.channels[1] == "conv3:A:2"
    assert shown.selected == 299
    assert "2×2" in map_words(look(found, "conv3"))


@pytest.mark.parametrize("order", ["original", "matched"])
@pytest.mark.parametrize("teacher", ["A", "B"])
@pytest.mark.parametrize("index", [0, 77, 599])
def test_a_part_holds_the_channel_and_its_match(
    found: Alignment, order: Order, teacher: str, index: int
) -> None:
    matches = found.order("conv3", BY)
    row = index if teacher == "A" else int(np.flatnonzero(matches == index)[0])
    shown = part(look(found, "conv3", order), Channel("conv3", teacher, index))
    assert shown.values.shape == (CELLS, CELLS)
    assert shown.selected is not None
    assert shown.matched is not None
    assert shown.rows[shown.selected] == f"A {row}"
    column = shown.matched[shown.selected]
    assert shown.columns[column] == f"B {matches[row]}"
    matrix = found.matrix("conv3", "correlation")
    assert shown.values[shown.selected, column] == matrix[row, matches[row]]


def test_a_teacher_against_itself_has_no_matches(found: Alignment) -> None:
    shown = whole(look(found, "conv1", pair="aa"), Channel("conv1", "A", 5))
    assert shown.matched is None
    assert shown.selected == 5
    assert whole(look(found, "conv1", pair="aa"), Channel("conv1", "B", 5)).selected is None
    assert found.pairs("conv1", "correlation") == ["ab", "aa", "bb"]
    assert found.pairs("conv1", "incoming_l2") == ["ab", "aa"]


@pytest.mark.parametrize(("space", "marks"), [("conv1", 256), ("conv2", 150), ("conv3", 300)])
def test_marks_of_a_map_select_the_channel_of_their_row(
    found: Alignment, space: str, marks: int
) -> None:
    heat, *_, over = traces(similarity_map(whole(look(found, space), Channel(space, "A", 4))))
    assert len(over["x"]) == len(over["customdata"]) == marks
    side = 2 if space == "conv3" else 1
    for y, (channel, _) in zip(over["y"], over["customdata"], strict=True):
        assert channel == f"{space}:A:{y * side}"
    (chosen,) = over["selectedpoints"]
    assert over["y"][chosen] == 4 // side
    assert heat["zmin"] == -heat["zmax"]  # centred at 0


def brightness(colour: str) -> float:
    """The relative luminance of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [float(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_numbers_on_the_map_of_layers_can_be_read() -> None:
    values = np.linspace(0, 1, 100).reshape(10, 10)
    layers = cka_map(values, [f"layer{number}" for number in range(10)], "A", "B")
    maps = [
        (trace, np.frombuffer(b64decode(trace["z"]["bdata"]), trace["z"]["dtype"]))
        for trace in traces(layers)
    ]
    assert np.array_equal(np.sum([np.isfinite(cells) for _, cells in maps], 0), np.ones(100))
    for trace, shown in maps:
        text = {"white": 1.0, "black": 0.0}[trace["textfont"]["color"]]
        cells = shown[np.isfinite(shown)].tolist()
        scale = [colour for _, colour in trace["colorscale"]]
        for colour in sample_colorscale(scale, cells):
            low, high = sorted((text, brightness(str(colour))))
            assert (high + 0.05) / (low + 0.05) > 4.4


def test_agreement_and_differences(found: Alignment) -> None:
    table = agreement(found)
    assert list(table["same"]) == [14, 148, 598]
    frame = differences(found, "conv1", "correlation")
    assert sorted(frame["A"]) == [0, 1]
    for how, matching in zip(MATCHINGS.values(), MATCHINGS, strict=True):
        assert list(frame[f"B {how}"]) == [found.order("conv1", matching)[a] for a in frame["A"]]


@pytest.mark.parametrize("measure", ["correlation", "incoming_l2"])
def test_the_threshold_leaves_out_what_is_less_alike(found: Alignment, measure: str) -> None:
    every = pairs_of(found, "conv2", measure)
    alike = dict(zip(every["A"], every["similarity"], strict=True))
    limit = float(np.median(list(alike.values())))
    some = chosen_pairs(every, "similarity", measure, limit)
    shown = some["similarity"].tolist()
    out = [value for a, value in alike.items() if a not in set(some["A"])]
    assert 0 < len(shown) < len(every) == len(shown) + len(out)
    if measure == "correlation":
        assert min(shown) >= limit > max(out)
        assert shown == sorted(shown, reverse=True)
    else:
        assert max(shown) <= limit < min(out)
        assert shown == sorted(shown)
    by_number = chosen_pairs(every, "index", measure, None)["A"].tolist()
    assert by_number == sorted(by_number)


@pytest.mark.parametrize("sort", ["similarity", "index"])
def test_bands_link_partners(found: Alignment, sort: str) -> None:
    pairs = chosen_pairs(pairs_of(found, "conv1"), sort, "correlation", None)
    series = bands(pairs, sort, "B 3")["series"][0]
    assert [node["name"] for node in series["data"]] == band_channels(pairs, sort)
    order = found.order("conv1", BY)
    assert {(link["source"], link["target"]) for link in series["links"]} == {
        (f"A {a}", f"B {b}") for a, b in enumerate(order)
    }
    ringed = [node["name"] for node in series["data"] if "borderColor" in node["itemStyle"]]
    assert ringed == ["B 3"]


def test_lines_end_at_partners(found: Alignment) -> None:
    pairs = chosen_pairs(pairs_of(found, "conv2"), "index", "correlation", None)
    drawn, ends = traces(lines(pairs, "conv2", 150, "index", "A 7"))
    order = found.order("conv2", BY)
    assert np.array_equal(np.reshape(drawn["y"], (150, 3))[:, 1], order)
    named = [ends["customdata"][place][0] for place in ends["selectedpoints"]]
    assert named == ["conv2:A:7", f"conv2:B:{order[7]}"]


def test_filters_of_a_pair_stand_side_by_side(found: Alignment) -> None:
    pairs = chosen_pairs(pairs_of(found, "conv1"), "similarity", "correlation", None)
    *_, over = traces(filter_pairs(pairs, found.filters(), "conv1", ""))
    named = [channel for channel, _ in over["customdata"]]
    assert named[::2] == [f"conv1:A:{a}" for a in pairs["A"]]
    assert named[1::2] == [f"conv1:B:{b}" for b in pairs["B"]]
    assert np.array_equal(over["y"][::2], over["y"][1::2])


def test_the_barrier_as_stored(store: Store, name: str) -> None:
    with store.open(name) as reader:
        walls = barrier(reader)
    assert walls is not None
    assert walls.metrics == ["accuracy", "loss"]
    row = walls.heights[(walls.heights["line"] == "matched") & (walls.heights["split"] == "test")]
    assert row["loss"].item() == 0.2
    assert len(walls.curves) == 3 * 2 * len(fake_comparisons.POINTS)


def test_an_alignment_of_another_version_is_a_sentence(store: Store, tmp_path: Path) -> None:
    run = fake_runs.make(store, "textures", seed=3)
    name = fake_comparisons.make(store, run, {"conv1": 4})
    with closing(sqlite3.connect(store.directory(name) / "run.sqlite")) as database:
        database.execute("UPDATE stages SET facts = '{}' WHERE stage = 'alignment'")
        database.commit()
    with store.open(name) as reader, pytest.raises(StoreError, match="compare once more"):
        alignment(reader)
