"""The mean of the teachers' outputs with learned weights; costs all networks at test time."""

import copy
from collections.abc import Generator, Sequence

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting
from merge_core.training import loss_of

_STEPS = 100  # of L-BFGS on a handful of numbers; it stops by itself long before


class WeightedOutputs(nn.Module):
    """The weighted mean of what several networks compute.

    Args:
        networks: any that give outputs of one shape.
        weights: `(networks,)`.
    """

    weights: Tensor

    def __init__(self, networks: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, ...)` in, the weighted mean of the networks' outputs out."""
        return torch.tensordot(self.weights, torch.stack([net(x) for net in self.networks]), 1)


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Weights on the simplex with the least loss on training examples, to convergence.

    The loss is convex in the weights, so nothing depends on where the search begins. `learned`
    holds them as `weights`, `(teachers,)`.
    """
    yield from ()
    outputs = _outputs(teachers, setting)
    targets = setting.data.train.targets[: outputs.shape[1]].cpu()
    targets = targets.double() if targets.is_floating_point() else targets
    logits = torch.zeros(len(teachers), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([logits], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = loss_of(torch.tensordot(torch.softmax(logits, 0), outputs, 1), targets)
        value.backward()
        return value

    search.step(loss)  # pyright: ignore[reportArgumentType] (torch asks for a float)
    device = setting.data.train.device
    weights = torch.softmax(logits.detach(), 0).float().to(device)
    network = WeightedOutputs([copy.deepcopy(teacher) for teacher in teachers], weights)
    return Merged(network=network, learned={"weights": weights})


@torch.no_grad()
def _outputs(teachers: Sequence[nn.Module], setting: Setting) -> Tensor:
    """(teachers, examples, ...) on the CPU in float64."""
    parts = [torch.stack([net(batch) for net in teachers]).cpu() for batch in setting.batches()]
    return torch.cat(parts, 1).double()
