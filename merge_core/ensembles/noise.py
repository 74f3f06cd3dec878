"""Hard-concrete gates for many networks at once: the same draws as `merge_core.gates`, faster.

A gate is the stretched and clamped s = sigmoid((log(u / (1 − u)) + a) / β) with u uniform and a its
logit (Louizos et al. 2017, equation 11). With β = 2/3 no logarithm and no exponential of the noise
is needed: with q = (1 − u) / u,

    s = 1 / (1 + q^(1/β) · exp(−a/β)) = 1 / (1 + q·√q · exp(−3a/2)),

so the exponential is taken once for each gate instead of once for each example and gate, and what
is left are operations that processors have as instructions. The distribution is exactly the same,
and so is every single draw, to rounding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.gates import CLIP, HIGH, LOW, TEMPERATURE

assert TEMPERATURE == 2 / 3, "the square root below is right for this temperature only"

_STRETCH = HIGH - LOW
_FLAT = HIGH * -LOW / _STRETCH**2  # s(1 − s) where the gate is clamped


def alike(draws: Sequence[torch.Generator]) -> bool:
    """Whether all generators will draw the same, so that one can draw for all."""
    first = draws[0].get_state()
    return all(torch.equal(each.get_state(), first) for each in draws[1:])


def fill_uniform(noise: Tensor, draws: Sequence[torch.Generator]) -> None:
    """Fill `noise (networks, batch, gates)` with what `gates.sample` would draw for each network.

    Every network draws from its own generator, as much in a step as it would alone.
    """
    for mine, generator in zip(noise, draws, strict=True):
        mine.uniform_(generator=generator)
    noise.clamp_(CLIP, 1 - CLIP)


def gates_(noise: Tensor, slopes: Tensor, logits: Tensor, gates: Tensor) -> None:
    """Turn uniform noise into gates, in place.

    Args:
        noise: `(networks, batch, gates)`, or `(1, batch, gates)` that all networks share; it is
            overwritten.
        slopes: `(networks, batch, gates)`; becomes the derivative of each gate by its logit, to be
            multiplied by `SLOPE`.
        logits: `(networks, gates)`.
        gates: `(networks, batch, gates)`, which may be `noise` itself; becomes the gates, in
            [0, 1].
    """
    roots = slopes[: len(noise)]
    torch.sub(1, noise, out=roots)
    odds = torch.div(roots, noise, out=noise)
    torch.sqrt(odds, out=roots)
    odds.mul_(roots)
    s = torch.mul(odds, (logits / -TEMPERATURE).exp_().unsqueeze(1), out=gates)
    s.add_(1).reciprocal_()
    torch.addcmul(s, s, s, value=-1, out=slopes)
    torch.threshold_(slopes, _FLAT, 0)  # a clamped gate does not move with its logit
    s.mul_(_STRETCH).add_(LOW).clamp_(0, 1)


SLOPE = _STRETCH / TEMPERATURE
"""What `slopes` must be multiplied by; left to the caller, who has smaller tensors for it."""
