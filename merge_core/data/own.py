"""A user's own images, found by name in the data directory."""

from dataclasses import replace
from pathlib import Path

import torch

from merge_core.data.arrays import arrays
from merge_core.data.class_names import BREEDS
from merge_core.data.pools import IMAGENET, divided
from merge_core.data.splits import Dataset
from merge_core.data.trees import opened, trees
from merge_core.errors import DataError
from merge_core.recipes import Data


def own_images(data: Data, draws: torch.Generator, directory: Path) -> Dataset:
    """A folder with a folder of images for each class, a zip file of one, or arrays in a `.npz`.

    Raises:
        DataError: it is not there, is damaged, or has another number of classes than the recipe.
    """
    path = directory / data.place
    if not path.exists():
        raise DataError(
            f"There is no {data.place!r} in the data directory {str(directory)!r}; put a folder "
            f"with a folder of images for each class there, a zip file of one, or an .npz file, or "
            f"name another one with data.source."
        )
    if path.suffix == ".npz":
        classes, learn, report = arrays(path, data.shape.side)
        _counted(classes, data)
        return divided(learn, report, data, IMAGENET, draws)
    with opened(path) as files:
        names, learn, report = trees(files, data.place, data.shape.side)
        _counted(len(names), data)
        made = divided(learn, report, data, IMAGENET, draws)
        return replace(made, class_names=tuple(BREEDS.get(name, name) for name in names))


def _counted(classes: int, data: Data) -> None:
    if classes != data.shape.classes:
        raise DataError(
            f"{data.place!r} has {classes} classes, but the recipe has {data.shape.classes}; "
            f"set data.classes={classes}."
        )
