"""Similarity: how alike the channels of two teachers are, and their layers."""

import numpy as np
import streamlit as st

from merge_core.plots.similarity import CELLS, Map, cka_map, similarity_map, spread_bars
from merge_core.views.selection import Channel
from merge_core.views.similarity import (
    MATCHINGS,
    MEASURES,
    PAIRS,
    Alignment,
    block_means,
    is_distance,
    matrix_table,
    partners,
    spread,
    window,
)
from pages import aligned, selection, shared

ORDER = {"original": "original order", "matched": "matched order"}
MOST_NAMED = 12  # dead channels


def choices(found: Alignment, channel: Channel | None) -> tuple[str, str, str, str, str]:
    """Let a person choose space, measure, teachers, order and matching."""
    spaces = list(found.sizes)
    here = spaces.index(channel.space) if channel is not None else 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        space = st.selectbox(
            "Channel space",
            spaces,
            index=here,
            format_func=lambda name: f"{name} ({found.sizes[name]} channels)",
            key=f"space-{found.run}",
            width=260,
        )
        measure = st.selectbox(
            "Measure", MEASURES, format_func=MEASURES.__getitem__, key="measure", width=290
        )
        pair = st.segmented_control(
            "Teachers",
            found.pairs(space, measure),
            format_func=PAIRS.__getitem__,
            default="ab",
            required=True,
            key=f"pair-{measure == 'correlation'}",
        )
        order, matching = "original", "match_activations"
        if pair == "ab":
            matching = st.segmented_control(
                "Matching",
                MATCHINGS,
                format_func=MATCHINGS.__getitem__,
                default="match_activations",
                required=True,
                key="matching",
            )
            order = st.segmented_control(
                "Columns",
                ORDER,
                format_func=ORDER.__getitem__,
                default="original",
                required=True,
                key="order",
                help="In matched order the match of each row stands on the diagonal.",
            )
    return space, measure, pair, order, matching


def content(found: Alignment) -> None:
    """The page for the picked comparison."""
    channel = selection.selected(found.sizes)
    space, measure, pair, order, matching = choices(found, channel)
    size = found.sizes[space]
    selection.box(space, size, channel)
    mine = channel if channel is not None and channel.space == space else None
    matrix = found.matrix(space, measure, pair)
    matches = found.order(space, matching) if pair == "ab" else np.arange(size)
    columns = matches if order == "matched" else np.arange(size)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        heat_map(found, space, measure, pair, order, matches, columns, mine)
    with right:
        histogram(found, space, measure, pair, matrix, matches)
        if mine is not None and pair == "ab":
            selected_channel(found, mine, measure)
        dead_channels(found, space)
    if pair == "ab":
        match_table(found, space, measure, matching)
    layers(found, "ab" if pair == "ab" else "aa")


def heat_map(
    found: Alignment,
    space: str,
    measure: str,
    pair: str,
    order: str,
    matches: np.ndarray,
    columns: np.ndarray,
    mine: Channel | None,
) -> None:
    """The whole space, block by block where it is large, and a part of it cell by cell."""
    matrix = found.matrix(space, measure, pair)[:, columns]
    size = len(matrix)
    row = row_of(mine, pair, matches)
    values, side = block_means(matrix)
    first, second = (letter.upper() for letter in pair)
    of_b = "" if order == "original" else f", in the order of {first}'s matches"
    places = np.argsort(columns)[matches]  # where each row's match is drawn
    variant = f"{found.run}-{space}-{measure}-{pair}-{order}-{matches[:8]}"
    common = {
        "row_title": f"channels of {first}",
        "signed": not is_distance(measure),
        "near_is_small": is_distance(measure),
        "measure": MEASURES[measure],
    }
    starts = np.arange(0, size, side)
    before = selection.drawn("map", variant, mine)
    marked = row_of(before, pair, matches)
    matched = places if side == 1 else np.arange(len(values)) if order == "matched" else None
    shown = Map(
        values=values,
        rows=[named(first, start, side, size) for start in starts],
        columns=(
            [f"{second} {column}" for column in columns]
            if side == 1
            else [named(second if order == "original" else "place", s, side, size) for s in starts]
        ),
        column_title=f"channels of {second}{of_b}",
        channels=[f"{space}:{first}:{start}" for start in starts],
        hover=[
            f"<b>{named(first, start, side, size)}</b>"
            + (f"<br>matched with {second} {matches[start]}" if side == 1 else "")
            for start in starts
        ],
        matched=matched if pair == "ab" else None,
        selected=None if marked is None else marked // side,
        **common,
    )
    selection.plotly(
        similarity_map(shown),
        key="map",
        variant=variant,
        before=before,
        alt=f"Heat map: {MEASURES[measure]} of {size} channels of {space}, {PAIRS[pair]}, "
        f"columns in {ORDER[order]}",
    )
    st.caption(" ".join(map_words(measure, pair, order, size, side)))
    shared.table(
        matrix_table(values, list(shown.rows), list(shown.columns)),
        key=f"map-table-{space}-{pair}",
        title="The heat map as a table" + (f" (means of {side}×{side} cells)" if side > 1 else ""),
        alt="Similarity of every row with every column of the heat map",
        file=f"{found.run}-{space}-{measure}-{pair}.csv",
    )
    if size > CELLS:
        tile(found, space, pair, matrix, columns, places, row, mine, common)


