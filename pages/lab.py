"""Lab: one recipe under many λ schedules at once, as a landscape that fills in as they go."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st

from merge_core import carriers, lab_work, launch, places
from merge_core.lab import (
    AXES,
    MEASURES,
    Cell,
    Lab,
    LabFile,
    best_cells,
    landscape,
    missing,
)
from merge_core.plots.lab import cell_curves, landscape_map
from merge_core.presets import PRESETS, find_preset
from merge_core.schedules import TITLES
from merge_core.store import Store
from merge_core.views.lab import (
    LabNow,
    cell_text,
    findings,
    lab_command,
    lab_files,
    lab_frame,
    lab_label,
    lambda_curve,
    mean_curves,
    merge_command,
    metric_word,
    readable_lab,
)
from merge_core.views.runs import duration
from pages import carried, navigation, picking, search, showing

RECIPES = ("sine", "digits")
"""Small enough for dozens of schedules in minutes; the command takes every merge."""
GRIDS = (4, 8, 15)
DEVICES = launch.DEVICES[1:]
WAYS = {"grid": "A grid at once", "search": "Search the schedule"}
_WORDS = {
    "stopped": "was stopped",
    "lost": "has lost its process, perhaps because the machine was switched off",
}
_READ = {
    "open_before": "Mean P[open] when the last tenth of the gate stage begins. Far above ½, the "
    "last tenth closes gates that the schedule did not, all alike.",
    "open_at_cut": "Mean P[open] when the network is cut. The method aims at ½.",
    "undecided": "Share of the gates with P[open] between 0.1 and 0.9 at the cut: the cut decides "
    "about them by a hair.",
}
_PICKED = carried.Words(
    kind="lab",
    title="Lab",
    name="Recipe, preset, kind of schedules, grid, a mark of settings.",
    nothing="There is no lab yet. Start one with *Sine*: 64 schedules take a minute or two, and "
    "the landscape shows at once what is finished.",
    begin="A new lab",
)


@st.cache_data(max_entries=32, show_spinner=False)
def stored(path: str, stamp: int) -> LabNow | None:
    """The lab in a file as it was at a moment; None where it cannot be read."""
    return readable_lab(Path(path))


def every_lab() -> dict[str, LabNow]:
    """Name → lab, the one that changed last first."""
    found = {}
    for path in lab_files(places.home()):
        now = stored(str(path), path.stat().st_mtime_ns)
        if now is not None:
            found[now.name] = replace(now, progress=carriers.progress_of(path))
    return found


def show_labs() -> None:
    """Pick a lab and see it; start one."""
    carried.pick(_PICKED, every_lab(), lab_label, show_lab, start)


def show_lab(name: str) -> None:
    """One lab: how far it is, the landscape, the gates of the chosen cell, the figures."""
    with showing.errors_as_sentences():
        now = every_lab().get(name)
        if now is None:
            st.rerun(scope="app")
        work(now)
        if not now.rows:
            st.caption("The teachers are trained first; then the landscape fills in from a coarse "
                       "grid to a fine one.")  # fmt: skip
            return
        st.markdown(findings(now))
        cell = chosen_cell(now)
        left, right = st.columns([3, 2])
        with left:
            picture(now, cell)
        with right:
            gates(now, cell)
        figures(now)


def work(now: LabNow) -> None:
    """How far a lab is, and the buttons that steer it."""
    told, total = now.progress, now.lab.shape[0] * now.lab.shape[1]
    if told is not None and now.running:
        left = "" if told.left is None else f" · about {duration(told.left)} left"
        carried.at_work(
            now,
            f"**{100 * told.fraction:.0f} %** of {total} schedules × {told.asked.n} seed"
            f"{'s' if told.asked.n > 1 else ''} on {told.asked.device}{left}. It goes on when this "
            f"page is closed.",
            "lab",
        )
    elif told is None or missing(now.lab, now.rows, now.seeds):
        words = "is not finished"
        if told is not None:
            words = _WORDS.get(told.state, f"failed. {told.message}")
        st.warning(f"This lab {words}. What is finished stays; the rest can follow.")
        if why := carried.refusal(now):
            st.caption(why)
        if st.button(
            "Go on", type="primary", icon=":material/resume:", key="lab-go-on", disabled=bool(why)
        ):
            seeds = now.seeds or [0]
            lab_work.begin(
                LabFile(now.lab), seeds[-1] - seeds[0] + 1, seed=seeds[0],
                device=told.asked.device if told is not None else "cpu",
                data=Path(told.asked.data) if told is not None else None,
            )  # fmt: skip
            st.rerun(scope="app")
    carried.follow(now, "lab")


def chosen_cell(now: LabNow) -> Cell:
    """The cell that was clicked; without one the best so far."""
    clicked = st.session_state.get("lab-cell")
    if clicked is not None and clicked[0] == now.name:
        return clicked[1]
    return best_cells(now.lab, now.rows)[0]


def click(name: str, columns: int) -> None:
    """A cell of the landscape was clicked."""
    for group in st.session_state["landscape"]["selection"]["selected"]:
        if group["series_index"] == 0:
            index = int(group["data_indices"][-1])
            st.session_state["lab-cell"] = (name, divmod(index, columns))


def picture(now: LabNow, cell: Cell) -> None:
    """The landscape."""
    lab = now.lab
    measure = st.segmented_control(
        "Show", list(MEASURES), format_func=MEASURES.__getitem__, default="tuned_heldout",
        required=True, key="measure", persist_state="session", wrap=True,
    )  # fmt: skip
    values = landscape(lab, now.rows, measure)
    scores = measure.endswith("heldout")
    words = metric_word(lab.recipe) if scores else "share"
    best = best_cells(lab, now.rows)[0]
    known = values[~np.isnan(values)]
    showing.echarts(
        landscape_map(
            lab, values, measure, f"{MEASURES[measure]} ({words})", best=best, chosen=cell
        ),
        key="landscape",
        height=560,
        alt=f"{MEASURES[measure]} of {len(known)} λ schedules, from {known.min():.3g} to "
        f"{known.max():.3g}; the best held-out score is at {cell_text(lab, best)}",
        on_select=partial(click, now.name, lab.shape[1]),
    )
    told = f"{MEASURES[measure]}: {words}." if scores else _READ[measure]
    st.caption(
        f"{told} Mean over {len(now.seeds)} seed{'s' if len(now.seeds) != 1 else ''}. ★: best "
        f"held-out score after fine-tuning; paper: the paper's own schedule"
        f"{'' if lab.family == 'growth' else ' has these ends'}. Click a cell to see its gates."
    )


def gates(now: LabNow, cell: Cell) -> None:
    """The gates under the chosen schedule, and the way to a full run."""
    lab = now.lab
    st.subheader(cell_text(lab, cell), anchor=False)
    rows, means = now.of(cell), mean_curves(now, cell)
    if not rows:
        st.caption("This schedule is not finished yet; its λ is shown already.")
    else:
        frame = landscape(lab, rows, "tuned_heldout"), landscape(lab, rows, "tuned_test")
        before = landscape(lab, rows, "cut_heldout")
        st.markdown(
            f"Held-out {lab.recipe.metric} **{before[cell]:.4g}** after the cut, "
            f"**{frame[0][cell]:.4g}** after fine-tuning (test {frame[1][cell]:.4g})."
        )
    showing.echarts(
        cell_curves(means, lambda_curve(lab, cell)),
        key="cell",
        height=430,
        alt=f"Mean P[open] of each space and λ over the epochs of gates at {cell_text(lab, cell)}",
    )
    seed = rows[0].seed if rows else (now.seeds or [0])[0]
    if st.button(
        "Start a full run with it", type="primary", icon=":material/merge:", key="run-cell",
        help=f"A whole merge with this schedule and seed {seed}: the same numbers, and all that "
        f"can be looked at.",
    ):  # fmt: skip
        device = "cpu" if now.progress is None else now.progress.asked.device
        name, _ = launch.begin(Store(), lab.recipe_of(cell, seed), device)
        picking.show_run(name)
    with st.expander("The same from a terminal", icon=":material/terminal:"):
        st.code(merge_command(lab, cell, seed), language="bash", wrap_lines=True)


def figures(now: LabNow) -> None:
    """The same as a table, and what to type."""
    showing.table(
        lab_frame(now),
        key="lab-figures",
        title="Every finished schedule",
        alt="Scores and gates of every finished schedule, the best first",
        file=f"{now.name}.csv",
    )
    st.markdown("The same lab from a terminal:")
    st.code(lab_command(now), language="bash", wrap_lines=True)


def start() -> None:
    """The form that starts a lab."""
    with showing.errors_as_sentences():
        titles = {name: next(p.title for p in PRESETS if p.recipe.name == name) for name in RECIPES}
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox(
                "Recipe", list(titles), format_func=titles.__getitem__, key="lab-recipe", width=200
            )
            presets = [p.recipe.preset for p in PRESETS if p.recipe.name == name]
            preset = st.segmented_control(
                "Preset", presets, default=presets[0], required=True, key=f"lab-preset-{name}"
            )
            family = st.selectbox(
                "λ schedule", list(AXES), format_func=TITLES.__getitem__, key="lab-family",
                width=190,
                help="The growth law is the paper's: λ begins at λ₀ and grows by g·√λ per epoch. "
                "The others go from a first λ to a last one.",
            )  # fmt: skip
            side = st.segmented_control(
                "Grid", GRIDS, format_func=lambda n: f"{n} × {n}", default=8, required=True,
                key="lab-grid",
            )  # fmt: skip
            seeds = st.number_input("Seeds", 1, 50, 1, key="lab-seeds", width=120)
            device = st.segmented_control(
                "Device", DEVICES, default="cpu", required=True, key="lab-device"
            )
        lab = Lab.usual(find_preset(name, preset).recipe, family, (side, side))
        first, second = lab.axes
        how = (
            "All schedules of a seed share its teachers and train side by side as one batched "
            "network."
            if name == "sine"
            else "All schedules of a seed share its teachers; the gates of this network cannot be "
            "batched, so they train one after the other, a worker on each core."
        )
        st.caption(
            f"{side * side} schedules: {first.title} from {lab.first[0]:g} to {lab.first[-1]:g}, "
            f"{second.title} from {lab.second[0]:g} to {lab.second[-1]:g}, on log scales, the "
            f"paper's among them. {how} It can be stopped at any time and goes on later."
        )
        if st.button("Start", type="primary", icon=":material/play_arrow:", key="start-lab"):
            file = LabFile(lab)
            lab_work.begin(file, int(seeds), device=device)
            st.session_state["next_lab"] = file.path.stem
            st.rerun(scope="app")


navigation.require_app()
st.header("Lab")
st.markdown(
    "**Which λ schedule?** One recipe under a whole grid of schedules at once: how well the merged "
    "network does, and how far its gates came. Or one schedule after the other, each proposed by "
    "those before, for any recipe."
)
with showing.errors_as_sentences():
    way = st.segmented_control(
        "How", WAYS, format_func=WAYS.__getitem__, default="grid", required=True, key="how",
        bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    (show_labs if way == "grid" else search.show_searches)()
