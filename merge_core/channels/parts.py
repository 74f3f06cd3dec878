"""Where a space lies in the tensors of a network, as rows that can be compared and moved."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from merge_core.channels.graph import Axis, ChannelGraph


@dataclass(frozen=True)
class Part:
    """One axis of one tensor, as far as it lies in one space.

    Attributes:
        name: of the tensor.
        dim: the axis.
        index: positions along it, of shape (size, elements of a unit).
        whole: whether the axis holds these positions in this order and nothing else.
    """

    name: str
    dim: int
    index: Tensor
    whole: bool

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor with one row for each unit; `(size, everything else)`."""
        if not self.whole:
            tensor = tensor.index_select(self.dim, self.index.flatten().to(tensor.device))
        return tensor.movedim(self.dim, 0).reshape(len(self.index), -1)

    def moved(self, tensor: Tensor, order: Tensor) -> Tensor:
        """The tensor with unit order[i] in the place of unit i; the order is on the CPU."""
        source = torch.arange(tensor.shape[self.dim])
        source[self.index.flatten()] = self.index[order].flatten()
        return tensor.index_select(self.dim, source.to(tensor.device))


def parts_of(graph: ChannelGraph, tensors: Iterable[str]) -> dict[str, list[Part]]:
    """Where every free space lies in the tensors of these names; spaces in order of execution."""
    wanted = set(tensors)
    found: dict[str, list[Part]] = {space.name: [] for space in graph.free}
    for name, axes in graph.axes.items():
        for dim, axis in enumerate(axes):
            if name in wanted and axis is not None:
                for number in torch.unique(axis.space).tolist():
                    if number >= 0 and graph.spaces[number].free:
                        space = graph.spaces[number]
                        found[space.name].append(_part(name, dim, axis, number, space.size))
    return found


def _part(name: str, dim: int, axis: Axis, number: int, size: int) -> Part:
    mine = (axis.space == number).nonzero().flatten()
    mine = mine[torch.argsort(axis.unit[mine], stable=True)]
    whole = torch.equal(mine, torch.arange(len(axis.space)))
    return Part(name, dim, mine.view(size, -1), whole)
