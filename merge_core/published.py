"""What Pašen and Boža published of the tasks that have recipes (no torch)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from merge_core.repetitions import Summary


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper tells of a task.

    Attributes:
        rows: strategy → its figures; NaN where the paper gives a mean only.
        source: which table of the paper.
        of: how many repetitions and epochs they are of, in words.
        milestones: those of the one model in the preset "paper", where they are not in proportion
            to the teachers'.
    """

    rows: Mapping[str, Summary]
    source: str
    of: str
    milestones: tuple[int, ...] = ()


_Figures = tuple[float, float, float, float, float]


def _table_1(
    n: int,
    epochs: str,
    student: _Figures,
    bo3: _Figures,
    one_model: _Figures,
    milestones: tuple[int, ...] = (),
) -> Published:
    """Three rows of Table 1: min, max, median, mean and std of each."""
    rows = {"student": student, "bo3": bo3, "one_model": one_model}
    names = ("min", "max", "median", "mean", "std")
    return Published(
        rows={
            key: Summary(n=n, **dict(zip(names, each, strict=True))) for key, each in rows.items()
        },
        source="Table 1",
        of=f"n = {n}, {epochs} epochs in all for every strategy",
        milestones=milestones,
    )


def _mean_only(mean: float) -> Summary:
    unknown = math.nan
    return Summary(n=1, min=unknown, max=unknown, median=unknown, mean=mean, std=unknown)


PUBLISHED: dict[str, Published] = {
    "sine": _table_1(
        50,
        "900",
        student=(0.049, 0.116, 0.078, 0.077, 0.015),
        bo3=(0.105, 0.373, 0.253, 0.240, 0.076),
        one_model=(0.053, 0.363, 0.281, 0.249, 0.097),
        milestones=(800,),
    ),
    "imagewoof-lenet": _table_1(
        10,
        "6,000",
        student=(0.380, 0.411, 0.399, 0.399, 0.008),
        bo3=(0.369, 0.394, 0.387, 0.385, 0.007),
        one_model=(0.365, 0.397, 0.377, 0.378, 0.010),
    ),
    "imagewoof-resnet18": _table_1(
        5,
        "600",
        student=(0.824, 0.828, 0.825, 0.826, 0.002),
        bo3=(0.801, 0.809, 0.807, 0.806, 0.003),
        one_model=(0.810, 0.818, 0.813, 0.813, 0.003),
    ),
    "cifar100-resnet20": _table_1(
        5,
        "900 (its code: 600)",
        student=(0.688, 0.691, 0.688, 0.689, 0.002),
        bo3=(0.670, 0.672, 0.670, 0.670, 0.001),
        one_model=(0.670, 0.679, 0.675, 0.675, 0.004),
    ),
    "imagenet-resnet18": Published(
        rows={"student": _mean_only(0.7047), "one_model": _mean_only(0.7028)},
        source="Table 2",
        of="one figure for each strategy, 150 epochs in all",
        milestones=(50, 100),
    ),
}
"""Name of a recipe → what the paper published of its task.

Accuracies are shares of 1. Of CIFAR-10 with VGG11 it tells nothing; only its code has it.
"""
