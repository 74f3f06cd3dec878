"""The alignment of two teachers, as a comparison has stored it: similarities and matchings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merge_core.errors import StoreError
from merge_core.store import RunReader

MEASURES = {
    "correlation": "correlation of activations",
    "incoming_cosine": "cosine of incoming weights",
    "incoming_l2": "L2 distance of incoming weights",
    "outgoing_cosine": "cosine of outgoing weights",
    "outgoing_l2": "L2 distance of outgoing weights",
}
MATCHINGS = {"match_activations": "by activations", "match_weights": "by weights"}
PAIRS = {"ab": "A against B", "aa": "A against A", "bb": "B against B"}
_SUFFIX = {"ab": "", "aa": "_aa", "bb": "_bb"}
LARGEST_MAP = 512
"""Rows and columns that a heat map shows one by one; beyond, means of blocks are shown."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Every similarity between the channels of two teachers, and how they are matched.

    Attributes:
        run: the comparison.
        teachers: what A and B are called.
        sizes: the channel spaces in the order of the network, and how many channels each has.
        objective: of matching by weights, after every pass.
        examples: how many the statistics were measured on.
        first: the space of the first layer where its weights are pictures, else None.
        arrays: as `merge_core.comparisons` stores them.
    """

    run: str
    teachers: tuple[str, str]
    sizes: dict[str, int]
    objective: list[float]
    examples: int
    first: str | None
    arrays: Mapping[str, np.ndarray]

    def matrix(self, space: str, measure: str, pair: str = "ab") -> np.ndarray:
        """The similarity of each channel (row) with each channel (column), `(n, n)` float32.

        Args:
            space: a channel space.
            measure: a key of `MEASURES`.
            pair: a key of `PAIRS`; see `pairs`.
        """
        return self.arrays[f"{space}|{measure}{_SUFFIX[pair]}"].astype(np.float32)

    def pairs(self, space: str, measure: str) -> list[str]:
        """Which teachers can be compared by a measure."""
        return [pair for pair in PAIRS if f"{space}|{measure}{_SUFFIX[pair]}" in self.arrays]

    def order(self, space: str, matching: str) -> np.ndarray:
        """The channel of B that a matching gives each channel of A, `(n,)` int64."""
        return self.arrays[f"{space}|{matching}"]

    def dead(self, space: str) -> dict[str, np.ndarray]:
        """The channels of each teacher that never change, by teacher."""
        return {
            teacher: np.flatnonzero(self.arrays[f"{space}|dead_{teacher.lower()}"])
            for teacher in "AB"
        }

    def without_weights(self, space: str) -> dict[str, np.ndarray]:
        """The channels of each teacher whose incoming or outgoing weights are all zero.

        None are known in alignments of versions that did not look for them.
        """
        found = {}
        for teacher in "AB":
            keys = [f"{space}|{side}_zero_{teacher.lower()}" for side in ("incoming", "outgoing")]
            zero = [self.arrays[key] for key in keys if key in self.arrays]
            found[teacher] = np.flatnonzero(np.any(zero, axis=0)) if zero else np.array([], int)
        return found

    def cka(self, pair: str) -> np.ndarray:
        """Linear CKA of every space (row) with every space (column), float32."""
        return self.arrays["cka" if pair == "ab" else "cka_aa"]

    def filters(self) -> tuple[np.ndarray, np.ndarray]:
        """The first layers of A and of B as pictures, `(n, channels, height, width)` float32."""
        return self.arrays["first|a"], self.arrays["first|b"]


def alignment(reader: RunReader) -> Alignment | None:
    """Read the alignment of a comparison; None before it is measured.

    Raises:
        StoreError: its file is missing or damaged, or was written by another version.
    """
    row = {row["stage"]: row for row in reader.stages()}.get("alignment")
    if row is None or row["finished"] is None:
        return None
    facts, arrays = row["facts"], reader.artifact("alignment")
    try:
        sizes = {space["name"]: space["size"] for space in facts["spaces"]}
        found = Alignment(
            run=reader.name,
            teachers=(reader.comparison.teachers[0], reader.comparison.teachers[1]),
            sizes=sizes,
            objective=facts["objective"],
            examples=facts["examples"],
            first=facts.get("first_layer", {}).get("space"),
            arrays=arrays,
        )
    except KeyError as error:
        raise StoreError(
            f"The alignment of {reader.name} lacks {error}; it was written by another version of "
            f"netweld: compare once more."
        ) from error
    wanted = {f"{space}|{name}" for space in sizes for name in (*MATCHINGS, "correlation")}
    if not wanted | {"cka", "cka_aa"} <= arrays.keys():
        raise StoreError(
            f"The alignment of {reader.name} lacks arrays; it was written by another version of "
            f"netweld: compare once more."
        )
    return found


def is_distance(measure: str) -> bool:
    """Whether a small number means alike."""
    return measure.endswith("l2")


def block_means(matrix: np.ndarray, most: int = LARGEST_MAP) -> tuple[np.ndarray, int]:
    """A matrix of at most `most` rows and columns: means of square blocks, and their side.

    Blocks at the end may be smaller than the others.
    """
    side = -(-len(matrix) // most)
    if side == 1:
        return matrix, 1
    starts = np.arange(0, len(matrix), side)
    sums = np.add.reduceat(np.add.reduceat(matrix.astype(np.float64), starts, 0), starts, 1)
    counts = np.diff(np.append(starts, len(matrix)))
    return (sums / np.outer(counts, counts)).astype(np.float32), side


def partners(
    matrix: np.ndarray, order: np.ndarray, measure: str, dead: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """One row per channel of A: whom it is matched with, and who is most like it.

    Args:
        matrix: similarity of A's channels (rows) with B's, `(n, n)`.
        order: the channel of B for each channel of A.
        measure: a key of `MEASURES`; for a distance the smallest is the most alike.
        dead: the channels of each teacher that never change.

    Returns:
        A, B, similarity, most_like (channel of B), most (its similarity), rank (how many channels
        of B are more alike than the match), dead (in words, empty for most).
    """
    rows = np.arange(len(matrix))
    near = -matrix if is_distance(measure) else matrix
    own = near[rows, order]
    best = near.argmax(1)
    words = np.select(
        [
            np.isin(rows, dead["A"]) & np.isin(order, dead["B"]),
            np.isin(rows, dead["A"]),
            np.isin(order, dead["B"]),
        ],
        ["both dead", "A dead", "B dead"],
        "",
    )
    return pd.DataFrame(
        {
            "A": rows,
            "B": order,
            "similarity": matrix[rows, order],
            "most_like": best,
            "most": matrix[rows, best],
            "rank": (near > own[:, None]).sum(1),
            "dead": words,
        }
    )


def spread(matrix: np.ndarray, order: np.ndarray, bins: int = 40) -> pd.DataFrame:
    """How similar matched cells are against all others.

    Args:
        matrix: `(n, n)`.
        order: the matched column of each row.
        bins: of the histogram.

    Returns:
        One row per bin: low, high, matched and unmatched, each the share of its kind that falls
        into the bin. An only channel has no unmatched cells: their shares are 0 then.
    """
    matched = np.zeros(matrix.shape, bool)
    matched[np.arange(len(matrix)), order] = True
    edges = np.histogram_bin_edges(matrix, bins)
    shares = {}
    for name, values in (("matched", matrix[matched]), ("unmatched", matrix[~matched])):
        shares[name] = np.histogram(values, edges)[0] / max(len(values), 1)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **shares})


def matrix_table(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A heat map as a table: one row and one column per channel."""
    table = pd.DataFrame(matrix, columns=list(columns))
    table.insert(0, "channel", list(rows))
    return table
