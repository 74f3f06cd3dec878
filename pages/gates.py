"""Gates: how the gates learned which channels to keep, steered while they do."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from merge_core.plots.curves import MOST_LINES
from merge_core.plots.evolution import (
    FORKS,
    Steered,
    epochs_per_column,
    evolution_height,
    gate_evolution,
    gate_histogram,
)
from merge_core.store import RunReader, Store
from merge_core.views.channels import Openness, gated_spaces, openness
from merge_core.views.selection import Channel, space_sizes
from merge_core.views.steerable import Steerable, steerable
from merge_core.views.steering import ghost_frame, lambda_frame, marker_frame
from pages import family, living, navigation, picking, selection, showing, steering

ORDER = {"probability": "most open on top", "index": "by index"}
EVERY = 0.5
"""Seconds from one look at a run that is worked on to the next."""


@st.cache_data(max_entries=64, show_spinner=False)
def _openness(directory: str, name: str, space: str, done: int) -> Openness | None:
    """The gates' history after so many epochs; the viewers of a run share it."""
    with Store().open(name) as reader:
        return openness(reader, space)


@st.cache_data(max_entries=64, show_spinner=False)
def _spaces(directory: str, name: str, done: int) -> list[str]:
    """The spaces whose gates have a history after so many epochs."""
    with Store().open(name) as reader:
        return gated_spaces(reader)


@st.cache_data(max_entries=64, show_spinner=False)
def _steered(directory: str, name: str, done: int, answered: int, kept: int) -> Steered | None:
    """What the chart tells of steering and forks; None where there is nothing to tell.

    It is kept until another epoch is over, another command is answered or another file is there.
    """
    with Store().open(name) as reader:
        markers, forks = marker_frame(reader), family.fork_epochs(reader)
        if markers.empty and not any(forks):
            return None
        return Steered(
            course=lambda_frame(reader), ghosts=ghost_frame(reader), markers=markers, forks=forks
        )


def history_now(reader: RunReader, space: str) -> Openness:
    """The gates' history of a space that has one."""
    done = reader.epochs_done("gates")
    found = _openness(str(reader.directory), reader.name, space, done)
    assert found is not None, "a space with a history has one"
    return found


def steered(reader: RunReader) -> Steered | None:
    """What the chart tells of steering and forks now."""
    answered, kept = len(reader.answers()), len(reader.artifacts())
    done = reader.epochs_done("gates")
    return _steered(str(reader.directory), reader.name, done, answered, kept)


@dataclass(frozen=True, kw_only=True)
class View:
    """What is chosen to be seen.

    Attributes:
        space: the channel space.
        order: of its channels, a key of `ORDER`.
        lines: channels drawn as lines.
        window: the first and the last epoch that are shown.
        channel: the selected channel, where it is one of this space.
    """

    space: str
    order: str
    lines: list[str]
    window: tuple[int, int]
    channel: Channel | None


def evolution(name: str, history: Openness, told: Steered | None, view: View) -> None:
    """The heat map, the lines and λ; the selected channel has a line, too."""
    channel, chosen, window = view.channel, view.lines, view.window
    labels, ranks = history.labels, history.order(view.order)
    if channel is not None and channel.label not in chosen:
        chosen = [*chosen[: MOST_LINES - 1], channel.label]
    mean = history.probability.mean(1)
    showing.echarts(
        gate_evolution(
            history.probability,
            history.epochs,
            labels,
            ranks,
            history.weights,
            [labels.index(label) for label in chosen if label in labels],
            history.planned,
            window=window,
            steered=told,
        ),
        key="evolution",
        height=evolution_height(told),
        alt=f"Open probability of {len(labels)} channels of space {history.space} over "
        f"{len(history.epochs)} epochs; the mean ends at {mean[-1]:.2f}",
        on_select=partial(clicked, name, history.space, labels, ranks),
    )
    wide = epochs_per_column(window[1] - window[0] + 1, len(labels))
    each = "each epoch" if wide == 1 else f"each epoch, {wide} epochs to a column,"
    st.caption(
        f"Space {history.space}: {len(labels)} channels of the big student, P[open] after {each} "
        f"of gates. The penalty weighed by λ pulls the mean to ½; it stands at "
        f"{mean[-1]:.3f}. The {len(labels) // 2} most open channels are kept. Click a cell to "
        f"select its channel on all pages."
    )
    if told is not None:
        st.caption(
            "Between the curves and λ: what was asked of the run (λ: schedule, η: learning rate "
            "of the gates, ‖ ▶ ■: pause, go on, stop, 1: one epoch, ✂: cut, ✗: refused), and in "
            "orange the epochs that it can be forked from. Dashed: λ as planned. Dotted: λ as it "
            "would have gone on without a change."
        )
    if channel is not None:
        ends = history.probability[-1, labels.index(channel.label)]
        st.markdown(f"The selected channel **{channel.label}** stands at P[open] **{ends:.3f}**.")


