"""Heads that stay apart: where the mean of the teachers cannot be taken in the last weights."""

from typing import Any

import torch
from torch import Tensor, nn

from merge_core.channels.graph import ChannelGraph
from merge_core.errors import GraphError

CHANNELWISE = (
    "relu", "relu6", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid",
    "leaky_relu", "elu", "selu", "celu", "softplus", "abs", "square", "clamp", "mish",
)  # fmt: skip


class HeadMean:
    """The forward hook of a big student whose heads end in something non-linear.

    Its last layer computes the outputs of all teachers side by side; this takes their mean with
    the given shares. The cut makes one head of them and removes the hook.
    """

    def __init__(self, shares: list[float], dim: int) -> None:
        self.shares = shares
        self.dim = dim

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            parts = output.chunk(len(self.shares), self.dim)
            mean = parts[0] * self.shares[0]
            for part, share in zip(parts[1:], self.shares[1:], strict=True):
                mean = mean + part * share
            return mean
        raise GraphError(
            "The network returns several outputs after a non-linear head, so their mean cannot be "
            "taken; return one tensor."
        )


def head_mean(model: nn.Module) -> HeadMean | None:
    """The hook of a network, if it has one."""
    for hook in model._forward_hooks.values():
        if isinstance(hook, HeadMean):
            return hook
    return None


def set_head_mean(model: nn.Module, hook: HeadMean | None) -> nn.Module:
    """Give a network this hook, or none; returns the network."""
    for key, old in list(model._forward_hooks.items()):
        if isinstance(old, HeadMean):
            del model._forward_hooks[key]
    if hook is not None:
        model.register_forward_hook(hook)
    return model


def must_stay_apart(graph: ChannelGraph) -> bool:
    """Whether the heads need a `HeadMean`; GraphError where even that would not be exact."""
    for obstacle in graph.obstacles:
        name = obstacle.operation.strip("_")
        if name not in CHANNELWISE and "pool" not in name:
            raise GraphError(
                f"Layer {obstacle.layer!r} applies {obstacle.operation!r} to values that all "
                "teachers share, so their mean cannot be taken; end the network with a linear "
                "layer (return logits), and keep normalisation off the input and the output."
            )
    return bool(graph.obstacles)


def joined_head(tensor: Tensor, dim: int, shares: list[float]) -> Tensor:
    """The heads' rows along `dim` made one, by their shares."""
    parts = tensor.chunk(len(shares), dim)
    return torch.stack([part * share for part, share in zip(parts, shares, strict=True)]).sum(0)
