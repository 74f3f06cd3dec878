"""Images as arrays in one `.npz` file: train_images, train_labels, and test_… where there are.

Images are uint8 N×height×width×3, or N×height×width(×1) for grey ones; labels are whole numbers
from 0, one for each image.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image, ImageOps

from merge_core.data.pools import Arrays
from merge_core.errors import DataError


def arrays(path: Path, side: int) -> tuple[int, Arrays, Arrays | None]:
    """The number of classes, the images to learn from, and the test images if there are any.

    Images of another size than `side` are cropped to a square and resized; grey becomes colour.

    Raises:
        DataError: the file is damaged, too large for the memory, or lacks an array of the right
            type and shape.
    """
    name = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        free = psutil.virtual_memory().available
        if size > free:
            raise DataError(
                f"{name!r} holds {size / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of memory are "
                f"free; make a smaller file."
            )
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files if key.startswith(("train_", "test_"))}
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds on damaged files
        raise DataError(
            f"{name!r} is not a readable .npz file of plain arrays ({error}); write it again with "
            f"numpy.savez(path, train_images=…, train_labels=…)."
        ) from error
    learn = _part(found, "train", name, side)
    report = _part(found, "test", name, side) if "test_images" in found else None
    classes = int(learn.labels.max()) + 1
    if report is not None and int(report.labels.max()) >= classes:
        raise DataError(
            f"{name!r} has the class {int(report.labels.max())} only among its test images; "
            f"number the classes from 0, the same in both."
        )
    return classes, learn, report


def _part(found: dict[str, Any], part: str, name: str, side: int) -> Arrays:
    images, labels = (found.get(f"{part}_{kind}") for kind in ("images", "labels"))
    if images is None or labels is None:
        there = ", ".join(sorted(found)) or "none of them"
        raise DataError(
            f"{name!r} needs the arrays {part}_images and {part}_labels, but has {there}; "
            f"write it again with both."
        )
    if images.ndim == 3:
        images = images[..., None]
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] not in (1, 3)
        or 0 in images.shape[1:3]
    ):
        raise DataError(
            f"{part}_images of {name!r} is {images.dtype} of shape {images.shape}, but uint8 of "
            f"N×height×width×3 (colour) or N×height×width (grey), with height and width above 0, "
            f"was expected; write it again so."
        )
    labels = labels.reshape(-1) if labels.shape == (len(images), 1) else labels
    if (
        not np.issubdtype(labels.dtype, np.integer)
        or labels.shape != (len(images),)
        or not len(labels)
        or labels.min() < 0
    ):
        raise DataError(
            f"{part}_labels of {name!r} is {labels.dtype} of shape {labels.shape}, but a whole "
            f"number from 0 was expected for each of the {len(images)} images."
        )
    pixels = np.broadcast_to(images, (*images.shape[:3], 3))
    if images.shape[1:3] != (side, side):
        pixels = np.stack([_resized(image, side) for image in pixels])
    return Arrays(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        torch.from_numpy(labels.astype(np.int64)),
    )


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR))
