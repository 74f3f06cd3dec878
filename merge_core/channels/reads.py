"""Gates act where a space is read."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from merge_core.channels.graph import Axis, ChannelGraph, Space
from merge_core.errors import GraphError

WEIGHT_SECOND = {
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "matmul", "__matmul__", "mm", "bmm",
}  # fmt: skip
"""Functions of (value, weight): the value's channels meet the weight."""

_FUSED = "multi_head_attention_forward"


def scaled(value: Tensor, factor: Tensor, positions: int) -> Tensor:
    """`value` (batch, ..., channels, *positions) times `factor` (batch or 1, channels).

    A leading dimension that is a multiple of the batch repeats it: windows of each image stand
    together.
    """
    rows = value.shape[0]
    if rows % len(factor):
        raise GraphError(
            f"A layer reads a leading dimension of {rows} and the scales are for a batch of "
            f"{len(factor)}; give one scale for the batch, of shape (size,)."
        )
    if len(factor) not in (1, rows):
        factor = factor.repeat_interleave(rows // len(factor), 0)
    middle = value.dim() - 2 - positions
    factor = factor.to(value.dtype)  # a product in float32 would undo autocast's bfloat16
    return value * factor.view(len(factor), *[1] * middle, factor.shape[1], *[1] * positions)


@dataclass(frozen=True)
class _Part:
    """The elements of a reading axis that lie in one space.

    Attributes:
        space: its name.
        times: how often each unit follows itself, where the axis is the whole space in order, as a
            linear layer reads the flattened positions of each channel; 0 elsewhere.
        elements: which elements of the axis they are.
        unit: the unit of each.
    """

    space: str
    times: int
    elements: Tensor
    unit: Tensor

    @classmethod
    def of(cls, axis: Axis, number: int, space: Space) -> "_Part":
        elements = (axis.space == number).nonzero().flatten()
        unit = axis.unit[elements]
        times = len(unit) // space.size
        whole = len(unit) == len(axis.space) == space.size * times
        in_order = whole and torch.equal(unit, torch.arange(space.size).repeat_interleave(times))
        return cls(space.name, times if in_order else 0, elements, unit)

    def to(self, device: torch.device) -> "_Part":
        return replace(self, elements=self.elements.to(device), unit=self.unit.to(device))

    def picked(self, scale: Tensor) -> Tensor:
        """The scale of each element, `(batch or 1, elements)`."""
        if self.times == 1:
            return scale
        if self.times:  # several times as fast as picking each, and so is its gradient
            return scale.unsqueeze(2).expand(-1, -1, self.times).flatten(1)
        return scale.index_select(1, self.unit)


@dataclass(frozen=True)
class _Mix:
    """How the scale of one reading axis is put together from the scales of its spaces."""

    length: int
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, axis: Axis, free: Mapping[int, Space]) -> "_Mix":
        numbers = [number for number in torch.unique(axis.space).tolist() if number in free]
        parts = tuple(_Part.of(axis, number, free[number]) for number in numbers)
        return cls(len(axis.space), parts)

    def to(self, device: torch.device) -> "_Mix":
        return replace(self, parts=tuple(part.to(device) for part in self.parts))

    def factor(self, scales: Mapping[str, Tensor]) -> Tensor | None:
        """`(batch or 1, length)`; None where no space of the axis has a scale."""
        factor: Tensor | None = None
        for part in self.parts:
            if part.space not in scales:
                continue
            scale = scales[part.space]
            picked = part.picked(scale)
            if len(part.elements) == self.length:
                return picked
            if factor is None:
                factor = scale.new_ones(len(scale), self.length)
            if len(factor) < len(picked):
                factor = factor.expand(len(picked), -1)
            factor = factor.index_copy(1, part.elements, picked.expand(len(factor), -1))
        return factor


