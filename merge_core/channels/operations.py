"""Permute, concatenate, select and fold: every one of them only interprets the channel graph."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from merge_core.channels.graph import Axis, ChannelGraph
from merge_core.channels.layout import Layout, layout, positions
from merge_core.channels.rebuild import Changes, named_tensors, rebuild
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
    plain = not any(True for _ in rewritten(model))
    if plain and all(graph.space(name).size == size for name, size in sizes.items()):
        target = Layout(graph, {}, {})
    else:
        target = layout(model, graph, sizes)
    units = {
        number: chosen[space.name]
        for number, space in enumerate(graph.spaces)
        if space.name in chosen
    }
    result = {}
    for name, tensor in named_tensors(model).items():
        if name not in graph.axes:
            continue
        picked = tensor.detach()
        for dim, (old, new) in enumerate(
            zip(graph.axes[name], target.graph.axes[name], strict=True)
        ):
            if old is not None and new is not None:
                index = positions(old, new, units)
                if not torch.equal(index, torch.arange(len(old.space))):
                    picked = picked.index_select(dim, index.to(tensor.device))
        result[name] = picked.clone() if _shares(picked, tensor) else picked

    def kept_parts(old: Axis, new: Axis, parts: Tensor | None) -> Tensor | None:
        if parts is None or len(old.space) != len(new.space):
            return None  # the cut joins what was normalised in parts
        return parts[positions(old, new, units)]

    changes = _with_parts(graph, target, kept_parts)
    return rebuild(model, result, target.attributes, changes)


def _with_parts(
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


def concatenate(
    models: Sequence[nn.Module], graph: ChannelGraph, weights: Sequence[float] | None = None
) -> nn.Module:
    """The big student: a module of the teachers' class that computes the mean of their outputs.

    In every free space unit i of teacher t becomes unit t·size + i; weights between teachers are
    zero, and trainable. Norm parameters and statistics are concatenated. The mean is taken in the
    layers that write the output; `weights` are its convex weights, uniform by default. GraphError
    where the teachers differ in class or shape, or where no mean can be taken exactly.
    """
    shares = _shares_of(models, weights)
    _same_shape(models)
    if graph.obstacles:
        first = graph.obstacles[0]
        raise GraphError(
            f"Layer {first.layer!r} applies {first.operation!r} to values that all teachers share, "
            "so their mean cannot be taken in the weights; end the network with a linear layer."
        )
    sizes = {space.name: len(models) * space.size for space in graph.free}
    target = layout(models[0], graph, sizes)
    teachers = [named_tensors(model) for model in models]
    result = {}
    for name, first in teachers[0].items():
        parts = [tensors[name].detach() for tensors in teachers]
        if name in graph.axes:
            old, new = graph.axes[name], target.graph.axes[name]
            linear = name in graph.averaged
            result[name] = _assemble(name, parts, old, new, graph, shares if linear else None)
        elif first.is_floating_point():
            result[name] = _shared(name, parts)
        else:
            result[name] = torch.stack(parts).amax(0) if not first.dim() else _shared(name, parts)

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
            into, source = _block(old, new, graph, number)
            labels[into] = number * count + before[source]
        return labels if int(labels.max()) else None

    changes = _with_parts(graph, target, joined_parts)
    return rebuild(models[0], result, target.attributes, changes)


def _shares_of(models: Sequence[nn.Module], weights: Sequence[float] | None) -> list[float]:
    if len(models) < 1:
        raise GraphError("There are no teachers to concatenate; give at least one.")
    shares = [1 / len(models)] * len(models) if weights is None else list(weights)
    if len(shares) != len(models) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise GraphError(
            f"The weights {shares} are no convex weights for {len(models)} teachers; give one per "
            "teacher, none negative, with sum 1."
        )
    return shares


def _same_shape(models: Sequence[nn.Module]) -> None:
    first = named_tensors(models[0])
    for number, model in enumerate(models[1:], start=2):
        other = named_tensors(model)
        if type(model) is not type(models[0]):
            raise GraphError(
                f"Teacher {number} is a {type(model).__name__} and teacher 1 a "
                f"{type(models[0]).__name__}; give teachers of one architecture."
            )
        for name in [*first, *other]:
            shapes = [
                tuple(tensors[name].shape) if name in tensors else "absent"
                for tensors in (first, other)
            ]
            if shapes[0] != shapes[1]:
                raise GraphError(
                    f"{name!r} is {shapes[0]} in teacher 1 and {shapes[1]} in teacher {number}; "
                    "give teachers of one architecture and size."
                )


def _assemble(
    name: str,
    parts: list[Tensor],
    old: tuple[Axis | None, ...],
    new: tuple[Axis | None, ...],
    graph: ChannelGraph,
    shares: list[float] | None,
) -> Tensor:
    """One tensor of the big student: the teachers' blocks, zeros elsewhere."""
    shape = list(parts[0].shape)
    for dim, axis in enumerate(new):
        if axis is not None:
            shape[dim] = len(axis.space)
    if tuple(shape) == tuple(parts[0].shape) and shares is None:
        return _shared(name, parts)
    result = torch.zeros(shape, dtype=parts[0].dtype, device=parts[0].device)
    if shares is None:
        _agree(name, parts, old)
    for number, part in enumerate(parts):
        block = part
        where: list[Tensor] = []
        for dim, (old_axis, new_axis) in enumerate(zip(old, new, strict=True)):
            into = torch.arange(part.shape[dim])
            if old_axis is not None and new_axis is not None:
                source_length = len(into)
                into, source = _block(old_axis, new_axis, graph, number)
                if not torch.equal(source, torch.arange(source_length)):
                    block = block.index_select(dim, source.to(part.device))
            where.append(into)
        slices = tuple(_as_slice(into) for into in where)
        if all(isinstance(piece, slice) for piece in slices):
            key: tuple = slices
        else:
            key = torch.meshgrid(*(into.to(part.device) for into in where), indexing="ij")
        if shares is None:
            result[key] = block
        else:
            result[key] += block * shares[number]
    return result


def _agree(name: str, parts: list[Tensor], axes: tuple[Axis | None, ...]) -> None:
    """Elements on fixed places of every axis are shared, so the teachers must agree on them."""
    inner = parts
    for dim, axis in enumerate(axes):
        if axis is not None:
            still = (axis.space < 0).nonzero().flatten()
            inner = [part.index_select(dim, still.to(part.device)) for part in inner]
    if inner[0].numel():
        _shared(name, inner)


def _block(old: Axis, new: Axis, graph: ChannelGraph, teacher: int) -> tuple[Tensor, Tensor]:
    """Elements of the new axis that are this teacher's or everybody's, and their sources."""
    sizes = torch.tensor([space.size for space in graph.spaces])
    size = sizes[new.space.clamp(min=0)]
    mine = (new.space < 0) | (new.unit // size == teacher)
    into = mine.nonzero().flatten()
    part = Axis(new.space[into], torch.where(new.space < 0, 0, new.unit % size)[into])
    return into, positions(old, part, {})


def _as_slice(index: Tensor) -> slice | None:
    start = int(index[0]) if len(index) else 0
    if torch.equal(index, torch.arange(start, start + len(index))):
        return slice(start, start + len(index))
    return None


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


def fold(model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]) -> nn.Module:
    """A new module in which every reader's weight holds the scale of what it reads.

    `scales[name]` has shape (size,). It computes what the network computes inside `scaled_reads`
    with the same scales: deterministic gates absorbed before the cut.
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
