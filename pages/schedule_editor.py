"""The editor of a λ schedule: its kind, its numbers, its curve, and what it will do to the gates.

The curve's points can be dragged (or moved with the arrow keys); the table beside it holds the same
points for everybody who would rather type. A stage that is under way has a past that cannot be
changed, and the schedule that it would have gone on with stays in sight.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.components.v2 import component

from merge_core.dynamics import CLOSING, Expected
from merge_core.errors import RecipeError
from merge_core.plots.schedules import expected_openness
from merge_core.plots.style import ENSEMBLE
from merge_core.recipes import Gates
from merge_core.schedules import (
    KINDS,
    PAPER_SCHEDULE,
    TITLES,
    Closing,
    Constant,
    Curve,
    Points,
    Schedule,
    as_kind,
)
from merge_core.views.expectations import Known, Past, expect, warnings
from pages import showing

_HERE = Path(__file__)
_SAMPLES = 200
_HELP = (
    "λ weighs the penalty that pulls the mean of the gates to ½. The growth law is the paper's: λ "
    "grows by g·√λ in each of its epochs, which are spread over the gate stage. Controlled needs "
    "no numbers: λ is as large as it takes to close the gates at a constant rate."
)
_NUMBERS: dict[str, dict[str, tuple[str, float, float]]] = {
    "growth": {
        "start": ("λ₀", 1e-6, 1e3),
        "growth": ("growth g", 1e-6, 1e3),
        "epochs": ("epochs of growth", 1, 10_000),
    },
    "constant": {"weight": ("λ", 1e-6, 1e3)},
    "linear": {"start": ("λ at the start", 1e-6, 1e3), "end": ("λ at the end", 1e-6, 1e3)},
    "exponential": {"start": ("λ at the start", 1e-6, 1e3), "end": ("λ at the end", 1e-6, 1e3)},
    "cosine": {"start": ("λ at the start", 1e-6, 1e3), "end": ("λ at the end", 1e-6, 1e3)},
    "step": {
        "start": ("λ at the start", 1e-6, 1e3),
        "end": ("λ at the end", 1e-6, 1e3),
        "stairs": ("stairs", 2, 1000),
    },
    "points": {},
    "closing": {},
}
"""The numbers of each kind: field → label, least, most."""


def _component() -> Any:
    """The curve in the browser; made anew for every server."""
    return component(
        "netweld_schedule",
        html='<div class="schedule"></div>\n',
        css=_HERE.with_name("schedule_curve.css").read_text(encoding="utf-8"),
        js=_HERE.with_name("schedule_curve.js").read_text(encoding="utf-8"),
    )


def edit_schedule(
    gates: Gates,
    *,
    key: str,
    epochs: int,
    known: Known,
    past: Past | None = None,
    ghost: Schedule | None = None,
) -> Schedule:
    """Draw the editor; returns the schedule as it is chosen now.

    Args:
        gates: settings of the gates; the editor begins with their schedule.
        key: of the editor; what is chosen is remembered under it. A new key begins anew.
        epochs: of the gate stage.
        known: what runs of the same networks tell, for what is expected.
        past: of a stage that is under way: the epochs that cannot be changed any more.
        ghost: the schedule before, drawn behind the new one.
    """
    frozen = 0 if past is None else len(past.weights)
    base: Schedule = st.session_state.setdefault(f"{key}-base", gates.schedule)
    version: int = st.session_state.setdefault(f"{key}-version", 0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "λ schedule",
            list(KINDS),
            index=list(KINDS).index(base.kind),
            format_func=TITLES.__getitem__,
            key=f"{key}-kind-{version}",
            help=_HELP,
            width=190,
            on_change=partial(_change_kind, key, frozen / epochs, past),
        )
        chosen = _numbers(base, f"{key}-{version}")
        for label, preset in {"Reset": gates.schedule, "The paper's": PAPER_SCHEDULE}.items():
            st.button(
                label,
                key=f"{key}-{label}",
                on_click=partial(_restart, key, preset),
                disabled=preset == chosen,
            )
    left, right = st.columns(2)
    with left:
        slot = st.container()
        if isinstance(chosen, Points):
            chosen = _table(chosen, f"{key}-points-{version}", epochs, frozen)
    st.session_state[f"{key}-now"] = chosen
    found = expect(gates, epochs, known, chosen, past)
    with slot:
        _curve(chosen, found, key, epochs, past, ghost)
    with right:
        _expectation(chosen, found, key, epochs, known, past)
    return chosen


def _restart(key: str, schedule: Schedule) -> None:
    """Begin anew with a schedule; all widgets of the editor are new."""
    st.session_state[f"{key}-base"] = schedule
    st.session_state[f"{key}-version"] += 1


def _change_kind(key: str, begin: float, past: Past | None) -> None:
    """Go on with another kind, between the same ends."""
    kind = st.session_state[f"{key}-kind-{st.session_state[f'{key}-version']}"]
    now: Schedule = st.session_state[f"{key}-now"]
    try:
        schedule = as_kind(kind, now)
        if isinstance(schedule, Closing) and past is not None and begin < schedule.half:
            mean = float(np.mean([each.mean() for each in past.opened.values()]))
            schedule = Closing(begin=begin, opening=min(max(mean, 0.5), 1.0))
        elif isinstance(schedule, Points) and begin > 0:
            schedule = Points(points=_handles(now, begin))
    except RecipeError as error:  # the curve at hand is beyond what λ may be
        st.toast(str(error), icon=":material/error:", duration="long")
        schedule = now
    _restart(key, schedule)


def _moved(key: str, epochs: int) -> None:
    """Points were moved in the browser: they are the schedule now."""
    moved = st.session_state[f"{key}-curve"]["points"]
    if moved:
        points = tuple((min(epoch / epochs, 1.0), float(weight)) for epoch, weight in moved)
        try:
            _restart(key, Points(points=points))
        except RecipeError as error:  # the curve that they are taken from is beyond what λ may be
            st.toast(str(error), icon=":material/error:", duration="long")


def _numbers(base: Schedule, key: str) -> Schedule:
    """The few numbers of a schedule's kind."""
    values: dict[str, Any] = {}
    for field, (label, least, most) in _NUMBERS[base.kind].items():
        value = getattr(base, field)
        whole = isinstance(value, int)
        values[field] = st.number_input(
            label,
            int(least) if whole else least,
            int(most) if whole else most,
            value,
            1 if whole else 0.01,
            "%d" if whole else "%.4g",
            key=f"{key}-{field}",
            persist_state="session",
            width=150,
        )
    return type(base)(**values) if values else base