def tile(
    found: Alignment,
    space: str,
    pair: str,
    matrix: np.ndarray,
    columns: np.ndarray,
    places: np.ndarray,
    row: int | None,
    mine: Channel | None,
    common: dict,
) -> None:
    """A part of a large map, cell by cell, around the selected channel and its match."""
    size = len(matrix)
    first, second = (letter.upper() for letter in pair)
    st.markdown(
        f"**{CELLS}×{CELLS} of its cells**, around "
        + ("the first channel; select another one." if row is None else f"{first} {row}.")
    )
    centre = row or 0
    rows, across = window(size, centre, CELLS), window(size, int(places[centre]), CELLS)
    inside = places[rows] - across.start
    matched = np.where((inside >= 0) & (inside < CELLS), inside, -9)
    variant = f"{found.run}-{space}-{common['measure']}-{pair}-{rows.start}-{across.start}"
    before = selection.drawn("tile", variant, mine)
    marked = None if before is None or row is None else row - rows.start
    shown = Map(
        values=matrix[rows, across],
        rows=[f"{first} {channel}" for channel in range(rows.start, rows.stop)],
        columns=[f"{second} {channel}" for channel in columns[across]],
        column_title=f"channels of {second}",
        channels=[f"{space}:{first}:{channel}" for channel in range(rows.start, rows.stop)],
        hover=[],
        matched=matched if pair == "ab" else None,
        selected=marked,
        **common,
    )
    selection.plotly(
        similarity_map(shown),
        key="tile",
        variant=variant,
        before=before,
        alt=f"{CELLS} by {CELLS} cells of the heat map above, from row {rows.start}",
    )


def row_of(channel: Channel | None, pair: str, matches: np.ndarray) -> int | None:
    """The row of a channel, or of its match where it is a column."""
    if channel is None:
        return None
    if pair == "ab" and channel.teacher == "B":
        return int(np.flatnonzero(matches == channel.index)[0])
    return channel.index if channel.teacher == pair[0].upper() else None


def named(teacher: str, start: int, side: int, size: int) -> str:
    """A row or column: one channel, or a block of them."""
    last = min(start + side, size) - 1
    return f"{teacher} {start}" if side == 1 else f"{teacher} {start}–{last}"


def map_words(measure: str, pair: str, order: str, size: int, side: int) -> list[str]:
    """What the colours and frames of the heat map mean."""
    words = ["Click a cell to select the channel of its row."]
    if is_distance(measure):
        words.append("Bright means near, so alike.")
    else:
        words.append("Orange means alike, white unrelated, blue opposite.")
    if side > 1:
        words.append(f"Each cell is the mean of {side}×{side} pairs of channels.")
    if pair == "ab" and order == "matched":
        words.append("Matched cells stand on the diagonal, framed.")
    elif pair == "ab" and size <= CELLS:
        words.append("Matched cells are framed.")
    elif pair == "ab" and side == 1:
        words.append("A black dot is a matched cell.")
    return words


