"""Images that do not fit into memory: decoded once into a file, from which batches are read."""

import hashlib
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from merge_core import places
from merge_core.data.reading import tell
from merge_core.data.trees import Tree
from merge_core.errors import DataError
from merge_core.store.databases import RunLock

IN_MEMORY = 8 * 2**30
"""Bytes; the chosen images of a tree that need more are read from a file."""
BLOCK = 256
"""Images that are decoded and written together."""
_LOOKS = 8
"""So many of the blocks that are there already are looked at for damage."""
_PATIENCE = 7 * 24 * 3600.0  # another run may be decoding the same images


def decoded(tree: Tree) -> Tensor:
    """All images of a tree as bytes in a file under `NETWELD_HOME/decoded`; written where needed.

    The file is that of these images at this size: another one is written where a name, a size or a
    date differs. What an interrupted run has written is gone on from. Its length and some of its
    blocks are checked whenever it is opened; where they are damaged, it is written anew.

    Returns:
        `(n, 3, side, side)` uint8, mapped into memory: only what is looked at is read.

    Raises:
        DataError: the disk has no room for it, or an image cannot be used.
    """
    directory = places.home() / "decoded"
    shape = (len(tree.paths), 3, tree.side, tree.side)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        mark = _mark(tree)
        with RunLock(directory, f"{mark}.lock", _PATIENCE):
            file = directory / f"{mark}.pixels"
            _complete(tree, file, directory / f"{mark}.sums")
    except OSError as error:
        raise DataError(
            f"The decoded images cannot be kept in {str(directory)!r} ({error}); make room there, "
            f"or set NETWELD_HOME to a directory on a larger disk."
        ) from error
    # Copy-on-write: torch wants arrays that could be written, the file stays as it is.
    return torch.from_numpy(np.memmap(file, np.uint8, mode="c", shape=shape))


def _mark(tree: Tree) -> str:
    """Tells these images at this size from all others."""
    told = hashlib.sha256(f"{tree.side} {len(tree.paths)}".encode())
    for path in tree.paths:
        told.update(f"\n{path} {tree.files.stamp(path)}".encode())
    return told.hexdigest()[:16]


def _complete(tree: Tree, file: Path, sums: Path) -> None:
    """Write the blocks that are not there yet."""
    image = 3 * tree.side**2
    count = math.ceil(len(tree.paths) / BLOCK)
    known = _known(file, sums, BLOCK * image, len(tree.paths) * image)
    if len(known) == count:
        return
    missing = len(tree.paths) * image - BLOCK * image * len(known)
    free = shutil.disk_usage(file.parent).free + max(
        0, (file.stat().st_size if file.exists() else 0) - BLOCK * image * len(known)
    )
    if missing > free:
        raise DataError(
            f"{len(tree.paths):,} decoded images of {tree.side}×{tree.side} need "
            f"{missing / 2**30:.1f} GiB more in {str(file.parent)!r}, but {free / 2**30:.1f} GiB "
            f"are free; make room, set NETWELD_HOME to a larger disk, or data.side smaller."
        )
    with file.open("ab") as pixels, sums.open("wb") as told:
        pixels.truncate(BLOCK * image * len(known))
        told.write(b"".join(b"%d\n" % each for each in known))
        for number in range(len(known), count):
            some = torch.arange(BLOCK * number, min(BLOCK * (number + 1), len(tree.paths)))
            content = tree.pixels(some).numpy().tobytes()
            pixels.write(content)
            pixels.flush()
            told.write(b"%d\n" % zlib.crc32(content))
            told.flush()
            tell(int(some[-1]) + 1, len(tree.paths))


def _known(file: Path, sums: Path, block: int, whole: int) -> list[int]:
    """The checksums of the blocks that are there, from the first on; none where one is damaged."""
    try:
        known = [int(line) for line in sums.read_bytes().splitlines()]
        size = file.stat().st_size
    except (OSError, ValueError):
        return []
    if size > whole or size < min(block * len(known), whole):
        return []
    looked = np.linspace(0, len(known) - 1, min(_LOOKS, len(known))).astype(int).tolist()
    with file.open("rb") as pixels:
        for number in looked:
            pixels.seek(number * block)
            if zlib.crc32(pixels.read(min(block, whole - number * block))) != known[number]:
                return []
    return known
