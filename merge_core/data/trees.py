"""Images in folders that are named after their classes: a directory, or a zip file of one.

Files of strangers: nothing is unpacked to disk, and no image is decoded before its size is known.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from merge_core.errors import DataError
from merge_core.folders import files_below, parts

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
LARGEST_FILE = 64 * 2**20  # bytes
LARGEST_IMAGE = 64 * 10**6  # pixels


class Files(Protocol):
    """Where images lie: names with forward slashes, and their contents."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def stamp(self, name: str) -> str:
        """Differs where the file has been changed."""
        ...


@dataclass(frozen=True)
class _Folder:
    root: Path

    def names(self) -> list[str]:
        return list(files_below(self.root))

    def read(self, name: str) -> bytes:
        with (self.root / name).open("rb") as file:
            return file.read(LARGEST_FILE + 1)

    def stamp(self, name: str) -> str:
        found = (self.root / name).stat()
        return f"{found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True)
class _Zip:
    archive: zipfile.ZipFile

    def names(self) -> list[str]:
        return self.archive.namelist()

    def read(self, name: str) -> bytes:
        with self.archive.open(name) as file:
            return file.read(LARGEST_FILE + 1)

    def stamp(self, name: str) -> str:
        found = self.archive.getinfo(name)
        return f"{found.file_size} {found.CRC}"


@contextmanager
def opened(path: Path) -> Iterator[Files]:
    """The files in a directory or in a zip file.

    Raises:
        DataError: it is not a readable zip file.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise DataError(
            f"{path.name!r} is not a readable zip file ({error}); copy it again."
        ) from error
    with archive:
        yield _Zip(archive)


@dataclass(frozen=True)
class Tree:
    """A pool of images in files: paths, their labels, and how to read them.

    Attributes:
        files: where the images lie.
        paths: one for each image.
        labels: `(n,)` int64.
        side: pixels along a side after cropping to a square and resizing.
    """

    files: Files
    paths: Sequence[str]
    labels: Tensor
    side: int

    def pixels(self, chosen: Tensor) -> Tensor:
        """`(len(chosen), 3, side, side)` uint8.

        Raises:
            DataError: names an image that is damaged or too large.
        """
        numbers: list[int] = chosen.tolist()
        found = np.empty((len(chosen), 3, self.side, self.side), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; an unreadable image is an error
            for row, number in enumerate(numbers):
                found[row] = self._decoded(self.paths[number])
        return torch.from_numpy(found)

    def _decoded(self, path: str) -> np.ndarray:
        """`(3, side, side)` uint8."""
        try:
            content = self.files.read(path)
            if len(content) > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE // 2**20} MiB")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > LARGEST_IMAGE:
                    raise ValueError(f"{image.width}×{image.height} pixels are too many")
                image.draft("RGB", (self.side, self.side))  # decodes large JPEGs smaller
                upright = ImageOps.exif_transpose(image).convert("RGB")
            square = ImageOps.fit(upright, (self.side, self.side), Image.Resampling.BILINEAR)
        except UnidentifiedImageError as error:
            raise DataError(
                f"The image {path!r} cannot be used (it is none of {', '.join(FORMATS)}); "
                f"remove it or replace it."
            ) from error
        except Exception as error:  # decoders break in many ways on damaged files
            raise DataError(
                f"The image {path!r} cannot be used ({error}); remove it or replace it."
            ) from error
        return np.asarray(square).transpose(2, 0, 1)


def trees(files: Files, name: str, side: int) -> tuple[list[str], Tree, Tree | None]:
    """Classes in order of their names, the images to learn from, and the test images if there.

    Folders `train` and `test` (or `val`) hold a folder for each class; without them the folders
    at the top are the classes. Folders around everything and files that are no images are passed
    over.

    Raises:
        DataError: there are no images, or not in folders of classes, or the test images have
            classes that the training images have not.
    """
    found = parts(files.names(), name)
    classes = sorted({label for _, label in found[0]})
    unknown = sorted({label for _, label in found[1]} - set(classes))
    if unknown:
        raise DataError(
            f"{name!r} has the class {unknown[0]!r} only among its test images; give every class "
            f"the same folder name for training and test."
        )
    number = {label: at for at, label in enumerate(classes)}
    learn, report = (
        Tree(
            files,
            [path for path, _ in part],
            torch.tensor([number[label] for _, label in part], dtype=torch.int64),
            side,
        )
        for part in found
    )
    return classes, learn, report if len(report.paths) else None
