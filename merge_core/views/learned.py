"""What the networks of a table have learned: curves over the target, the accuracy of each class."""

import math
from collections.abc import Sequence

import pandas as pd

from merge_core.repetitions import CURVE_POINTS, Summary, curve_places, summary
from merge_core.views.compare import Table
from merge_core.views.scored import TITLES, Scored

PEAKS = tuple((2 * i + 1) / 20 for i in range(10))
"""Where the target of `sine` has its five maxima and, between them, its five minima."""
MISSED = 0.5
"""A peak counts as missed where the curve stays below this share of it."""
_NEAR = 0.025  # how far beside its place a peak may be


def curves(table: Scored) -> dict[str, list[tuple[float, ...]]]:
    """Strategy → the curve that it has learned in each repetition, at `curve_places()`."""
    found = {key: [row.curve for row in table.of(key) if row.curve] for key in table.strategies}
    return {key: each for key, each in found.items() if each}


def missed_peaks(curve: Sequence[float]) -> int:
    """How many of the ten extrema of sin(10πx) a learned curve does not reach half of."""
    assert len(curve) == CURVE_POINTS
    places, missed = curve_places(), 0
    for number, peak in enumerate(PEAKS):
        sign = 1 if number % 2 == 0 else -1
        near = [sign * y for x, y in zip(places, curve, strict=True) if abs(x - peak) <= _NEAR]
        missed += max(near) < MISSED
    return missed


def missing_runs(found: Sequence[Sequence[float]]) -> int:
    """How many learned curves miss a peak."""
    return sum(missed_peaks(curve) > 0 for curve in found)


def class_frame(table: Table) -> pd.DataFrame:
    """The test accuracy of each class: a row for each strategy, repetition and class.

    Columns: strategy, title, seed, number (of the class), name, accuracy (NaN without examples).
    """
    names = table.class_names
    rows = [
        (key, TITLES[key], row.seed, number, names[number], math.nan if value is None else value)
        for key in table.strategies
        for row in table.of(key)
        for number, value in enumerate(row.classes)
    ]
    frame = pd.DataFrame(rows, columns=["strategy", "title", "seed", "number", "name", "accuracy"])
    return frame.astype({"accuracy": float})


def class_summaries(table: Table, chosen: Sequence[str]) -> dict[str, dict[str, Summary]]:
    """Name of each class → strategy → its test accuracies over the repetitions.

    Classes without test examples for one of the strategies are left out.
    """
    found: dict[str, dict[str, Summary]] = {}
    for number, name in enumerate(table.class_names):
        known = {
            key: [
                value
                for row in table.of(key)
                if row.classes and (value := row.classes[number]) is not None
            ]
            for key in chosen
        }
        if all(known.values()):
            found[name] = {key: summary(values) for key, values in known.items()}
    return found
