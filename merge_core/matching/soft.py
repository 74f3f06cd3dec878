"""Soft matchings: one channel against several, with weights.

A mixture of a space is a (size, size) tensor whose row i says of which channels of B the new
channel i is made. Sources: weighted averages over the k most similar channels are an old suggestion
for merging by hand; transport is Singh and Jaggi (2020), "Model fusion via optimal transport",
section 4; its entropic form is Cuturi (2013), "Sinkhorn distances".
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from merge_core.activations import Moments
from merge_core.channels import ChannelGraph
from merge_core.channels.parts import Part, parts_of
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.errors import GraphError

_ITERATIONS = 1000


def soft_top_k(similarity: Tensor, k: int, temperature: float) -> Tensor:
    """Each row's weights over the k most similar columns: their softmax, zero elsewhere.

    Args:
        similarity: `(rows, columns)`; infinite where only that column will do.
        k: 1 to the number of columns; more are taken as all of them.
        temperature: above 0; near 0 only the most similar column counts.

    Returns:
        `(rows, columns)`, not negative; every row has sum 1.
    """
    assert k >= 1, k
    assert temperature > 0, temperature
    values, columns = similarity.topk(min(k, similarity.shape[1]), dim=1)
    weights = torch.softmax((values - values[:, :1]).nan_to_num(0.0) / temperature, 1)
    return torch.zeros_like(similarity).scatter_(1, columns, weights)


def sinkhorn(similarity: Tensor, epsilon: float, tolerance: float = 1e-6) -> Tensor:
    """The doubly stochastic transport with the largest ⟨T, similarity⟩ + ε · entropy of T.

    Rows and columns are scaled in turn, in logarithms and float64, until the sums of all rows are
    near 1 (columns are exact), or 1,000 times.

    Args:
        similarity: `(size, size)`, finite.
        epsilon: above 0, in the units of the similarity; near 0 this is the Hungarian matching.
        tolerance: how far from 1 the sum of a row may be.

    Returns:
        `(size, size)` float64, not negative; every row and column has sum 1.
    """
    assert epsilon > 0, epsilon
    kernel = similarity.double() / epsilon
    rows = -torch.logsumexp(kernel, 1)
    columns = -torch.logsumexp(kernel + rows[:, None], 0)
    for _ in range(_ITERATIONS):
        before, rows = rows, -torch.logsumexp(kernel + columns, 1)
        if float((rows - before).abs().max()) < tolerance:
            rows = before  # for which the columns were made
            break
        columns = -torch.logsumexp(kernel + rows[:, None], 0)
    return torch.exp(kernel + rows[:, None] + columns)


def mix(network: nn.Module, graph: ChannelGraph, mixtures: Mapping[str, Tensor]) -> nn.Module:
    """A new module of the same widths whose channels are mixtures of the network's.

    `mixtures[space]` is (size, size), not negative, every row with sum 1: new channel i is written
    as Σⱼ M[i, j] · old channel j. What reads the space reads new channel i as Σⱼ M[i, j] / cⱼ of
    the old ones, where cⱼ is the sum of column j, so that a channel counts once however many are
    made of it. For a permutation this is `channels.permute`; for other mixtures it is not the same
    function, and norm statistics are those of the mixtures only roughly. A tensor that both writes
    and reads a space on one axis (a tied embedding) counts as a reader. Spaces not named keep
    their channels.

    GraphError for a space that is fixed or unknown, or a mixture of another shape.
    """
    for name, mixture in mixtures.items():
        space = graph.space(name)
        if not space.free or mixture.shape != (space.size, space.size):
            raise GraphError(
                f"The mixture of {name!r} has shape {tuple(mixture.shape)}; give ({space.size}, "
                f"{space.size}) for a space that is free."
            )
    tensors = named_tensors(network)
    reading = {(read.tensor, read.dim) for read in graph.reads}
    made: dict[str, Tensor] = {}
    for space, parts in parts_of(graph, tensors).items():
        if space not in mixtures:
            continue
        written = mixtures[space].double()
        read = written / written.sum(0).clamp(min=torch.finfo(written.dtype).tiny)
        for part in parts:
            tensor = made.get(part.name, tensors[part.name].detach())
            mixture = read if (part.name, part.dim) in reading else written
            made[part.name] = _mixed(tensor, part, mixture)
    return rebuild(network, made)


def _mixed(tensor: Tensor, part: Part, mixture: Tensor) -> Tensor:
    """The tensor with its units along one axis mixed."""
    index = part.index.flatten().to(tensor.device)
    units = tensor.index_select(part.dim, index).movedim(part.dim, 0)
    rows = mixture.to(tensor) @ units.reshape(len(mixture), -1)
    mixed = rows.view(units.shape).movedim(0, part.dim)
    return tensor.index_copy(part.dim, index, mixed)


def blend(
    networks: Sequence[nn.Module],
    graph: ChannelGraph,
    moments: Mapping[str, Moments],
    mixture: Callable[[Moments, int], Tensor],
) -> tuple[list[nn.Module], dict[str, Tensor]]:
    """All networks in the first one's order, every other one through mixtures of its channels.

    Args:
        networks: of the architecture of `graph`; the first stays as it is.
        graph: their channel graph.
        moments: of all of them, from `activations.observe`.
        mixture: from a space's moments and a network's number, the mixture for `mix`.

    Returns:
        The networks, and for every space which channel of each has the largest share in channel i
        of the first: int64 of shape (size, networks), numbered as in the big student.
    """
    moved = [networks[0]]
    columns = {name: [torch.arange(each.size)] for name, each in moments.items()}
    for number, network in enumerate(networks[1:], start=1):
        mixtures = {name: mixture(each, number) for name, each in moments.items()}
        moved.append(mix(network, graph, mixtures))
        for name, each in mixtures.items():
            columns[name].append(each.argmax(1).cpu() + number * len(each))
    return moved, {name: torch.stack(each, 1) for name, each in columns.items()}
