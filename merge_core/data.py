"""Data sets as tensors in three splits; the embedded ones need no download.

The training split trains, the held-out split chooses, the test split only reports.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from merge_core.devices import generator
from merge_core.errors import DataError
from merge_core.recipes import Data


@dataclass(frozen=True)
class Split:
    """Examples: `inputs (n, ...)` float32; `targets (n,)` int64 classes or `(n, 1)` float32."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: str) -> "Split":
        """The same examples on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """The three splits of one recipe's data."""

    train: Split
    heldout: Split
    test: Split

    def to(self, device: str) -> "Dataset":
        """The same data set on `device`."""
        return Dataset(self.train.to(device), self.heldout.to(device), self.test.to(device))


def load(data: Data, seed: int, directory: Path) -> Dataset:
    """The examples that a recipe learns from.

    Args:
        data: which data set, how many examples of each split.
        seed: decides what is generated and which example goes to which split.
        directory: where data sets that must be downloaded lie.

    Raises:
        DataError: the data set is missing and cannot be downloaded, is damaged, or has fewer
            examples than asked for.
    """
    sizes = (data.train, data.heldout, data.test)
    draws = generator(seed, f"data/{data.name}")
    if data.name == "sine":
        return Dataset(*(_sine(_given(n, data.name), data.noise, draws) for n in sizes))
    if data.name == "textures":
        return Dataset(*(_textures(_given(n, data.name), data.noise, draws) for n in sizes))
    if data.name == "photos":
        return _photos([_given(n, data.name) for n in sizes], draws)
    if data.name == "digits":
        return _digits(sizes, draws)
    return _mnist(sizes, draws, directory)


def augmentation(name: str) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The random change of a batch of images `(n, channels, h, w)` that `name` stands for."""
    return {
        "none": lambda images, draws: images,
        "flips": _flipped,
        "flips and quarter turns": _turned,
        "shifts": _shifted,
    }[name]


def _coins(images: Tensor, draws: torch.Generator) -> Tensor:
    coins = torch.rand(len(images), generator=draws, device=images.device) < 0.5
    return coins.view(-1, 1, 1, 1)


def _flipped(images: Tensor, draws: torch.Generator) -> Tensor:
    return torch.where(_coins(images, draws), images.flip(-1), images)


def _turned(images: Tensor, draws: torch.Generator) -> Tensor:
    """One of the eight symmetries of the square for every image."""
    images = torch.where(_coins(images, draws), images.flip(-1), images)
    images = torch.where(_coins(images, draws), images.flip(-2), images)
    return torch.where(_coins(images, draws), images.transpose(-1, -2), images)


def _shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    """Every image moved by up to an eighth of its side, zeros moving in."""
    side = images.shape[-1]
    reach = side // 8
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    offsets = torch.randint(2 * reach + 1, (2, len(images)), generator=draws, device=images.device)
    span = torch.arange(side, device=images.device)
    rows = (offsets[0].unsqueeze(1) + span).view(-1, 1, side, 1)
    columns = (offsets[1].unsqueeze(1) + span).view(-1, 1, 1, side)
    which = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return padded[which, channels, rows, columns]


def _given(n: int, name: str) -> int:
    if n == 0:
        raise DataError(
            f"{name!r} is generated, so the size of each split must be given; "
            f"set data.train, data.heldout and data.test above 0."
        )
    return n


def _sine(n: int, noise: float, draws: torch.Generator) -> Split:
    """The paper's problem (section 3.1): y = sin(10πx) + N(0, noise), x uniform on (0, 1)."""
    x = torch.rand(n, 1, generator=draws)
    y = torch.sin(10 * math.pi * x) + noise * torch.randn(n, 1, generator=draws)
    return Split(x, y)


ORIENTATIONS = 6
CONTRAST = 0.65  # of the gratings; with noise 0.35 one small network then saturates near 0.7


def _textures(n: int, noise: float, draws: torch.Generator) -> Split:
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


PATCH, GRID_ROWS, GRID_COLUMNS = 32, 2, 3
_BLOCKS = 5  # every region is cut into 5×5 blocks
_MARGIN = 4  # pixels between blocks, so that no two splits share or touch a pixel
_BLOCKS_OF_SPLIT = (15, 5, 5)  # of the 25 blocks of a region: train, held-out, test


