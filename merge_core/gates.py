"""Hard-concrete gates and the penalty that leaves half of them open.

Sources: the gate is Louizos et al. (2017), "Learning sparse neural networks through L0
regularization", section 2.2; the penalty is Pašen and Boža, "Merging of neural networks", section
2.2: λ·Σ over spaces of (½ − mean P[g > 0])².

How the penalty reaches half in wide and narrow spaces, in long and short stages
--------------------------------------------------------------------------------
Its gradient for the logit of gate i in a space of k gates is 2λ(mean P − ½)·pᵢ(1 − pᵢ)/k, so with a
fixed learning rate wide spaces and short stages never close: in a pilot P was .89 at the cut and
the score fell from .67 to .30. Here the total pull on each gate is a setting of its own (`pull`, in
units of learning rate × steps / k): every step of a stage of S steps pulls with λ·pull/S. With
pull = learning rate / (1 − momentum) · S / k this is the paper's own gradient step; on its sine
problem that is 234.

The step is taken linearly implicitly, so that a large pull moves a space to half and not past it,
and no logit moves by more than two. In the last tenth of the stage the pull grows without bound and
acts on all logits of a space alike, as a shift that keeps their order: a saturated gate, whose
slope has vanished, moves with the others.

What that gives: with the paper's λ schedule and the default pull, the mean P[g > 0] of a space is
within 0.02 of ½ when the network is cut. Tests hold this for 2 to 2048 gates, 6 to 6000 steps,
first logits of 1 and 3 and learning rates of 0.1 and 2, against an error gradient of up to 0.05 for
each gate that fades as the gate saturates. It is no promise for any other error or schedule: where
λ stays near 0, or the gradient is far larger, a space can be more open at the cut, which keeps its
most open half all the same.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import hardtanh

from merge_core.channels import ChannelGraph, Scales, scales_of
from merge_core.dynamics import CLOSING, HIGH, LONGEST_MOVE, LOW, OPEN_SHIFT, TEMPERATURE

CLIP = 1e-6
"""Uniform noise is kept this far from 0 and 1."""


def open_probability(logits: Tensor) -> Tensor:
    """P[g > 0] of gates with these logits; same shape."""
    return torch.sigmoid(logits - OPEN_SHIFT)


def gate_value(logits: Tensor) -> Tensor:
    """The deterministic gate in [0, 1] that evaluation uses; same shape."""
    return (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0, 1)


def sample(logits: Tensor, n: int, draws: torch.Generator) -> Tensor:
    """Gates drawn from the hard-concrete distribution, differentiable in the logits.

    Args:
        logits: `(channels,)`.
        n: how many independent draws, one per example.
        draws: a generator on the device of the logits.

    Returns:
        `(n, channels)`, each entry in [0, 1].
    """
    # As few operations as there can be: in small networks each costs more than its arithmetic.
    noise = torch.rand(n, len(logits), generator=draws, device=logits.device, dtype=logits.dtype)
    logistic = noise.logit_(CLIP)
    open_ = torch.add(logits / TEMPERATURE, logistic, alpha=1 / TEMPERATURE).sigmoid()
    stretched = torch.rsub(open_, LOW, alpha=LOW - HIGH)  # LOW + (HIGH − LOW)·open, at one go
    return hardtanh(stretched, 0.0, 1.0)


def half_penalty(logits: Tensor) -> Tensor:
    """The paper's penalty of one space, (½ − mean P[g > 0])²; a scalar."""
    return (0.5 - open_probability(logits).mean()).square()


@dataclass(frozen=True)
class Pull:
    """How the penalty pulls in one step of the stage.

    Attributes:
        strength: λ·pull/steps, in the last tenth of the stage more and more; a number, or one for
            each of many networks, `(networks, 1)`.
        shift: whether it moves all logits of a space alike; otherwise along the gradient.
    """

    strength: float | Tensor
    shift: bool

    @classmethod
    def at(cls, weight: float | Tensor, pull: float | Tensor, step: int, steps: int) -> "Pull":
        """The pull at a step, from 0 to `steps − 1`, where λ is `weight`."""
        left = (steps - step) / steps
        return cls(weight * pull / steps * max(1.0, CLOSING / left), left <= CLOSING)


