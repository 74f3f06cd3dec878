"""Repair: channels of a merged network vary again as those of its teachers did.

Batch-norm statistics are measured afresh after the network around them has changed; where there is
no norm, scale and shift go into the layers themselves (REPAIR).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from merge_core.channels import ChannelGraph, trace
from merge_core.channels.parts import parts_of
from merge_core.channels.rebuild import named_tensors
from merge_core.data import Split
from merge_core.written import Layer, Norm, measured, steps


def has_norm_statistics(network: nn.Module) -> bool:
    """Whether any layer of the network keeps running statistics."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in network.modules())


Network = TypeVar("Network", bound=nn.Module)

Shares = Sequence[float] | Mapping[str, Sequence[float]] | None
"""Weights of several channels in their mean, for all layers or by the name of a layer's weight."""

_STILL = 1e-6  # of the largest deviation in a layer; a channel that varies less never varies


@torch.no_grad()
def norms_reestimated(
    network: Network,
    split: Split,
    batch_size: int,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    draws: torch.Generator,
) -> Network:
    """A copy of the network whose batch-norm statistics are those of `split`, in eval mode.

    The estimator is the mean over batches of each batch's mean and unbiased variance, in one pass
    over the split, augmented as in training; weights do not change. Give batches as large as in
    training: with small ones the variance misses what lies between batches.

    Args:
        network: any module with batch norms.
        split: the training split.
        batch_size: examples per batch; a last batch of one example is left out.
        augment: the recipe's augmentation.
        draws: its generator.
    """
    fresh = copy.deepcopy(network)
    batches = (each for each in split.batches(batch_size) if len(each) > 1)
    _renorm(fresh, (augment(batch.inputs, draws) for batch in batches))
    return fresh.eval()


def _renorm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Put the mean over batches of each batch's statistics into the network's norms; eval mode."""
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
        norm.train()
    for inputs in batches:
        network(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def repaired(
    network: Network,
    teachers: Sequence[nn.Module],
    graph: ChannelGraph,
    inputs: Tensor,
    batch_size: int,
    *,
    sources: Mapping[str, Tensor] | None = None,
    shares: Shares = None,
) -> Network:
    """A copy of a merged network whose channels vary as those of its teachers did; in eval mode.

    REPAIR (Jordan et al. 2023, "REPAIR: REnormalizing Permuted Activations for Interpolation
    Repair", section 3): the mean of channels that are only partly alike varies less than each of
    them, and from layer to layer less. So every channel is scaled and shifted until its mean and
    its standard deviation are the means of the teachers' means and standard deviations.

    What is measured is what every convolution and linear layer writes into a free space. Where a
    batch norm takes that at once, the norm does it: its statistics are re-estimated, while its
    scale and shift, which are the mean and deviation that it writes, come from the merge.
    Everywhere else scale and shift go into the layer's own weight and bias, one layer after the
    other in order of execution, each measured behind those before it. The network keeps its class
    and its parameters: a layer without a bias is only scaled, so its channels get their deviations
    and not their means; a channel that never varies is only shifted. The layers that write the
    output, and what `nn.MultiheadAttention` computes inside, are left as they are.

    Costs about half a forward pass over the inputs for every layer that is corrected, and one for
    all norms.

    Args:
        network: the merged network, of the teachers' class; as wide as they are, or wider where
            `sources` say so.
        teachers: the networks that it was made of.
        graph: the channel graph of each of them.
        inputs: `(examples, ...)`, two or more of the training split.
        batch_size: examples that are passed at once; as large as in training for batch norms.
        sources: for every space, which of the teachers' channels went into each of the network's:
            int64 of shape (the network's size, m), numbered as in the big student (channel i of
            teacher t is t · size + i). By default, and in spaces not named, channel i of every
            teacher.
        shares: the weight of each of the m columns, for all layers or by the name of a layer's
            weight; alike by default and in layers not named.
    """
    fixed = copy.deepcopy(network).eval()
    batches = [each for each in inputs.split(batch_size) if len(each) > 1]
    own = graph if _as_wide(fixed, teachers[0]) else trace(fixed, batches[0][:2])
    order = steps(fixed, own, batches[0][:2])
    layers = [step for step in order if isinstance(step, Layer)]
    of_teachers = [measured(teacher, layers, batches) for teacher in teachers] if layers else []
    norms_wait = False
    for step in order:
        if isinstance(step, Norm):
            norms_wait = True
            continue
        if norms_wait:
            _renorm(fixed, batches)
            norms_wait = False
        mine = shares.get(step.weight) if isinstance(shares, Mapping) else shares
        theirs = [of_one[step.weight] for of_one in of_teachers]
        seen = measured(fixed, [step], batches)[step.weight]
        goal = torch.full_like(seen, torch.nan)  # where nothing is to be corrected
        for space, into, source in _places(step, own, graph):
            columns = (sources or {}).get(space)
            goal[:, into] = _goal(theirs, source, columns, mine)
        _correct(fixed, step, seen, goal)
    if norms_wait:
        _renorm(fixed, batches)
    return fixed


def _as_wide(network: nn.Module, teacher: nn.Module) -> bool:
    shapes = [[each.shape for each in module.parameters()] for module in (network, teacher)]
    return shapes[0] == shapes[1]


def _places(
    layer: Layer, own: ChannelGraph, graph: ChannelGraph
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Where a layer writes a space: the space, and the elements of its units, `(units, k)` each.

    Args:
        layer: a layer.
        own: the channel graph of the merged network, which gives the first elements.
        graph: that of each teacher, which gives the second ones.
    """
    wide, narrow = (parts_of(each, [layer.weight]) for each in (own, graph))
    for space in graph.free:
        for into, source in zip(wide[space.name], narrow[space.name], strict=True):
            if into.dim == layer.dim:
                yield space.name, into.index, source.index


def _goal(
    of_teachers: Sequence[Tensor],
    index: Tensor,
    columns: Tensor | None,
    shares: Sequence[float] | None,
) -> Tensor:
    """Mean and deviation that the elements of a space should have; `(2, units, k)`.

    Args:
        of_teachers: what was seen of each teacher's layer, `(2, elements)`.
        index: the elements of a teacher's units, `(size, k)`.
        columns, shares: `sources` of the space and `shares` of the layer, as of `repaired`.
    """
    size = len(index)
    theirs = torch.cat([seen[:, index] for seen in of_teachers], 1)  # (2, N·size, k)
    if columns is None:
        columns = torch.arange(size)[:, None] + size * torch.arange(len(of_teachers))
    weights = torch.tensor(shares or [1 / columns.shape[1]] * columns.shape[1]).double()
    return torch.einsum("asmk,m->ask", theirs[:, columns.cpu()], weights)


def _correct(network: nn.Module, layer: Layer, seen: Tensor, goal: Tensor) -> None:
    """Scale and shift what the layer writes from what was seen to the goal; `(2, elements)`."""
    (mean, deviation), (mean_goal, deviation_goal) = seen, goal
    scale = torch.where(deviation > _STILL * deviation.max(), deviation_goal / deviation, 1.0)
    shift = mean_goal - scale * mean
    scale, shift = scale.nan_to_num(1.0), shift.nan_to_num(0.0)
    tensors = named_tensors(network)
    weight = tensors[layer.weight]
    shape = [1] * weight.dim()
    shape[layer.dim] = -1
    weight.mul_(scale.to(weight).view(shape))
    if layer.bias is not None:
        bias = tensors[layer.bias]
        bias.mul_(scale.to(bias)).add_(shift.to(bias))
