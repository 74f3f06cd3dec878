"""Similarities as heat maps show them: in which order, in blocks, in part, with what marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from merge_core.views.selection import Channel
from merge_core.views.similarity import (
    LARGEST_MAP,
    MEASURES,
    PAIRS,
    Alignment,
    block_means,
    is_distance,
)

Order = Literal["original", "matched"]
CELLS = 64
"""Up to so many rows every cell can be hovered and clicked by itself; beyond, every row."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """What a heat map of similarities shows.

    Attributes:
        values: `(k, k)` float32, rows and columns in the order in which they are drawn.
        rows, columns: what they are called, e.g. "A 5" or "A 8–11".
        row_title, column_title: what they are.
        channels: the channel that a click on a row selects, as an address writes it.
        hover: what is told about each row where cells are too small to tell about.
        matched: the column of each row's match, −1 for one outside; None to outline nothing.
        signed: whether the values have a meaningful zero: then blue is below it, orange above.
        near_is_small: the values are distances: the colours are turned round.
        selected: the row that is marked; None for none.
        measure: the values' name.
    """

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    channels: Sequence[str]
    hover: Sequence[str]
    matched: np.ndarray | None
    signed: bool
    near_is_small: bool
    selected: int | None
    measure: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What somebody has chosen to look at in an alignment.

    Attributes:
        found: the alignment.
        space: a channel space of it.
        measure: a key of `MEASURES`.
        pair: a key of `PAIRS`; its first letter names the rows, its second the columns.
        order: of the columns; "matched" puts each row's match on the diagonal.
        matching: a key of `MATCHINGS`; it matters for "A against B" alone.
    """

    found: Alignment
    space: str
    measure: str
    pair: str
    order: Order
    matching: str

    @property
    def name(self) -> str:
        """Different for everything that looks different."""
        return "-".join((self.found.run, self.space, self.measure, self.pair, self.setting))

    @property
    def setting(self) -> str:
        """How the columns are matched and ordered."""
        return f"{self.matching}-{self.order}" if self.across else self.order

    @property
    def size(self) -> int:
        """Channels of the space."""
        return self.found.sizes[self.space]

    @property
    def across(self) -> bool:
        """Whether two different teachers are compared, so that there are matches."""
        return self.pair == "ab"

    @property
    def sides(self) -> tuple[str, str]:
        """The teachers of the rows and of the columns."""
        return self.pair[0].upper(), self.pair[1].upper()

    @cached_property
    def matrix(self) -> np.ndarray:
        """The similarities, rows and columns by number, `(n, n)` float32."""
        return self.found.matrix(self.space, self.measure, self.pair)

    @cached_property
    def matches(self) -> np.ndarray:
        """The channel that matches each row, `(n,)`; of a teacher with itself the same one."""
        if self.across:
            return self.found.order(self.space, self.matching)
        return np.arange(self.size)

    @cached_property
    def columns(self) -> np.ndarray:
        """The channels of the columns as they are drawn, `(n,)`."""
        return self.matches if self.order == "matched" else np.arange(self.size)

    @cached_property
    def places(self) -> np.ndarray:
        """The column at which each row's match is drawn, `(n,)`."""
        return np.argsort(self.columns)[self.matches]

    def row_of(self, channel: Channel | None) -> int | None:
        """The row of a channel, or of its match where it is a column; None where it is neither."""
        if channel is None or channel.space != self.space:
            return None
        if channel.teacher == self.sides[0]:
            return channel.index
        if channel.teacher == self.sides[1]:
            return int(np.flatnonzero(self.matches == channel.index)[0])
        return None