@dataclass(frozen=True)
class Readers:
    """Every weight of a network that reads channels, and what scales it."""

    mixes: tuple[_Mix, ...]
    weights: tuple[tuple[str, int], ...]  # name of the weight, number of its mix

    @classmethod
    def of(cls, graph: ChannelGraph) -> "Readers":
        """The readers of a network's free spaces."""
        free = {number: space for number, space in enumerate(graph.spaces) if space.free}
        mixes: dict[bytes, int] = {}
        made: list[_Mix] = []
        weights: dict[tuple[str, int], None] = {}
        for read in graph.reads:
            axis = graph.axes[read.tensor][read.dim]
            assert axis is not None
            if not any(number in free for number in torch.unique(axis.space).tolist()):
                continue
            if read.kind not in WEIGHT_SECOND and read.kind != _FUSED:
                raise GraphError(
                    f"Layer {read.layer!r} reads channels with {read.kind!r}, where no gate can "
                    f"act; use a linear layer or a convolution."
                )
            key = torch.stack([axis.space, axis.unit]).numpy().tobytes()
            if key not in mixes:
                mixes[key] = len(made)
                made.append(_Mix.of(axis, free))
            weights[read.tensor, mixes[key]] = None
        return cls(tuple(made), tuple(weights))

    def to(self, device: torch.device) -> "Readers":
        """The same readers with their indices on `device`, so that a step copies none."""
        return Readers(tuple(mix.to(device) for mix in self.mixes), self.weights)

    def factors(
        self, model: nn.Module, scales: Mapping[str, Tensor]
    ) -> dict[int, tuple[Tensor, int]]:
        """For the id of each weight: the factor of its input, and how many positions it has."""
        factors = [mix.factor(scales) for mix in self.mixes]
        found = {}
        for name, number in self.weights:
            factor = factors[number]
            if factor is not None:
                layer, _, last = name.rpartition(".")
                weight = model.get_submodule(layer)._parameters[last]
                assert weight is not None
                found[id(weight)] = (factor, weight.dim() - 2)
        return found


@dataclass(eq=False)
class ScaledReads(TorchFunctionMode):
    """While it is active, each function that applies a reading weight has its input scaled.

    A value that several layers read with one factor (a block and its shortcut) is scaled once.
    """

    factors: Mapping[int, tuple[Tensor, int]]
    _known: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name in WEIGHT_SECOND:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            if id(weight) in self.factors:
                if args:
                    args = (self._scaled(args[0], weight), *args[1:])
                else:
                    kwargs = {**kwargs, "input": self._scaled(kwargs["input"], weight)}
        elif name == _FUSED:
            return self._attention(func, args, kwargs)
        return func(*args, **kwargs)

    def _scaled(self, value: Tensor, weight: Any) -> Tensor:
        factor, positions = self.factors[id(weight)]
        return self._once(value, factor, partial(scaled, value, factor, positions))

    def _once(self, value: Tensor, factor: Tensor, product: Callable[[], Tensor]) -> Tensor:
        if value.is_inference():  # keeps no count of its changes in place
            return product()
        key = (id(value), value._version, id(factor))
        if key not in self._known:
            self._known[key] = (value, product())  # kept alive, so that its id stays its own
        return self._known[key][1]

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Torch's fused attention on streams of (positions, batch, channels).

        Nothing can be put before its last layer, so that layer is made the identity and applied
        afterwards to what the heads give.
        """
        bound = inspect.signature(func).bind(*args, **kwargs).arguments
        letters = ("query", "q"), ("key", "k"), ("value", "v")
        for name, letter in letters:
            separate = bound.get("use_separate_proj_weight", False)
            weight = bound[f"{letter}_proj_weight" if separate else "in_proj_weight"]
            if id(weight) in self.factors:
                factor, _ = self.factors[id(weight)]
                bound[name] = self._once(
                    bound[name], factor, partial(torch.mul, bound[name], factor)
                )
        out, bias = bound["out_proj_weight"], bound["out_proj_bias"]
        if id(out) not in self.factors:
            return func(**bound)
        factor, _ = self.factors[id(out)]
        if len(factor) == 1:
            return func(**{**bound, "out_proj_weight": out * factor})
        identity = torch.eye(out.shape[1], dtype=out.dtype, device=out.device)
        heads, weights = func(**{**bound, "out_proj_weight": identity, "out_proj_bias": None})
        return linear(heads * factor, out, bias), weights


@contextmanager
def scaled_reads(
    model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, every layer that reads a named space sees its input multiplied by `scales[space]`.

    Each scale has shape (size,), or (batch, size) for one per example, and all readers of a space
    share it. Norms and activations between writer and reader belong to the space, so a gate acts
    after them, as in Fig. 6 of Pašen and Boža, where it sits between the activation and the next
    layer. A residual stream is one space: where that figure has two gates, at the end of a block
    and on the shortcut, here is one, and since it scales only what a layer reads, the stream
    itself passes the blocks unscaled. Differentiable in the scales.

    One product per value that is read. GraphError where a scale does not fit its space.
    """
    checked = {}
    for name, scale in scales.items():
        size = graph.space(name).size
        if scale.dim() not in (1, 2) or scale.shape[-1] != size:
            raise GraphError(
                f"The scale of {name!r} has shape {tuple(scale.shape)}; give ({size},) or "
                f"(batch, {size})."
            )
        checked[name] = scale.view(-1, size)
    devices = {scale.device for scale in checked.values()} or {torch.device("cpu")}
    with ScaledReads(Readers.of(graph).to(devices.pop()).factors(model, checked)):
        yield
