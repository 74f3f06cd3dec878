"""Matchings of two teachers' channels: how far they agree, and what they do to the barrier."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from merge_core.store import RunReader
from merge_core.views.similarity import MATCHINGS, Alignment, is_distance

LINES = {"naive": "as they are", "matched": "matched", "repaired": "matched and repaired"}
"""The lines between two teachers on which the barrier is measured."""


def agreement(found: Alignment) -> pd.DataFrame:
    """How many channels both matchings pair alike: space, size, same, share; a row per space."""
    rows = []
    for space, size in found.sizes.items():
        one, other = (found.order(space, matching) for matching in MATCHINGS)
        same = int((one == other).sum())
        rows.append({"space": space, "size": size, "same": same, "share": same / size})
    return pd.DataFrame(rows)


def differences(found: Alignment, space: str, measure: str) -> pd.DataFrame:
    """The channels of A that the two matchings pair with different channels of B.

    Returns:
        A, then for each matching the channel of B and its similarity; the largest difference of
        similarity first.
    """
    matrix = found.matrix(space, measure)
    orders = {how: found.order(space, matching) for matching, how in MATCHINGS.items()}
    one, other = orders.values()
    rows = np.flatnonzero(one != other)
    gap = np.abs(matrix[rows, one[rows]] - matrix[rows, other[rows]])
    rows = rows[np.argsort(-gap, kind="stable")]
    columns: dict[str, Any] = {"A": rows}
    for how, order in orders.items():
        columns[f"B {how}"] = order[rows]
        columns[f"similarity {how}"] = matrix[rows, order[rows]]
    return pd.DataFrame(columns)


def chosen_pairs(
    pairs: pd.DataFrame, sort: str, measure: str, threshold: float | None
) -> pd.DataFrame:
    """The pairs to draw, in the order in which they are drawn.

    Args:
        pairs: `merge_core.views.similarity.partners`.
        sort: "similarity", the most alike first, or "index" of A.
        measure: of the similarity; of a distance the small ones are alike.
        threshold: pairs that are less alike are left out; None for none.
    """
    far = is_distance(measure)
    if threshold is not None:
        keep = pairs["similarity"] <= threshold if far else pairs["similarity"] >= threshold
        pairs = pairs.loc[keep]
    if sort == "similarity":
        return pairs.sort_values("similarity", ascending=far, kind="stable", ignore_index=True)
    return pairs.sort_values("A", ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """Loss and accuracy on the straight line from teacher A to teacher B.

    Attributes:
        curves: line (a key of `LINES`), split, share (of B), and a column per metric.
        heights: line, split, and a column per metric: how much worse the line gets than the
            straight line between its ends.
        examples: of each split that it was measured on.
    """

    curves: pd.DataFrame
    heights: pd.DataFrame
    examples: dict[str, int]

    @property
    def metrics(self) -> list[str]:
        """What was measured, accuracy first."""
        return sorted(set(self.heights.columns) - {"line", "split"})


def barrier(reader: RunReader) -> Barrier | None:
    """The barrier of a comparison; None before it is measured."""
    row = {row["stage"]: row for row in reader.stages()}.get("barrier")
    if row is None or row["finished"] is None:
        return None
    facts = row["facts"]
    curves = [
        pd.DataFrame({"line": line, "split": split, "share": facts["points"], **scores})
        for line, splits in facts["curves"].items()
        for split, scores in splits.items()
    ]
    heights = [
        {"line": line, "split": split, **scores}
        for line, splits in facts["barrier"].items()
        for split, scores in splits.items()
    ]
    return Barrier(
        curves=pd.concat(curves, ignore_index=True),
        heights=pd.DataFrame(heights),
        examples=facts["examples"],
    )
