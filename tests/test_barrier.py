"""Barriers: what they are on curves made by hand, and their laws on networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_channels import NETWORKS, build, randomised
from torch import nn

from merge_core.barrier import POINTS, Line, between, line, lines
from merge_core.channels import permute, trace
from merge_core.data import Split, augmentation
from merge_core.matching import match_weights
from merge_core.repair import norms_reestimated
from merge_core.training import evaluate, state_arrays


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_barrier_is_measured_from_the_line_between_the_ends() -> None:
    points = (0.0, 0.25, 0.5, 1.0)
    scores = {"test": {"loss": [1.0, 2.0, 2.5, 3.0], "accuracy": [0.9, 0.8, 0.1, 0.5]}}
    found = Line(points=points, scores=scores).barrier
    assert found["test"]["loss"] == pytest.approx(0.5)  # at 0.25: 2.0 above 1.5
    assert found["test"]["accuracy"] == pytest.approx(0.6)  # at 0.5: 0.1 below 0.7


@given(st.lists(st.floats(0, 10), min_size=5, max_size=5), st.floats(-5, 5), st.floats(-5, 5))
def test_a_straight_line_added_to_a_curve_leaves_its_barrier(
    values: list[float], start: float, slope: float
) -> None:
    points = (0.0, 0.2, 0.5, 0.9, 1.0)
    tilted = [v + start + slope * p for v, p in zip(values, points, strict=True)]
    plain, other = (
        Line(points=points, scores={"s": {"loss": each}}).barrier["s"]["loss"]
        for each in (values, tilted)
    )
    assert plain >= 0
    assert other == pytest.approx(plain, abs=1e-9)
    if max(values[1:-1]) <= min(values[0], values[-1]):
        assert plain == 0


def situation(name: str) -> tuple[nn.Module, dict[str, Split], torch.Tensor]:
    model, example = build(name)
    inputs = torch.randn(80, *example.shape[1:], generator=draws(), dtype=torch.float64)
    everything = Split(inputs, torch.zeros(80, dtype=torch.int64))
    model = norms_reestimated(model, everything, 80, augmentation("none"), draws())
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    splits = {"train": Split(inputs, targets), "test": Split(inputs[:30], targets[:30])}
    return model, splits, inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_between_a_network_and_itself_there_is_no_barrier(name: str) -> None:
    model, splits, _ = situation(name)
    found = line(model, model, splits)
    assert found.points == POINTS
    assert found.barrier == {
        split: {"loss": pytest.approx(0, abs=1e-12), "accuracy": 0.0} for split in splits
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_between_a_network_and_its_permuted_copy_there_is_none_once_matched(name: str) -> None:
    model, splits, inputs = situation(name)
    graph = trace(model, inputs[:4])
    orders = {s.name: torch.randperm(s.size, generator=draws(1)) for s in graph.free}
    copy = permute(model, graph, orders).eval()
    found = match_weights(model, copy, graph, draws())
    curves = lines(model, copy, graph, found.orders, splits, inputs, (0.0, 0.5, 1.0))
    assert set(curves) == {"naive", "matched", "repaired"}
    for kind in ("matched", "repaired"):
        for scores in curves[kind].barrier.values():
            assert scores["loss"] == pytest.approx(0, abs=1e-9)
    if name in ("perceptron", "vgg", "residual"):
        assert curves["naive"].barrier["train"]["loss"] > 0.01
    assert curves["matched"].barrier["train"]["accuracy"] == 0


def test_scores_are_those_of_the_networks_on_the_line() -> None:
    model, splits, inputs = situation("vgg")
    other = randomised(permute(model, trace(model, inputs[:4]), {}), seed=3).eval()
    before = [state_arrays(net) for net in (model, other)]
    found = line(model, other, splits, (0.0, 0.3, 1.0))
    for at, network in ((0, model), (1, between(model, other, 0.3)), (2, other)):
        for name, split in splits.items():
            for key, value in evaluate(network, split).items():
                assert found.scores[name][key][at] == pytest.approx(value)
    for net, kept in zip((model, other), before, strict=True):
        assert all((kept[key] == value).all() for key, value in state_arrays(net).items())


@settings(max_examples=10)
@given(st.floats(0, 1))
def test_between_is_the_weighted_mean_of_every_number(share: float) -> None:
    model, example = build("vgg")
    other = randomised(permute(model, trace(model, example), {}), seed=3)
    middle = between(model, other, share).state_dict()
    theirs = other.state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            expected = (1 - share) * tensor + share * theirs[name]
            torch.testing.assert_close(middle[name], expected)
        else:
            assert torch.equal(middle[name], tensor)
