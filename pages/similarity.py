"""Similarity: how alike the channels of two teachers are, and their layers."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import streamlit as st

from merge_core.plots.similarity import cka_map, similarity_map, spread_bars
from merge_core.views.maps import (
    CELLS,
    Look,
    Order,
    block_side,
    look_words,
    map_words,
    part,
    whole,
)
from merge_core.views.selection import Channel
from merge_core.views.similarity import (
    MATCHINGS,
    MEASURES,
    PAIRS,
    Alignment,
    is_distance,
    matrix_table,
    partners,
    spread,
)
from pages import aligned, navigation, selection, showing

ORDER: dict[Order, str] = {"original": "original order", "matched": "matched order"}
MOST_NAMED = 12  # dead channels


def choices(found: Alignment, channel: Channel | None) -> Look:
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
        order: Order = "original"
        matching = "match_activations"
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
    return Look(
        found=found, space=space, measure=measure, pair=pair, order=order, matching=matching
    )


def content(found: Alignment) -> None:
    """The page for the picked comparison."""
    channel = selection.selected(found.sizes)
    look = choices(found, channel)
    selection.box(look.space, look.size, channel)
    mine = channel if channel is not None and channel.space == look.space else None
    left, right = st.columns([3, 2], gap="medium")
    with left:
        heat_map(look, mine)
    with right:
        histogram(look)
        if mine is not None and look.across:
            selected_channel(found, mine, look.measure)
        dead_channels(found, look.space)
    if look.size > CELLS:
        around(look, mine)
    if look.across:
        match_table(look)
    layers(found, "ab" if look.across else "aa")


def heat_map(look: Look, mine: Channel | None) -> None:
    """The whole space, in blocks where it is large."""
    before = selection.drawn("map", look.name, mine)
    shown = whole(look, before)
    showing.plotly(
        similarity_map(shown),
        key="map",
        alt=f"Heat map: {look_words(look)}",
        on_select=partial(selection.clicked, "map", look.name, before),
    )
    st.caption(map_words(look))
    if look.across and look.measure != "correlation":
        st.caption(aligned.BY_WEIGHTS)
    side = block_side(look)
    showing.table(
        matrix_table(shown.values, shown.rows, shown.columns),
        key=f"map-table-{look.space}-{look.pair}",
        title="The heat map as a table" + (f" (means of {side}×{side} cells)" if side > 1 else ""),
        alt="Similarity of every row with every column of the heat map",
        file=f"{look.name}.csv",
    )


def around(look: Look, mine: Channel | None) -> None:
    """A part of a large space cell by cell, around the selected channel and its match."""
    before = selection.drawn("part", look.name, mine)
    row = look.row_of(before)
    st.subheader(f"{CELLS}×{CELLS} cells, one by one")
    if row is None:
        st.caption("These are the first channels; select one, and the cells around it are shown.")
    else:
        words = f"around {look.sides[0]} {row}"
        if look.across:
            words += f" and its match {look.sides[1]} {look.matches[row]}, which is framed"
        st.caption(f"These are the cells {words}.")
    shown = part(look, before)
    showing.plotly(
        similarity_map(shown),
        key="part",
        alt=f"Heat map of {CELLS} by {CELLS} cells: {look_words(look)}, from {shown.rows[0]}",
        on_select=partial(selection.clicked, "part", look.name, before),
    )
    showing.table(
        matrix_table(shown.values, shown.rows, shown.columns),
        key=f"part-table-{look.space}-{look.pair}",
        title="These cells as a table",
        alt="Similarity of every row with every column of this part of the heat map",
        file=f"{look.name}-{shown.rows[0].replace(' ', '')}.csv",
    )


def histogram(look: Look) -> None:
    """Matched against unmatched similarity."""
    rows = np.arange(look.size)
    own = look.matrix[rows, look.matches]
    others = look.matrix.copy()
    others[rows, look.matches] = np.nan
    kind = "matched" if look.across else "self"
    frame = spread(look.matrix, look.matches)
    name = MEASURES[look.measure]
    typical = f"{np.median(own):.2f}"
    rest = f"{np.nanmedian(others) + 0.0:.2f}".replace("-0.00", "0.00") if look.size > 1 else "–"
    showing.plotly(
        spread_bars(frame, name, kind),
        key=f"spread-{look.space}",
        alt=f"Histogram of {name}: median {typical} of {kind} pairs, {rest} of all others",
    )
    st.caption(
        f"Half of the {look.size} {kind} pairs are at {typical} or above; half of all others at "
        f"{rest} or above." + ("" if look.across else " Every channel meets itself here, too.")
    )
    showing.table(
        frame,
        key=f"spread-table-{look.space}",
        title="The histogram as a table",
        alt="Share of matched and of unmatched pairs in every bin of similarity",
        file=f"{look.name}-histogram.csv",
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
    """Which channels never change and which have no weights, in a sentence each."""
    dead, empty = found.dead(space), found.without_weights(space)
    tail = " Their correlation counts as 0." if any(map(len, dead.values())) else ""
    st.caption(
        f"Dead channels of {space}, whose activation is the same for all {found.examples:,} "
        f"examples: {counted(dead)}.{tail}"
    )
    if any(map(len, empty.values())):
        st.caption(
            f"Channels of {space} whose incoming or whose outgoing weights are all zero: "
            f"{counted(empty)}. Their cosine on that side is not defined and counts as 0."
        )


def counted(channels: Mapping[str, np.ndarray]) -> str:
    """How many of each teacher, and the first of them."""
    parts = []
    for teacher, some in channels.items():
        named = ", ".join(map(str, some[:MOST_NAMED])) + (" …" if len(some) > MOST_NAMED else "")
        parts.append(f"{len(some)} of teacher {teacher}" + (f" ({named})" if len(some) else ""))
    return ", ".join(parts)


def match_table(look: Look) -> None:
    """Every channel with its match and the channel most like it."""
    table = partners(look.matrix, look.matches, look.measure, look.found.dead(look.space))
    showing.table(
        table.rename(
            columns={
                "similarity": MEASURES[look.measure],
                "most_like": "most like A (channel of B)",
                "most": "its similarity",
                "rank": "channels of B more alike",
            }
        ),
        key=f"partners-{look.space}",
        title="Every channel of A with its match",
        alt="Match of every channel of A, and the channel of B that is most like it",
        file=f"{look.name}-matches.csv",
    )


def layers(found: Alignment, pair: str) -> None:
    """CKA of all layers."""
    st.subheader("Layer by layer (linear CKA)")
    names, values = list(found.sizes), found.cka(pair)
    rows, columns = pair[0].upper(), pair[1].upper()
    showing.plotly(
        cka_map(values, names, rows, columns),
        key=f"cka-{pair}",
        alt=f"Heat map of linear CKA between {len(names)} layers, {PAIRS[pair]}; the mean of the "
        f"diagonal is {np.diag(values).mean():.2f}",
    )
    st.caption(
        "1 means that two layers see the same examples as alike, whatever the order or the "
        "rotation of their channels; 0 means that they have nothing in common."
    )
    showing.table(
        matrix_table(values, names, names),
        key=f"cka-table-{pair}",
        title="CKA as a table",
        alt="Linear CKA of every layer with every layer",
        file=f"{found.run}-cka-{pair}.csv",
    )


navigation.require_app()
st.header("Similarity")
st.markdown(
    "**Do two networks learn the same channels?** Each cell tells how alike a channel of teacher A "
    "and a channel of teacher B are. Networks that are trained apart learn much alike, but in "
    "another order."
)
aligned.show(content)
