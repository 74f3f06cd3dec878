"""Match the channels of two networks by their weights alone.

Source: Ainsworth, Hayase and Srinivasa (2023), "Git Re-Basin: Merging models modulo permutation
symmetries", section 3.2 and Algorithm 1. The objective is the inner product of all parameters of
network A with those of network B in its new order. With every space but one held still it is linear
in that one's permutation, so the best one is an assignment problem; every space is solved in turn
until none can be improved.

Two things are our own. A step is taken only where it raises the objective, which matters where one
tensor meets a space on two of its axes and the objective is not linear in its permutation. And the
first pass goes through the spaces in order of execution and looks only at what is known by then,
since what lies in an order that nobody has matched yet is noise (see `Ascent.begin`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph
from merge_core.channels.parts import Part, parts_of
from merge_core.matching.assignment import hungarian
from merge_core.matching.parameters import aligned_parameters

_ROUNDING = 1e-6  # of the product of norms; a gain below this is float32's


@dataclass(frozen=True)
class WeightMatching:
    """Who is matched with whom, and how the objective rose.

    Attributes:
        orders: for every free space the channel of B that matches channel i of A, int64 of shape
            (size,), on the CPU; `channels.permute(b, graph, orders)` aligns B to A.
        objective: the inner product of A's parameters with those of the reordered B: with B as it
            is, then after every pass over the spaces. It never falls.
    """

    orders: dict[str, Tensor]
    objective: list[float]


def match_weights(
    a: nn.Module, b: nn.Module, graph: ChannelGraph, generator: torch.Generator
) -> WeightMatching:
    """Match all free spaces of two networks to a fixed point of the objective.

    Args:
        a, b: two networks of the architecture of `graph`, on one device.
        graph: their channel graph.
        generator: draws the order in which the spaces are solved.

    Raises:
        GraphError: a parameter has other shapes in the two networks, or is not finite.
    """
    ours, theirs = aligned_parameters([a, b])
    ascent = Ascent(ours, theirs, graph)
    objective = [ascent.objective()]
    if ascent.begin():
        objective.append(ascent.objective())
    objective += ascent.climb(generator)
    return WeightMatching(ascent.orders, objective)


class Ascent:
    """Network B on its way to A's order.

    Attributes:
        orders: where B's channels come from so far, as in `WeightMatching`.
        theirs: B's parameters in that order.

    Args:
        ours: A's parameters, float32, by name.
        theirs: B's.
        graph: the channel graph of both.
    """

    def __init__(
        self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], graph: ChannelGraph
    ) -> None:
        self.ours = ours
        self.theirs = dict(theirs)
        self.graph = graph
        self.parts = parts_of(graph, ours)
        self.orders = {space.name: torch.arange(space.size) for space in graph.free}
        self._rows = {id(p): p.rows(ours[p.name]) for parts in self.parts.values() for p in parts}
        self._beside = _neighbours(self.parts)
        self._least = {
            name: _ROUNDING * _norm(ours, parts) * _norm(theirs, parts)
            for name, parts in self.parts.items()
        }

    @property
    def has_moved(self) -> bool:
        """Whether any channel of B is no longer where it was."""
        return any(not torch.equal(o, torch.arange(len(o))) for o in self.orders.values())

    def objective(self) -> float:
        """The inner product of both networks' parameters, each by rows."""
        return sum(_inner(tensor, self.theirs[name]) for name, tensor in self.ours.items())

    def begin(self) -> bool:
        """Match the spaces in order of execution, each by what is known of it by then.

        A weight counts as far as its other axes lie in fixed ends or in spaces that are matched
        already. True where this is better than the order at hand; otherwise nothing changes.
        """
        before, theirs, orders = self.objective(), dict(self.theirs), dict(self.orders)
        known: set[str] = set()
        for name in self.parts:
            order = hungarian(self._similarity(name, known))
            self._take(name, order, self._moved(name, order))
            known.add(name)
        if self.objective() > before:
            return True
        self.theirs, self.orders = theirs, orders
        return False

    def climb(self, generator: torch.Generator) -> list[float]:
        """Improve one space after the other until none can be; the objective after each pass.

        A space is looked at again only after something beside it has moved.
        """
        names = list(self.parts)
        waiting, risen = set(names), []
        while waiting:
            draw = torch.randperm(len(names), generator=generator, device=generator.device)
            for name in (names[i] for i in draw.tolist()):
                if name in waiting:
                    waiting.discard(name)
                    if self._improve(name):
                        waiting |= self._beside[name]
            risen.append(self.objective())
        return risen

    def _improve(self, name: str) -> bool:
        """Solve one space; whether that raised the objective."""
        similarity = self._similarity(name)
        order = hungarian(similarity)
        identity = torch.arange(len(order))
        if torch.equal(order, identity):
            return False
        if name in self._beside[name]:
            moved = self._moved(name, order)
            gain = sum(
                _inner(self.ours[key], tensor) - _inner(self.ours[key], self.theirs[key])
                for key, tensor in moved.items()
            )
        else:
            similarity = similarity.cpu().double()
            gain = float((similarity[identity, order] - similarity.diagonal()).sum())
            moved = {}
        if gain <= self._least[name]:
            return False
        self._take(name, order, moved or self._moved(name, order))
        return True

    def _similarity(self, name: str, known: set[str] | None = None) -> Tensor:
        """The inner products of A's units with B's, over all that belongs to a unit of the space.

        With `known`, over what lies along known channels only. Shape (size, size).
        """
        rows = [(self._rows[id(p)], p.rows(self._seen(p, known))) for p in self.parts[name]]
        size = len(self.orders[name])
        total = torch.zeros(size, size, device=rows[0][0].device)
        for one, other in rows:
            total.addmm_(one, other.T)
        return total

    def _seen(self, part: Part, known: set[str] | None) -> Tensor:
        """B's tensor, with zeros along channels that are not known."""
        tensor = self.theirs[part.name]
        if known is None:
            return tensor
        hidden = [space.free and space.name not in known for space in self.graph.spaces]
        unknown = torch.tensor([*hidden, False])  # the last stands for -1, which is fixed
        for dim, axis in enumerate(self.graph.axes[part.name]):
            if axis is not None and dim != part.dim and bool(unknown[axis.space].any()):
                shape = [1] * tensor.dim()
                shape[dim] = -1
                tensor = tensor * (~unknown[axis.space]).to(tensor).view(shape)
        return tensor

    def _moved(self, name: str, order: Tensor) -> dict[str, Tensor]:
        """B's tensors of one space with its units in another order."""
        moved: dict[str, Tensor] = {}
        for part in self.parts[name]:
            tensor = moved.get(part.name, self.theirs[part.name])
            moved[part.name] = part.moved(tensor, order)
        return moved

    def _take(self, name: str, order: Tensor, moved: Mapping[str, Tensor]) -> None:
        self.orders[name] = self.orders[name][order]
        self.theirs.update(moved)


def _norm(tensors: Mapping[str, Tensor], parts: list[Part]) -> float:
    names = {part.name for part in parts}
    return math.hypot(*(float(torch.linalg.vector_norm(tensors[name])) for name in names))


def _inner(one: Tensor, other: Tensor) -> float:
    """The inner product; rows in float32, their sum in float64."""
    if one.dim() < 2:
        return torch.dot(one.flatten().cpu().double(), other.flatten().cpu().double()).item()
    rows = torch.bmm(one.flatten(1).unsqueeze(1), other.flatten(1).unsqueeze(2))
    return rows.cpu().double().sum().item()


def _neighbours(parts: Mapping[str, list[Part]]) -> dict[str, set[str]]:
    """For every space those that meet it in a tensor; itself, where it is on two axes of one."""
    axes: dict[str, set[tuple[str, int]]] = {}
    for space, mine in parts.items():
        for part in mine:
            axes.setdefault(part.name, set()).add((space, part.dim))
    return {
        space: {other for part in mine for other, dim in axes[part.name] if dim != part.dim}
        for space, mine in parts.items()
    }
