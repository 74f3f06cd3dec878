"""Patches of scikit-learn's two photographs."""

import math

import numpy as np
import torch
from torch import Tensor

from merge_core.data.augmentations import turned
from merge_core.data.splits import Dataset, Normalisation, Split

PATCH, GRID_ROWS, GRID_COLUMNS = 32, 2, 3
_BLOCKS = 5  # every region is cut into 5×5 blocks
_MARGIN = 4  # pixels between blocks, so that no two splits share or touch a pixel
_BLOCKS_OF_SPLIT = (15, 5, 5)  # of the 25 blocks of a region: train, held-out, test
_NORMALISATION = Normalisation.of([0.45] * 3, [0.27] * 3)


def photos(sizes: list[int], draws: torch.Generator) -> Dataset:
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
        images = torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous()
        return Split(turned(images, draws), labels, _NORMALISATION)

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
