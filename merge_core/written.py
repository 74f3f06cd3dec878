"""What the layers of a network write: the mean and deviation of every channel of their outputs.

This is where REPAIR measures, before norms and activations; `merge_core.activations` measures where
channels are read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from merge_core.channels import ChannelGraph
from merge_core.channels.rebuild import named_tensors

_WRITING = {"linear": 0, "conv1d": 0, "conv2d": 0, "conv3d": 0, "conv_transpose1d": 1,
            "conv_transpose2d": 1, "conv_transpose3d": 1}  # fmt: skip
"""Functions of (value, weight, bias), and the axis of the weight along which they write."""


@dataclass(frozen=True)
class Layer:
    """A layer that writes free channels which no batch norm takes at once.

    Attributes:
        weight, bias: its parameters by their first names.
        dim: the axis of the weight along which it writes.
        uses: how often a forward pass applies it.
    """

    weight: str
    bias: str | None
    dim: int
    uses: int


@dataclass(frozen=True)
class Norm:
    """A batch norm with running statistics."""


class _Applied(TorchFunctionMode):
    """Sees every function that writes channels, with the tensor that comes out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        result = func(*args, **kwargs)
        if name in _WRITING or name == "batch_norm":
            names = ("input", "running_mean") if name == "batch_norm" else ("input", "weight")
            given = dict(zip((*names, "bias"), args, strict=False)) | kwargs
            self.see(name, given, result)
        return result

    def see(self, name: str, given: dict[str, Any], result: Tensor) -> None:
        """One application of the function `name`."""
        raise NotImplementedError


class _Order(_Applied):
    """Collects layers and norms in order of execution."""

    def __init__(self, network: nn.Module, graph: ChannelGraph) -> None:
        super().__init__()
        self.names = {id(tensor): name for name, tensor in named_tensors(network).items()}
        self.graph = graph
        self.reading = {(read.tensor, read.dim) for read in graph.reads}
        self.found: dict[str, Layer | Norm] = {}
        self.normed: set[str] = set()
        self.fresh: dict[int, tuple[Tensor, str]] = {}  # outputs, held so that ids stay theirs

    def see(self, name: str, given: dict[str, Any], result: Tensor) -> None:
        if name == "batch_norm":
            if given.get("running_mean") is not None:
                self.found[f"norm {len(self.found)}"] = Norm()
            if id(given["input"]) in self.fresh:
                self.normed.add(self.fresh[id(given["input"])][1])
            return
        weight, dim = self.names.get(id(given["weight"])), _WRITING[name]
        if weight is None or not self._is_free(weight, dim):
            return
        before = self.found.get(weight)
        uses = 1 + (before.uses if isinstance(before, Layer) else 0)
        self.found[weight] = Layer(weight, self.names.get(id(given.get("bias"))), dim, uses)
        self.fresh[id(result)] = result, weight

    def _is_free(self, weight: str, dim: int) -> bool:
        """Whether the weight writes free channels and is not read along that axis elsewhere."""
        axis = self.graph.axes[weight][dim] if weight in self.graph.axes else None
        if axis is None or (weight, dim) in self.reading:
            return False
        numbers = torch.unique(axis.space).tolist()
        return any(number >= 0 and self.graph.spaces[number].free for number in numbers)


@torch.no_grad()
def steps(network: nn.Module, graph: ChannelGraph, example: Tensor) -> list[Layer | Norm]:
    """The layers that write free channels and the batch norms, in order of execution.

    Args:
        network: in eval mode, of the architecture of `graph`.
        graph: its channel graph.
        example: a small batch.
    """
    order = _Order(network, graph)
    with order:
        network(example)
    return [step for name, step in order.found.items() if name not in order.normed]


class _Enough(Exception):
    """All that was wanted of a forward pass has been seen."""


class _Sums(_Applied):
    """Adds up the mean and the squared deviations of what layers write."""

    def __init__(self, network: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()
        tensors = named_tensors(network)
        self.layers = {id(tensors[layer.weight]): layer for layer in layers}
        self.uses = sum(layer.uses for layer in layers)
        self.left = self.uses
        self.sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def see(self, name: str, given: dict[str, Any], result: Tensor) -> None:
        layer = self.layers.get(id(given.get("weight")))
        if name == "batch_norm" or layer is None:
            return
        channels = -1 if name == "linear" else 1 - given["weight"].dim()
        values = result.movedim(channels, 0).flatten(1)
        variance, mean = (each.cpu().double() for each in torch.var_mean(values, 1, correction=0))
        count = values.shape[1]
        before = self.sums.get(layer.weight)
        if before is None:
            self.sums[layer.weight] = count, mean, count * variance
        else:  # Chan et al. 1979: joined without loss of figures
            seen, old, squares = before
            total, apart = seen + count, mean - old
            squares = squares + count * variance + apart.square() * (seen * count / total)
            self.sums[layer.weight] = total, old + apart * (count / total), squares
        self.left -= 1
        if not self.left:
            raise _Enough


@torch.no_grad()
def measured(
    network: nn.Module, layers: Sequence[Layer], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Mean and standard deviation of all that the layers write, over examples and positions.

    Args:
        network: left as it is; runs in eval mode, no further than the last of the layers.
        layers: from `steps` of a network of the same architecture.
        batches: inputs.

    Returns:
        `{weight: (2, channels)}` float64 on the CPU, by the names of the layers' weights.
    """
    modes = [(module, module.training) for module in network.modules()]
    sums = _Sums(network, layers)
    try:
        network.eval()
        for batch in batches:
            sums.left = sums.uses
            try:
                with sums:
                    network(batch)
            except _Enough:
                pass
    finally:
        for module, training in modes:
            module.training = training
    return {
        weight: torch.stack([mean, (squares / count).sqrt()])
        for weight, (count, mean, squares) in sums.sums.items()
    }
