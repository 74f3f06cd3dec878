"""Forward FLOPs per layer."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from merge_core.channels.rebuild import named_tensors, rebuild


def flops(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Forward FLOPs (two per multiply-accumulate) per example, by layer.

    Convolutions, linear layers, matrix products and attention count, under the innermost module
    that runs them; elementwise work does not. `sum` of the values is the total. Runs on shapes
    alone, in evaluation mode.
    """
    tensors = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in named_tensors(model).items()
        if tensor.is_floating_point()
    }
    shapes = rebuild(model, tensors).eval()
    counter = FlopCounterMode(display=False, depth=1000)
    with counter, torch.no_grad():
        shapes(torch.empty(example.shape, dtype=example.dtype, device="meta"))
    root = type(model).__name__
    totals = {
        name.removeprefix(root).lstrip("."): sum(ops.values())
        for name, ops in counter.get_flop_counts().items()
        if name != "Global"
    }
    own = {}
    for name, total in totals.items():
        inside = sum(
            count
            for other, count in totals.items()
            if other.rpartition(".")[0] == name and other != name
        )
        if total > inside:
            own[name] = (total - inside) // len(example)
    return own
