"""Matchings: assignments, weights, activations and zips."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from test_channels import NETWORKS, build, randomised
from test_channels_networks import GOOD, traced
from torch import Tensor, nn

from merge_core.activations import observe
from merge_core.channels import ChannelGraph, permute, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.errors import GraphError
from merge_core.matching import (
    hungarian,
    likeness,
    match_activations,
    match_weights,
    match_zips,
    zip_pairs,
    zipped,
)
from merge_core.models import MODELS


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled(model: nn.Module, graph: ChannelGraph, seed: int) -> tuple[nn.Module, dict]:
    """A permuted copy, and for every space where its channels went."""
    generator = draws(seed)
    orders = {space.name: torch.randperm(space.size, generator=generator) for space in graph.free}
    found = {name: torch.argsort(order) for name, order in orders.items()}
    return permute(model, graph, orders), found


def agreement(a: nn.Module, b: nn.Module) -> float:
    """The inner product of all parameters: what weight matching maximises."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return sum(
        float((one.detach().double() * other.detach().double()).sum()) for one, other in pairs
    )


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_hungarian_is_the_best_of_all_assignments(size: int, seed: int) -> None:
    similarity = torch.randn(size, size, generator=draws(seed))
    order = hungarian(similarity)
    best = max(
        sum(float(similarity[i, j]) for i, j in enumerate(each))
        for each in itertools.permutations(range(size))
    )
    assert order.dtype == torch.int64
    assert float(similarity[torch.arange(size), order].sum()) == pytest.approx(best, abs=1e-5)