def _table(base: Points, key: str, epochs: int, frozen: int) -> Points:
    """The points as a table; where they make no schedule it says why and they stay as they were."""
    frame = pd.DataFrame(
        {
            "epoch": [round(place * epochs, 3) for place, _ in base.points],
            "λ": [float(f"{weight:.4g}") for _, weight in base.points],
        }
    )
    edited = st.data_editor(
        frame,
        key=key,
        num_rows="dynamic",
        hide_index=True,
        alt="The points of the λ schedule: epoch and λ",
        column_config={
            "epoch": st.column_config.NumberColumn(
                min_value=float(frozen), max_value=float(epochs), required=True, format="%.4g"
            ),
            "λ": st.column_config.NumberColumn(
                min_value=1e-9, max_value=1e3, required=True, format="%.4g"
            ),
        },
    )
    if edited.equals(frame):
        return base  # with all digits
    rows = edited.dropna().sort_values("epoch").to_dict("records")
    try:
        return Points(points=tuple((float(row["epoch"]) / epochs, float(row["λ"])) for row in rows))
    except RecipeError as error:
        st.error(str(error), icon=":material/error:")
        return base


def _handles(schedule: Schedule, begin: float) -> tuple[tuple[float, float], ...]:
    """Where a schedule can be taken hold of, from a progress on."""
    if isinstance(schedule, Closing):
        return ()
    if isinstance(schedule, Points):
        inside = tuple(point for point in schedule.points if point[0] >= begin)
        return inside or ((1.0, schedule.at(1)),)
    places = np.linspace(begin, 1, 2 if isinstance(schedule, Constant) else 6)
    return tuple((float(place), schedule.at(float(place))) for place in places)


