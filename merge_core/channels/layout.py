"""Where everything lies once a network has other widths.

The layout is never guessed: the resized network is built without numbers and traced again, and
both graphs are compared, so an operation that cannot follow is found before anything is merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merge_core.channels.call import Guide
from merge_core.channels.graph import Axis, ChannelGraph, Space
from merge_core.channels.heads import HeadMean, set_head_mean
from merge_core.channels.rebuild import Changes, named_tensors, rebuild
from merge_core.channels.sites import SHAPES, Change
from merge_core.channels.trace import trace
from merge_core.errors import GraphError


@dataclass(frozen=True)
class Layout:
    """A resized network's graph and the corrections to its code; norms have no parts yet."""

    graph: ChannelGraph
    attributes: Mapping[tuple[str, str], int]
    changes: Changes


def resized(axis: Axis, graph: ChannelGraph, sizes: Mapping[str, int]) -> int:
    """The length of an axis when every space has the size given (others keep theirs)."""
    length = len(axis.space)
    for number in torch.unique(axis.space).tolist():
        if number >= 0:
            space = graph.spaces[number]
            new = sizes.get(space.name, space.size)
            owned = int((axis.space == number).sum())
            if owned * new % space.size:
                raise GraphError(
                    f"Space {space.name!r} of {space.size} units cannot have {new}: they lie on "
                    "several sides of other channels; keep a number that divides evenly."
                )
            length += owned * new // space.size - owned
    return length


def layout(
    model: nn.Module,
    graph: ChannelGraph,
    sizes: Mapping[str, int],
    rows: Mapping[str, int] | None = None,
    head: HeadMean | None = None,
) -> Layout:
    """Trace the network at other sizes; GraphError where it cannot have them.

    `rows` are new lengths for tensors that write the output, `head` the mean over heads then. The
    graph remembers its layouts, so that only the first use of a size pays for the trace.
    """
    heads = None if head is None else (tuple(head.shares), head.dim)
    key = (tuple(sizes.items()), tuple((rows or {}).items()), heads)
    if key not in graph.layouts:
        graph.layouts[key] = _traced(model, graph, sizes, rows, head)
    return graph.layouts[key]


def _traced(
    model: nn.Module,
    graph: ChannelGraph,
    sizes: Mapping[str, int],
    rows: Mapping[str, int] | None,
    head: HeadMean | None,
) -> Layout:
    shapes = {}
    for name, tensor in named_tensors(model).items():
        if tensor.is_floating_point():
            shape = list(tensor.shape)
            for dim, axis in enumerate(graph.axes.get(name, ())):
                if axis is not None:
                    shape[dim] = resized(axis, graph, sizes)
            if rows and name in rows:
                shape[graph.averaged[name]] = rows[name]
            shapes[name] = torch.empty(shape, dtype=tensor.dtype, device="meta")
    attributes = {
        (item.layer, item.name): resized(item.line, graph, sizes) for item in graph.attributes
    }
    changes = _changes(graph, sizes)
    guide = _guide(graph, sizes)
    skeleton = set_head_mean(rebuild(model, shapes, attributes, changes), head)
    try:
        found = trace(skeleton, graph.example, guide)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise GraphError(
            f"The network does not run at the new sizes ({error}): some operation keeps a width as "
            "a number of its own; take widths from the tensors' shapes."
        ) from error
    _same_spaces(graph, found, sizes)
    for (layer, training, kind, number), indices in guide.gathers.items():
        changes[layer][training, kind, number] = Change(gather=indices, needed=True)
    needed = {
        layer: {key: change for key, change in of_layer.items() if change.needed}
        for layer, of_layer in changes.items()
    }
    return Layout(found, attributes, {layer: kept for layer, kept in needed.items() if kept})


