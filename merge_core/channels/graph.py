"""The channel graph as frozen data: what a trace found, and what the operations interpret."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from merge_core.errors import GraphError


@dataclass(frozen=True)
class Space:
    """Units that are permuted, concatenated, gated and cut together.

    A unit is one channel, or the smallest block of channels that cannot be taken apart: a group
    of a grouped convolution, a head of an attention layer. A residual stream is one space.
    """

    name: str  # the first layer that writes it; "input" and "output" are the fixed ends
    size: int  # units
    free: bool  # False where nothing may move
    writers: tuple[str, ...]  # layers whose weights create it, in order of execution
    readers: tuple[str, ...]  # layers whose weights read it, in order of execution
    through: tuple[str, ...] = ()  # layers that hold parameters of it and pass it on: norms, ...


@dataclass(frozen=True, eq=False)
class Axis:
    """Where each element along one axis of a parameter or buffer belongs.

    `space[e]` indexes `ChannelGraph.spaces` and `unit[e]` the unit in that space; `space[e]` is -1
    where element e is fixed. Both are int64 of shape (length of the axis,). A flatten before a
    linear layer shows as a unit that owns many elements, a concatenation as several spaces.
    """

    space: Tensor
    unit: Tensor

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Axis)
            and torch.equal(self.space, other.space)
            and torch.equal(self.unit, other.unit)
        )

    __hash__ = object.__hash__


@dataclass(frozen=True)
class Read:
    """One use of a weight that reads channels: `tensor`'s axis `dim` meets the layer's input."""

    layer: str
    tensor: str
    dim: int
    kind: str  # the torch function, "linear", "conv2d", ...


@dataclass(frozen=True)
class Obstacle:
    """An operation of a layer that stands in the way.

    After it the mean of the teachers can no longer be taken in the weights, or it sums over the
    channels of a space.
    """

    layer: str
    operation: str


@dataclass(frozen=True, eq=False)
class Site:
    """An operation in the network's code that may hold widths as numbers (see `sites`).

    It is the `number`-th of its kind in one call of `layer` in that mode (None: in either, as no
    code of the network asks for its mode). `lines[i]` are the channels that its i-th number counts.
    """

    layer: str
    training: bool | None
    kind: str
    number: int
    lines: Mapping[int, Axis]
    parts: Tensor | None = None  # of a norm over channels that is already in parts
    dim: int = -1

    @property
    def key(self) -> tuple[str, bool | None, str, int]:
        return self.layer, self.training, self.kind, self.number


@dataclass(frozen=True)
class Attribute:
    """An integer attribute of a module that counts the channels in `line`."""

    layer: str
    name: str
    line: Axis


@dataclass(frozen=True)
class ChannelGraph:
    """The channel spaces of one network and where each parameter axis lies in them.

    `axes[name]` has one entry per dimension of that parameter or buffer: an `Axis`, or None for a
    dimension without channels (a kernel's height, the inside of a group, a position). Tied
    parameters appear once, under their first name; a tensor that the network never used is absent.
    `layouts` remembers what the network looks like at other sizes (see `layout`).
    """

    spaces: tuple[Space, ...]  # in order of first write
    axes: Mapping[str, tuple[Axis | None, ...]]
    reads: tuple[Read, ...]
    averaged: Mapping[str, int]  # tensors that write the output, and along which dimension
    obstacles: tuple[Obstacle, ...]
    mixers: Mapping[str, tuple[Obstacle, ...]]  # by space: the operations that sum over its units
    output_dim: int  # of the first output: the dimension of its channels
    sites: tuple[Site, ...] = field(repr=False, compare=False)
    attributes: tuple[Attribute, ...]
    example: Tensor = field(repr=False, compare=False)  # the traced input, without its numbers
    layouts: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def free(self) -> tuple[Space, ...]:
        """The spaces whose units may be permuted, gated and cut."""
        return tuple(space for space in self.spaces if space.free)

    def space(self, name: str) -> Space:
        """The space of that name; GraphError where there is none."""
        for space in self.spaces:
            if space.name == name:
                return space
        known = ", ".join(repr(space.name) for space in self.spaces[:8])
        raise GraphError(
            f"There is no channel space {name!r} in this graph; choose one of its "
            f"{len(self.spaces)} spaces ({known}{', …' if len(self.spaces) > 8 else ''})."
        )


def widths(graph: ChannelGraph) -> dict[str, int]:
    """Units of every space, fixed ends included."""
    return {space.name: space.size for space in graph.spaces}