def whole(look: Look, channel: Channel | None) -> Map:
    """A whole space; means of square blocks where it is too large.

    Args:
        look: what to show.
        channel: the one that is marked.
    """
    first, second = look.sides
    values, side = block_means(look.matrix[:, look.columns])
    starts = range(0, look.size, side)
    rows = [_named(first, start, side, look.size) for start in starts]
    row = look.row_of(channel)
    matched = None
    if look.across and side == 1:
        matched = look.places
    elif look.across and look.order == "matched":
        matched = np.arange(len(values))
    hover = [f"<b>{name}</b>" for name in rows]
    if side == 1 and look.across:
        hover = [
            f"{text}<br>matched with {second} {match}<br>{MEASURES[look.measure]} {value:.3f}"
            for text, match, value in zip(
                hover, look.matches, look.matrix[starts, look.matches], strict=True
            )
        ]
    if side == 1:
        columns = [f"{second} {column}" for column in look.columns]
    else:
        what = second if look.order == "original" else "place"
        columns = [_named(what, start, side, look.size) for start in starts]
    return _map(
        look,
        values=values,
        rows=rows,
        columns=columns,
        channels=[f"{look.space}:{first}:{start}" for start in starts],
        hover=hover,
        matched=matched,
        selected=None if row is None else row // side,
    )


def part(look: Look, channel: Channel | None) -> Map:
    """So much of a large space that every cell can be told, around a channel and its match.

    Args:
        look: what to show.
        channel: the one in the middle; without one the first.
    """
    first, second = look.sides
    row = look.row_of(channel)
    rows = _window(look.size, row or 0)
    across = _window(look.size, int(look.places[row or 0]))
    inside = look.places[rows] - across.start
    inside = np.where((inside >= 0) & (inside < CELLS), inside, -1)
    return _map(
        look,
        values=look.matrix[rows][:, look.columns[across]],
        rows=[f"{first} {index}" for index in range(rows.start, rows.stop)],
        columns=[f"{second} {index}" for index in look.columns[across]],
        channels=[f"{look.space}:{first}:{index}" for index in range(rows.start, rows.stop)],
        hover=[],
        matched=inside if look.across else None,
        selected=None if row is None else row - rows.start,
    )


def _map(
    look: Look,
    *,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    channels: Sequence[str],
    hover: Sequence[str],
    matched: np.ndarray | None,
    selected: int | None,
) -> Map:
    first, second = look.sides
    order = f", in the order of {first}'s matches" if look.order == "matched" else ""
    return Map(
        values=values,
        rows=rows,
        columns=columns,
        row_title=f"channels of {first}",
        column_title=f"channels of {second}{order}",
        channels=channels,
        hover=hover,
        matched=matched,
        signed=not is_distance(look.measure),
        near_is_small=is_distance(look.measure),
        selected=selected,
        measure=MEASURES[look.measure],
    )


def map_words(look: Look) -> str:
    """What the colours and frames of the whole map mean."""
    side = block_side(look)
    words = ["Click a cell to select the channel of its row."]
    if is_distance(look.measure):
        words.append("Bright means near, so alike.")
    else:
        words.append("Orange means alike, white unrelated, blue opposite.")
    if side > 1:
        words.append(f"Each cell is the mean of {side}×{side} pairs of channels.")
    if look.across and look.order == "matched":
        words.append("Matched cells stand on the diagonal, framed.")
    elif look.across and look.size <= CELLS:
        words.append("Matched cells are framed.")
    elif look.across and side == 1:
        words.append("A black dot is a matched cell.")
    return " ".join(words)


def block_side(look: Look) -> int:
    """Channels along a side of a cell of the whole map."""
    return -(-look.size // LARGEST_MAP)


def look_words(look: Look) -> str:
    """What a map shows, for those who do not see it."""
    return (
        f"{MEASURES[look.measure]} of {look.size} channels of {look.space}, {PAIRS[look.pair]}, "
        f"columns in {look.order} order"
    )


def _window(size: int, centre: int) -> slice:
    """`CELLS` places around a centre, or all there are."""
    start = min(max(centre - CELLS // 2, 0), max(size - CELLS, 0))
    return slice(start, min(start + CELLS, size))


def _named(teacher: str, start: int, side: int, size: int) -> str:
    """A row or column: one channel, or a block of them."""
    last = min(start + side, size) - 1
    return f"{teacher} {start}" if side == 1 else f"{teacher} {start}–{last}"
