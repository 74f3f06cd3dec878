"""Own images: what lies in the data directory, and which folder is which class (no torch)."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from merge_core.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation")  # the first that is there
_A_LOOK = 500
"""So many files of a folder are looked at to see whether it has images in folders."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images that a recipe can learn from.

    Attributes:
        name: of the folder, `.zip` or `.npz` file in the data directory.
        classes: how many there are.
        train, test: images to learn from, and test images of their own; 0 where there are none.
    """

    name: str
    classes: int
    train: int
    test: int


def sources(directory: Path) -> list[str]:
    """What in the data directory may hold a person's own images, in alphabetical order.

    Folders are looked into for a moment only; `described` says what they hold.
    """
    try:
        found = sorted(directory.iterdir())
    except OSError:
        return []
    return [path.name for path in found if not path.name.startswith(".") and _may_be(path)]


def _may_be(path: Path) -> bool:
    if path.is_dir():
        return any(
            name.lower().endswith(ENDINGS) and "/" in name
            for name in islice(files_below(path), _A_LOOK)
        )
    return path.suffix in (".zip", ".npz")


def described(path: Path) -> Source:
    """How many classes and images there are.

    Raises:
        DataError: it cannot be read, or is not ordered by classes.
    """
    if path.suffix == ".npz":
        return _described_arrays(path)
    if path.is_dir():
        names = list(files_below(path))
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise DataError(
                f"{path.name!r} is not a readable zip file ({error}); copy it again."
            ) from error
    learn, report = parts(names, path.name)
    classes = len({label for _, label in learn})
    return Source(name=path.name, classes=classes, train=len(learn), test=len(report))


def _described_arrays(path: Path) -> Source:
    try:
        with np.load(path, allow_pickle=False) as file:
            learn = file["train_labels"]
            report = file["test_labels"] if "test_labels" in file.files else learn[:0]
            classes = int(learn.max()) + 1
    except Exception as error:  # zipfile and numpy raise many kinds on damaged files
        raise DataError(
            f"{path.name!r} is not a readable .npz file with train_images and train_labels "
            f"({error}); write it again with numpy.savez."
        ) from error
    return Source(name=path.name, classes=classes, train=len(learn), test=len(report))


def files_below(root: Path) -> Iterator[str]:
    """The files in a folder and all folders in it, with forward slashes; hidden ones, too.

    Links to folders are followed, as torchvision's `ImageFolder` does. A folder that is reached
    from inside itself is passed over, so it comes to an end whatever the links lead to.
    """
    ways = {str(root): (os.path.realpath(root),)}  # the real folders around each one, and itself
    for directory, folders, files in os.walk(str(root), followlinks=True):
        way = ways.pop(directory)
        paths = {name: str(Path(directory) / name) for name in folders}
        real = {name: os.path.realpath(path) for name, path in paths.items()}
        folders[:] = [name for name in folders if real[name] not in way]
        ways |= {paths[name]: (*way, real[name]) for name in folders}
        for file in files:
            yield (Path(directory) / file).relative_to(root).as_posix()


def parts(names: list[str], name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(path, class) of the training and of the test images, sorted by path.

    Args:
        names: of all files, with forward slashes.
        name: what they lie in.

    Raises:
        DataError: there are no images, or not in folders of classes.
    """
    images = [
        (path, path.split("/"))
        for path in sorted(names)
        if path.lower().endswith(ENDINGS) and not _hidden(path)
    ]
    if not images:
        raise DataError(
            f"{name!r} holds no images; give a folder, or a zip file of one, in which every class "
            f"has a folder with its images ({', '.join(ENDINGS)})."
        )
    around = 0
    while len({folders[around] for _, folders in images}) == 1 and all(
        len(folders) > around + 2 for _, folders in images
    ):
        around += 1
    tops = {folders[around].lower() for _, folders in images if len(folders) > around + 1}
    if tops.isdisjoint(_TRAIN):
        return _labelled(images, around, name), []
    test = next((part for part in _TEST if part in tops), None)
    learn, report = (
        [item for item in images if item[1][around].lower() in part]
        for part in (_TRAIN, () if test is None else (test,))
    )
    return _labelled(learn, around + 1, name), _labelled(report, around + 1, name)


def _labelled(images: list[tuple[str, list[str]]], depth: int, name: str) -> list[tuple[str, str]]:
    for path, folders in images:
        if len(folders) < depth + 2:
            raise DataError(
                f"The image {path!r} of {name!r} lies in no class's folder; put every image into "
                f"a folder that is named after its class."
            )
    return [(path, folders[depth]) for path, folders in images]


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.split("/"))
