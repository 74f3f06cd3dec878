"""Published data sets: scikit-learn's digits, and MNIST and CIFAR in torchvision's layouts.

CIFAR's files are pickles. Torchvision reads them only after it has compared each one with the MD5
sum of the published file.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from merge_core.data.arrays import arrays
from merge_core.data.pools import IMAGENET, Arrays, Statistics, divided
from merge_core.data.splits import Dataset, Split, drawn
from merge_core.errors import DataError
from merge_core.recipes import Data

CIFAR10_ARRAYS = "cifar10-subset.npz"
"""Where CIFAR-10's own folder is not there, this file may hold some of its images."""

_MNIST: Statistics = ((0.1307,), (0.3081,))
_CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100: Statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def digits(data: Data, draws: torch.Generator) -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8×8 grey; by default 60 % / 20 % / 20 %."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(np.asarray(pixels)).float().view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.asarray(classes)).long()
    heldout = data.heldout or len(images) // 5
    test = data.test or len(images) // 5
    train = data.train or max(len(images) - heldout - test, 0)
    parts = drawn(len(images), (train, heldout, test), draws, "digits")
    return Dataset(*(Split((images[part] - 4.9) / 6.0, labels[part]) for part in parts))


def mnist(data: Data, draws: torch.Generator, directory: Path) -> Dataset:
    """MNIST, 28×28 grey; by default 10,000 of its training images are held out."""
    from torchvision.datasets import MNIST

    learn, report = _parts(MNIST, "MNIST", "MNIST", directory)
    return divided(learn, report, replace(data, heldout=data.heldout or 10_000), _MNIST, draws)


def cifar10(data: Data, draws: torch.Generator, directory: Path) -> Dataset:
    """CIFAR-10, 32×32 colour: torchvision's folder or, without it, some of it as arrays."""
    from torchvision.datasets import CIFAR10

    folder, file = CIFAR10.base_folder, directory / CIFAR10_ARRAYS
    if file.is_file() and not (directory / folder).exists():
        _, learn, report = arrays(file, 32)
    else:
        learn, report = _parts(CIFAR10, "CIFAR-10", folder, directory)
    return divided(learn, report, data, _statistics(data, _CIFAR10), draws)


def cifar100(data: Data, draws: torch.Generator, directory: Path) -> Dataset:
    """CIFAR-100, 32×32 colour, in its 100 fine classes."""
    from torchvision.datasets import CIFAR100

    learn, report = _parts(CIFAR100, "CIFAR-100", CIFAR100.base_folder, directory)
    return divided(learn, report, data, _statistics(data, _CIFAR100), draws)


def _statistics(data: Data, own: Statistics) -> Statistics:
    return IMAGENET if data.normalise == "imagenet" else own


def _parts(kind: Callable[..., Any], title: str, folder: str, directory: Path) -> list[Arrays]:
    """Training and test images of one of torchvision's data sets, downloaded if need be.

    Raises:
        DataError: they are not there and cannot be downloaded, are damaged, or have not one label
            for each image.
    """
    where = f"in the data directory {str(directory)!r}"
    again = f"delete its folder {folder} and run again with a network to download it"
    there = any(path.is_file() for path in (directory / folder).rglob("*"))
    try:
        parts = [kind(directory, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        if there:
            raise DataError(f"{title} {where} is incomplete or damaged; {again}.") from error
        raise DataError(
            f"{title} is not {where} and could not be downloaded; connect to a network once, or "
            f"give a directory that holds {folder} with --data or NETWELD_DATA."
        ) from error
    made = [_arrays(part) for part in parts]
    for name, each in zip(("training", "test"), made, strict=True):
        if len(each.images) != len(each.labels):
            raise DataError(
                f"{title} {where} has {len(each.images)} {name} images and {len(each.labels)} "
                f"labels for them, but one for each was expected; {again}."
            )
    return made


def _arrays(part: Any) -> Arrays:
    """From N×height×width (MNIST) or N×height×width×3 (CIFAR)."""
    images = torch.as_tensor(part.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Arrays(images, torch.as_tensor(part.targets).long())
