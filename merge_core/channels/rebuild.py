"""Make a module of the same class with other tensors: the only way in which modules are made here."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from merge_core.channels.graph import Axis, ChannelGraph
from merge_core.errors import GraphError


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under their first name; tied ones once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `model` that holds `tensors` under the given names and clones of all others.

    Sizes that modules keep as attributes follow the tensors. `model` is not touched and shares no
    memory with the copy except what the caller passed in.
    """
    memo: dict[int, object] = {}
    for name, old in named_tensors(model).items():
        if name in tensors:
            new = tensors[name]
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            memo[id(old)] = new
    made = copy.deepcopy(model, memo)
    for old, new in zip(model.modules(), made.modules(), strict=True):
        _resize(old, new)
    return made


def _resize(old: nn.Module, new: nn.Module) -> None:
    """Bring the attributes of one module in line with its tensors."""
    if isinstance(new, _ConvNd) and isinstance(old, _ConvNd):
        first, second = new.weight.shape[:2]
        if isinstance(new, _ConvTransposeNd):
            first, second = second, first
        elif old.groups > 1:
            new.groups = first // (old.out_channels // old.groups)
        new.out_channels, new.in_channels = first, second * new.groups
    elif isinstance(new, nn.Linear):
        new.out_features, new.in_features = new.weight.shape
    elif isinstance(new, _NormBase):
        for tensor in (new.weight, new.running_mean):
            if tensor is not None:
                new.num_features = len(tensor)
    elif isinstance(new, nn.LayerNorm | nn.RMSNorm) and new.weight is not None:
        new.normalized_shape = tuple(new.weight.shape)
    elif isinstance(new, nn.GroupNorm) and isinstance(old, nn.GroupNorm) and new.affine:
        new.num_channels = len(new.weight)
        if old.num_groups > 1:
            new.num_groups = new.num_channels // (old.num_channels // old.num_groups)
    elif isinstance(new, nn.Embedding):
        new.embedding_dim = new.weight.shape[1]
    elif isinstance(new, nn.PReLU):
        new.num_parameters = new.weight.numel()


def resized_shape(
    tensor: Tensor, axes: tuple[Axis | None, ...], graph: ChannelGraph, sizes: Mapping[str, int]
) -> tuple[int, ...]:
    """The shape of a tensor when every space has the size given (others keep theirs)."""
    shape = list(tensor.shape)
    for dim, axis in enumerate(axes):
        if axis is None:
            continue
        for number, space in enumerate(graph.spaces):
            new = sizes.get(space.name, space.size)
            if new != space.size:
                owned = int((axis.space == number).sum())
                shape[dim] += owned // space.size * (new - space.size)
    return tuple(shape)


def same_spaces(graph: ChannelGraph, found: ChannelGraph, sizes: Mapping[str, int]) -> None:
    """GraphError unless a resized network has exactly the spaces that were meant."""
    for space, other in zip(graph.free, found.free, strict=False):
        meant = sizes.get(space.name, space.size)
        if (space.name, meant) != (other.name, other.size):
            raise GraphError(
                f"With {space.name!r} resized from {space.size} to {meant} units the network has a "
                f"space {other.name!r} of {other.size} units in its place: some operation keeps a "
                "width as a number of its own; take widths from the tensors' shapes."
            )
    if len(graph.free) != len(found.free):
        raise GraphError(
            f"The resized network has {len(found.free)} channel spaces and not "
            f"{len(graph.free)}: some operation keeps a width as a number of its own; take widths "
            "from the tensors' shapes."
        )


def positions(old: Axis, new: Axis, units: Mapping[int, Tensor]) -> Tensor:
    """For each element of a new axis the element of the old axis that it comes from.

    `units[s][u]` is the old unit behind new unit u of space number s. Elements of one unit keep
    their order; fixed elements keep theirs.
    """
    source = new.unit.clone()
    for number, chosen in units.items():
        mine = new.space == number
        source[mine] = chosen[new.unit[mine]]
    keys = _ranked(old.space, old.unit)
    wanted = _ranked(new.space, new.unit, source)
    order = torch.argsort(keys)
    at = torch.searchsorted(keys[order], wanted).clamp(max=len(keys) - 1)
    found = order[at]
    assert torch.equal(keys[found], wanted), "an axis lost elements of a unit"
    return found


def _ranked(space: Tensor, unit: Tensor, named: Tensor | None = None) -> Tensor:
    """A key per element: its space, the unit it is `named` after, and its rank within its unit."""
    length = len(space)
    group = (space + 1) * (int(unit.max()) + 1 if length else 1) + unit
    order = torch.argsort(group, stable=True)
    ordered = group[order]
    index = torch.arange(length)
    fresh = torch.ones(length, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    begin = torch.cummax(torch.where(fresh, index, 0), 0).values
    rank = torch.empty(length, dtype=torch.long)
    rank[order] = index - begin
    named = unit if named is None else named
    return ((space + 1) << 48) + (named << 24) + rank


def skeleton(model: nn.Module, graph: ChannelGraph, sizes: Mapping[str, int]) -> nn.Module:
    """The network at other sizes, without numbers: float tensors on the meta device."""
    shapes = {}
    for name, tensor in named_tensors(model).items():
        if tensor.is_floating_point():
            axes = graph.axes.get(name, (None,) * tensor.dim())
            shape = resized_shape(tensor, axes, graph, sizes)
            shapes[name] = torch.empty(shape, dtype=tensor.dtype, device="meta")
    return rebuild(model, shapes)
