"""The big student: teachers side by side in one network that computes their mean."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from merge_core.channels.graph import Axis, ChannelGraph
from merge_core.channels.heads import HeadMean, head_mean, must_stay_apart, set_head_mean
from merge_core.channels.layout import layout, positions
from merge_core.channels.operations import with_parts
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.channels.scales import scales_of
from merge_core.errors import GraphError


def concatenate(
    models: Sequence[nn.Module],
    graph: ChannelGraph,
    weights: Sequence[float] | None = None,
    heads: Literal["average", "concatenate"] = "average",
) -> nn.Module:
    """A module of the teachers' class, N times as wide, that computes the mean of their outputs.

    In every free space unit i of teacher t becomes unit t·size + i. Weights between teachers are
    zero, and trainable. Norm parameters and statistics are concatenated; a norm over channels
    normalises each teacher's part by itself until the cut. `weights` are the convex weights of the
    mean, uniform by default; they go into the layers that write the output. Where something
    non-linear follows those, the heads stay apart and a forward hook takes the mean until the cut.

    With `heads="concatenate"` the outputs of all teachers stand side by side in the channel
    dimension of the output, teacher by teacher; label sets may differ.

    GraphError where teachers differ in class or shape, or where no mean can be taken exactly.
    """
    shares = _shares(len(models), weights)
    written = dict(graph.averaged) if heads == "concatenate" else {}
    _same_shape(models, written)
    apart = must_stay_apart(graph) or heads == "concatenate"
    teachers = [named_tensors(model) for model in models]
    rows: dict[str, list[int]] = {}
    if apart:
        for name, dim in graph.averaged.items():
            axis = graph.axes[name][dim]
            assert axis is not None
            if bool((axis.space >= 0).any()):
                raise GraphError(
                    f"{name!r} writes output and hidden channels at once, so the heads cannot "
                    "stand side by side; give the output a layer of its own."
                )
            rows[name] = [tensors[name].shape[dim] for tensors in teachers]
    inner = head_mean(models[0])
    within = inner.shares if inner is not None else [1.0]
    hook = None
    if heads == "average" and apart:
        hook = HeadMean([share * part for share in shares for part in within], graph.output_dim)
    sizes = {space.name: len(models) * space.size for space in graph.free}
    target = layout(models[0], graph, sizes, {name: sum(each) for name, each in rows.items()}, hook)

    result = {}
    where = _Places(graph)
    for name, first in teachers[0].items():
        parts = [tensors[name].detach() for tensors in teachers]
        if name in graph.axes:
            places = []
            for number, part in enumerate(parts):
                axes = zip(graph.axes[name], target.graph.axes[name], strict=True)
                place = []
                for dim, (old, new) in enumerate(axes):
                    if name in rows and dim == graph.averaged[name]:
                        begin = sum(rows[name][:number])
                        place.append(torch.arange(begin, begin + rows[name][number]))
                    else:
                        place.append(where.of(old, new, number, part.shape[dim]))
                places.append(place)
            mean = shares if name in graph.averaged and not apart else None
            result[name] = _assemble(where, name, parts, places, graph.axes[name], mean)
        elif first.dim() or first.is_floating_point():
            result[name] = _shared(name, parts)
        else:
            result[name] = torch.stack(parts).amax(0)  # how many batches a norm has seen

    def joined_parts(old: Axis, new: Axis, parts: Tensor | None) -> Tensor | None:
        if bool((old.space < 0).all()):
            return None
        if bool((old.space < 0).any()):
            raise GraphError(
                "A norm takes channels of the input together with others, so the teachers' parts "
                "cannot be told apart; normalise them separately."
            )
        before = torch.zeros(len(old.space), dtype=torch.long) if parts is None else parts
        count = int(before.max()) + 1
        labels = torch.empty(len(new.space), dtype=torch.long)
        for number in range(len(models)):
            into = where.of(old, new, number, len(old.space))
            labels[into] = number * count + before
        return labels if int(labels.max()) else None

    big = rebuild(models[0], result, target.attributes, with_parts(graph, target, joined_parts))
    _join_scales(models, big, target.graph)
    return set_head_mean(big, hook)


def _join_scales(models: Sequence[nn.Module], big: nn.Module, graph: ChannelGraph) -> None:
    """Scales that the teachers carry stand side by side like their channels."""
    carried = [scales_of(model) for model in models]
    joined = scales_of(big)
    if joined is None and not any(carried):
        return
    found = [scales.spaces() for scales in carried if scales is not None]
    if joined is None or len(found) < len(models):
        raise GraphError(
            "Some of the teachers carry gates and others none; give all of them gates, or none."
        )
    sides = {name: torch.cat([each[name].detach() for each in found]) for name in found[0]}
    joined.rearrange(sides, graph)


def _shares(number: int, weights: Sequence[float] | None) -> list[float]:
    if number < 1:
        raise GraphError("There are no teachers to concatenate; give at least one.")
    shares = [1 / number] * number if weights is None else list(weights)
    if len(shares) != number or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise GraphError(
            f"The weights {shares} are no convex weights for {number} teachers; give one per "
            "teacher, none negative, with sum 1."
        )
    return shares


def _same_shape(models: Sequence[nn.Module], heads: dict[str, int]) -> None:
    """Teachers must agree in class and shapes, except along the given dimensions of their heads."""
    shapes = []
    for model in models:
        shapes.append({name: list(tensor.shape) for name, tensor in named_tensors(model).items()})
        for name, dim in heads.items():
            if name in shapes[-1]:
                shapes[-1][name][dim] = -1
    for number, model in enumerate(models[1:], start=2):
        if type(model) is not type(models[0]):
            raise GraphError(
                f"Teacher {number} is a {type(model).__name__} and teacher 1 a "
                f"{type(models[0]).__name__}; give teachers of one architecture."
            )
        for name in [*shapes[0], *shapes[number - 1]]:
            one, other = (
                tuple(shapes[at][name]) if name in shapes[at] else "absent"
                for at in (0, number - 1)
            )
            if one != other:
                raise GraphError(
                    f"{name!r} is {one} in teacher 1 and {other} in teacher {number}; "
                    "give teachers of one architecture and size."
                )


Place = slice | Tensor
"""Where along an axis elements go: a run of places, or an index."""


class _Places:
    """Where each teacher's elements go, worked out once for each pair of axes."""

    def __init__(self, graph: ChannelGraph) -> None:
        self._sizes = torch.tensor([space.size for space in graph.spaces])
        self._known: dict[tuple[int, int, int], Tensor] = {}
        self._slices: dict[int, tuple[Tensor, Place]] = {}

    def of(self, old: Axis | None, new: Axis | None, teacher: int, length: int) -> Tensor:
        """The place of each of a teacher's elements; fixed ones go to shared places."""
        if old is None or new is None:
            return self._known.setdefault((-1, length, 0), torch.arange(length))
        key = (id(old), id(new), teacher)
        if key not in self._known:
            self._known[key] = self._place(old, new, teacher)
        return self._known[key]

    def _place(self, old: Axis, new: Axis, teacher: int) -> Tensor:
        sizes = self._sizes[new.space.clamp(min=0)]
        mine = (new.space < 0) | (new.unit // sizes == teacher)
        into = mine.nonzero().flatten()
        unit = torch.where(new.space < 0, 0, new.unit % sizes)
        source = positions(old, Axis(new.space[into], unit[into]), {})
        return into[torch.argsort(source)]

    def short(self, index: Tensor) -> Place:
        """An index as a slice where it is one."""
        if id(index) not in self._slices:
            start = int(index[0]) if len(index) else 0
            run = torch.equal(index, torch.arange(start, start + len(index)))
            made = slice(start, start + len(index)) if run else index
            self._slices[id(index)] = (index, made)  # kept alive, so that its id stays its own
        return self._slices[id(index)][1]


def _assemble(
    where: _Places,
    name: str,
    parts: list[Tensor],
    places: list[list[Tensor]],
    axes: tuple[Axis | None, ...],
    shares: list[float] | None,
) -> Tensor:
    """One tensor of the big student: the teachers' blocks at their places, zeros elsewhere."""
    shape = [
        max(int(place[dim].max()) for place in places) + 1 if length else 0
        for dim, length in enumerate(parts[0].shape)
    ]
    result = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device)
    if shares is None:
        _agree(name, parts, places, axes)
    for number, (part, place) in enumerate(zip(parts, places, strict=True)):
        pieces = tuple(where.short(into) for into in place)
        if all(isinstance(piece, slice) for piece in pieces):
            key: tuple[Place, ...] = pieces
        else:
            key = torch.meshgrid(*(into.to(part.device) for into in place), indexing="ij")
        if shares is None:
            result[key] = part
        elif isinstance(key[0], slice):
            result[key].add_(part, alpha=shares[number])  # without a tensor for the product
        else:
            result[key] += part * shares[number]
    return result


def _agree(
    name: str, parts: list[Tensor], places: list[list[Tensor]], axes: tuple[Axis | None, ...]
) -> None:
    """Elements at shared places of every axis belong to all, so the teachers must agree on them."""
    inner = parts
    for dim, axis in enumerate(axes):
        if axis is None:
            continue
        still = (axis.space < 0).nonzero().flatten()
        if not len(still):
            return  # side by side
        if len(places) > 1 and not bool(torch.isin(places[0][dim], places[1][dim]).any()):
            return  # side by side, too: heads for different labels
        inner = [part.index_select(dim, still.to(part.device)) for part in inner]
    if inner[0].numel():
        _shared(name, inner)


def _shared(name: str, parts: list[Tensor]) -> Tensor:
    """A tensor that all teachers share in the big student, so it must be the same in all."""
    for number, part in enumerate(parts[1:], start=2):
        if not torch.equal(part, parts[0]):
            raise GraphError(
                f"{name!r} differs between teacher 1 and teacher {number} but belongs to no "
                "channel, so one network cannot hold both; give it one value per channel, or make "
                "the teachers agree."
            )
    return parts[0].clone()