def pull_to_half(logits: Tensor, pull: Pull) -> Tensor:
    """The logits of one space after one step of the penalty; not differentiable.

    `(channels,)`, or `(networks, channels)` for the same space of many networks at once. A step of
    −strength·channels·d(penalty)/d(logit), with the mean's change along the step taken into account
    to first order (a linearly implicit Euler step).
    """
    p = open_probability(logits)
    slope = p * (1 - p)
    direction = torch.full_like(slope, 0.25) if pull.shift else slope
    excess = p.mean(-1, keepdim=True) - 0.5
    along = (slope * direction).mean(-1, keepdim=True)
    length = 2 * pull.strength * excess / (1 + 2 * pull.strength * along)
    longest = LONGEST_MOVE / direction.amax(-1, keepdim=True).clamp_min(1e-12)
    return logits - length.clamp(-longest, longest) * direction


class Gates(Scales):
    """The gates of a network: a child module that scales what its layers read.

    In training every example has its own draw of every gate, shared by all layers that read the
    space; in evaluation the gates are deterministic. A channel whose gate is 0 is 0 for every
    reader, exactly as if it were cut. Made by `gate`.
    """

    def __init__(
        self, logits: Mapping[str, Tensor], graph: ChannelGraph, draws: torch.Generator
    ) -> None:
        super().__init__(logits, graph)
        self.draws = draws

    def scales(self, batch: int) -> dict[str, Tensor]:
        """`(batch, channels)` random gates in training, `(1, channels)` in evaluation."""
        if self.training:
            return self.spaces(sample(self.values, batch, self.draws))
        return self.spaces(gate_value(self.values.detach()).unsqueeze(0))

    def deterministic(self) -> dict[str, Tensor]:
        """The gates that evaluation uses; `(channels,)` for every space, in [0, 1]."""
        return self.spaces(gate_value(self.values.detach()))

    def open_probabilities(self) -> dict[str, Tensor]:
        """P[g > 0] of every channel of every space; `(channels,)` each."""
        return self.spaces(open_probability(self.values.detach()))

    @torch.no_grad()
    def mean_open(self) -> Tensor:
        """The mean over the spaces of their mean P[g > 0]; a scalar."""
        return torch.stack([each.mean() for each in self.open_probabilities().values()]).mean()

    @torch.no_grad()
    def pull(self, pull: Pull) -> None:
        """One step of the penalty on every space."""
        for logits in self.spaces().values():
            logits.copy_(pull_to_half(logits, pull))

    def penalty(self) -> Tensor:
        """Σ over spaces of the half penalty, without λ; a scalar."""
        return torch.stack([half_penalty(logits) for logits in self.spaces().values()]).sum()


def gate(
    network: nn.Module,
    graph: ChannelGraph,
    *,
    start: float,
    spread: float,
    draws: torch.Generator,
) -> nn.Module:
    """A new network of the same class whose channels are gated where they are read.

    Its gates are a child module (`gates_of`), so they train, save, load, move and copy with it;
    `permute`, `select` and `concatenate` take them along, a trace looks past them.

    Args:
        network: a big student; it is not changed and shares no memory with the result.
        graph: its channel graph; every free space gets gates.
        start, spread: mean and standard deviation of the first logits.
        draws: the generator of the first logits and, on the network's device, of the noise.

    Raises:
        GraphError: the network has gates already, or reads channels where no gate can act.
    """
    logits = {
        space.name: start + spread * torch.randn(space.size, generator=draws, device=draws.device)
        for space in graph.free
    }
    return Gates(logits, graph, draws).attach(copy.deepcopy(network))


def gates_of(network: nn.Module) -> Gates:
    """The gates of a network made by `gate`."""
    gates = scales_of(network)
    assert isinstance(gates, Gates), "only networks made by `gate` have gates"
    return gates


def most_open_half(logits: Tensor, teachers: int) -> Tensor:
    """Indices of the channels to keep: the 1/teachers most open, in ascending order; `(k,)` int64.

    Ties go to the lower index, so that the choice is the same on every machine.
    """
    order = torch.argsort(logits, descending=True, stable=True)
    return order[: len(logits) // teachers].sort().values
