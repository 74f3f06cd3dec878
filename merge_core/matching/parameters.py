"""The parameters of several networks, side by side."""

from collections.abc import Sequence

from torch import Tensor, nn

from merge_core.channels.rebuild import named_tensors
from merge_core.errors import GraphError


def aligned_parameters(networks: Sequence[nn.Module]) -> list[dict[str, Tensor]]:
    """The parameters of each network in float32 by their first names, without gradients.

    GraphError where they are not alike in name and shape, or not finite.
    """
    found = [
        {
            name: tensor.detach().float()
            for name, tensor in named_tensors(network).items()
            if isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        }
        for network in networks
    ]
    for number, each in enumerate(found, start=1):
        for name in dict.fromkeys([*found[0], *each]):
            one, other = (
                tuple(side[name].shape) if name in side else "absent" for side in (found[0], each)
            )
            if one != other:
                raise GraphError(
                    f"{name!r} is {one} in network 1 and {other} in network {number}; give "
                    "networks of one architecture and size."
                )
            if not bool(each[name].isfinite().all()):
                raise GraphError(
                    f"{name!r} of network {number} has values that are not finite; give a network "
                    "whose training did not diverge."
                )
    return found
