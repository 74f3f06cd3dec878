"""Match the channels of two networks by what they carry on the same examples.

Source: Li et al. (2016), "Convergent learning: Do different neural networks learn the same
representations?", section 3; Ainsworth et al. (2023), "Git Re-Basin", section 3.1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from merge_core.activations import Moments
from merge_core.matching.assignment import hungarian
from merge_core.similarity import correlation

_TIE = 1e-3  # how much scale and mean count beside the correlation


def match_activations(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """For every observed space the one-to-one matching with the largest summed likeness.

    Args:
        moments: of two networks, from `activations.observe`.

    Returns:
        For every space the channel of the second network that matches channel i of the first, int64
        of shape (size,), on the CPU.
    """
    return {name: hungarian(likeness(each, 0, 1)) for name, each in moments.items()}


def likeness(moments: Moments, a: int, b: int) -> Tensor:
    """The correlation of network a's units (rows) with network b's, ties broken by their scale.

    Two units that are on for every example may both be the same line up to scale, with correlation
    1, and still not stand for each other; a thousandth of Lin's concordance, 2·cov / (var + var +
    (mean − mean)²), which is 1 only for equal values, prefers those that can. Shape (size, size);
    never NaN, and 0 for a unit that is constant in both.
    """
    variances = moments.variance(a)[:, None] + moments.variance(b)[None]
    apart = moments.mean[moments.of(a)][:, None] - moments.mean[moments.of(b)][None]
    concordance = 2 * moments.between(a, b) / (variances + apart.square())
    return correlation(moments, a, b) + _TIE * torch.nan_to_num(concordance, 0.0, 0.0, 0.0)


def sharpened(alike: Tensor) -> Tensor:
    """Fisher's z of a likeness: −∞ to ∞, where only an equal channel is infinitely alike.

    What is small between two mediocre correlations and large between two high ones becomes even,
    so that weights which depend on the difference prefer the equal channel to a similar one.
    """
    return torch.atanh((alike / (1 + _TIE)).clamp(-1, 1))


def distance(moments: Moments, a: int, b: int) -> Tensor:
    """The mean squared difference of network a's units (rows) from network b's; (size, size)."""
    variances = moments.variance(a)[:, None] + moments.variance(b)[None]
    apart = moments.mean[moments.of(a)][:, None] - moments.mean[moments.of(b)][None]
    return (variances + apart.square() - 2 * moments.between(a, b)).clamp(min=0)