def _guide(graph: ChannelGraph, sizes: Mapping[str, int]) -> Guide:
    """Runs of one space on an axis stay runs, only longer."""
    spaces = {}
    for name, dims in graph.axes.items():
        for dim, axis in enumerate(dims):
            if axis is None:
                continue
            runs, lengths = torch.unique_consecutive(axis.space, return_counts=True)
            factors = [
                (sizes.get(graph.spaces[n].name, graph.spaces[n].size), graph.spaces[n].size)
                if n >= 0
                else (1, 1)
                for n in runs.tolist()
            ]
            new, old = torch.tensor(factors).unbind(1)
            if not bool((lengths * new % old).any()):  # else interleaved: such axes only read
                spaces[name, dim] = torch.repeat_interleave(runs, lengths * new // old)
    chunks = {
        site.key: [torch.unique(site.lines[at].space) for at in sorted(site.lines)]
        for site in graph.sites
        if site.kind == "chunk"
    }
    return Guide(spaces, chunks)


def _changes(graph: ChannelGraph, sizes: Mapping[str, int]) -> Changes:
    """A correction for every site; whether it is needed shows when the skeleton runs."""
    made: dict[str, dict[tuple[bool | None, str, int], Change]] = {}
    for site in graph.sites:
        lengths = {at: resized(line, graph, sizes) for at, line in site.lines.items()}
        full = tuple(lengths.get(at) for at in range(max(lengths, default=-1) + 1))
        full += (None,) * 16 if site.kind in (*SHAPES, "cat") else ()
        change = Change(full, dim=site.dim)
        before = made.setdefault(site.layer, {}).setdefault(site.key[1:], change)
        if before.lengths != change.lengths:
            raise GraphError(
                f"Layer {site.layer!r} is used at several places with different widths; use one "
                "module for each."
            )
    return made


def _same_spaces(graph: ChannelGraph, found: ChannelGraph, sizes: Mapping[str, int]) -> None:
    """GraphError unless a resized network has exactly the spaces that were meant."""
    for space, other in zip(graph.free, found.free, strict=False):
        meant = sizes.get(space.name, space.size)
        if (space.name, meant) != (other.name, other.size):
            raise GraphError(
                f"With {space.name!r} resized from {space.size} to {meant} units the network has a "
                f"space {other.name!r} of {other.size} units in its place: {_culprit(graph, space)}"
            )
    if len(graph.free) != len(found.free):
        raise GraphError(
            f"The resized network has {len(found.free)} free channel spaces and not "
            f"{len(graph.free)}: some operation keeps a width as a number of its own; take widths "
            "from the tensors' shapes."
        )


def _culprit(graph: ChannelGraph, space: Space) -> str:
    """What may have kept a space from being resized, and what to do."""
    mixers = graph.mixers.get(space.name, ())
    if mixers:
        one = mixers[0]
        where = f"layer {one.layer!r}" if one.layer else "the network"
        return (
            f"{where} applies {one.operation!r} over its channels, which mixes them; treat each "
            f"channel by itself."
        )
    return "some operation keeps its width as a number; take widths from the tensors' shapes."


def positions(old: Axis, new: Axis, units: Mapping[int, Tensor]) -> Tensor:
    """For each element of a new axis the element of the old axis that it comes from.

    `units[s][u]` is the old unit behind new unit u of space number s. Elements of one unit keep
    their order; fixed elements keep theirs.
    """
    source = new.unit.clone()
    for number in set(new.space.tolist()) & units.keys():
        mine = new.space == number
        source[mine] = units[number][new.unit[mine]]
    keys, wanted = _ranked(old.space, old.unit, old.unit), _ranked(new.space, new.unit, source)
    order = torch.argsort(keys)
    found = order[torch.searchsorted(keys[order], wanted).clamp(max=len(keys) - 1)]
    assert torch.equal(keys[found], wanted), "an axis lost elements of a unit"
    return found


class Sources:
    """`positions` for fixed `units`, worked out once for each pair of axes."""

    def __init__(self, units: Mapping[int, Tensor]) -> None:
        self._units = units
        self._known: dict[tuple[int, int], Tensor | None] = {}

    def of(self, old: Axis, new: Axis) -> Tensor | None:
        """The old element behind each new one; None where nothing moves."""
        key = (id(old), id(new))
        if key not in self._known:
            index = positions(old, new, self._units)
            still = len(index) == len(old.space) and torch.equal(index, torch.arange(len(index)))
            self._known[key] = None if still else index
        return self._known[key]


def _ranked(space: Tensor, unit: Tensor, named: Tensor) -> Tensor:
    """A key per element: its space, the unit it is `named` after, and its rank within its unit."""
    length = len(space)
    group = ((space + 1) << 32) + unit
    order = torch.argsort(group, stable=True)
    ordered = group[order]
    index = torch.arange(length)
    fresh = torch.ones(length, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    rank = torch.empty(length, dtype=torch.long)
    rank[order] = index - torch.cummax(torch.where(fresh, index, 0), 0).values
    return ((space + 1) << 48) + (named << 24) + rank
