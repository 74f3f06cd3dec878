"""A plausible λ lab without any training: for looking only."""

from pathlib import Path

import numpy as np

from merge_core.lab import Lab, LabFile, Row
from merge_core.presets import find_preset


def make(
    home: Path, *, name: str = "sine", shape: tuple[int, int] = (4, 4), seeds: int = 1
) -> LabFile:
    """A lab whose coarse half is finished; the best score is that of the paper's schedule."""
    file = LabFile(Lab.usual(find_preset(name, "quick").recipe, "growth", shape), home)
    file.begin()
    lab, sign = file.lab, 1 if name == "sine" else -1
    assert lab.paper is not None
    for seed in range(seeds):
        for cell in lab.levels()[0] + [lab.paper]:
            far = abs(cell[0] - lab.paper[0]) + abs(cell[1] - lab.paper[1])
            score = 0.5 + sign * 0.1 * far / 10
            mean = tuple(np.linspace(0.9, 0.5, lab.recipe.gating.epochs).round(4).tolist())
            file.append(
                [
                    Row(
                        cell=cell, seed=seed, cut_heldout=score + sign * 0.1, cut_test=score,
                        tuned_heldout=score, tuned_test=score + sign * 0.01, undecided=0.2,
                        means={"hidden": mean},
                    )
                ]
            )  # fmt: skip
    return file
