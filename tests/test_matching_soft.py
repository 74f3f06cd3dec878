"""Soft matchings: weights over the most similar, transport, and networks of mixed channels."""

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_channels import NETWORKS, build
from torch import Tensor, nn

from merge_core.activations import observe
from merge_core.channels import permute, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.errors import GraphError
from merge_core.matching import distance, hungarian, mix, sharpened, sinkhorn, soft_top_k


def random(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, size, generator=generator, dtype=torch.float64)


@settings(max_examples=40)
@given(
    size=st.integers(1, 8), k=st.integers(1, 10), seed=st.integers(0, 1000), heat=st.floats(0.1, 5)
)
def test_soft_top_k_weighs_the_k_most_similar(size: int, k: int, seed: int, heat: float) -> None:
    similarity = random(size, seed)
    weights = soft_top_k(similarity, k, heat)
    torch.testing.assert_close(weights.sum(1), torch.ones(size, dtype=torch.float64))
    for row, given_row in zip(weights, similarity, strict=True):
        kept = row.nonzero().flatten()
        assert set(kept.tolist()) == set(given_row.topk(min(k, size)).indices.tolist())
        expected = torch.exp((given_row[kept] - given_row.max()) / heat)
        torch.testing.assert_close(row[kept], expected / expected.sum())


def test_soft_top_k_near_its_ends() -> None:
    similarity = random(6, 1)
    cold = soft_top_k(similarity, 6, 1e-4)
    assert torch.equal(cold.argmax(1), similarity.argmax(1))
    torch.testing.assert_close(cold.amax(1), torch.ones(6, dtype=torch.float64))
    hot = soft_top_k(similarity, 6, 1e6)
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / 6), rtol=1e-4, atol=1e-4)
    similarity[2, 4] = similarity[3, 0] = similarity[3, 1] = torch.inf
    twins = soft_top_k(similarity, 3, 1.0)
    assert twins[2].tolist() == [0, 0, 0, 0, 1, 0]
    assert twins[3].tolist() == [0.5, 0.5, 0, 0, 0, 0]


@settings(max_examples=25)
@given(size=st.integers(1, 8), seed=st.integers(0, 1000), epsilon=st.floats(1, 3))
def test_sinkhorn_is_the_plan_of_an_independent_solver(
    size: int, seed: int, epsilon: float
) -> None:
    similarity = random(size, seed)
    plan = sinkhorn(similarity, epsilon)
    ones = torch.ones(size, dtype=torch.float64)
    torch.testing.assert_close(plan.sum(0), ones)
    torch.testing.assert_close(plan.sum(1), ones, rtol=2e-6, atol=0)
    masses = (ones / size).numpy()
    cost = -similarity.numpy()
    expected = ot.sinkhorn(masses, masses, cost, epsilon, numItermax=100_000, stopThr=1e-9)
    torch.testing.assert_close(plan / size, torch.as_tensor(expected), rtol=1e-3, atol=1e-6)


def test_sinkhorn_without_entropy_is_the_best_assignment() -> None:
    similarity = random(7, 3) + 2 * torch.eye(7, dtype=torch.float64).roll(2, 0)
    plan = sinkhorn(similarity, 0.05)
    assert torch.equal(plan.argmax(1), hungarian(similarity))
    masses = torch.full((7,), 1 / 7, dtype=torch.float64).numpy()
    exact = torch.as_tensor(ot.emd(masses, masses, -similarity.numpy())) * 7
    torch.testing.assert_close(plan, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mixture_that_is_a_permutation_permutes(name: str) -> None:
    model, example = build(name)
    graph = trace(model, example)
    orders = {s.name: torch.randperm(s.size) for s in graph.free}
    mixtures = {n: torch.eye(len(o), dtype=torch.float64)[o] for n, o in orders.items()}
    made, expected = mix(model, graph, mixtures), permute(model, graph, orders)
    for key, tensor in expected.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key], tensor)


def test_a_mixture_of_equal_channels_changes_nothing() -> None:
    """Two pairs of twins, mixed within each pair in any way, and a channel taken twice."""
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    for name in ("0.weight", "0.bias"):
        rows = named_tensors(model)[name].data
        rows[1], rows[3] = rows[0], rows[2]
    example = torch.randn(4, 3, dtype=torch.float64)
    graph = trace(model, example)
    mixture = torch.tensor(
        [
            [0.3, 0.7, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.5, 0.5, 0.0],
            [0.0, 0.0, 0.9, 0.1, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    made = mix(model, graph, {"0": mixture})
    torch.testing.assert_close(made(example), model(example), rtol=1e-6, atol=1e-6)


def test_mixtures_that_do_not_fit_are_refused() -> None:
    model, example = build("lenet")
    graph = trace(model, example)
    with pytest.raises(GraphError, match=r"'0' has shape \(5, 6\); give \(6, 6\)"):
        mix(model, graph, {"0": torch.ones(5, 6)})
    with pytest.raises(GraphError, match="for a space that is free"):
        mix(model, graph, {"output": torch.eye(4)})


def test_distance_is_the_mean_squared_difference() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    example = torch.randn(50, 3, dtype=torch.float64)
    moments = observe([model, other], trace(model, example), example.split(20))["0"]
    ours, theirs = (net[0](example).relu().detach() for net in (model, other))
    expected = (ours[:, :, None] - theirs[:, None]).square().mean(0)
    torch.testing.assert_close(distance(moments, 0, 1), expected)


def test_sharpened_likeness_is_infinite_for_an_equal_channel() -> None:
    alike = torch.tensor([[1.001, 0.9, 0.0], [-1.001, 0.5, 0.2]], dtype=torch.float64)
    sharp = sharpened(alike)
    assert sharp[0, 0] > 15
    assert sharp[1, 0] < -15
    assert sharp[0, 2] == 0
    assert bool((sharp[:, 1:].diff(dim=1) < 0).all())
