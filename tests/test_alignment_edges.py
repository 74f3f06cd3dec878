"""Similarity and Matching at the edges: 2048 channels, and channels without weights."""

import dataclasses

import fake_comparisons
import fake_runs
import numpy as np
import pytest
import torch
from test_pages import opened, store, words
from torch import nn

from merge_core.architectures import Shape
from merge_core.channels import trace
from merge_core.comparisons.alignment import align
from merge_core.devices import generator
from merge_core.plots.matching import MOST_BANDS, filter_pairs, lines
from merge_core.plots.similarity import similarity_map, spread_bars
from merge_core.store import Store
from merge_core.views.maps import CELLS, Look, Order, part, whole
from merge_core.views.matching import chosen_pairs
from merge_core.views.selection import Channel
from merge_core.views.similarity import LARGEST_MAP, MATCHINGS, Alignment, partners, spread

__all__ = ["store"]  # the fixture

SIZE = 2048
SIDES = ("incoming", "outgoing")
MOST_BYTES = 6_000_000
"""Of a figure as JSON; each cell of the matrix as text would be 25 MB."""


@pytest.fixture(scope="module")
def large() -> Alignment:
    order = np.random.default_rng(0).permutation(SIZE)
    matrix = np.random.default_rng(1).normal(0, 0.1, (SIZE, SIZE)).astype(np.float16)
    matrix[np.arange(SIZE), order] = 0.9
    arrays = {"conv1|correlation": matrix} | {f"conv1|{each}": order for each in MATCHINGS}
    arrays |= {f"conv1|dead_{teacher}": np.zeros(SIZE, bool) for teacher in "ab"}
    pictures = np.zeros((SIZE, 3, 3, 3), np.float32)
    return Alignment(
        run="large",
        teachers=("A", "B"),
        sizes={"conv1": SIZE},
        objective=[1.0, 2.0],
        examples=500,
        first="conv1",
        arrays=arrays | {"first|a": pictures, "first|b": pictures},
    )


@pytest.mark.parametrize("order", ["original", "matched"])
def test_maps_of_2048_channels_have_bounded_cells(large: Alignment, order: Order) -> None:
    look = Look(
        found=large,
        space="conv1",
        measure="correlation",
        pair="ab",
        order=order,
        matching="match_activations",
    )
    shown, near = whole(look, None), part(look, Channel("conv1", "A", 2000))
    assert len(shown.values) <= LARGEST_MAP
    assert near.values.shape == (CELLS, CELLS)
    assert "A 2000" in near.rows
    bars = spread_bars(spread(look.matrix, look.matches), "correlation", "matched")
    for figure in (similarity_map(shown), similarity_map(near), bars):
        assert len(str(figure.to_json())) < MOST_BYTES


def test_pairs_of_2048_channels_are_drawn_in_one_figure(large: Alignment) -> None:
    everyone = partners(
        large.matrix("conv1", "correlation"),
        large.order("conv1", "match_weights"),
        "correlation",
        large.dead("conv1"),
    )
    assert not any(everyone["rank"].tolist())
    pairs = chosen_pairs(everyone, "similarity", "correlation", None)
    assert len(pairs) == SIZE
    every = lines(pairs, "conv1", SIZE, "similarity", "A 7")
    filters = filter_pairs(pairs.iloc[:MOST_BANDS], large.filters(), "conv1", "")
    for figure in (every, filters):
        assert len(str(figure.to_json())) < MOST_BYTES


def test_channels_without_weights_are_told(store: Store) -> None:
    run = fake_runs.make(store, "textures")
    fake_comparisons.make(store, run, fake_runs.SIZES["textures"])
    told = words(opened("similarity", run))
    assert "outgoing weights are all zero: 0 of teacher A, 1 of teacher B (15)" in told


def test_channels_without_weights_are_those_of_either_side(large: Alignment) -> None:
    assert not any(len(some) for some in large.without_weights("conv1").values())
    zero = {f"conv1|{side}_zero_a": np.arange(SIZE) == at for at, side in enumerate(SIDES, 3)}
    zero |= {f"conv1|{side}_zero_b": np.zeros(SIZE, bool) for side in SIDES}
    found = dataclasses.replace(large, arrays={**large.arrays, **zero}).without_weights("conv1")
    assert found["A"].tolist() == [3, 4]
    assert found["B"].tolist() == []


def test_units_without_weights_are_found_by_an_alignment() -> None:
    draws = generator(0, "edges")
    a, b = (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval() for _ in "ab")
    with torch.no_grad():
        for tensor in (*a.parameters(), *b.parameters()):
            tensor.normal_(generator=draws)
        a.get_parameter("0.weight")[1] = 0
        a.get_parameter("0.bias")[1] = 0
        b.get_parameter("2.weight")[:, 4] = 0
    inputs = torch.randn(20, 4, generator=draws)
    graph = trace(a, inputs[:2])
    arrays, _ = align(a, b, graph, lambda _: [inputs], Shape(0, 0, 3), draws)
    (space,) = (each.name for each in graph.free)
    found = {
        f"{side} {teacher}": np.flatnonzero(arrays[f"{space}|{side}_zero_{teacher}"]).tolist()
        for side in SIDES
        for teacher in "ab"
    }
    assert found == {"incoming a": [1], "incoming b": [], "outgoing a": [], "outgoing b": [4]}
    assert not arrays[f"{space}|incoming_cosine"][1].any()
    assert not arrays[f"{space}|outgoing_cosine"][:, 4].any()
