"""Scales that a network carries with it, applied wherever its spaces are read: its gates."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merge_core.channels.graph import ChannelGraph
from merge_core.channels.reads import Readers, ScaledReads
from merge_core.errors import GraphError

CHILD = "channel_scales"
"""The name under which a network holds its `Scales`."""


class Scales(nn.Module):
    """Scales that a network carries with it: a child module that acts on every forward pass.

    One number per channel of every free space; a subclass says which scales they stand for.
    `permute`, `select` and `concatenate` rearrange the numbers with their spaces; a pass without
    numbers (a trace, a count of FLOPs) looks past them.

    Attributes:
        values: all numbers as one parameter, `(sum of sizes,)`, one space after the other: an
            optimiser and a draw have one tensor to work on, and not one for each space.

    Args:
        values: the numbers, `{space: (size,)}`.
        graph: the channel graph of the network that will carry them.
    """

    def __init__(self, values: Mapping[str, Tensor], graph: ChannelGraph) -> None:
        super().__init__()
        self._modes: list[ScaledReads] = []
        self.rearrange(values, graph)

    def rearrange(self, values: Mapping[str, Tensor], graph: ChannelGraph) -> None:
        """Take other parameters, for a network with that graph."""
        self.sizes = {name: len(value) for name, value in values.items()}
        self.readers, self._device = Readers.of(graph), torch.device("cpu")
        self.values = nn.Parameter(torch.cat([value.detach() for value in values.values()]))

    def spaces(self, values: Tensor | None = None) -> dict[str, Tensor]:
        """The part of every space, by the space's name, as views: `(..., size)` each.

        Args:
            values: `(..., sum of sizes)`; without it the parameter.
        """
        values = self.values if values is None else values
        return dict(zip(self.sizes, values.split(list(self.sizes.values()), -1), strict=True))

    def scales(self, batch: int) -> Mapping[str, Tensor]:
        """`(batch or 1, size)` for every space; a subclass computes them."""
        raise NotImplementedError

    def forward(self, value: Tensor) -> Tensor:
        """The value itself: an `nn.Sequential` runs all of its children, this one, too."""
        return value

    def attach(self, model: nn.Module) -> nn.Module:
        """Let the network carry these scales; returns the network.

        GraphError where it carries some already or uses the name for something else.
        """
        if hasattr(model, CHILD):
            raise GraphError(
                f"The network has a part called {CHILD!r} already; take its gates off first, or "
                f"rename that part."
            )
        model.add_module(CHILD, self)
        model.register_forward_pre_hook(self.enter, with_kwargs=True)
        model.register_forward_hook(self.leave, always_call=True)
        return model

    def enter(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Before the network runs."""
        first = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
        if first.is_meta:
            return
        scales = self.scales(len(first))
        device = next(iter(scales.values())).device if scales else self._device
        if device != self._device:
            self.readers, self._device = self.readers.to(device), device
        mode = ScaledReads(self.readers.factors(model, scales))
        mode.__enter__()
        self._modes.append(mode)

    def leave(self, model: nn.Module, args: Any, output: Any) -> None:
        """After the network ran, or failed."""
        if self._modes:
            self._modes.pop().__exit__(None, None, None)


def scales_of(model: nn.Module) -> Scales | None:
    """The scales that a network carries, if any."""
    child = model._modules.get(CHILD)
    return child if isinstance(child, Scales) else None


def detach(model: nn.Module) -> nn.Module:
    """Take the scales off a network; returns the network."""
    scales = scales_of(model)
    if scales is not None:
        del model._modules[CHILD]
        for hooks in (model._forward_pre_hooks, model._forward_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__self__", None) is scales:
                    del hooks[key]
                    model._forward_hooks_always_called.pop(key, None)
                    model._forward_pre_hooks_with_kwargs.pop(key, None)
    return model
