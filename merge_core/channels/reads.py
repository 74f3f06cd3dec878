"""Gates act where a space is read."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from merge_core.channels.graph import ChannelGraph
from merge_core.channels.operations import read_factors
from merge_core.channels.rebuild import named_tensors
from merge_core.errors import GraphError


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

    Scales of shape (size,) cost one product per reading weight and context; (batch, size) one
    product per read input, where the space is read `per_example`. GraphError where a scale does not
    fit its space.
    """
    alike: dict[str, Tensor] = {}
    each: dict[str, Tensor] = {}
    for name, scale in scales.items():
        size = graph.space(name).size
        if scale.dim() not in (1, 2) or scale.shape[-1] != size:
            raise GraphError(
                f"The scale of {name!r} has shape {tuple(scale.shape)}; give ({size},) or "
                f"(batch, {size})."
            )
        (alike if scale.dim() == 1 else each)[name] = scale
    with ExitStack() as stack:
        if alike:
            stack.enter_context(_scaled_weights(model, graph, alike))
        if each:
            stack.enter_context(_scaled_inputs(model, graph, each))
        yield


@contextmanager
def _scaled_weights(
    model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]
) -> Iterator[None]:
    """Let the product of weight and scale stand in front of each reading weight."""
    product = {
        id(tensor): tensor * factor for _, tensor, factor in read_factors(model, graph, scales)
    }
    shadowed: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if id(parameter) in product:
                    module.__dict__[name] = product[id(parameter)]
                    shadowed.append((module, name))
        yield
    finally:
        for module, name in shadowed:
            del module.__dict__[name]


class _InputScaler(TorchFunctionMode):
    """Multiplies the input of every function that applies a reading weight."""

    def __init__(self, factors: dict[int, tuple[Tensor, int]]) -> None:
        super().__init__()
        self.factors = factors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in READING:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if id(weight) in self.factors:
                value = args[0] if args else kwargs["input"]
                value = scaled(value, *self.factors[id(weight)])
                args, kwargs = (
                    ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "input": value})
                )
        return func(*args, **kwargs)


READING = {
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip


def per_example(graph: ChannelGraph, space: str) -> bool:
    """Whether every layer that reads the space can have a scale of its own for each example.

    What `nn.MultiheadAttention` reads cannot: torch hands its weights to one fused function, so a
    scale reaches it only through the weights and is the same for the whole batch.
    """
    number = [known.name for known in graph.spaces].index(graph.space(space).name)
    return all(
        read.kind in READING
        for read in graph.reads
        if (axis := graph.axes[read.tensor][read.dim]) and bool((axis.space == number).any())
    )


def scaled(value: Tensor, factor: Tensor, positions: int) -> Tensor:
    """`value` (batch, ..., channels, *positions) times `factor` (batch, channels).

    A leading dimension that is a multiple of the batch (windows of each image) repeats it.
    """
    batch = value.shape[0]
    if batch % factor.shape[0]:
        raise GraphError(
            f"A layer reads a leading dimension of {batch} and the scales are for a batch of "
            f"{factor.shape[0]}; give one scale for the batch, of shape (size,)."
        )
    if batch != factor.shape[0]:
        factor = factor.repeat_interleave(batch // factor.shape[0], 0)
    middle = value.dim() - 2 - positions
    return value * factor.view(batch, *[1] * middle, factor.shape[1], *[1] * positions)


@contextmanager
def _scaled_inputs(
    model: nn.Module, graph: ChannelGraph, scales: Mapping[str, Tensor]
) -> Iterator[None]:
    """Multiply what each reading layer is given, one scale per example."""
    tensors = named_tensors(model)
    factors: dict[int, tuple[Tensor, int]] = {}
    numbers = {number: space.name for number, space in enumerate(graph.spaces)}
    for read in graph.reads:
        axis = graph.axes[read.tensor][read.dim]
        assert axis is not None
        factor: Tensor | None = None
        for number in torch.unique(axis.space).tolist():
            if numbers.get(number) not in scales:
                continue
            if read.kind not in READING:
                raise GraphError(
                    f"Layer {read.layer!r} ({read.kind}) reads {numbers[number]!r} and takes one "
                    f"scale for the whole batch, but one per example was given; give one of shape "
                    f"(size,)."
                )
            scale = scales[numbers[number]]
            mine = (axis.space == number).nonzero().flatten().to(scale.device)
            if factor is None:
                factor = scale.new_ones(len(scale), len(axis.space))
            picked = scale.index_select(1, axis.unit.to(scale.device)[mine])
            factor = picked if len(mine) == factor.shape[1] else factor.index_copy(1, mine, picked)
        if factor is not None:
            factors[id(tensors[read.tensor])] = (factor, tensors[read.tensor].dim() - 2)
    with _InputScaler(factors):
        yield
