"""Which channels the numbers in a network's code count: the lines of its sites and attributes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from merge_core.channels.graph import Attribute, Axis, Site, Space

if TYPE_CHECKING:
    from merge_core.channels.trace import Tracer


def sites_of(
    tracer: "Tracer", axis: Callable[[Tensor], Axis], spaces: list[Space]
) -> tuple[Site, ...]:
    """The sites of a finished trace; `axis` says where atoms lie among the free `spaces`."""
    return tuple(
        Site(
            mark.layer,
            mark.training,
            mark.site,
            mark.number,
            _shape_lines(axis(mark.shape.flatten()), mark.shape.shape, spaces)
            if mark.shape is not None
            else _countable({at: axis(atoms) for at, atoms in mark.lines.items()}, spaces),
            mark.parts,
            mark.dim,
        )
        for mark in tracer.marks
    )


def _countable(lines: dict[int, Axis], spaces: list[Space]) -> dict[int, Axis]:
    """Only spaces that lie on a site's lines with all their units make them longer."""
    space = torch.cat([line.space for line in lines.values()])
    unit = torch.cat([line.unit for line in lines.values()])
    whole = [
        number
        for number in torch.unique(space[space >= 0]).tolist()
        if len(torch.unique(unit[space == number])) == spaces[number - 1].size
    ]
    kept = {at: torch.isin(line.space, torch.tensor(whole)) for at, line in lines.items()}
    return {
        at: Axis(torch.where(kept[at], line.space, -1), torch.where(kept[at], line.unit, 0))
        for at, line in lines.items()
    }


def _shape_lines(axis: Axis, shape: torch.Size, spaces: list[Space]) -> dict[int, Axis]:
    """Which dimensions of a value count the units of which spaces.

    A space counts along a dimension if some line in that direction holds all its units; if several
    do, along the longest.
    """
    sizes = torch.tensor([0, *(space.size for space in spaces), 0])
    space, unit = axis.space.view(shape), axis.unit.view(shape)
    counted = torch.zeros(len(sizes), dtype=torch.bool)
    lines = {}
    for dim in sorted(range(len(shape)), key=lambda dim: -shape[dim]):
        if shape[dim] == 1:
            break
        spaces_here = space.movedim(dim, 0).flatten(1)
        units_here = unit.movedim(dim, 0).flatten(1)
        column = torch.arange(spaces_here.shape[1]).expand_as(spaces_here)
        free = spaces_here >= 0
        pairs = column[free] * len(sizes) + spaces_here[free]
        distinct = torch.unique((pairs << 32) | units_here[free]) >> 32
        pairs, number = torch.unique_consecutive(distinct, return_counts=True)
        whole = torch.unique((pairs % len(sizes))[number == sizes[pairs % len(sizes)]])
        whole = whole[~counted[whole]]
        counted[whole] = True
        first, first_unit = spaces_here[:, 0], units_here[:, 0]
        kept = torch.isin(first, whole)
        lines[dim] = Axis(torch.where(kept, first, -1), torch.where(kept, first_unit, 0))
    return lines


def attributes_of(tracer: "Tracer", sites: tuple[Site, ...]) -> tuple[Attribute, ...]:
    """Attributes of modules that count channels wherever the forward pass uses them."""
    found: dict[tuple[str, str], Axis | None] = {}
    for mark, site in zip(tracer.marks, sites, strict=True):
        for at, tag in mark.tags.items():
            key, line = (tag.layer, tag.attribute), site.lines[at]
            usable = not tag.numeric and bool((line.space >= 0).any())
            if not usable or (key in found and found[key] != line):
                found[key] = None
            else:
                found[key] = line
    return tuple(Attribute(*key, line) for key, line in found.items() if line is not None)
