"""The design's laws as measured numbers, for one network."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from merge_core.channels.concatenation import concatenate
from merge_core.channels.graph import ChannelGraph
from merge_core.channels.operations import permute, select
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.channels.trace import tensors_in, trace


@dataclass(frozen=True)
class LawErrors:
    """Largest error of each law relative to the largest output, over both modes."""

    permute: float  # any order of hidden units computes the same
    concatenate: float  # the big student computes the mean of the teachers
    select: float  # a teacher's units, selected from the big student, give that teacher back
    identity: float  # selecting every unit changes nothing

    @property
    def worst(self) -> float:
        return max(self.permute, self.concatenate, self.select, self.identity)


class _Quiet(TorchFunctionMode):
    """Dropout leaves everything in place, so that networks of different width can be compared."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if "dropout" in name:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention":
            args, kwargs = (*args[:4], *((0.0,) if len(args) > 4 else ()), *args[5:]), dict(kwargs)
            kwargs.pop("dropout_p", None)
        return func(*args, **kwargs)


def check(model: nn.Module, graph: ChannelGraph, example: Tensor) -> LawErrors:
    """Measure laws 1 to 4 on this network and a second teacher with perturbed weights.

    Runs in evaluation and, where the batch allows it, in training mode with dropout left out. The
    result is the same every time; the model and torch's global random state are left alone.
    GraphError where an operation refuses the network.
    """
    generator = torch.Generator().manual_seed(0)
    orders = {space.name: torch.randperm(space.size, generator=generator) for space in graph.free}
    other = permute(perturbed(model, graph, generator), graph, orders)
    everything = {space.name: torch.arange(space.size) for space in graph.free}
    big = concatenate([model, other], graph)
    shuffled = permute(model, graph, orders)
    chosen = concatenate([model, other], graph, [1.0, 0.0])
    first = select(chosen, trace(chosen, example), everything)
    whole = select(model, graph, everything)

    errors: dict[str, float] = {}
    for training in (False, True):
        with _Quiet(), torch.no_grad(), torch.random.fork_rng():
            one, two = outputs(model, example, training), outputs(other, example, training)
            mean = [(a + b) / 2 for a, b in zip(one, two, strict=True)]
            for law, made, meant in (
                ("permute", shuffled, one),
                ("concatenate", big, mean),
                ("select", first, one),
                ("identity", whole, one),
            ):
                error = relative_error(outputs(made, example, training), meant)
                errors[law] = max(errors.get(law, 0.0), error)
    return LawErrors(**errors)


def perturbed(
    model: nn.Module, graph: ChannelGraph, generator: torch.Generator | None = None
) -> nn.Module:
    """A copy with noise on everything that belongs to channels; signs of statistics are kept."""
    result = {}
    for name, tensor in named_tensors(model).items():
        axes = [axis for axis in graph.axes.get(name, ()) if axis is not None]
        movable = any(bool((axis.space >= 0).any()) for axis in axes) or name in graph.averaged
        if not movable or not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        value = tensor.detach() * (0.75 + 0.5 * noise)
        if isinstance(tensor, nn.Parameter):
            value = value + 0.1 * (noise - 0.5) * value.abs().mean()
        result[name] = value
    return rebuild(model, result)


def outputs(model: nn.Module, example: Tensor, training: bool) -> list[Tensor]:
    """All output tensors of a copy of the model in that mode, the random state reset."""
    copied = copy.deepcopy(model).train(training)
    for module in copied.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0  # applied inside one function, where no mode sees it
    torch.manual_seed(0)
    return [tensor.detach() for tensor in tensors_in(copied(example))]


def relative_error(made: Sequence[Tensor], meant: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest magnitude that was meant."""
    worst = 0.0
    for ours, theirs in zip(made, meant, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        worst = max(worst, float((ours - theirs).abs().max()) / scale)
    return worst
