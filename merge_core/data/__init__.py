"""Data sets as tensors in three splits; the embedded ones need no download.

The training split trains, the held-out split chooses, the test split only reports.
"""

from dataclasses import replace
from pathlib import Path

from merge_core.data.augmentations import augmentation
from merge_core.data.class_names import CLASS_NAMES
from merge_core.data.generated import sine, textures
from merge_core.data.own import own_images
from merge_core.data.photographs import photos
from merge_core.data.published import cifar10, cifar100, digits, mnist
from merge_core.data.splits import Dataset, Normalisation, Split, given
from merge_core.devices import generator
from merge_core.recipes import Data

__all__ = ["Dataset", "Normalisation", "Split", "augmentation", "load"]


def load(data: Data, seed: int, directory: Path) -> Dataset:
    """The examples that a recipe learns from.

    Args:
        data: which data set, how many examples of each split.
        seed: decides what is generated and which example goes to which split.
        directory: where data sets that are not embedded lie or are downloaded to.

    Raises:
        DataError: the data set is missing and cannot be downloaded, is damaged, or has fewer
            examples than asked for.
    """
    made = _loaded(data, seed, directory)
    names = made.class_names or CLASS_NAMES.get(data.name, ())
    return replace(made, class_names=names)


def _loaded(data: Data, seed: int, directory: Path) -> Dataset:
    sizes = (data.train, data.heldout, data.test)
    draws = generator(seed, f"data/{data.name}")
    match data.name:
        case "sine":
            return Dataset(*(sine(given(n, data.name), data.noise, draws) for n in sizes))
        case "textures":
            return Dataset(*(textures(given(n, data.name), data.noise, draws) for n in sizes))
        case "photos":
            return photos([given(n, data.name) for n in sizes], draws)
        case "digits":
            return digits(data, draws)
        case "mnist":
            return mnist(data, draws, directory)
        case "cifar10":
            return cifar10(data, draws, directory)
        case "cifar100":
            return cifar100(data, draws, directory)
        case "imagewoof" | "images":
            return own_images(data, draws, directory)
