"""Zips: channels paired within and across two networks, and each pair made one channel.

Source: Stoica et al. (2024), "ZipIt! Merging models from different tasks without training",
sections 4.1 (pairs within and across networks) and 4.3 (partial zipping).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from merge_core.activations import Moments
from merge_core.channels import ChannelGraph, concatenate, select, trace
from merge_core.channels.parts import Part, parts_of
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.matching.activations import likeness


def match_zips(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """For every observed space, all channels of both networks in pairs of high correlation.

    Args:
        moments: of two networks, from `activations.observe`.

    Returns:
        For every space int64 of shape (size, 2): the two channels that become channel i, numbered
        as in the big student (channel j of network t is t · size + j), the lower first. Pairs are
        in the order of their first channels.
    """
    return {name: zip_pairs(_within_and_across(each)) for name, each in moments.items()}


def _within_and_across(moments: Moments) -> Tensor:
    rows = [torch.cat([likeness(moments, a, b) for b in (0, 1)], 1) for a in (0, 1)]
    return torch.cat(rows)


def zip_pairs(similarity: Tensor) -> Tensor:
    """The greedy perfect matching: the most similar pair that is still free, again and again.

    Args:
        similarity: symmetric, `(channels, channels)` with an even number of channels; the diagonal
            does not count.

    Returns:
        int64 of shape (channels / 2, 2), on the CPU; of pairs that are equally similar the one with
        the lowest numbers comes first.
    """
    left = similarity.detach().cpu().double().clone()
    left = left.fill_diagonal_(-torch.inf)
    number = torch.arange(len(left))
    pairs = []
    while len(number):
        # Two that prefer each other are what the greedy search would take at some point.
        best = left.argmax(1)
        chosen = (best[best] == torch.arange(len(best))) & (best > torch.arange(len(best)))
        first, second = chosen.nonzero().flatten(), best[chosen]
        pairs.append(torch.stack([number[first], number[second]], 1))
        free = torch.ones(len(number), dtype=torch.bool)
        free[first] = free[second] = False
        number, left = number[free], left[free][:, free]
    found = torch.cat(pairs)
    return found[torch.argsort(found[:, 0])]


def zipped(
    a: nn.Module,
    b: nn.Module,
    graph: ChannelGraph,
    pairs: Mapping[str, Tensor],
    up_to: str | None = None,
) -> nn.Module:
    """One network in which both channels of every pair are one: written as their mean.

    What reads one of the pair reads the mean. All free spaces must have pairs (see `match_zips`).
    With `up_to`, only the spaces up to and including that one, in order of execution, are zipped;
    from there on both networks go on side by side, as wide as both, and the mean of their outputs
    is taken.

    GraphError for a space that is unknown, or where the two cannot stand side by side.
    """
    names = [space.name for space in graph.free]
    if up_to is not None:
        names = names[: names.index(graph.space(up_to).name) + 1]
    big = concatenate([a, b], graph)
    big_graph = trace(big, graph.example)
    tensors = named_tensors(big)
    reading = {(read.tensor, read.dim) for read in big_graph.reads}
    made: dict[str, Tensor] = {}
    for space, parts in parts_of(big_graph, tensors).items():
        if space in names:
            for part in parts:
                tensor = made.get(part.name, tensors[part.name].detach())
                share = 1.0 if (part.name, part.dim) in reading else 0.5
                made[part.name] = _joined(tensor, part, pairs[space], share)
    return select(rebuild(big, made), big_graph, {name: pairs[name][:, 0] for name in names})


def _joined(tensor: Tensor, part: Part, pairs: Tensor, share: float) -> Tensor:
    """The tensor with `share` of the sum of every pair in the place of the pair's first unit."""
    index = part.index.to(tensor.device)
    first, second = (index[side.to(tensor.device)].flatten() for side in pairs.unbind(1))
    both = tensor.index_select(part.dim, first) + tensor.index_select(part.dim, second)
    return tensor.index_copy(part.dim, first, both * share)
