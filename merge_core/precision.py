"""The numbers that a network computes with while it learns: float32, or bfloat16 where asked for.

With bfloat16, layers that multiply matrices, convolutions among them, take their inputs and weights
in 16 bits. Everything that adds up over steps stays float32: parameters, their gradients and the
optimizer's memory of them, gates with their noise and their penalty, norm statistics and the loss.
The range of a bfloat16 is that of a float32, so no loss has to be scaled. Networks are judged, cut
and stored in float32.
"""

from collections.abc import Callable

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
    if precision == "float32":
        return network(inputs)
    with torch.autocast(inputs.device.type, torch.bfloat16):
        return network(inputs).float()
