"""First-layer filters of two teachers paired by likeness (loads SciPy, so apart from `filters`)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from merge_core.views.filters import FirstLayer


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The teachers' first-layer filters paired by likeness, and what the cut did to the pairs.

    Attributes:
        both, one, neither: pairs of which so many survived.
        table: A, B, similarity (cosine), survivors ("both", "only A", "only B", "neither").
    """

    both: int
    one: int
    neither: int
    table: pd.DataFrame


def pair_filters(layer: FirstLayer) -> Pairs:
    """Pair each first-layer filter of A with one of B: largest total cosine (Hungarian).

    Only the first layer's filters can be compared as they are, as both teachers read the same
    inputs; deeper channels need activations.
    """
    flat = [
        np.concatenate([weight.reshape(len(weight), -1), bias[:, None]], 1)
        for weight, bias in zip(layer.weights[:2], layer.biases[:2], strict=True)
    ]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in flat]
    cosine = unit[0] @ unit[1].T
    a, b = linear_sum_assignment(-cosine)
    kept_a, kept_b = np.isin(a, layer.kept), np.isin(b + layer.size, layer.kept)
    words = np.select([kept_a & kept_b, kept_a, kept_b], ["both", "only A", "only B"], "neither")
    table = pd.DataFrame({"A": a, "B": b, "similarity": cosine[a, b], "survivors": words})
    return Pairs(
        both=int((kept_a & kept_b).sum()),
        one=int((kept_a ^ kept_b).sum()),
        neither=int((~kept_a & ~kept_b).sum()),
        table=table.sort_values("similarity", ascending=False, ignore_index=True),
    )