def histogram(
    found: Alignment,
    space: str,
    measure: str,
    pair: str,
    matrix: np.ndarray,
    matches: np.ndarray,
) -> None:
    """Matched against unmatched similarity."""
    size = len(matrix)
    own = matrix[np.arange(size), matches]
    others = matrix.copy()
    others[np.arange(size), matches] = np.nan
    kind = "matched" if pair == "ab" else "self"
    frame = spread(matrix, matches)
    middle = float(np.median(own)), float(np.nanmedian(others)) if size > 1 else float("nan")
    shared.plotly(
        spread_bars(frame, MEASURES[measure], kind),
        key=f"spread-{space}",
        alt=f"Histogram of {MEASURES[measure]}: median {middle[0]:.2f} of {kind} pairs, "
        f"{middle[1]:.2f} of all others",
    )
    st.caption(
        f"Half of the {size} {kind} pairs are at {middle[0]:.2f} or above; half of all others at "
        f"{middle[1]:.2f} or above."
        + ("" if pair == "ab" else " Here every channel is also compared with itself.")
    )
    shared.table(
        frame,
        key=f"spread-table-{space}",
        title="The histogram as a table",
        alt="Share of matched and of unmatched pairs in every bin of similarity",
        file=f"{found.run}-{space}-{measure}-histogram.csv",
    )


def selected_channel(found: Alignment, mine: Channel, measure: str) -> None:
    """The selected channel: its matches, and the channels most like it."""
    matrix = found.matrix(mine.space, measure)
    other = "B" if mine.teacher == "A" else "A"
    line = matrix[mine.index] if mine.teacher == "A" else matrix[:, mine.index]
    words = []
    for matching, how in MATCHINGS.items():
        order = found.order(mine.space, matching)
        partner = order[mine.index] if mine.teacher == "A" else np.argsort(order)[mine.index]
        words.append(f"{other} {partner} {how} ({line[partner]:.2f})")
    near = np.argsort(line if is_distance(measure) else -line, kind="stable")[:3]
    alike = ", ".join(f"{other} {index} ({line[index]:.2f})" for index in near)
    st.markdown(
        f"**{mine.label} of {mine.space}** is matched with {' and '.join(words)}. "
        f"Most like it: {alike}. In brackets: {MEASURES[measure]}."
    )


def dead_channels(found: Alignment, space: str) -> None:
    """Which channels never change, in a sentence."""
    parts = []
    for teacher, dead in found.dead(space).items():
        named = ", ".join(map(str, dead[:MOST_NAMED])) + (" …" if len(dead) > MOST_NAMED else "")
        parts.append(f"{len(dead)} of teacher {teacher}" + (f" ({named})" if len(dead) else ""))
    some = any(len(dead) for dead in found.dead(space).values())
    tail = " Their correlation counts as 0." if some else ""
    st.caption(
        f"Dead channels of {space}, whose activation is the same for all {found.examples:,} "
        f"examples: {', '.join(parts)}.{tail}"
    )


def match_table(found: Alignment, space: str, measure: str, matching: str) -> None:
    """Every channel with its match and the channel most like it."""
    table = partners(
        found.matrix(space, measure), found.order(space, matching), measure, found.dead(space)
    )
    shared.table(
        table.rename(
            columns={
                "similarity": MEASURES[measure],
                "most_like": "most like A (channel of B)",
                "most": "its similarity",
                "rank": "channels of B more alike",
                "dead": "dead",
            }
        ),
        key=f"partners-{space}",
        title="Every channel of A with its match",
        alt="Match of every channel of A, and the channel of B that is most like it",
        file=f"{found.run}-{space}-{measure}-matches.csv",
    )


def layers(found: Alignment, pair: str) -> None:
    """CKA of all layers."""
    st.subheader("Layer by layer (linear CKA)")
    names, values = list(found.sizes), found.cka(pair)
    rows, columns = pair[0].upper(), pair[1].upper()
    shared.plotly(
        cka_map(values, names, rows, columns),
        key=f"cka-{pair}",
        alt=f"Heat map of linear CKA between {len(names)} layers, {PAIRS[pair]}; the mean of the "
        f"diagonal is {np.diag(values).mean():.2f}",
    )
    st.caption(
        "1 means that two layers see the same examples as alike, whatever the order or the "
        "rotation of their channels; 0 means that they have nothing in common."
    )
    shared.table(
        matrix_table(values, names, names),
        key=f"cka-table-{pair}",
        title="CKA as a table",
        alt="Linear CKA of every layer with every layer",
        file=f"{found.run}-cka-{pair}.csv",
    )


shared.require_app()
st.header("Similarity")
aligned.show(content)
