"""Pools of images as bytes, of which the chosen ones become three splits."""

from dataclasses import dataclass
from typing import Protocol

import psutil
import torch
from torch import Tensor

from merge_core.data.decoded import BLOCK, IN_MEMORY, decoded
from merge_core.data.reading import tell
from merge_core.data.splits import Dataset, Normalisation, Split, drawn
from merge_core.data.trees import Tree
from merge_core.errors import DataError
from merge_core.recipes import Data

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each colour, of pixels from 0 to 1."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Pool(Protocol):
    """Labelled images that are decoded only where they are chosen."""

    @property
    def labels(self) -> Tensor:
        """`(n,)` int64."""
        ...

    def pixels(self, chosen: Tensor) -> Tensor:
        """`(len(chosen), channels, side, side)` uint8, for numbers of images `(len,)` int64."""
        ...


@dataclass(frozen=True)
class Arrays:
    """A pool in memory: `images (n, channels, side, side)` uint8, `labels (n,)` int64."""

    images: Tensor
    labels: Tensor

    def pixels(self, chosen: Tensor) -> Tensor:
        return self.images[chosen]


def divided(
    learn: Pool, report: Pool | None, data: Data, statistics: Statistics, draws: torch.Generator
) -> Dataset:
    """Train and held-out examples from one pool, test examples from another.

    Sizes that are not given: the whole second pool for the test, a tenth of the first for the
    held-out split, and what is left for training. Without a second pool, a fifth of the first each
    for held-out and test. Images in files that need more than `decoded.IN_MEMORY` are read from a
    file of decoded ones; the numbers are the same.

    Raises:
        DataError: a pool has fewer examples than asked for, or they do not fit into memory.
    """
    count = len(learn.labels)
    own_test = len(report.labels) if report is not None else 0
    heldout = data.heldout or max(count // (10 if own_test else 5), 1)
    test = data.test or own_test or max(count // 5, 1)
    train = data.train or max(count - heldout - (0 if own_test else test), 1)
    from_files = isinstance(learn, Tree) and _bytes(data, train + heldout + test) > IN_MEMORY
    if not from_files:
        _fits(data, train + heldout + test)
    if report is None:
        parts = drawn(count, (train, heldout, test), draws, data.name)
        pools = (learn, learn, learn)
    else:
        parts = drawn(count, (train, heldout), draws, data.name)
        parts += drawn(own_test, (test,), draws, data.name)
        pools = (learn, learn, report)
    normalisation = Normalisation.of(*statistics)
    trees = {id(pool): pool for pool in pools if from_files and isinstance(pool, Tree)}
    kept = {key: decoded(tree) for key, tree in trees.items()}
    read, splits = 0, []
    for pool, part in zip(pools, parts, strict=True):
        labels = pool.labels[part]
        if id(pool) in kept:
            splits.append(Split(kept[id(pool)], labels, normalisation, part))
            continue
        shape = data.shape
        pixels = torch.empty(len(part), shape.channels, shape.side, shape.side, dtype=torch.uint8)
        for some, room in zip(part.split(BLOCK), pixels.split(BLOCK), strict=True):
            room.copy_(pool.pixels(some))
            read += len(some)
            tell(read, train + heldout + test)
        splits.append(Split(pixels, labels, normalisation))
    return Dataset(*splits)


def _bytes(data: Data, examples: int) -> int:
    return examples * data.shape.channels * data.shape.side**2


def _fits(data: Data, examples: int) -> None:
    shape, needed = data.shape, _bytes(data, examples)
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{examples:,} images of {shape.side}×{shape.side} need {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB of memory are free; set data.train or data.side smaller."
        )
