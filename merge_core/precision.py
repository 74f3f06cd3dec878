"""The numbers that a network computes with while it learns: float32 or bfloat16.

With bfloat16, layers that multiply matrices, convolutions among them, take their inputs and weights
in 16 bits. Everything that adds up over steps stays float32: parameters, their gradients and the
optimizer's memory of them, gates with their noise and their penalty, norm statistics and the loss.
The range of a bfloat16 is that of a float32, so no loss has to be scaled. Networks are judged, cut
and stored in float32.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from merge_core.errors import DeviceError
from merge_core.recipes import Precision

_FIRST_MAC = 14
"""The first macOS whose MPS has bfloat16."""


def has_bfloat16(device: str) -> bool:
    """Whether a device of this machine ("cpu", "cuda", "mps") can compute with bfloat16.

    A processor always can; one without instructions for it is no faster with it. A GPU counts only
    if it has such instructions.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps":
        return torch.backends.mps.is_macos_or_newer(_FIRST_MAC, 0)
    return True


@cache
def gains(device: str) -> bool:
    """Whether a device of this machine has instructions that make bfloat16 faster than float32.

    On a processor with AVX-512 for bfloat16 ResNet20 and VGG11 learn 1.5 to 1.9 times as fast; on
    one without they learn more slowly. Apple's GPUs have not been measured and count as no gain.
    """
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device == "cuda" and has_bfloat16(device)


def settled(
    precision: Precision, device: str, *, many: bool = False
) -> Literal["float32", "bfloat16"]:
    """What a precision is on a device: "auto" is bfloat16 where that `gains`.

    Args:
        precision: what a recipe says.
        device: "cpu", "cuda" or "mps".
        many: whether many networks are trained. On a GPU they learn as one batched network, which
            only float32 can do, so there "auto" is float32.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if gains(device) and not (many and device != "cpu") else "float32"


def require(precision: Precision, device: str) -> None:
    """See to it that the device can compute as a recipe asks.

    Raises:
        DeviceError: it cannot.
    """
    if precision == "bfloat16" and not has_bfloat16(device):
        raise DeviceError(
            f"The recipe got precision='bfloat16', but the device {device!r} of this machine "
            f"cannot compute with it; choose float32, or another device."
        )


def outputs_of(network: Callable[[Tensor], Tensor], inputs: Tensor, precision: Precision) -> Tensor:
    """What a network computes in training, differentiable; with bfloat16 inside, still float32."""
    device = inputs.device.type
    if settled(precision, device) == "float32":
        return network(inputs)
    with torch.autocast(device, torch.bfloat16):
        return network(inputs).float()
