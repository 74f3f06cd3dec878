"""Gates: how the gates learned which channels to keep."""

from functools import partial

import numpy as np
import streamlit as st

from merge_core.plots.curves import MOST_LINES, epochs_per_column, gate_evolution, gate_histogram
from merge_core.views.channels import Openness, gated_spaces, openness
from merge_core.views.selection import Channel, space_sizes
from pages import selection, shared

ORDER = {"probability": "most open on top", "index": "by index"}


def evolution(history: Openness, order: str, chosen: list[str], channel: Channel | None) -> None:
    """The heat map, the lines and λ; the selected channel has a line, too."""
    labels, ranks = history.labels, history.order(order)
    if channel is not None and channel.label not in chosen:
        chosen = [*chosen[: MOST_LINES - 1], channel.label]
    mean = history.probability.mean(1)
    shared.echarts(
        gate_evolution(
            history.probability,
            history.epochs,
            labels,
            ranks,
            history.weights,
            [labels.index(label) for label in chosen if label in labels],
            history.planned,
        ),
        key="evolution",
        height=760,
        alt=f"Open probability of {len(labels)} channels of space {history.space} over "
        f"{len(history.epochs)} epochs; the mean ends at {mean[-1]:.2f}",
        on_select=partial(clicked, history.space, labels, ranks),
    )
    wide = epochs_per_column(history.planned, len(labels))
    each = "each epoch" if wide == 1 else f"each epoch, {wide} epochs to a column,"
    st.caption(
        f"Space {history.space}: {len(labels)} channels of the big student, P[open] after {each} "
        f"of gates. The penalty weighed by λ pulls the mean to ½; it stands at "
        f"{mean[-1]:.3f}. The {len(labels) // 2} most open channels are kept. Click a cell to "
        f"select its channel on all pages."
    )
    if channel is not None:
        ends = history.probability[-1, labels.index(channel.label)]
        st.markdown(f"The selected channel **{channel.label}** stands at P[open] **{ends:.3f}**.")


def clicked(space: str, labels: list[str], ranks: np.ndarray) -> None:
    """A cell selects its channel; the cells of an epoch follow each other in the map's order."""
    for group in st.session_state["evolution"]["selection"]["selected"]:
        if group["series_index"] == 0:
            label = labels[ranks[group["data_indices"][-1] % len(ranks)]]
            selection.select(f"{space}:{label.replace(' ', ':')}")


def telling(history: Openness) -> list[str]:
    """The most open, the least open and the two nearest to ½: a good first choice of lines."""
    last = history.probability[-1]
    closest = np.argsort(np.abs(last - 0.5), kind="stable")[:2]
    chosen = dict.fromkeys([int(last.argmax()), *closest.tolist(), int(last.argmin())])
    return [history.labels[index] for index in chosen]


def content() -> None:
    """The page for the picked run."""
    summary = shared.picked_summary()
    shared.state_note(summary)
    with shared.open_run(summary) as reader:
        spaces = gated_spaces(reader)
        channel = selection.selected(space_sizes(reader))
        if not spaces:
            st.info(
                "The gates have not started to learn in this run; they come after both teachers "
                "are trained."
            )
            return
        with st.container(horizontal=True):
            space = st.segmented_control(
                "Channel space",
                spaces,
                default=spaces[0] if channel is None else channel.space,
                required=True,
                key=f"space-{summary.name}",
            )
            order = st.segmented_control(
                "Order",
                ORDER,
                format_func=ORDER.__getitem__,
                default="probability",
                required=True,
                key="gate-order",
            )
        history = openness(reader, space)
    assert history is not None, "a space with a history has one"
    selection.box(space, len(history.labels) // 2, channel)
    chosen = st.multiselect(
        f"Channels drawn as lines (at most {MOST_LINES})",
        history.labels,
        default=telling(history),
        max_selections=MOST_LINES,
        key=f"lines-{summary.name}-{space}",
        help="The first choice: the most open, the least open and the two nearest to ½.",
    )
    mine = channel if channel is not None and channel.space == space else None
    evolution(history, order, chosen, mine)
    st.subheader("How open the gates are at one epoch")
    last = int(history.epochs[-1])
    epoch = last
    if len(history.epochs) > 1:
        epoch = st.slider("Epoch", int(history.epochs[0]), last, last, key=f"epoch-{last}")
    at = history.probability[int(np.flatnonzero(history.epochs == epoch)[0])]
    shared.echarts(
        gate_histogram(at, epoch),
        key="histogram",
        height=300,
        alt=f"Histogram of P[open] of {len(at)} channels after epoch {epoch}",
    )
    shared.table(
        history.table(),
        key="gate-table",
        title="The gates as a table",
        alt="P[open] of every channel after every epoch",
        file=f"{summary.name}-{space}-gates.csv",
    )


shared.require_app()
st.header("Gates")
shared.live(content, every=1.5)
