"""Channels: which teacher each channel of the merged network comes from."""

from functools import partial

import pandas as pd
import streamlit as st

from merge_core.plots.channels import origins
from merge_core.views.channels import provenance, share_frame
from merge_core.views.filters import FirstLayer, first_layer
from merge_core.views.selection import Channel, space_sizes
from pages import living, navigation, picking, selection, showing


def pairs(layer: FirstLayer) -> None:
    """The first layer's filters paired by likeness."""
    from merge_core.views.pairs import pair_filters  # loads SciPy, which no other page needs

    found = pair_filters(layer)
    st.subheader(f"Pairs in the first layer ({layer.space})")
    st.markdown(
        f"Each filter of teacher A is paired with the one of teacher B that is most like it. "
        f"Of {layer.size} pairs, **{found.both}** survived twice, **{found.one}** once and "
        f"**{found.neither}** not at all. A pair that survives twice may be a channel wasted."
    )
    st.caption(
        "Paired by the cosine of their weights, one to one (Hungarian algorithm). Only the first "
        "layer can be compared by its weights: both teachers read the same inputs there. Click a "
        "number under A or B in the table to select that channel on all pages."
    )
    showing.table(
        found.table,
        key="pairs",
        title="The pairs as a table",
        alt="Pairs of first-layer filters, their similarity and which survived",
        file="pairs.csv",
        on_cell=partial(picked_pair, layer.space, found.table),
    )


def picked_pair(space: str, table: pd.DataFrame) -> None:
    """A cell in the column B selects the pair's channel of B, any other that of A."""
    for place, column in st.session_state["pairs"]["selection"]["cells"]:
        teacher = "B" if column == "B" else "A"
        selection.select(f"{space}:{teacher}:{table.iloc[place][teacher]}")


def fate(kept: pd.DataFrame, channel: Channel) -> None:
    """What became of the selected channel, in a sentence."""
    same = (kept["space"] == channel.space) & (kept["teacher"] == channel.teacher)
    row = kept.loc[same & (kept["index"] == channel.index)]
    words = "was cut away"
    if len(row):
        words = f"is channel **{row['position'].iloc[0]}** of the merged network"
    st.markdown(f"The selected channel **{channel.label}** {words}.")


def clicked(key: str, space: str, words: pd.DataFrame) -> None:
    """A row of the table selects the teacher's channel."""
    for place in st.session_state[key]["selection"]["rows"]:
        row = words.iloc[place]
        selection.select(f"{space}:{row['Teacher']}:{row['Channel of that teacher']}")


def content() -> None:
    """The page for the picked run."""
    summary = picking.picked_summary()
    living.state_note(summary)
    with picking.open_run(summary) as reader:
        shares = share_frame(reader)
        kept = provenance(reader)
        layer = first_layer(reader, "cut")
        channel = selection.selected(space_sizes(reader))
    if shares.empty:
        st.info("The cut has not been made yet in this run; its channels come from both teachers.")
        return
    total, from_a = sum(shares["size"]), sum(shares["from_a"])
    st.markdown(
        f"The merged network has **{total} channels** in {len(shares)} "
        f"{'space' if len(shares) == 1 else 'spaces'}: {from_a} come from teacher A, "
        f"{total - from_a} from teacher B."
    )
    showing.plotly(
        origins(shares),
        key="origins",
        alt=f"Share of kept channels from each teacher: {from_a} of {total} from A",
    )
    st.caption("Each bar is one channel space; the dashed line is an even share.")
    if layer is not None:
        pairs(layer)
    st.subheader("Where each channel comes from")
    spaces = list(dict.fromkeys(kept["space"]))
    space = st.segmented_control(
        "Channel space",
        spaces,
        default=spaces[0] if channel is None else channel.space,
        required=True,
        key=f"origin-{summary.name}",
    )
    size = int(shares.loc[shares["space"] == space, "size"].iloc[0])
    selection.box(space, size, channel)
    if channel is not None and channel.space == space:
        fate(kept, channel)
    words = kept.loc[kept["space"] == space].rename(
        columns={
            "space": "Space",
            "position": "Channel of the merged network",
            "teacher": "Teacher",
            "index": "Channel of that teacher",
            "probability": "P[open]",
            "gate": "Gate",
        }
    )
    st.dataframe(
        words,
        hide_index=True,
        key=f"provenance-{space}",
        alt=f"Provenance of every channel of space {space}",
        on_select=partial(clicked, f"provenance-{space}", space, words),
        selection_mode="single-row",
        column_config={
            "P[open]": st.column_config.ProgressColumn(format="%.3f", min_value=0, max_value=1),
            "Gate": st.column_config.NumberColumn(format="%.3f"),
        },
    )
    st.caption("Tick a row to select its channel on all pages.")
    showing.download(kept, key="provenance-csv", file=f"{summary.name}-provenance.csv")


navigation.require_app()
st.header("Channels")
living.live(content, every=2)