def clicked(run: str, space: str, labels: list[str], ranks: np.ndarray) -> None:
    """A cell selects its channel, a mark on the time axis the epoch to fork from.

    The cells of an epoch follow each other in the map's order.
    """
    for group in st.session_state["evolution"]["selection"]["selected"]:
        if group["series_index"] == 0:
            label = labels[ranks[group["data_indices"][-1] % len(ranks)]]
            selection.select(f"{space}:{label.replace(' ', ':')}")
        elif group["series_name"] == FORKS:
            family.choose_point(run, group["data_indices"][-1])


def telling(history: Openness) -> list[str]:
    """The most open, the least open and the two nearest to ½: a good first choice of lines."""
    last = history.probability[-1]
    closest = np.argsort(np.abs(last - 0.5), kind="stable")[:2]
    chosen = dict.fromkeys([int(last.argmax()), *closest.tolist(), int(last.argmin())])
    return [history.labels[index] for index in chosen]


def moment(reader: RunReader, found: Steerable | None) -> tuple[object, ...]:
    """What decides which parts the page has; when it changes, the whole page is drawn again."""
    learning = found is not None and found.learning
    changes = 0 if found is None else len(found.recipe.steering)
    clicked = (st.session_state.get(selection.CHANNEL), st.session_state.get(family.CLICKED))
    spaces = _spaces(str(reader.directory), reader.name, reader.epochs_done("gates"))
    return bool(spaces), learning, changes, clicked


def moving(before: tuple[object, ...], view: View | None) -> None:
    """The part of the page that moves while the gates learn.

    It is one part, because each costs a visit of its own to the server.
    """
    steering.go_to_fork()
    summary = picking.picked_summary()
    with picking.open_run(summary) as reader:
        found = steerable(Store(), reader)
        if moment(reader, found) != before:
            st.rerun(scope="app")
        steering.panel(reader, found)
        if view is None:
            st.info(
                "The gates have not started to learn in this run; they come after both teachers "
                "are trained."
            )
            return
        history, told = history_now(reader, view.space), steered(reader)
    over_time, at_once = st.columns([7, 3])
    with over_time:
        evolution(summary.name, history, told, view)
    with at_once:
        histogram(summary.name, history)
    showing.table(
        history.table(),
        key="gate-table",
        title="The gates as a table",
        alt="P[open] of every channel after every epoch",
        file=f"{summary.name}-{view.space}-gates.csv",
    )


def histogram(name: str, history: Openness) -> None:
    """How open the gates are at one epoch."""
    epoch = last = int(history.epochs[-1])
    if history.planned > 1:
        wanted = st.slider(
            "How open the gates are at epoch",
            1,
            history.planned,
            history.planned,
            key=f"epoch-{name}",
            help="Beyond the epochs that are over, the latest is shown.",
        )
        epoch = min(wanted, last)
    at = history.probability[int(np.flatnonzero(history.epochs == epoch)[0])]
    showing.echarts(
        gate_histogram(at, epoch),
        key="histogram",
        height=300,
        alt=f"Histogram of P[open] of {len(at)} channels after epoch {epoch}",
    )


def choose(name: str, reader: RunReader, spaces: list[str]) -> View:
    """The widgets that decide what is seen; they are not touched while the charts move."""
    channel = selection.selected(space_sizes(reader))
    with st.container(horizontal=True):
        space = st.segmented_control(
            "Channel space",
            spaces,
            default=spaces[0] if channel is None else channel.space,
            required=True,
            key=f"space-{name}",
        )
        order = st.segmented_control(
            "Order",
            ORDER,
            format_func=ORDER.__getitem__,
            default="probability",
            required=True,
            key="gate-order",
        )
    history = history_now(reader, space)
    selection.box(space, len(history.labels) // 2, channel)
    lines = st.multiselect(
        f"Channels drawn as lines (at most {MOST_LINES})",
        history.labels,
        default=telling(history),
        max_selections=MOST_LINES,
        key=f"lines-{name}-{space}",
        help="The first choice: the most open, the least open and the two nearest to ½.",
    )
    window = (1, history.planned)
    if history.planned > 2:
        window = st.slider(
            "Epochs shown", 1, history.planned, window, key=f"window-{name}", width=420
        )
    mine = channel if channel is not None and channel.space == space else None
    return View(space=space, order=order, lines=lines, window=window, channel=mine)


def page() -> None:
    """The page for the picked run."""
    summary = picking.picked_summary()
    # A part is known by its place: a click on one that moved would be lost, so each has its own.
    chosen_at, moving_at, change_at, fork_at, family_at = (st.container() for _ in range(5))
    with picking.open_run(summary) as reader:
        now = moment(reader, steerable(Store(), reader))
        spaces = _spaces(str(reader.directory), reader.name, reader.epochs_done("gates"))
        with chosen_at:
            view = choose(summary.name, reader, spaces) if spaces else None
    with moving_at:
        living.live(partial(moving, now, view), every=EVERY)
    _, learning, *_ = now
    if learning:
        with change_at:
            st.fragment(steering.change)()
    with fork_at:
        st.fragment(family.fork_form)()
    with family_at:
        family.family()


navigation.require_app()
st.header("Gates")
with showing.errors_as_sentences():
    page()
