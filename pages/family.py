"""Forking the picked run, and the run beside its parent and its forks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import pandas as pd
import streamlit as st

from merge_core import forking
from merge_core.plots.family import HEIGHT, beside
from merge_core.recipes import Recipe, Selection
from merge_core.schedules import Schedule
from merge_core.steering import rate_in, schedule_in
from merge_core.store import ForkPoint, RunReader, RunSummary, Store
from merge_core.views.family import (
    Course,
    Relative,
    differences,
    gate_course,
    parted,
    relatives,
    scores_beside,
)
from merge_core.views.runs import ALIVE, score_text
from merge_core.views.steering import gate_stage
from pages import living, picking, showing, steering

CLICKED = "fork-clicked"
"""The moment that was last clicked on the time axis."""
_ASKED = "fork-asked"
"""The run and the button that starts a fork which was clicked just now."""
_WHAT = {
    "lambda": "λ schedule",
    "rate": "Learning rate of the gates",
    "seed": "Seed",
    "selection": "Selection rule",
}
_LATER = ("seed", "selection")
"""What can still change when the gates have learned."""


def _point_key(name: str) -> str:
    return f"fork-at-{name}"


def _fold_key(name: str) -> str:
    return f"fork-{name}"


def points_of(reader: RunReader) -> dict[str, ForkPoint]:
    """The moments around and in the gate stage from which a run can be forked, by a key."""
    return {
        f"{point.stage}@{point.epoch}": point
        for point in reader.fork_points()
        if point.stage == "gates" or (point.stage == "big" and point.epoch is None)
    }


def fork_epochs(reader: RunReader) -> list[int]:
    """How many epochs of the gate stage are done at each of these moments; for a time axis."""
    last = reader.merge.gate_epochs
    return [
        0 if point.stage == "big" else last if point.epoch is None else point.epoch
        for point in points_of(reader).values()
    ]


def choose_point(name: str, index: int) -> None:
    """Fork from a moment that was clicked on a time axis; in a callback.

    Args:
        name: the run.
        index: into what `fork_epochs` gives.
    """
    with Store().open(name) as reader:
        keys = list(points_of(reader))
    if index < len(keys):
        st.session_state[_point_key(name)] = st.session_state[CLICKED] = keys[index]
        st.session_state[_fold_key(name)] = True


def fork_form() -> None:
    """The part of the page that starts a fork."""
    steering.go_to_fork()
    name, store = picking.picked_summary().name, Store()
    asked = st.session_state.pop(_ASKED, None)
    with showing.errors_as_sentences(), store.open(name) as reader:
        points = points_of(reader)
        if not points:
            return
        fold = st.expander(
            "Fork: go on otherwise from an epoch",
            icon=":material/fork_right:",
            on_change="rerun",
            key=_fold_key(name),
        )
        if not fold.open:
            return
        with fold:
            _form(reader, points, asked)


def _form(reader: RunReader, points: Mapping[str, ForkPoint], asked: object) -> None:
    """What is to be different in the fork, and the button; `asked` tells which was clicked."""
    recipe, name = reader.merge, reader.name
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.selectbox(
            "From",
            list(points),
            index=_middle(points),
            format_func=lambda key: parted(points[key]),
            key=_point_key(name),
            width=320,
            help="The moments whose state was kept. They are the orange marks under the commands "
            "of the chart, which can be clicked.",
        )
        point = points[key]
        over = recipe.gate_epochs if point == ForkPoint(stage="gates") else point.epoch or 0
        offered = list(_WHAT) if over < recipe.gate_epochs else list(_LATER)
        what = st.pills(
            "What will be different",
            offered,
            selection_mode="multi",
            default=offered[:1],
            format_func=_WHAT.__getitem__,
            key=f"fork-what-{name}-{len(offered)}",
        )
    now = schedule_in(recipe.gates.schedule, recipe.steering, over + 1)
    changes = Changes()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if "seed" in what:
            changes.seed = _seed(recipe, name)
        if "selection" in what:
            changes.settings = _selection(recipe, name)
        if "rate" in what:
            changes.rate = _rate(
                rate_in(recipe.gates.learning_rate, recipe.steering, over + 1), key
            )
    if "lambda" in what:
        schedule = steering.edit_from(recipe, reader, now, over, f"fork-{name}-{key}")
        changes.schedule = schedule if schedule != now else None
    st.caption(
        f"The fork goes its own way {parted(point)}. Until then it is this run: nothing is trained "
        f"again and no file is copied. This run stays as it is."
    )
    serial = st.session_state.get(steering.SERIAL, 0)
    # Not in a callback, which would know only what was chosen before the last change.
    if asked == (name, serial) and changes != Changes():
        steering.make_fork(serial, partial(changes.start, name, point))
        steering.go_to_fork()
    st.button(
        "Start the fork",
        type="primary",
        icon=":material/fork_right:",
        key=f"fork-go-{serial}",
        disabled=changes == Changes(),
        help="It would be the same run again; change something first."
        if changes == Changes()
        else None,
        on_click=partial(steering.ask, _ASKED, (name, serial)),
    )


@dataclass(kw_only=True)
class Changes:
    """What is to be different in a fork; None for what stays."""

    schedule: Schedule | None = None
    rate: float | None = None
    seed: int | None = None
    settings: dict[str, str] | None = None

    def start(self, name: str, point: ForkPoint) -> tuple[str, object]:
        """Start the fork of a run; errors as of `merge_core.forking.fork`."""
        return forking.fork(
            Store(),
            name,
            point,
            schedule=self.schedule,
            rate=self.rate,
            seed=self.seed,
            settings=self.settings,
        )


def _seed(recipe: Recipe, name: str) -> int:
    return int(
        st.number_input(
            "Seed of all draws from there",
            0,
            2**31 - 1,
            recipe.seed + 1,
            key=f"fork-seed-{name}",
            width=220,
        )
    )


def _selection(recipe: Recipe, name: str) -> dict[str, str]:
    rule = st.selectbox(
        "The cut keeps",
        [each for each in get_args(Selection) if each != recipe.gates.selection],
        key=f"fork-selection-{name}",
        width=220,
        help=f"This run keeps the channels by the rule “{recipe.gates.selection}”.",
    )
    return {"gates.selection": str(rule)}


def _rate(now: float, key: str) -> float | None:
    rate = float(
        st.number_input(
            "Learning rate of the gates",
            1e-6,
            100.0,
            now,
            0.01,
            "%.4g",
            key=f"fork-rate-{key}",
            width=220,
        )
    )
    return rate if rate != now else None


def _middle(points: Mapping[str, ForkPoint]) -> int:
    """The moment to begin with: in the middle of the epochs that were kept."""
    inside = [i for i, each in enumerate(points.values()) if each.epoch is not None]
    return inside[(len(inside) - 1) // 2] if inside else len(points) - 1


def family() -> None:
    """The picked run beside a relative: a choice, and what is drawn again while either works."""
    summary = picking.picked_summary()
    with showing.errors_as_sentences():
        with Store().open(summary.name) as reader:
            found = {each.run: each for each in relatives(Store(), reader)}
        if not found:
            return
        st.subheader("Beside its family")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            other = st.selectbox(
                "Compare with",
                list(found),
                index=_first(found),
                format_func=lambda run: found[run].label,
                key=f"relative-{summary.name}",
                width=560,
            )
            if st.button("Go to that run", icon=":material/arrow_forward:", key="go-to-relative"):
                picking.show_run(other)
    living.live(partial(_comparison, found[other]), every=0.5, summary=partial(_youngest, other))


def _first(found: Mapping[str, Relative]) -> int:
    """The relative to begin with: the parent, else the newest fork."""
    relations = [each.relation for each in found.values()]
    return 0 if relations[0] == "parent" else len(relations) - 1


def _youngest(other: str) -> RunSummary:
    """The run of the two that is worked on, so that the chart moves while either does."""
    mine = picking.picked_summary()
    for run in picking.runs():
        if run.name == other and mine.state not in ALIVE and run.state in ALIVE:
            return run
    return mine


@st.cache_data(max_entries=64, show_spinner=False)
def _course(home: str, name: str, done: int) -> Course:
    """The course of a run's gates after so many epochs; the viewers of a run share it."""
    with Store().open(name) as reader:
        return gate_course(reader)


