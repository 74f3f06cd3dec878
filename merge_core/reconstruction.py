"""Channels that stand for others: which to keep, and how readers make up for the rest.

A big student holds the channels of all teachers. What its readers would be given by the channels
that are cut is estimated from the kept ones, by least squares on observed activations, and goes
into the readers' weights. After He et al. (2017), "Channel pruning for accelerating very deep
neural networks", section 3.1, with channels mixed at each position alike (so moments per channel
are enough) and greedy instead of penalised selection.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from merge_core.activations import Moments, Place
from merge_core.channels import ChannelGraph, select
from merge_core.channels.rebuild import named_tensors, rebuild

_REDUNDANT = 1e-8
"""A channel of which the kept ones leave a smaller share than this is not worth keeping."""

_RIDGE = 1e-7
"""Of the mean power of the kept channels: keeps the solution small where they are alike."""


def power(moments: Moments) -> Tensor:
    """Mean products E[x xᵀ] of the channels of all networks; (channels, channels) float64."""
    return moments.covariance + torch.outer(moments.mean, moments.mean)


def mixing(products: Tensor, kept: Tensor) -> Tensor:
    """How all channels are best written with the kept ones; `(channels, kept)`.

    Args:
        products: E[x xᵀ], `(channels, channels)`.
        kept: int64 indices.

    Returns:
        M with the least E‖x − M x[kept]‖². A kept channel stands for itself.
    """
    inner = products[kept][:, kept]
    ridge = (_RIDGE * inner.diagonal().mean()).clamp(min=1e-30)  # all may be dead
    inner = inner + ridge * torch.eye(len(kept), dtype=inner.dtype)
    solution = torch.linalg.solve(inner, products[kept]).T
    solution[kept] = torch.eye(len(kept), dtype=inner.dtype)
    return solution


def chosen(seen: Sequence[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """The channels that, one after the other, leave the smallest error of all readers together.

    Args:
        seen: for each reader E[x xᵀ] of what it reads and G, the importance of its error: reading
            x̂ for x costs (x − x̂)ᵀ G (x − x̂). Both `(channels, channels)`.
        count: how many to keep.

    Returns:
        `(count,)` int64, ascending. Ties go to the lower index.
    """
    rests = [products.clone() for products, _ in seen]  # what the channels kept so far leave
    felt = [weight @ rest for (_, weight), rest in zip(seen, rests, strict=True)]
    least = [_REDUNDANT * products.diagonal().clone() for products, _ in seen]
    free = torch.ones(len(least[0]), dtype=torch.bool)
    kept = []
    for _ in range(count):
        gain = torch.zeros(len(free), dtype=torch.float64)
        for rest, pull, low in zip(rests, felt, least, strict=True):
            left = rest.diagonal()
            gain += torch.where(left > low, (rest * pull).sum(0) / left.clamp(min=1e-300), 0.0)
        best = int(torch.where(free, gain, -1.0).argmax())
        for rest, pull, low in zip(rests, felt, least, strict=True):
            left = float(rest[best, best])
            if left > low[best]:
                column = rest[:, best].clone()
                pull -= torch.outer(pull[:, best] / left, column)
                rest -= torch.outer(column / left, column)
        free[best] = False
        kept.append(best)
    return torch.tensor(kept).sort().values


def importances(
    big: nn.Module, graph: ChannelGraph, space: str, kept: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """G of each reader of a space, by its weight: the products of the weight's columns; float64.

    Args:
        big: the big student.
        graph: its channel graph.
        space: whose readers count.
        kept: units that are kept already in the spaces that are written there; the others do not
            count.
    """
    numbers = {number: kept[s.name] for number, s in enumerate(graph.spaces) if s.name in kept}
    tensors = named_tensors(big)
    found = {}
    for name, dim, elements in _reading(graph, space):
        weight = tensors[name].detach().cpu()
        for other, axis in enumerate(graph.axes[name]):
            if axis is not None and other != dim:
                lost = torch.zeros(len(axis.space), dtype=torch.bool)
                for number, units in numbers.items():
                    lost |= (axis.space == number) & ~torch.isin(axis.unit, units)
                weight = weight.index_select(other, (~lost).nonzero().flatten())
        columns = weight.movedim(dim, 0)[elements].flatten(1).double()
        found[name] = columns @ columns.T
    return found


def cut(
    big: nn.Module,
    graph: ChannelGraph,
    kept: Mapping[str, Tensor],
    seen: Mapping[Place, Tensor],
) -> nn.Module:
    """The network of the kept units, whose readers make up for the others.

    Args:
        big: the big student; it is left as it is.
        graph: its channel graph.
        kept: units of every free space, `(kept,)` int64.
        seen: E[x xᵀ] of what each reader of each of these spaces reads.
    """
    tensors = {name: tensor.detach() for name, tensor in named_tensors(big).items()}
    changed: dict[str, Tensor] = {}
    for space, units in kept.items():
        for name, dim, elements in _reading(graph, space):
            weight = changed.get(name, tensors[name]).clone()
            columns = weight.movedim(dim, 0)[elements].double()
            mix = mixing(seen[space, name], units).to(weight.device)
            mixed = torch.zeros_like(columns)
            mixed[units] = torch.tensordot(mix.T, columns, 1)
            weight.movedim(dim, 0)[elements] = mixed.to(weight)
            changed[name] = weight
    return select(rebuild(big, changed), graph, kept)


def _reading(graph: ChannelGraph, space: str) -> list[tuple[str, int, Tensor]]:
    """(tensor, dimension, elements of each unit (size, elements)) for every read of a space."""
    number, size = graph.spaces.index(graph.space(space)), graph.space(space).size
    found = []
    for name, dim in dict.fromkeys((read.tensor, read.dim) for read in graph.reads):
        axis = graph.axes[name][dim]
        assert axis is not None
        mine = (axis.space == number).nonzero().flatten()
        if len(mine):
            order = torch.argsort(axis.unit[mine], stable=True)
            found.append((name, dim, mine[order].view(size, -1)))
    return found
