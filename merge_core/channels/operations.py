"""Permute, select and fold: interpreters of the channel graph."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from merge_core.channels.graph import Axis, ChannelGraph
from merge_core.channels.heads import head_mean, joined_head, set_head_mean
from merge_core.channels.layout import Layout, Sources, layout, positions
from merge_core.channels.rebuild import Changes, named_tensors, rebuild
from merge_core.channels.scales import scales_of
from merge_core.channels.sites import Change, rewritten
from merge_core.errors import GraphError


def permute(model: nn.Module, graph: ChannelGraph, permutations: Mapping[str, Tensor]) -> nn.Module:
    """A new module that computes the same function with its channels in another order.

    `permutations[name]` is int64 of shape (size,): new unit i is old unit permutation[i]. Spaces
    not named keep their order. GraphError for a space that is unknown or fixed, or an index that
    is no permutation.
    """
    for name, order in permutations.items():
        size = graph.space(name).size
        if not torch.equal(torch.sort(order.cpu()).values, torch.arange(size)):
            raise GraphError(
                f"The permutation of {name!r} is not one of its {size} units; give every index "
                f"from 0 to {size - 1} once."
            )
    return select(model, graph, permutations)


def select(model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    """A new module with only the kept units, in the order given.

    `kept[name]` is int64 of shape (kept units,), without repetition; spaces not named keep all.
    It computes what the network computes with the other units multiplied by zero wherever they
    are read. GraphError where a space is unknown, fixed or would be left empty, or where the
    network cannot have these sizes.
    """
    chosen = {name: _checked(graph, name, index) for name, index in kept.items()}
    sizes = {name: len(index) for name, index in chosen.items()}
    head = head_mean(model)
    cut = any(graph.space(name).size != size for name, size in sizes.items())
    tensors = named_tensors(model)
    rows = {}
    if head is not None and cut:
        rows = {
            name: tensors[name].shape[dim] // len(head.shares)
            for name, dim in graph.averaged.items()
        }
    plain = not any(True for _ in rewritten(model))
    if plain and not cut:
        target = Layout(graph, {}, {})
    else:
        target = layout(model, graph, sizes, rows, None if cut else head)
    units = {
        number: chosen[space.name]
        for number, space in enumerate(graph.spaces)
        if space.name in chosen
    }
    result = {}
    sources = Sources(units)
    for name, tensor in tensors.items():
        if name not in graph.axes:
            continue
        picked = tensor.detach()
        if name in rows and head is not None:
            picked = joined_head(picked, graph.averaged[name], head.shares)
        for dim, (old, new) in enumerate(
            zip(graph.axes[name], target.graph.axes[name], strict=True)
        ):
            in_head = name in rows and dim == graph.averaged[name]
            if old is not None and new is not None and not in_head:
                index = sources.of(old, new)
                if index is not None:
                    picked = picked.index_select(dim, index.to(tensor.device))
        result[name] = picked.clone() if _shares(picked, tensor) else picked

    def kept_parts(old: Axis, new: Axis, parts: Tensor | None) -> Tensor | None:
        if parts is None or len(old.space) != len(new.space):
            return None  # the cut joins what was normalised in parts
        return parts[positions(old, new, units)]

    changes = with_parts(graph, target, kept_parts)
    made = set_head_mean(rebuild(model, result, target.attributes, changes), None if cut else head)
    scales = scales_of(made)
    if scales is not None:
        picked = {
            name: value.detach()[chosen[name].to(value.device)] if name in chosen else value
            for name, value in scales.spaces().items()
        }
        scales.rearrange(picked, target.graph)
    return made


def with_parts(
    graph: ChannelGraph,
    target: Layout,
    parts_of: Callable[[Axis, Axis, Tensor | None], Tensor | None],
) -> Changes:
    """The corrections of a layout, with the parts of every norm over channels filled in."""
    changes = {layer: dict(kept) for layer, kept in target.changes.items()}
    found = {site.key: site for site in target.graph.sites}
    for site in graph.sites:
        if site.kind != "layer_norm" or site.key not in found:
            continue
        (old,), (new,) = site.lines.values(), found[site.key].lines.values()
        parts = parts_of(old, new, site.parts)
        if parts is not None:
            change = Change(parts=parts, dim=site.dim, needed=True)
            changes.setdefault(site.layer, {})[site.key[1:]] = change
    return changes


def _shares(left: Tensor, right: Tensor) -> bool:
    return left.data_ptr() == right.data_ptr() and left.numel() > 0


def _checked(graph: ChannelGraph, name: str, index: Tensor) -> Tensor:
    space = graph.space(name)
    index = index.detach().cpu()
    if not space.free:
        raise GraphError(f"Space {name!r} is fixed and cannot be rearranged; leave it out.")
    if index.dim() != 1 or index.dtype != torch.int64 or not len(index):
        raise GraphError(
            f"The units of {name!r} are given by {tuple(index.shape)} {index.dtype}; give at least "
            "one index in a flat int64 tensor."
        )
    if len(torch.unique(index)) < len(index) or index.min() < 0 or index.max() >= space.size:
        raise GraphError(
            f"The units of {name!r} must be different indices from 0 to {space.size - 1}; the ones "
            f"given run from {int(index.min())} to {int(index.max())}."
        )
    return index


def fold(model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]) -> nn.Module:
    """A new module in which every reader's weight holds the scale of what it reads.

    `scales[name]` has shape (size,). It computes what the network computes inside `scaled_reads`
    with the same scales: deterministic gates absorbed before the cut. Scales that it carries
    stay with it.
    """
    result = {
        name: tensor.detach() * factor
        for name, tensor, factor in read_factors(model, graph, scales)
    }
    return rebuild(model, result)


def read_factors(
    model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]
) -> list[tuple[str, Tensor, Tensor]]:
    """(name, tensor, factor that broadcasts to it) for each weight that reads a named space."""
    for name in scales:
        graph.space(name)
    numbers = {number: space.name for number, space in enumerate(graph.spaces)}
    tensors = named_tensors(model)
    found = []
    for name, dim in dict.fromkeys((read.tensor, read.dim) for read in graph.reads):
        axis = graph.axes[name][dim]
        assert axis is not None
        named = [n for n in torch.unique(axis.space).tolist() if numbers.get(n) in scales]
        if not named:
            continue
        tensor = tensors[name]
        factor = torch.ones(len(axis.space), dtype=tensor.dtype, device=tensor.device)
        for number in named:
            mine = (axis.space == number).nonzero().flatten().to(tensor.device)
            unit = axis.unit.to(tensor.device)[mine]
            factor = factor.index_put((mine,), scales[numbers[number]].to(factor)[unit])
        shape = [1] * tensor.dim()
        shape[dim] = -1
        found.append((name, tensor, factor.view(shape)))
    return found
