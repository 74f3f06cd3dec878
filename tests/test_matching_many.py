"""Three and more networks: matchings that fit together."""

import itertools

import pytest
import torch
from test_channels import build
from test_matching import Perceptron, agreement, draws, shuffled

from merge_core.activations import observe
from merge_core.channels import permute, trace
from merge_core.matching import (
    between,
    hungarian,
    likeness,
    match_activations,
    match_many,
    match_weights,
    merge_many,
    sources,
)
from merge_core.models import MODELS


def networks(count: int, seed: int = 0, widths: tuple[int, ...] = (3, 9, 8, 2)):
    """Unrelated networks, their graph and a batch for them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = [Perceptron(widths).eval() for _ in range(count)]
    return found, trace(found[0], torch.zeros(2, widths[0]))


def batch(width: int = 3) -> torch.Tensor:
    return torch.randn(200, width, generator=draws(9))


def is_identity(order: torch.Tensor) -> bool:
    return torch.equal(order, torch.arange(len(order)))


@pytest.mark.parametrize("kind", ["weights", "activations"])
@pytest.mark.parametrize("count", [3, 4])
def test_compositions_around_every_cycle_are_the_identity(kind: str, count: int) -> None:
    found, graph = networks(count)
    orders = (
        merge_many(found, graph, draws()).orders
        if kind == "weights"
        else match_many(observe(found, graph, [batch()]))
    )
    assert all(is_identity(order) for order in orders[0].values())
    moved = 0
    for length in range(2, count + 1):
        for cycle in itertools.permutations(range(count), length):
            for space in graph.free:
                walk = torch.arange(space.size)
                for one, other in itertools.pairwise([*cycle, cycle[0]]):
                    step = between(orders, one, other)[space.name]
                    moved += not is_identity(step)
                    walk = step[walk]
                assert is_identity(walk)
    assert moved


def test_matchings_in_pairs_do_not_fit_together() -> None:
    """The law above says something: matched two by two, the same networks break it."""
    found, graph = networks(3)
    moments = observe(found, graph, [batch()])
    alike = {(a, b): likeness(moments["layers.0"], a, b) for a, b in ((0, 1), (1, 2), (2, 0))}
    walk = torch.arange(9)
    for step in ((0, 1), (1, 2), (2, 0)):
        walk = hungarian(alike[step])[walk]
    assert not is_identity(walk)


@pytest.mark.parametrize("seed", range(4))
def test_the_agreement_of_many_never_falls_and_is_what_it_says(seed: int) -> None:
    found, graph = networks(4, seed)
    many = merge_many(found, graph, draws(seed))
    assert bool((torch.tensor(many.objective).diff() >= -1e-6).all())
    for at, orders in (
        (0, [{}] * 4),
        (-1, many.orders),
    ):
        moved = [permute(net, graph, order) for net, order in zip(found, orders, strict=True)]
        total = sum(agreement(a, b) for a, b in itertools.combinations(moved, 2))
        assert many.objective[at] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_no_network_can_move_to_agree_better_in_one_space(seed: int) -> None:
    """The fixed point of the rounds, by exhaustive search."""
    found, graph = networks(3, seed, (3, 4, 2))
    (space,) = graph.free
    orders = merge_many(found, graph, draws(seed)).orders
    moved = [permute(net, graph, order) for net, order in zip(found, orders, strict=True)]
    alike = match_many(observe(found, graph, [batch()]))
    moments = observe(found, graph, [batch()])[space.name]

    def by_weights(at: int, order: torch.Tensor) -> float:
        changed = permute(moved[at], graph, {space.name: order})
        return sum(agreement(changed, net) for n, net in enumerate(moved) if n != at)

    def by_activations(at: int, order: torch.Tensor) -> float:
        mine = alike[at][space.name][order]
        rest = [(n, each[space.name]) for n, each in enumerate(alike) if n != at]
        return sum(float(likeness(moments, n, at)[each, mine].sum()) for n, each in rest)

    for at in range(3):
        for score in (by_weights, by_activations):
            reached = score(at, torch.arange(4))
            for order in itertools.permutations(range(4)):
                assert score(at, torch.tensor(order)) <= reached + 1e-4


@pytest.mark.parametrize("kind", ["weights", "activations"])
def test_many_permuted_copies_are_found(kind: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = MODELS["digits-cnn"]().eval()
    graph = trace(model, torch.zeros(2, 1, 8, 8))
    copies = [shuffled(model, graph, seed) for seed in range(1, 4)]
    found = [model, *(copy for copy, _ in copies)]
    inputs = torch.randn(100, 1, 8, 8, generator=draws())
    orders = (
        merge_many(found, graph, draws()).orders
        if kind == "weights"
        else match_many(observe(found, graph, [inputs]))
    )
    for order, (_, expected) in zip(orders[1:], copies, strict=True):
        assert all(torch.equal(order[name], expected[name]) for name in expected)


def test_two_networks_are_matched_as_by_the_matching_of_two() -> None:
    model, example = build("residual", torch.float32)
    graph = trace(model, example)
    other, _ = shuffled(build("residual", torch.float32)[0], graph, 2)
    pair = [model.eval(), other.eval()]
    two, many = match_weights(pair[0], pair[1], graph, draws()), merge_many(pair, graph, draws())
    assert all(torch.equal(many.orders[1][name], order) for name, order in two.orders.items())
    moments = observe(pair, graph, [example])
    both = match_activations(moments)
    assert all(torch.equal(match_many(moments)[1][name], order) for name, order in both.items())


def test_sources_number_channels_as_in_the_big_student() -> None:
    orders = [{"a": torch.tensor([0, 1, 2])}, {"a": torch.tensor([2, 0, 1])}]
    assert sources(orders)["a"].tolist() == [[0, 5], [1, 3], [2, 4]]
