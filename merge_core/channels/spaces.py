"""From the edges between identities to channel spaces.

Units are the connected components. Two units lie in one space exactly where the network treats
them alike: they own the same pattern of elements on every parameter axis and were always taken
together by slices. So a space can be permuted freely, and halves that a chunk sends different ways
are two spaces.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from merge_core.channels.graph import Axis, ChannelGraph, Obstacle, Read, Space
from merge_core.channels.identities import FIRST, INPUT, OUTPUT, PLAIN
from merge_core.channels.rules_layers import owner
from merge_core.channels.site_lines import attributes_of, sites_of
from merge_core.errors import GraphError

if TYPE_CHECKING:
    from merge_core.channels.trace import Tracer


@dataclass(frozen=True)
class Line:
    """The atoms along one axis of a tensor, and the roles it played."""

    tensor: str
    dim: int
    atoms: Tensor
    roles: frozenset[str]


def assemble(tracer: "Tracer", example: Tensor, output: tuple[torch.Size, int]) -> ChannelGraph:
    """Solve the identities of a finished trace into a graph."""
    lines = _lines(tracer)
    channel = tracer.identities.channels()
    _pin_constants(tracer, lines, channel)
    unit = tracer.identities.units(channel)
    lines += _element_lines(tracer, unit)
    fixed = torch.zeros(tracer.identities.count, dtype=torch.bool)
    fixed[PLAIN] = True
    fixed |= (unit == unit[INPUT]) | (unit == unit[OUTPUT])
    space_of, index_of, firsts = _partition(lines, tracer.events, channel, unit, fixed)

    sizes = torch.zeros(len(firsts), dtype=torch.long)
    placed = space_of >= 0
    sizes.scatter_reduce_(0, space_of[placed], index_of[placed] + 1, "amax")
    space = torch.where(fixed, -1, space_of[unit])  # of every atom, as is its index there
    index = torch.where(space >= 0, index_of[unit], 0)

    names = _names(lines, firsts)
    roles: dict[int, dict[str, list[str]]] = {
        number: {"write": [], "read": [], "through": []} for number in range(len(firsts))
    }
    ends: dict[str, list[str]] = {"write": [], "read": []}
    touched = {(line.tensor, line.dim): torch.unique(space[line.atoms]).tolist() for line in lines}
    for role, layer, tensor, dim, _kind in tracer.uses:
        for number in touched[tensor, dim]:
            if number >= 0:
                _append(roles[number][role], layer)
            elif role in ends:
                _append(ends[role], layer)
    spaces = [
        Space(
            name,
            size,
            True,
            tuple(roles[number]["write"]),
            tuple(roles[number]["read"]),
            tuple(layer for layer in roles[number]["through"]),
        )
        for number, (name, size) in enumerate(zip(names, sizes.tolist(), strict=True))
    ]
    inputs = example.shape[1] if example.dim() > 1 and example.is_floating_point() else 1
    outputs = output[0][output[1]]
    first = Space("input", inputs, False, (), tuple(ends["read"]))
    last = Space("output", outputs, False, tuple(ends["write"]), ())
    axes: dict[str, list[Axis | None]] = {
        line.tensor: [None] * tracer.tensors[line.tensor].dim() for line in lines
    }

    known: dict[bytes, Axis] = {}

    def axis(atoms: Tensor) -> Axis:
        """Equal axes are one object, so that operations work each of them out once."""
        number = space[atoms]
        made = Axis(torch.where(number >= 0, number + 1, -1), index[atoms])
        return known.setdefault(torch.stack([made.space, made.unit]).numpy().tobytes(), made)

    for line in lines:
        axes[line.tensor][line.dim] = axis(line.atoms)
    sites = sites_of(tracer, axis, spaces)
    return ChannelGraph(
        spaces=(first, *spaces, last),
        axes={name: tuple(dims) for name, dims in axes.items()},
        sites=sites,
        attributes=attributes_of(tracer, sites),
        reads=_reads(tracer),
        averaged={
            tensor: dim
            for role, _layer, tensor, dim, _kind in tracer.uses
            if role == "write" and bool(fixed[tracer.axes[tensor, dim]].any())
        },
        obstacles=_obstacles(tracer, lines, fixed),
        mixers=_mixers(tracer, spaces, space_of[unit]),
        output_dim=output[1],
        example=example,
    )


def _append(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _lines(tracer: "Tracer") -> list[Line]:
    """The axes that were used as axes: those written first, each kind in order of first use."""
    roles: dict[tuple[str, int], set[str]] = {}
    for role, _layer, tensor, dim, _kind in tracer.uses:
        roles.setdefault((tensor, dim), set()).add(role)
    for key in tracer.axes:
        roles.setdefault(key, {"through"})
    found = [
        Line(tensor, dim, tracer.axes[tensor, dim], frozenset(played))
        for (tensor, dim), played in roles.items()
    ]
    return sorted(found, key=lambda line: "write" not in line.roles)


def _pin_constants(tracer: "Tracer", lines: list[Line], channel: Tensor) -> None:
    """Channels that only buffers write are constants of the architecture: they stay."""
    unit = tracer.identities.units(channel)
    made = torch.zeros(tracer.identities.count, dtype=torch.bool)
    for line in lines:
        if line.roles != {"read"} and isinstance(tracer.tensors[line.tensor], nn.Parameter):
            made[unit[line.atoms]] = True
    for name, atoms in tracer.elements.items():
        if isinstance(tracer.tensors[name], nn.Parameter):
            made[unit[atoms]] = True
    loose = torch.arange(FIRST, tracer.identities.count)
    orphans = loose[~made[unit[loose]]]
    tracer.identities.block(orphans, torch.tensor(INPUT))


def _element_lines(tracer: "Tracer", unit: Tensor) -> list[Line]:
    """The channel axis of parameters that were used element by element (embeddings, tables)."""
    found = []
    for name, atoms in tracer.elements.items():
        if any((name, dim) in tracer.axes for dim in range(atoms.dim())):
            raise GraphError(
                f"Parameter {name!r} is used both as a layer's weight and element by element; "
                "use two parameters."
            )
        dims = [dim for dim in range(atoms.dim()) if atoms.shape[dim] > 1]
        known = tracer.identities.met(atoms)
        lines = []
        for dim in dims:
            others = [other for other in range(atoms.dim()) if other != dim]
            units = torch.where(known, unit[atoms], -1)
            high = units.amax(others)
            low = torch.where(
                known, units, high.view([-1 if d == dim else 1 for d in range(atoms.dim())])
            ).amin(others)
            if torch.equal(high, low):
                line = torch.where(known, atoms, -1).amax(others)
                lines.append(
                    (
                        len(torch.unique(high)),
                        Line(name, dim, line.clamp(min=0), frozenset({"through"})),
                    )
                )
        if not lines:
            raise GraphError(
                f"Parameter {name!r} of shape {tuple(atoms.shape)} spreads one channel space over "
                "several of its dimensions; give it one dimension for the channels."
            )
        found.append(max(lines, key=lambda item: item[0])[1])
    return found


def _partition(
    lines: list[Line], events: list[Tensor], channel: Tensor, unit: Tensor, fixed: Tensor
) -> tuple[Tensor, Tensor, list[int]]:
    """Group units that are treated alike.

    Returns, per atom that names a unit, its space (or -1) and its index there; and per space the
    number of the line that it first appears on.
    """
    count = len(unit)
    space_of, index_of = torch.full((count,), -1), torch.zeros(count, dtype=torch.long)
    rows = [line.atoms for line in lines] + events
    empty = torch.empty(0, dtype=torch.long)
    atoms = torch.cat([empty, *rows])
    where = torch.cat([empty, *(torch.full((len(row),), i) for i, row in enumerate(rows))])
    free = ~fixed[atoms]
    atoms, where = atoms[free], where[free]
    if not len(atoms):
        return space_of, index_of, []
    channels, units = channel[atoms], unit[atoms]

    # Number the channels inside each unit by first appearance.
    first = torch.full((count,), len(atoms))
    first.scatter_reduce_(0, channels, torch.arange(len(atoms)), "amin")
    present = torch.unique(channels)
    present = present[torch.argsort(first[present])]
    present = present[torch.argsort(unit[present], stable=True)]
    starts = torch.ones(len(present), dtype=torch.bool)
    starts[1:] = unit[present][1:] != unit[present][:-1]
    position = torch.arange(len(present))
    begin = torch.cummax(torch.where(starts, position, 0), 0).values
    local = torch.zeros(count, dtype=torch.long)
    local[present] = position - begin

    # The pattern of a unit: on which axes it lies, with which of its channels, in order.
    order = torch.argsort(units, stable=True)
    pattern = torch.stack([where[order], local[channels[order]]], 1)
    labels, sizes = torch.unique_consecutive(units[order], return_counts=True)
    ends = torch.cumsum(sizes, 0).tolist()
    table = pattern.numpy()
    earliest = first_of(units, count, len(atoms))
    patterns: dict[bytes, list[int]] = {}
    ranked = torch.argsort(earliest[labels]).tolist()
    names, begins = labels.tolist(), [0, *ends[:-1]]
    for at in ranked:
        patterns.setdefault(table[begins[at] : ends[at]].tobytes(), []).append(names[at])
    firsts = []
    for number, members in enumerate(patterns.values()):
        chosen = torch.tensor(members)
        space_of[chosen] = number
        index_of[chosen] = torch.arange(len(members))
        firsts.append(int(where[earliest[members[0]]]))
    return space_of, index_of, firsts


def first_of(labels: Tensor, count: int, never: int) -> Tensor:
    """For each of `count` labels the first position at which it occurs, else `never`."""
    first = torch.full((count,), never)
    return first.scatter_reduce_(0, labels, torch.arange(len(labels)), "amin")


def _names(lines: list[Line], firsts: list[int]) -> list[str]:
    names: list[str] = []
    for first in firsts:
        base = owner(lines[first].tensor)
        if "write" not in lines[first].roles:
            base = lines[first].tensor
        taken = sum(name == base or name.startswith(f"{base}#") for name in names)
        names.append(f"{base}#{taken + 1}" if taken else base)
    return names


def _reads(tracer: "Tracer") -> tuple[Read, ...]:
    reads = [Read(*use[1:]) for use in tracer.uses if use[0] == "read"]
    return tuple(dict.fromkeys(reads))


def _mixers(
    tracer: "Tracer", spaces: list[Space], space_of: Tensor
) -> dict[str, tuple[Obstacle, ...]]:
    """Which operations sum over the channels of each space; `space_of` is per atom."""
    found: dict[str, dict[Obstacle, None]] = {}
    for ids, layer, operation in tracer.mixes:
        for number in torch.unique(space_of[ids]).tolist():
            if number >= 0:
                found.setdefault(spaces[number].name, {})[Obstacle(layer, operation)] = None
    return {name: tuple(those) for name, those in found.items()}


def _obstacles(tracer: "Tracer", lines: list[Line], fixed: Tensor) -> tuple[Obstacle, ...]:
    """Where something fixed that the teachers' weights wrote is bent or read again."""
    written = torch.zeros(tracer.identities.count, dtype=torch.bool)
    for line in lines:
        if line.roles != {"read"} and isinstance(tracer.tensors[line.tensor], nn.Parameter):
            written[line.atoms] = True
    found = [
        Obstacle(layer, operation)
        for ids, layer, operation in tracer.bends
        if bool((fixed[ids] & written[ids]).any())
    ]
    writes: dict[str, set[int]] = {}
    for role, layer, tensor, dim, _kind in tracer.uses:
        if role == "write":
            dims = writes.setdefault(tensor, set())
            dims.add(dim)
            if len(dims) > 1 and any(bool(fixed[tracer.axes[tensor, d]].any()) for d in dims):
                found.append(Obstacle(layer, "a weight tied between input and output"))
    return tuple(dict.fromkeys(found))
