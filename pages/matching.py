"""Matching: which channel of one teacher belongs to which of the other, and what it is worth."""

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from merge_core.plots.matching import (
    MOST_BANDS,
    agreement_dots,
    band_channels,
    bands,
    barrier_curves,
    filter_pairs,
    lines,
    objective_curve,
)
from merge_core.store import Store
from merge_core.views.matching import LINES, agreement, barrier, chosen_pairs, differences
from merge_core.views.selection import Channel
from merge_core.views.similarity import MATCHINGS, MEASURES, Alignment, is_distance, partners
from pages import aligned, navigation, selection, showing

SORT = {"similarity": "most alike first", "index": "by number"}


def content(found: Alignment) -> None:
    """The page for the picked comparison."""
    channel = selection.selected(found.sizes)
    spaces = list(found.sizes)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        space = st.selectbox(
            "Channel space",
            spaces,
            index=spaces.index(channel.space) if channel is not None else 0,
            format_func=lambda name: f"{name} ({found.sizes[name]} channels)",
            key=f"space-{found.run}",
            width=260,
        )
        matching = st.segmented_control(
            "Matching",
            MATCHINGS,
            format_func=MATCHINGS.__getitem__,
            default="match_activations",
            required=True,
            key="matching",
        )
        measure = st.selectbox(
            "Similarity shown", MEASURES, format_func=MEASURES.__getitem__, key="measure", width=290
        )
        sort = st.segmented_control(
            "Order",
            SORT,
            format_func=SORT.__getitem__,
            default="similarity",
            required=True,
            key="sort",
        )
    mine = channel if channel is not None and channel.space == space else None
    everyone = partners(
        found.matrix(space, measure), found.order(space, matching), measure, found.dead(space)
    )
    selection.box(space, found.sizes[space], channel)
    selected_pair(everyone, mine, measure)
    who(found, space, matching, measure, sort, everyone, mine)
    if found.first == space:
        filters(found, space, matching, measure, sort, everyone, mine)
    agreements(found, space, measure)
    left, right = st.columns(2, gap="medium")
    with left:
        objective(found)
    with right:
        on_the_line(found)


def selected_pair(everyone: pd.DataFrame, mine: Channel | None, measure: str) -> None:
    """The selected channel's partner, in a sentence."""
    if mine is None:
        return
    row = everyone.loc[everyone[mine.teacher] == mine.index].iloc[0]
    words = f"**A {row['A']}** is matched with **B {row['B']}** ({row['similarity']:.2f}"
    words += f" {MEASURES[measure]})."
    if row["rank"]:
        words += (
            f" A {row['A']} is more like B {row['most_like']} ({row['most']:.2f}), but a matching "
            f"is one to one and looks at the whole."
        )
    st.markdown(words)


def threshold(everyone: pd.DataFrame, measure: str, key: str) -> float | None:
    """Below which similarity pairs are left out; None where all are the same."""
    ranked = np.sort(everyone["similarity"].to_numpy(float))
    low, high = np.floor(ranked[0] * 100) / 100, np.ceil(ranked[-1] * 100) / 100
    if low >= high:
        return None
    far = is_distance(measure)
    start = high if far else low
    if len(ranked) > MOST_BANDS:  # more lines than that are hard to follow: begin with the best
        last = ranked[MOST_BANDS - 1] if far else ranked[-MOST_BANDS]
        start = np.ceil(last * 100) / 100 if far else np.floor(last * 100) / 100
    return st.slider(
        f"Pairs at {'most' if far else 'least'} so {'far apart' if far else 'alike'}",
        low,
        high,
        start,
        key=key,
        width=320,
        help=f"In {MEASURES[measure]}.",
    )


def who(
    found: Alignment,
    space: str,
    matching: str,
    measure: str,
    sort: str,
    everyone: pd.DataFrame,
    mine: Channel | None,
) -> None:
    """Who is matched with whom."""
    st.subheader("Who is matched with whom")
    limit = threshold(everyone, measure, f"limit-{space}-{measure}-{matching}")
    pairs = chosen_pairs(everyone, sort, measure, limit)
    st.caption(
        f"{len(pairs)} of {len(everyone)} pairs of {space}, matched {MATCHINGS[matching]}. "
        + ("" if len(pairs) == len(everyone) else "Move the slider to see the others. ")
        + "Click a channel to select it."
    )
    if measure != "correlation":
        st.caption(aligned.BY_WEIGHTS)
    alt = f"{len(pairs)} pairs of channels of {space}, matched {MATCHINGS[matching]}"
    if pairs.empty:
        return
    if len(everyone) <= MOST_BANDS:
        key = f"bands-{space}"
        showing.echarts(
            bands(pairs, sort, "" if mine is None else mine.label),
            key=key,
            height=24 + 22 * len(pairs),
            alt=alt,
            on_select=partial(
                picked_band, key, space, band_channels(pairs, sort), list(pairs["A"])
            ),
        )
    else:
        variant = f"{found.run}-{space}-{matching}-{measure}-{sort}-{limit}"
        before = selection.drawn("lines", variant, mine)
        showing.plotly(
            lines(pairs, space, len(everyone), sort, "" if before is None else before.label),
            key="lines",
            alt=alt,
            on_select=partial(selection.clicked, "lines", variant, before),
        )
    showing.table(
        pairs.rename(
            columns={
                "similarity": MEASURES[measure],
                "most_like": "most like A (channel of B)",
                "most": "its similarity",
                "rank": "channels of B more alike",
            }
        ),
        key=f"pairs-{space}",
        title="The pairs as a table",
        alt=alt,
        file=f"{found.run}-{space}-{matching}.csv",
    )