class Perceptron(nn.Module):
    def __init__(self, widths: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(one, other, bias) for one, other in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def random_pair(widths: tuple[int, ...], seed: int) -> tuple[nn.Module, nn.Module, ChannelGraph]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        a, b = Perceptron(widths), Perceptron(widths)
    return a, b, trace(a, torch.zeros(2, widths[0]))


@pytest.mark.parametrize("seed", range(5))
def test_one_hidden_layer_is_solved_exactly(seed: int) -> None:
    """With a single space the objective is linear: no other order is better."""
    a, b, graph = random_pair((3, 4, 2), seed)
    found = match_weights(a, b, graph, draws())
    every = (
        agreement(a, permute(b, graph, {graph.free[0].name: torch.tensor(order)}))
        for order in itertools.permutations(range(4))
    )
    assert found.objective[-1] == pytest.approx(max(every), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_single_space_can_be_improved_alone(seed: int) -> None:
    """A fixed point: exhaustive search over each space, the others held, finds nothing better."""
    a, b, graph = random_pair((3, 4, 4, 3, 2), seed)
    found = match_weights(a, b, graph, draws(seed))
    matched = permute(b, graph, found.orders)
    reached = agreement(a, matched)
    assert reached == pytest.approx(found.objective[-1], rel=1e-5)
    for space in graph.free:
        for order in itertools.permutations(range(space.size)):
            other = permute(matched, graph, {space.name: torch.tensor(order)})
            assert agreement(a, other) <= reached + 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_the_fixed_point_is_near_the_best_of_all_orders(seed: int) -> None:
    """Two spaces of 4 and 3: all 144 orders. The ascent may end below the best, not far."""
    a, b, graph = random_pair((3, 4, 3, 2), seed)
    found = match_weights(a, b, graph, draws(seed))
    names = [space.name for space in graph.free]
    every = [
        agreement(a, permute(b, graph, dict(zip(names, map(torch.tensor, both), strict=True))))
        for both in itertools.product(*map(itertools.permutations, (range(4), range(3))))
    ]
    assert found.objective[-1] <= max(every) + 1e-4
    assert found.objective[-1] - min(every) > 0.85 * (max(every) - min(every))


@pytest.mark.parametrize("name", [*NETWORKS, *GOOD])
def test_objective_never_falls_and_is_what_it_says(name: str) -> None:
    """Also where a tensor meets a space on two axes, and with heads, ties and concatenations."""
    if name in NETWORKS:
        model, example = build(name, torch.float32)
        graph = trace(model, example)
    else:
        factory, shape = GOOD[name]
        model, _, graph = traced(factory(), shape)
    other, _ = shuffled(randomised(permute(model, graph, {}), seed=5), graph, 6)
    found = match_weights(model, other, graph, draws())
    steps = torch.tensor(found.objective, dtype=torch.float64).diff()
    assert bool((steps >= 0).all())
    assert float(steps[-1]) == 0
    assert agreement(model, other) == pytest.approx(found.objective[0], rel=1e-5)
    matched = permute(other, graph, found.orders)
    assert agreement(model, matched) == pytest.approx(found.objective[-1], rel=1e-5)
    again = match_weights(model, other, graph, draws())
    assert all(torch.equal(again.orders[key], order) for key, order in found.orders.items())


SOLVABLE = {
    "deep perceptron": (lambda: Perceptron((6, 40, 30, 20, 3)), (2, 6)),
    "big lenet": (MODELS["lenet"], (2, 1, 28, 28)),
    "resnet20": (MODELS["cifar-resnet20"], (2, 3, 32, 32)),
    **NETWORKS,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SOLVABLE)
def test_weights_find_every_channel_of_a_permuted_copy(name: str, seed: int) -> None:
    factory, shape = SOLVABLE[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = factory().float()
    graph = trace(model, torch.zeros(shape))
    copy, expected = shuffled(model, graph, seed + 10)
    found = match_weights(model, copy, graph, draws(seed))
    assert {n: o.tolist() for n, o in found.orders.items()} == {
        n: o.tolist() for n, o in expected.items()
    }


def test_networks_that_do_not_fit_are_refused_in_one_sentence() -> None:
    a, b, graph = random_pair((3, 4, 2), 0)
    other, _, _ = random_pair((3, 5, 2), 0)
    with pytest.raises(GraphError, match=r"'layers.0.weight' is \(4, 3\) in network 1"):
        match_weights(a, other, graph, draws())
    named_tensors(b)["layers.1.bias"].data.fill_(torch.nan)
    with pytest.raises(GraphError, match=r"'layers.1.bias' of network 2 has values"):
        match_weights(a, b, graph, draws())


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_find_a_function_of_the_permuted_copy(name: str) -> None:
    """Alive channels find their own; dead ones may change places among themselves."""
    model, example = build(name)
    graph = trace(model, example)
    model.eval()
    copy, expected = shuffled(model, graph, 1)
    batches = [torch.randn(64, *example.shape[1:], generator=draws(2), dtype=torch.float64)]
    moments = observe([model, copy], graph, batches)
    orders = match_activations(moments)
    for space, order in orders.items():
        alive = moments[space].variance(0) > 0
        assert torch.equal(order[alive], expected[space][alive])
    torch.testing.assert_close(permute(copy, graph, orders)(example), model(example))


def test_likeness_tells_a_scaled_channel_from_an_equal_one() -> None:
    model = Perceptron((1, 3, 1))
    weight = torch.tensor([[1.0], [2.0], [1.0]])
    named_tensors(model)["layers.0.weight"].data.copy_(weight)
    named_tensors(model)["layers.0.bias"].data.copy_(torch.tensor([1.0, 2.0, -9.0]))
    graph = trace(model, torch.zeros(2, 1))
    other = permute(model, graph, {"layers.0": torch.tensor([1, 0, 2])})
    moments = observe([model, other], graph, [torch.rand(50, 1, generator=draws())])["layers.0"]
    alike = likeness(moments, 0, 1)
    assert alike.isfinite().all()
    assert bool((alike[2] == 0).all())  # dead
    assert hungarian(alike).tolist() == [1, 0, 2]
    assert float(alike[0, 0]) < float(alike[0, 1])


def best_pairs(similarity: Tensor) -> list[list[int]]:
    """The greedy search, one pair at a time."""
    left = set(range(len(similarity)))
    pairs = []
    while left:
        order = sorted(itertools.combinations(sorted(left), 2))
        pair = max(order, key=lambda ij: float(similarity[ij]))
        pairs.append(list(pair))
        left -= set(pair)
    return sorted(pairs)


@settings(max_examples=50)
@given(half=st.integers(1, 5), seed=st.integers(0, 10_000), ties=st.booleans())
def test_zip_pairs_are_those_of_the_greedy_search(half: int, seed: int, ties: bool) -> None:
    similarity = torch.rand(2 * half, 2 * half, generator=draws(seed))
    if ties:
        similarity = (similarity * 3).round()
    similarity = similarity + similarity.T
    pairs = zip_pairs(similarity)
    assert sorted(pairs.flatten().tolist()) == list(range(2 * half))
    if not ties:
        assert pairs.tolist() == best_pairs(similarity)


@pytest.mark.parametrize("name", NETWORKS)
def test_zipping_a_permuted_copy_gives_back_the_function(name: str) -> None:
    model, example = build(name)
    graph = trace(model, example)
    model.eval()
    copy, _ = shuffled(model, graph, 3)
    moments = observe(
        [model, copy],
        graph,
        [torch.randn(64, *example.shape[1:], generator=draws(4), dtype=torch.float64)],
    )
    made = zipped(model, copy, graph, match_zips(moments)).eval()
    torch.testing.assert_close(made(example), model(example))
    assert [p.shape for p in made.parameters()] == [p.shape for p in model.parameters()]


def test_a_zip_within_one_network_joins_what_is_equal() -> None:
    """Every channel of A is there twice, and of B: the pairs lie within, nothing is lost."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        narrow = [Perceptron((4, 3, 2)), Perceptron((4, 3, 2))]
    wide = []
    for network in narrow:
        model = Perceptron((4, 6, 2))
        for name, tensor in named_tensors(network).items():
            twice = tensor.repeat_interleave(2, 1) / 2 if name == "layers.1.weight" else tensor
            if name.startswith("layers.0"):
                twice = tensor.repeat_interleave(2, 0)
            named_tensors(model)[name].data.copy_(twice)
        wide.append(model)
    example = torch.randn(40, 4, generator=draws())
    graph = trace(wide[0], example)
    moments = observe(wide, graph, [example])
    pairs = match_zips(moments)
    assert pairs["layers.0"].tolist() == [[i, i + 1] for i in range(0, 12, 2)]
    made = zipped(wide[0], wide[1], graph, pairs)
    expected = (wide[0](example) + wide[1](example)) / 2
    torch.testing.assert_close(made(example), expected)


@pytest.mark.parametrize("up_to", ["stem", "blocks.0.conv1", "blocks.1.conv2"])
def test_partial_zips_keep_both_branches_from_there_on(up_to: str) -> None:
    model, example = build("residual")
    graph = trace(model, example)
    other = randomised(permute(model, graph, {}), seed=7)
    moments = observe([model.eval(), other.eval()], graph, [example])
    made = zipped(model, other, graph, match_zips(moments), up_to).eval()
    found = trace(made, example)
    reached = [space.name for space in graph.free].index(up_to)
    for place, (space, wide) in enumerate(zip(graph.free, found.free, strict=True)):
        assert wide.size == space.size * (1 if place <= reached else 2)
    copy, _ = shuffled(model, graph, 8)
    same = zipped(model, copy, graph, match_zips(observe([model, copy], graph, [example])), up_to)
    torch.testing.assert_close(same.eval()(example), model(example))


def transport(similarity: np.ndarray) -> float:
    """The largest ⟨T, similarity⟩ of a doubly stochastic T, as a linear program."""
    size = len(similarity)
    rows = np.kron(np.eye(size), np.ones(size))
    columns = np.kron(np.ones(size), np.eye(size))
    solved = linprog(
        -similarity.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.ones(2 * size), bounds=(0, 1)
    )
    return -solved.fun


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_an_assignment_is_as_good_as_any_transport(size: int, seed: int) -> None:
    """Birkhoff: with equal masses no soft plan beats the best permutation."""
    similarity = torch.randn(size, size, generator=draws(seed), dtype=torch.float64)
    best = float(similarity[torch.arange(size), hungarian(similarity)].sum())
    assert best == pytest.approx(transport(similarity.numpy()), abs=1e-6)
