"""What the networks of a table have learned: curves over the target, the accuracy of each class."""

import math
from collections.abc import Sequence

import pandas as pd

from merge_core.learned import CURVE_POINTS, curve_places
from merge_core.repetitions import Summary, summary
from merge_core.views.scored import Scored, with_basis

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


def class_split(scored: Scored, split: str) -> str:
    """The split on which accuracies of classes are known: tables of early versions kept only test.

    Args:
        scored: what is compared.
        split: which one is asked for, "test" or "heldout".
    """
    return split if any(row.accuracies(split) for row in scored.rows) else "test"


def class_frame(scored: Scored, split: str) -> pd.DataFrame:
    """The accuracy of each class: a row for each kind of network, repetition and class.

    Columns: strategy, title, seed, number (of the class), name, accuracy (NaN without examples),
    split, and those of `Basis`.
    """
    rows = [
        (key, scored.titles[key], row.seed, number, name, math.nan if value is None else value)
        for key in scored.strategies
        for row in scored.of(key)
        for number, (name, value) in enumerate(
            zip(scored.class_names(key), row.accuracies(split), strict=False)
        )
    ]
    frame = pd.DataFrame(rows, columns=["strategy", "title", "seed", "number", "name", "accuracy"])
    frame = frame.astype({"accuracy": float}).assign(split=split)
    return with_basis(frame, scored, [row[0] for row in rows])


def class_summaries(
    scored: Scored, chosen: Sequence[str], split: str
) -> dict[str, dict[str, Summary]]:
    """Name of each class → kind of network → its accuracies over the repetitions.

    Classes without examples for one of the kinds are left out; kinds that tell other classes apart
    have none in common.
    """
    named = {scored.class_names(key) for key in chosen}
    found: dict[str, dict[str, Summary]] = {}
    for number, name in enumerate(named.pop() if len(named) == 1 else ()):
        known = {
            key: [
                value
                for row in scored.of(key)
                if (each := row.accuracies(split)) and (value := each[number]) is not None
            ]
            for key in chosen
        }
        if all(known.values()):
            found[name] = {key: summary(values) for key, values in known.items()}
    return found


def unrecorded(scored: Scored) -> str:
    """A sentence on repetitions that did not keep what they answer; empty where all did."""
    without = dict.fromkeys(
        scored.repetition(row) for row in scored.rows if not (row.curve or row.classes)
    )
    if not without:
        return ""
    names = list(without)
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    what = "learned curves" if scored.metric == "loss" else "accuracies of single classes"
    return f"Without {what}, which an earlier version of netweld did not keep: {told}."
