"""How alike channels, and layers, of two networks are: by what they carry, and by their weights.

Nothing here is ever NaN. A dead channel (no variance, or no weights) is like no other: 0.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from merge_core.activations import Moments, reads
from merge_core.channels import Axis, ChannelGraph
from merge_core.channels.layout import positions
from merge_core.errors import DataError

Measure = Literal["cosine", "l2"]

_RESOLUTION = 1e-6
"""A standard deviation this small beside the mean is what float32 makes of a constant."""


def dead(moments: Moments, network: int) -> Tensor:
    """Which units of a network have no variance; `(size,)` bool."""
    least = (_RESOLUTION * moments.mean[moments.of(network)]).square()
    return moments.variance(network) <= least


def correlation(moments: Moments, a: int, b: int) -> Tensor:
    """Correlation of network a's units (rows) with network b's; `(size, size)` in [−1, 1].

    Dead units correlate with nothing, not even with themselves: 0.
    """
    scales = []
    for network in (a, b):
        deviation = moments.variance(network).sqrt()
        scales.append(torch.where(dead(moments, network), 0.0, 1 / deviation.clamp(min=1e-300)))
    return (scales[0][:, None] * moments.between(a, b) * scales[1]).clamp(-1, 1)


def incoming(
    graph: ChannelGraph,
    tensors_a: Mapping[str, Tensor],
    tensors_b: Mapping[str, Tensor],
    space: str,
    measure: Measure,
    matched: Mapping[str, Tensor],
) -> Tensor:
    """How alike the weights and biases are that write two units; `(size, size)`, A's units first.

    Args:
        graph: the channel graph of both networks.
        tensors_a: A's parameters by name.
        tensors_b: B's.
        space: whose units are compared.
        measure: "cosine" in [−1, 1], 0 for a unit whose weights are all zero; or "l2", the
            Euclidean distance.
        matched: for spaces matched already, `order[i]` = the unit of B that matches unit i of A;
            B's weights to them are compared in that order.
    """
    places = _writing(graph, tensors_a, space)
    a = _rows(graph, tensors_a, space, places, {})
    return _compared(a, _rows(graph, tensors_b, space, places, matched), measure)


def outgoing(
    graph: ChannelGraph,
    tensors_a: Mapping[str, Tensor],
    tensors_b: Mapping[str, Tensor],
    space: str,
    measure: Measure,
    matched: Mapping[str, Tensor],
) -> Tensor:
    """How alike the weights are that read two units; arguments and result as of `incoming`."""
    places = _reading(graph, space)
    a = _rows(graph, tensors_a, space, places, {})
    return _compared(a, _rows(graph, tensors_b, space, places, matched), measure)


def unit_norms(
    graph: ChannelGraph, tensors: Mapping[str, Tensor], space: str
) -> tuple[Tensor, Tensor]:
    """Euclidean norms of the weights that write each unit, and that read it; `(size,)` each."""
    rows = (
        _rows(graph, tensors, space, places, {})
        for places in (_writing(graph, tensors, space), _reading(graph, space))
    )
    into, out = (each.norm(dim=1) for each in rows)
    return into, out


def _writing(
    graph: ChannelGraph, tensors: Mapping[str, Tensor], space: str
) -> list[tuple[str, int]]:
    """Where units are written; units that no layer writes (embeddings) have tables instead."""
    written = graph.space(space).writers or graph.space(space).through
    read = _reads(graph)
    return [
        (name, dim)
        for name, dim in _places(graph, space)
        if (name, dim) not in read
        and name in tensors
        and (name.rpartition(".")[0] or name) in written
    ]


def _reading(graph: ChannelGraph, space: str) -> list[tuple[str, int]]:
    read = _reads(graph)
    return [place for place in _places(graph, space) if place in read]


def _reads(graph: ChannelGraph) -> set[tuple[str, int]]:
    return {(each.tensor, each.dim) for each in graph.reads}


def _places(graph: ChannelGraph, space: str) -> list[tuple[str, int]]:
    """(tensor, dimension) of every axis that holds units of the space."""
    number = graph.spaces.index(graph.space(space))
    return [
        (name, dim)
        for name, axes in graph.axes.items()
        for dim, axis in enumerate(axes)
        if axis is not None and bool((axis.space == number).any())
    ]


def _rows(
    graph: ChannelGraph,
    tensors: Mapping[str, Tensor],
    space: str,
    places: list[tuple[str, int]],
    matched: Mapping[str, Tensor],
) -> Tensor:
    """Everything at those places, unit by unit, other spaces in their matched order; float64."""
    number, size = graph.spaces.index(graph.space(space)), graph.space(space).size
    orders = {
        at: matched[each.name].cpu() for at, each in enumerate(graph.spaces) if each.name in matched
    }
    rows = [torch.zeros(size, 0)]
    for name, dim in places:
        axes = graph.axes[name]
        axis = axes[dim]
        assert axis is not None
        mine = (axis.space == number).nonzero().flatten()
        index = mine[torch.argsort(axis.unit[mine], stable=True)]
        weight = _ordered(tensors[name].detach().cpu(), axes, orders, dim)
        rows.append(weight.movedim(dim, 0)[index].reshape(size, -1))
    return torch.cat(rows, 1).double()


def _ordered(
    tensor: Tensor, axes: tuple[Axis | None, ...], orders: Mapping[int, Tensor], but: int
) -> Tensor:
    """A weight of B with its axes in A's order, except one."""
    named = torch.tensor(list(orders), dtype=torch.int64)
    for dim, axis in enumerate(axes):
        if axis is not None and dim != but and bool(torch.isin(axis.space, named).any()):
            tensor = tensor.index_select(dim, positions(axis, axis, orders))
    return tensor