def _curve(
    chosen: Schedule,
    found: Expected,
    key: str,
    epochs: int,
    past: Past | None,
    ghost: Schedule | None,
) -> None:
    """The curve, to be dragged."""
    frozen = 0 if past is None else len(past.weights)
    begin = frozen / epochs
    if isinstance(chosen, Curve):
        curve = _sampled(chosen, begin, epochs)
        words = f"λ goes from {curve[0][1]:.3g} to {curve[-1][1]:.3g}"
    else:
        ends = np.concatenate([[begin], found.progress])[: len(found.weights)]
        curve = np.stack([ends * epochs, found.weights], 1).tolist()
        words = f"λ is expected between {found.weights.min():.2g} and {found.weights.max():.2g}"
    before = _sampled(ghost, 0, epochs) if isinstance(ghost, Curve) else []
    over = [] if past is None else list(enumerate(past.weights.tolist(), 1))
    handles = [[place * epochs, weight] for place, weight in _handles(chosen, begin)]
    every = [weight for _, weight in [*curve, *before, *over, *handles]]
    _component()(
        key=f"{key}-curve",
        data={
            "epochs": epochs,
            "frozen": frozen,
            "low": 10.0 ** max(math.floor(math.log10(min(every)) - 0.2), -9),
            "high": 10.0 ** min(math.ceil(math.log10(max(every)) + 0.2), 3),
            "curve": curve,
            "past": over,
            "ghost": before,
            "points": handles,
            "dashed": isinstance(chosen, Closing),
            "colour": ENSEMBLE,
            "label": f"{TITLES[chosen.kind]} λ schedule: {words} over {epochs} epochs",
        },
        on_points_change=partial(_moved, key, epochs),
    )
    how = "Drag a point, or move it with the arrow keys; double-click to add or remove one."
    if isinstance(chosen, Closing):
        how = "Dashed, because the gates will set it: λ as expected."
    elif not isinstance(chosen, Points):
        how += " That makes it a schedule of points, which begins where this one is."
    st.caption(f"{words} over {epochs} epochs of gates. {how}")


def _sampled(curve: Curve, begin: float, epochs: int) -> list[list[float]]:
    """A curve from a progress to the end: lists of epoch and λ."""
    progress = np.linspace(begin, 1, _SAMPLES)
    return np.stack([progress * epochs, curve.curve(progress)], 1).tolist()


def _expectation(
    chosen: Schedule, found: Expected, key: str, epochs: int, known: Known, past: Past | None
) -> None:
    """What the schedule is expected to do to the gates, and what to be warned of."""
    path = None
    if isinstance(chosen, Closing):
        places = np.array([chosen.begin, chosen.half, 1.0])
        path = np.stack([places * epochs, chosen.path(places)], 1)
    means = found.means()
    showing.echarts(
        expected_openness(
            epochs,
            found.progress * epochs,
            {space: means[:, i] for i, space in enumerate(found.spaces)},
            closing=(1 - CLOSING) * epochs,
            past=None if past is None else past.means,
            path=path,
        ),
        key=f"{key}-expected",
        height=280,
        alt="Expected mean P[open] of each space over the gate stage; at the cut "
        + ", ".join(
            f"{space} {mean:.2f}" for space, mean in zip(found.spaces, means[-1], strict=True)
        ),
    )
    source = (
        f"from a model whose pull of the error was fitted to {known.run}"
        if known.run
        else "from a model without the error's pull, which is not known before a run of this "
        "recipe has finished: in truth the gates close later"
    )
    st.caption(
        f"Expected mean P[open] of each space, {source}. In the shaded last tenth all gates of a "
        f"space are shifted alike."
    )
    showing.table(
        pd.DataFrame({"epoch": found.progress * epochs, "λ": found.weights}).join(
            pd.DataFrame(means, columns=list(found.spaces))
        ),
        key=f"{key}-expected-table",
        title="Expected λ and mean P[open] as a table",
        alt="Expected λ and mean P[open] of each space, by epoch",
        file="expected-gates.csv",
    )
    for sentence in warnings(found, epochs):
        st.warning(sentence, icon=":material/warning:")