def _course_now(reader: RunReader) -> Course:
    stage = gate_stage(reader)
    return _course(str(reader.directory), reader.name, 0 if stage is None else stage.done)


def _comparison(relative: Relative) -> None:
    """Both on the same axes, and their scores side by side."""
    name, store = picking.picked_summary().name, Store()
    with store.open(name) as reader, store.open(relative.run) as other:
        here, there = _course_now(reader), _course_now(other)
        parted_at = relative.point.epoch if relative.point.stage == "gates" else 0
        showing.echarts(
            beside(here, there, parted_at),
            key="beside",
            height=HEIGHT,
            alt=f"Mean P[open] of every space and λ over the epochs of the gates: {name} and "
            f"{relative.run}. {_ends(here)} {_ends(there)}",
        )
        mine, theirs = reader.recipe, other.recipe
        assert isinstance(mine, Recipe)
        assert isinstance(theirs, Recipe)
        different = "; ".join(differences(mine, theirs)) or "their recipes are equal"
        st.caption(
            f"Full lines: this run. Dashed lines: {relative.run}. They parted "
            f"{parted(relative.point)}; until then they are one. What differs: {different}."
        )
        scores = scores_beside(reader, other)
    if scores.empty:
        return
    metric = mine.metric
    rows = scores.to_dict("records")
    st.dataframe(
        pd.DataFrame(
            {
                "Stage": [row["title"] for row in rows],
                f"Test {metric}: this run": [_text(row["here"], metric) for row in rows],
                f"Test {metric}: the other": [_text(row["there"], metric) for row in rows],
                "Difference": [_text(row["difference"], metric, signed=True) for row in rows],
            }
        ),
        hide_index=True,
        key="family-scores",
        alt=f"Test {metric} of every stage after the gates, of this run and of {relative.run}",
    )
    st.caption(
        "One run each (n = 1): a difference between two runs with the same teachers can be chance. "
        + ("Higher is better." if metric == "accuracy" else "Lower is better.")
    )


def _text(value: float, metric: str, *, signed: bool = False) -> str:
    """A score as text; "not yet" before its stage is over."""
    if np.isnan(value):
        return "not yet"
    if not signed:
        return score_text(value, metric)
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return sign + score_text(abs(value), metric)


def _ends(course: Course) -> str:
    """Where a run's gates stand, in words."""
    if not len(course.epochs):
        return f"{course.run} has no epoch of gates yet."
    stands = ", ".join(f"{space} {mean[-1]:.2f}" for space, mean in course.means.items())
    return f"{course.run} stands at {stands} after epoch {course.epochs[-1]}."