def picked_band(key: str, space: str, nodes: list[str], ends: list[int]) -> None:
    """A node selects its channel, a band the channel of A at its end."""
    for group in st.session_state[key]["selection"]["selected"]:
        for index in group["data_indices"]:
            name = nodes[index] if group["data_type"] == "node" else f"A {ends[index]}"
            selection.select(f"{space}:{name.replace(' ', ':')}")


def filters(
    found: Alignment,
    space: str,
    matching: str,
    measure: str,
    sort: str,
    everyone: pd.DataFrame,
    mine: Channel | None,
) -> None:
    """Matched filters of the first layer side by side."""
    st.subheader("Matched filters of the first layer")
    pairs = chosen_pairs(everyone, sort, measure, None)
    pages = -(-len(pairs) // MOST_BANDS)
    page = 1
    if pages > 1:
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"page-{space}", width=160)
    pairs = pairs.iloc[(page - 1) * MOST_BANDS : page * MOST_BANDS]
    variant = f"{found.run}-{matching}-{measure}-{sort}-{page}"
    before = selection.drawn("filter-pairs", variant, mine)
    showing.plotly(
        filter_pairs(pairs, found.filters(), space, "" if before is None else before.label),
        key="filter-pairs",
        alt=f"{len(pairs)} pairs of first-layer filters, A left and B right, the mean "
        f"{MEASURES[measure]} is {pairs['similarity'].mean():.2f}",
        on_select=partial(selection.clicked, "filter-pairs", variant, before),
    )
    st.caption(
        f"In each pair the filter of A stands left, that of B right; the number is their "
        f"{MEASURES[measure]}. Mid-grey is zero. Click a filter to select it."
    )


def agreements(found: Alignment, space: str, measure: str) -> None:
    """Whether matching by activations and by weights say the same."""
    st.subheader("Do both matchings agree?")
    table = agreement(found)
    total, same = sum(table["size"]), sum(table["same"])
    here = table.loc[table["space"] == space].iloc[0]
    st.markdown(
        f"By activations and by weights, **{here['same']} of {here['size']}** channels of {space} "
        f"are paired alike; in all spaces {same} of {total}. Two matchings drawn at random agree "
        f"on one channel per space."
    )
    showing.plotly(
        agreement_dots(table),
        key="agreement",
        alt=f"Share of channels that both matchings pair alike: {same} of {total} in all",
    )
    showing.table(
        table,
        key="agreement-table",
        title="The agreement as a table",
        alt="How many channels both matchings pair alike, per space",
        file=f"{found.run}-agreement.csv",
    )
    showing.table(
        differences(found, space, measure),
        key=f"differences-{space}",
        title=f"Where they differ in {space}, as a table",
        alt="Channels of A that the two matchings pair with different channels of B",
        file=f"{found.run}-{space}-differences.csv",
    )


def objective(found: Alignment) -> None:
    """How matching by weights got to its fixed point."""
    st.subheader("Matching by weights, pass by pass")
    passes = len(found.objective) - 1
    showing.plotly(
        objective_curve(found.objective),
        key="objective",
        alt=f"The objective of matching by weights rises from {found.objective[0]:.4g} to "
        f"{found.objective[-1]:.4g} in {passes} passes",
    )
    st.caption(
        "Each pass matches one layer after the other, given all others, until nothing changes "
        "(Git Re-Basin). The sum of the products of matched weights can only rise; pass 0 is the "
        "networks as they are."
    )
    showing.table(
        pd.DataFrame({"pass": range(passes + 1), "objective": found.objective}),
        key="objective-table",
        title="The objective as a table",
        alt="Objective of matching by weights after every pass",
        file=f"{found.run}-objective.csv",
    )


def on_the_line(found: Alignment) -> None:
    """The barrier before and after matching."""
    st.subheader("The barrier between the teachers")
    with Store().open(found.run) as reader:
        walls = barrier(reader)
    if walls is None:
        st.info("The line between the teachers is not measured yet; it comes after the alignment.")
        return
    metric = st.segmented_control(
        "On the line", walls.metrics, default=walls.metrics[0], required=True, key="line-metric"
    )
    tests = walls.heights[walls.heights["split"] == "test"].set_index("line")[metric]
    told = ", ".join(f"{name} **{tests[line]:.3f}**" for line, name in LINES.items())
    showing.plotly(
        barrier_curves(walls.curves, metric, LINES),
        key=f"barrier-{metric}",
        alt=f"{metric} on the line from teacher A to teacher B; the barrier on test is "
        + told.replace("*", ""),
    )
    st.markdown(f"Barrier in test {metric}: {told}.")
    st.caption(
        f"The barrier is how much worse the line gets than the straight line between its ends. "
        f"Matched by weights; full lines test ({walls.examples['test']:,} examples), dotted lines "
        f"train ({walls.examples['train']:,})."
    )
    showing.table(
        walls.curves,
        key="barrier-table",
        title="The lines as a table",
        alt="Scores on the line between the teachers",
        file=f"{found.run}-barrier.csv",
    )


navigation.require_app()
st.header("Matching")
st.markdown(
    "**Which channel of one teacher belongs to which of the other?** A matching gives each channel "
    "of A exactly one of B, so that all pairs together are as alike as can be: the order in which "
    "the two networks can be averaged."
)
aligned.show(content)
