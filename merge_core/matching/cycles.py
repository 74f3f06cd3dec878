"""Match three or more networks so that the matchings fit together.

Matched two by two, networks disagree: from A over B to C need not lead where A leads to C directly.
Here every network has one order of its own in a frame that all share, so the composition of
matchings along any cycle is the identity. Sources: Ainsworth et al. (2023), "Git Re-Basin",
Algorithm 3 (MergeMany); Crisostomi et al. (2024), "C²M³: Cycle-consistent multi-model merging",
section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merge_core.activations import Moments
from merge_core.channels import ChannelGraph
from merge_core.matching.activations import likeness
from merge_core.matching.assignment import hungarian
from merge_core.matching.parameters import aligned_parameters
from merge_core.matching.weights import Ascent

_GAIN = 1e-9  # of the size of a space; a gain below this is none


@dataclass(frozen=True)
class ManyMatching:
    """Who is matched with whom among several networks.

    Attributes:
        orders: for each network and free space, int64 of shape (size,) on the CPU: the network's
            channel that stands in place i of the frame; the first network is the frame, so its
            orders are the identity.
        objective: the sum over all pairs of networks of their inner product in the frame, at the
            start and after every round over the networks. It never falls.
    """

    orders: list[dict[str, Tensor]]
    objective: list[float]


def between(orders: Sequence[Mapping[str, Tensor]], a: int, b: int) -> dict[str, Tensor]:
    """The matching of two networks that share a frame: b's channel that matches channel i of a."""
    return {name: orders[b][name][torch.argsort(order)] for name, order in orders[a].items()}


def sources(orders: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Which channels stand in one place: for every space int64 of shape (size, networks).

    Numbered as in the big student: channel i of network t is t · size + i.
    """
    return {
        name: torch.stack([each[name] + t * len(each[name]) for t, each in enumerate(orders)], 1)
        for name in orders[0]
    }


def merge_many(
    networks: Sequence[nn.Module], graph: ChannelGraph, generator: torch.Generator
) -> ManyMatching:
    """Match all free spaces of several networks by their weights.

    Each network is first matched to the first one. Then, in rounds, each in turn is matched to the
    sum of the others as they lie, until nothing moves. For two networks this is `match_weights`.

    Args:
        networks: two or more of the architecture of `graph`, on one device.
        graph: their channel graph.
        generator: draws the order in which spaces and networks are taken.

    Raises:
        GraphError: a parameter has other shapes in two of the networks, or is not finite.
    """
    moved = aligned_parameters(networks)
    orders = [{space.name: torch.arange(space.size) for space in graph.free} for _ in networks]
    objective = [_agreement(moved)]
    for number in range(1, len(networks)):
        ascent = Ascent(moved[0], moved[number], graph)
        ascent.begin()
        ascent.climb(generator)
        moved[number], orders[number] = ascent.theirs, ascent.orders
    start = _agreement(moved)
    if start < objective[0]:  # as they came the others fit each other better
        moved = aligned_parameters(networks)
        orders = [{space.name: torch.arange(space.size) for space in graph.free} for _ in networks]
    else:
        objective.append(start)
    moving = len(networks) > 2
    while moving:
        moving = False
        for number in torch.randperm(len(networks), generator=generator, device=generator.device):
            at = int(number)
            others = [each for other, each in enumerate(moved) if other != at]
            ascent = Ascent(_sum(others), moved[at], graph)
            ascent.climb(generator)
            moving |= ascent.has_moved
            moved[at] = ascent.theirs
            orders[at] = {name: orders[at][name][order] for name, order in ascent.orders.items()}
        objective.append(_agreement(moved))
    return ManyMatching(_framed(orders), objective)


def match_many(moments: Mapping[str, Moments]) -> list[dict[str, Tensor]]:
    """Match the observed spaces of several networks by their activations.

    In every space each network is first matched to the first one; then, in rounds, each in turn to
    the sum of its likeness to all others as they lie, until that sum no longer rises.

    Args:
        moments: of two or more networks, from `activations.observe`.

    Returns:
        For each network and space an order, as in `ManyMatching.orders`.
    """
    count = next(iter(moments.values())).networks if moments else 0
    orders: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, each in moments.items():
        for of_network, order in zip(orders, _consistent(each), strict=True):
            of_network[name] = order
    return _framed(orders)


def _consistent(moments: Moments) -> list[Tensor]:
    """The order of every network in one space."""
    count, size = moments.networks, moments.size
    alike = {(a, b): likeness(moments, a, b) for a in range(count) for b in range(count) if a != b}
    orders = [torch.arange(size)]
    orders += [hungarian(alike[0, number]) for number in range(1, count)]
    place = torch.arange(size)
    rising = count > 2
    while rising:
        rising = False
        for at in range(count):
            others = (alike[n, at][order] for n, order in enumerate(orders) if n != at)
            total = torch.stack(list(others)).sum(0)
            better = hungarian(total)
            gain = float((total[place, better] - total[place, orders[at]]).sum())
            if gain > _GAIN * size:
                orders[at], rising = better, True
    return orders


def _framed(orders: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same matchings with the first network as the frame."""
    back = {name: torch.argsort(order) for name, order in orders[0].items()} if orders else {}
    return [{name: each[name][back[name]] for name in each} for each in orders]


def _sum(sides: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([side[name] for side in sides]).sum(0) for name in sides[0]}


def _agreement(sides: Sequence[Mapping[str, Tensor]]) -> float:
    """The sum over all pairs of their inner products."""

    def square(side: Mapping[str, Tensor]) -> float:
        return sum(float(tensor.cpu().double().square().sum()) for tensor in side.values())

    return (square(_sum(sides)) - sum(square(side) for side in sides)) / 2
