"""Generated examples: the paper's sine problem, and gratings under noise."""

import math

import torch
from torch import Tensor

from merge_core.data.splits import Split


def sine(n: int, noise: float, draws: torch.Generator) -> Split:
    """The paper's problem (section 3.1): y = sin(10πx) + N(0, noise), x uniform on (0, 1)."""
    x = torch.rand(n, 1, generator=draws)
    y = torch.sin(10 * math.pi * x) + noise * torch.randn(n, 1, generator=draws)
    return Split(x, y)


ORIENTATIONS = 6
CONTRAST = 0.65  # of the gratings; with noise 0.35 one small network then saturates near 0.7


def textures(n: int, noise: float, draws: torch.Generator) -> Split:
    """Gratings (classes 0-5) and pairs of gratings 60° apart (classes 6-11) in random colours.

    32×32 RGB; the six orientations are 30° apart; frequency, phase and both colours are random for
    every image; pixels get noise of standard deviation `noise`.
    """
    side = 32
    labels = torch.randint(2 * ORIENTATIONS, (n,), generator=draws)
    axis = torch.arange(side) - (side - 1) / 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")

    def waves(orientation: Tensor) -> Tensor:
        angle = orientation.view(-1, 1, 1) * (math.pi / ORIENTATIONS)
        frequency = 0.08 + 0.14 * torch.rand(n, 1, 1, generator=draws)  # cycles per pixel
        phase = 2 * math.pi * torch.rand(n, 1, 1, generator=draws)
        along = columns * torch.cos(angle) + rows * torch.sin(angle)
        return torch.sin(2 * math.pi * frequency * along + phase)

    first = waves(labels % ORIENTATIONS)
    second = waves((labels + 2) % ORIENTATIONS)
    crossed = (labels >= ORIENTATIONS).view(-1, 1, 1)
    wave = torch.where(crossed, (first + second) / 2, first).unsqueeze(1)
    colours = torch.rand(2, n, 3, 1, 1, generator=draws)
    images = colours.mean(0) + CONTRAST * (colours[1] - colours[0]) * wave / 2
    images = images + noise * torch.randn(images.shape, generator=draws)
    return Split((images - 0.5) / 0.5, labels)