def _compared(a: Tensor, b: Tensor, measure: Measure) -> Tensor:
    if measure == "l2":
        return torch.cdist(a, b)
    return (_unit_length(a) @ _unit_length(b).T).clamp(-1, 1)


def _unit_length(rows: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one."""
    if not rows.shape[1]:
        return rows
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, 1.0)  # so that no square under- or overflows
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)


@torch.no_grad()
def layer_cka(a: nn.Module, b: nn.Module, graph: ChannelGraph, batches: Iterable[Tensor]) -> Tensor:
    """Linear CKA between the free spaces of two networks; `(spaces, spaces)` in [−1, 1].

    Entry (i, j) compares what A's space i carries with B's space j, all positions included, by the
    unbiased estimator of HSIC in minibatches (Kornblith et al. 2019, section 3; Nguyen et al. 2021,
    section 2). It can be slightly negative for unlike layers. A space that carries the same for
    every example is like no other: 0. Memory does not depend on the number of batches.

    Args:
        a, b: networks of one architecture; they run in eval mode and are left as they were.
        graph: their channel graph.
        batches: inputs, batch first; batches of fewer than four examples, for which the estimator
            is not defined, are left out.

    Raises:
        DataError: no batch has four examples.
    """
    names = [space.name for space in graph.free]
    products = torch.zeros(len(names), len(names), dtype=torch.float64)
    own = torch.zeros(2, len(names), dtype=torch.float64)
    energy = torch.zeros(2, len(names), dtype=torch.float64)
    seen = 0
    networks = (a,) if a is b else (a, b)
    for batch in batches:
        n = len(batch)
        if n < 4:
            continue
        centred = [_grams(network, graph, names, batch) for network in networks]
        (first, first_energy), (second, second_energy) = centred[0], centred[-1]
        share = 1 / (n - 3)  # n for this batch's examples, 1 / (n(n - 3)) of the estimator
        products += share * (first @ second.T).cpu()
        own += share * torch.stack([first.square().sum(1), second.square().sum(1)]).cpu()
        energy += n * torch.stack([first_energy, second_energy])
        seen += n
    if not seen:
        raise DataError("CKA needs batches of at least four examples; give a larger batch.")
    noise = (_RESOLUTION**2 * energy / seen).square()
    scale = torch.where(own / seen > noise, 1 / own.clamp(min=1e-300).sqrt(), 0.0)
    return (scale[0][:, None] * products * scale[1]).clamp(-1, 1)


def _grams(
    network: nn.Module, graph: ChannelGraph, names: list[str], batch: Tensor
) -> tuple[Tensor, Tensor]:
    """U-centred products of examples, (spaces, n²) float64, and mean squared lengths (spaces,)."""
    n = len(batch)
    found: dict[str, Tensor] = {}
    energy: dict[str, float] = {}

    def receive(name: str, value: Tensor) -> None:
        if value.shape[1] % n:
            raise DataError(
                f"A layer reads {name!r} with a leading dimension of {value.shape[1]} for {n} "
                "examples, so they cannot be told apart; keep the examples first."
            )
        rows = value.unflatten(1, (n, -1)).movedim(1, 0).flatten(1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        energy[name] = float(rows.square().sum()) / n
        rows = rows - rows.mean(0)
        found[name] = _u_centred((rows @ rows.T).cpu().double()).flatten()

    with reads(network, graph, names, receive) as run:
        run(batch)
    return (
        torch.stack([found[name] for name in names]),
        torch.tensor([energy[name] for name in names], dtype=torch.float64),
    )


def _u_centred(products: Tensor) -> Tensor:
    """The matrix with zero diagonal and zero sums whose inner products are unbiased HSICs.

    Székely and Rizzo (2014), "Partial distance correlation with methods for dissimilarities",
    definition 2.
    """
    n = len(products)
    products = products.clone().fill_diagonal_(0)
    rows = products.sum(1) / (n - 2)
    total = products.sum() / ((n - 1) * (n - 2))
    return (products - rows[:, None] - rows + total).fill_diagonal_(0)