def _photos(sizes: list[int], draws: torch.Generator) -> Dataset:
    """Patches of scikit-learn's two photographs; the class is the region a patch comes from.

    A 2×3 grid over each photograph gives 12 regions. Inside every region the three splits take
    disjoint blocks with a margin between them. Each patch is turned and flipped at random.
    """
    from sklearn.datasets import load_sample_images

    photographs = [np.asarray(image) for image in load_sample_images().images]
    regions = len(photographs) * GRID_ROWS * GRID_COLUMNS
    order = torch.rand(regions, _BLOCKS**2, generator=draws).argsort(1)

    def split(n: int, blocks: Tensor) -> Split:
        """`n` patches; `blocks (regions, blocks)` are those that the split may take."""
        labels = torch.randint(regions, (n,), generator=draws)
        chosen = blocks[labels, torch.randint(blocks.shape[1], (n,), generator=draws)]
        places = torch.rand(n, 2, generator=draws)
        patches = np.empty((n, PATCH, PATCH, 3), np.uint8)
        for i, (label, block) in enumerate(zip(labels.tolist(), chosen.tolist(), strict=True)):
            photograph, region = divmod(label, GRID_ROWS * GRID_COLUMNS)
            image = photographs[photograph]
            top, left = block_corner(image.shape[:2], region, block, places[i].tolist())
            patches[i] = image[top : top + PATCH, left : left + PATCH]
        images = torch.from_numpy(patches).permute(0, 3, 1, 2).float()
        return Split(_turned((images / 255 - 0.45) / 0.27, draws), labels)

    parts = order.split(_BLOCKS_OF_SPLIT, dim=1)
    return Dataset(*(split(n, blocks) for n, blocks in zip(sizes, parts, strict=True)))


def block_corner(
    shape: tuple[int, ...], region: int, block: int, place: list[float]
) -> tuple[int, int]:
    """Top and left pixel of a patch inside one block of one region of a photograph.

    Args:
        shape: rows and columns of the photograph.
        region: 0 to 5, row by row over the 2×3 grid.
        block: 0 to 24, row by row over the region's 5×5 blocks.
        place: two numbers in [0, 1), where in the block the patch lies.
    """
    corner = []
    for extent, parts, index, sub, at in (
        (shape[0], GRID_ROWS, region // GRID_COLUMNS, block // _BLOCKS, place[0]),
        (shape[1], GRID_COLUMNS, region % GRID_COLUMNS, block % _BLOCKS, place[1]),
    ):
        size = extent / parts / _BLOCKS
        start = math.ceil(index * extent / parts + sub * size + _MARGIN / 2)
        stop = math.floor(index * extent / parts + (sub + 1) * size - _MARGIN / 2)
        corner.append(start + int(at * (stop - start - PATCH + 1)))
    return corner[0], corner[1]


def _divided(
    inputs: Tensor, targets: Tensor, sizes: tuple[int, int, int], draws: torch.Generator, name: str
) -> Dataset:
    """One set of examples in random order, cut into three splits of the given sizes."""
    if sum(sizes) > len(inputs):
        raise DataError(
            f"{name!r} has {len(inputs)} examples, but {sum(sizes)} were asked for; "
            f"make data.train, data.heldout and data.test smaller."
        )
    order = torch.randperm(len(inputs), generator=draws)
    parts = order[: sum(sizes)].split(list(sizes))
    return Dataset(*(Split(inputs[part], targets[part]) for part in parts))


def _digits(sizes: tuple[int, int, int], draws: torch.Generator) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8×8 grey; by default 60 % / 20 % / 20 %."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(np.asarray(pixels)).float().view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.asarray(classes)).long()
    train, heldout, test = sizes
    heldout = heldout or len(images) // 5
    test = test or len(images) // 5
    train = train or max(len(images) - heldout - test, 0)
    return _divided((images - 4.9) / 6.0, labels, (train, heldout, test), draws, "digits")


def _mnist(sizes: tuple[int, int, int], draws: torch.Generator, directory: Path) -> Dataset:
    """MNIST, 28×28 grey; held-out examples come from its training set, test from its test set."""
    train, train_labels = _mnist_part(directory, train=True)
    test, test_labels = _mnist_part(directory, train=False)
    n_train, n_heldout, n_test = sizes
    n_heldout = n_heldout or 10_000
    n_train = n_train or max(len(train) - n_heldout, 0)
    learned = _divided(train, train_labels, (n_train, n_heldout, 0), draws, "mnist")
    reported = _divided(test, test_labels, (0, 0, n_test or len(test)), draws, "mnist")
    return Dataset(learned.train, learned.heldout, reported.test)


def _mnist_part(directory: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    here = f"in the data directory {str(directory)!r}"
    try:
        part = MNIST(directory, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"MNIST is not {here} and could not be downloaded; connect to a network once, or give "
            f"a directory that holds MNIST/raw with --data or NETWELD_DATA."
        ) from error
    except (ValueError, AssertionError, EOFError) as error:
        raise DataError(
            f"MNIST {here} is damaged; delete its folder MNIST and run again to download it."
        ) from error
    return (part.data.unsqueeze(1).float() / 255 - 0.1307) / 0.3081, part.targets.long()
