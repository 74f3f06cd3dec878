"""Random changes of a batch of images, on the device that it lies on."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from merge_core.data.splits import Normalisation

_JITTER = 0.15
_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in how bright a pixel looks (ITU-R BT.601)."""


def augmentation(
    name: str, normalisation: Normalisation | None = None
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The random change of a batch of images `(n, channels, h, w)` that `name` stands for.

    Args:
        name: as in `Data.augment`.
        normalisation: what made numbers of the pixels, where the change is one of colours.
    """
    return {
        "none": lambda images, draws: images,
        "flips": _flipped,
        "flips and quarter turns": turned,
        "shifts": _shifted,
        "flips and shifts": lambda images, draws: _shifted(_flipped(images, draws), draws),
        "flips and crops": lambda images, draws: _cropped(_flipped(images, draws), draws),
        "flips, crops and colours": lambda images, draws: _jittered(
            _cropped(_flipped(images, draws), draws), draws, normalisation
        ),
    }[name]


def _coins(images: Tensor, draws: torch.Generator) -> Tensor:
    coins = torch.rand(len(images), generator=draws, device=images.device) < 0.5
    return coins.view(-1, 1, 1, 1)


def _flipped(images: Tensor, draws: torch.Generator) -> Tensor:
    return torch.where(_coins(images, draws), images.flip(-1), images)


def turned(images: Tensor, draws: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square for every image."""
    images = torch.where(_coins(images, draws), images.flip(-1), images)
    images = torch.where(_coins(images, draws), images.flip(-2), images)
    return torch.where(_coins(images, draws), images.transpose(-1, -2), images)


def _shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    """Every image moved by up to an eighth of its side, zeros moving in."""
    side = images.shape[-1]
    reach = side // 8
    padded = functional.pad(images, (reach,) * 4)
    offsets = torch.randint(2 * reach + 1, (2, len(images)), generator=draws, device=images.device)
    span = torch.arange(side, device=images.device)
    rows = (offsets[0].unsqueeze(1) + span).view(-1, 1, side, 1)
    columns = (offsets[1].unsqueeze(1) + span).view(-1, 1, 1, side)
    which = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return padded[which, channels, rows, columns]


def _cropped(images: Tensor, draws: torch.Generator) -> Tensor:
    """A random square of 40 to 80 % of every image's area, stretched to the whole image."""
    n = len(images)
    drawn = torch.rand(3, n, generator=draws, device=images.device)
    size = (0.4 + 0.4 * drawn[0]).sqrt()
    moved = (1 - size) * (2 * drawn[1:] - 1)  # the square's middle, in halves of a side
    grid = torch.zeros(n, 2, 3, device=images.device)
    grid[:, 0, 0] = grid[:, 1, 1] = size
    grid[:, :, 2] = moved.T
    points = functional.affine_grid(grid, list(images.shape), align_corners=False)
    return functional.grid_sample(images, points, padding_mode="border", align_corners=False)


def _jittered(
    images: Tensor, draws: torch.Generator, normalisation: Normalisation | None
) -> Tensor:
    """Brightness, contrast and saturation of every image changed by up to 15 %, in this order."""
    assert normalisation is not None, "colours change where pixels are known"
    n = len(images)
    drawn = torch.rand(3, n, 1, 1, 1, generator=draws, device=images.device)
    brightness, contrast, saturation = 1 + _JITTER * (2 * drawn - 1)
    pixels = (normalisation.pixels(images) * brightness).clamp_(0, 1)
    around = _grey(pixels).mean((1, 2, 3), keepdim=True)
    pixels = torch.lerp(around, pixels, contrast).clamp_(0, 1)
    pixels = torch.lerp(_grey(pixels), pixels, saturation).clamp_(0, 1)
    return normalisation.normalised(pixels)


def _grey(pixels: Tensor) -> Tensor:
    """How bright each pixel of `(n, 3, h, w)` looks, `(n, 1, h, w)`."""
    weights = torch.tensor(_GREY, device=pixels.device).view(1, -1, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)
