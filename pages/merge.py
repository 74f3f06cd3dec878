"""Merge: choose a recipe, see what it will cost, start it, watch it, stop it, resume it."""

from dataclasses import replace
from typing import Any, get_args

import streamlit as st

from merge_core import launch
from merge_core.architectures import architectures_for
from merge_core.plots.curves import learning_curves
from merge_core.presets import OURS, PRESETS, TIED, Preset, preset_of
from merge_core.recipes import (
    Averaging,
    Code,
    Coupling,
    Data,
    Experiment,
    Precision,
    Recipe,
    Refit,
)
from merge_core.store import RunReader, RunSummary, Store
from merge_core.views.advice import advice
from merge_core.views.estimates import comparable, estimate
from merge_core.views.runs import (
    ALIVE,
    checks,
    curve_frame,
    duration,
    flops_text,
    recipe_title,
    stage_frame,
    stage_table,
)
from merge_core.views.settings import with_settings
from merge_core.views.steering import marker_frame
from pages import (
    deleting,
    living,
    navigation,
    own_images,
    picking,
    precedents,
    refitting,
    showing,
    tying,
)
from pages.schedule_editor import edit_schedule

OFFERED: tuple[Preset[Experiment], ...] = (*PRESETS, *OURS, *TIED)
"""What can be started here."""
PAYS = "**Merge, or train one network on?**"
"""Begins what a teacher's learning curve advises."""
ASKED = "Dotted: what was asked of the run, with a sign as on the page Gates."


def choose() -> tuple[Experiment | None, str]:
    """The widgets of a new run; its recipe, None where its images are missing, and device."""
    first, second, third, fourth = st.columns([3, 2, 2, 3])
    titles = {name: find(name).title for name in dict.fromkeys(p.recipe.name for p in OFFERED)}
    name = first.selectbox(
        "Recipe",
        list(titles),
        format_func=titles.__getitem__,
        key="recipe",
        persist_state="session",
    )
    presets = [preset.recipe.preset for preset in OFFERED if preset.recipe.name == name]
    with second:
        kind = st.segmented_control(
            "Preset", presets, default=presets[0], required=True, key=f"preset-{name}"
        )
    with third:
        seed = st.number_input(
            "Seed", 0, 2**31 - 1, 0, key="seed", persist_state="session", help="Decides every draw."
        )
    with fourth:
        device = st.segmented_control(
            "Device",
            launch.DEVICES,
            default="auto",
            required=True,
            key="device",
            persist_state="session",
            help="auto takes CUDA, then MPS, then the CPU.",
        )
    preset = preset_of(name, kind)
    st.caption(preset.story)
    recipe = of_its_kind(preset.recipe, int(seed))
    return recipe and advanced(recipe), device


def of_its_kind(recipe: Experiment, seed: int) -> Experiment | None:
    """The recipe with the settings that its kind has; None where its images are missing."""
    if isinstance(recipe, Coupling | Averaging):
        return tying.settings(recipe, seed)
    assert isinstance(recipe, Recipe | Refit)
    data = recipe.data
    if data.name == "images":
        data = own_images.choose(data, f"{recipe.name}-{recipe.preset}")
        if data is None:
            return None
    recipe = replace(recipe, data=data, model=network(recipe, data))
    return refitting.settings(recipe, seed) if isinstance(recipe, Refit) else settings(recipe, seed)


def advanced(recipe: Experiment) -> Experiment:
    """What few need, folded away; a recipe that fits numbers has none of it."""
    if recipe.metric == "loss":
        return recipe
    with st.expander("Advanced", icon=":material/tune:", key="advanced"):
        precision = one_of("Precision", get_args(Precision), recipe.precision, recipe)
        st.caption(
            "The numbers that networks compute with while they learn. bfloat16 is faster on a GPU "
            "or a processor that has instructions for it and slower on others; auto takes it where "
            "they are. Networks are judged, cut and stored in float32 at any rate."
        )
        code = one_of("Code", get_args(Code), recipe.code, recipe)
        st.caption(
            "compiled: `torch.compile` makes code for the networks, which takes up to a minute and "
            "needs a C++ compiler; the gate stage does without. It is meant for long runs on a "
            "GPU; on a CPU few networks gain. `netweld bench train` measures what it gives here."
        )
    return replace(recipe, precision=precision, code=code)


def one_of(label: str, choices: tuple[str, ...], usual: str, recipe: Experiment) -> Any:
    """One of a few words, which every preset of a recipe remembers for itself."""
    return st.segmented_control(
        label,
        choices,
        default=usual,
        required=True,
        key=f"{label.lower()}-{recipe.name}-{recipe.preset}",
        persist_state="session",
    )


def network(recipe: Recipe | Refit, data: Data) -> str:
    """The architecture: colour images can be learned by any torchvision classifier."""
    fitting = architectures_for(data.shape)
    if len(fitting) == 1:
        return fitting[0]
    return st.selectbox(
        "Network",
        fitting,
        index=fitting.index(recipe.model) if recipe.model in fitting else 0,
        key=f"network-{recipe.name}" + (f"-{data.side}" if data.name == "images" else ""),
        persist_state="session",
        help="The recipe's own small network, or any torchvision classifier by name. Those are "
        "large: on a CPU an epoch can take many minutes.",
    )


def find(name: str) -> Preset[Experiment]:
    """The first preset of a recipe."""
    return next(preset for preset in OFFERED if preset.recipe.name == name)


def settings(recipe: Recipe, seed: int) -> Recipe:
    """Epochs and λ schedule, and what it will do to the gates."""
    tail = f"{recipe.name}-{recipe.preset}"
    st.markdown("**Epochs**")
    with st.container(horizontal=True):
        epochs = tuple(
            int(
                st.number_input(
                    label,
                    low,
                    100_000,
                    start,
                    key=f"{key}-{tail}",
                    persist_state="session",
                    width=150,
                )
            )
            for key, label, low, start in (
                ("teacher", "each teacher", 1, recipe.teacher.epochs),
                ("gating", "gates", 1, recipe.gating.epochs),
                ("fine_tune", "fine-tuning", 0, recipe.fine_tune.epochs),
            )
        )
    schedule = edit_schedule(
        recipe.gates,
        key=f"schedule-{tail}",
        epochs=epochs[1],
        known=precedents.known_gates(recipe, recipe.model),
    )
    return with_settings(
        recipe,
        seed=seed,
        model=recipe.model,
        epochs=(epochs[0], epochs[1], epochs[2]),
        schedule=schedule,
    )


def cost(recipe: Recipe, device: str) -> None:
    """What the merge will cost, before it starts."""
    found = estimate(recipe, device, comparable(Store(), picking.runs(), recipe))
    if found is None:
        st.caption(
            "No finished run of this recipe with this network is known here, so there is no "
            "estimate yet."
        )
        return
    st.markdown(
        f"It will take about **{duration(found.seconds)}** and **{flops_text(found.flops)}**, "
        f"controls included."
    )
    st.caption(found.source)
    if told := precedents.advice_before(recipe):
        sentence, run = told
        st.caption(f"{PAYS} {sentence} (Seen in {run}.)")


def new_merge() -> None:
    """The part of the page that starts a merge."""
    with showing.errors_as_sentences():
        recipe, device = choose()
        if recipe is None:
            return
        if isinstance(recipe, Recipe):
            cost(recipe, device)
        label = "Start the training"
        if isinstance(recipe, Recipe | Refit):
            label = "Start the merge"
        if st.button(label, type="primary", icon=":material/play_arrow:", key="go"):
            name, _ = launch.begin(Store(), recipe, device)
            picking.show_run(name)


def progress() -> None:
    """The picked run: how far it is, its curves, its stages, and how to steer it."""
    summary = picking.picked_training()
    with picking.open_run(summary) as reader:
        if summary.state == "finished":
            after(summary, reader)
        living.progress(summary, reader)
        curves, markers = curve_frame(reader), marker_frame(reader)
        stages, checked = stage_frame(reader), checks(reader)
        advised = advice_now(reader)
    if checked:
        st.caption(checked)
    metric = summary.recipe.metric
    quantities = ["accuracy", "loss"] if metric == "accuracy" else ["loss"]
    told = tying.DISTANCES.get(summary.recipe.kind)
    quantities += ["distance"] if told else []
    if not curves.empty:
        with st.container(horizontal=True, vertical_alignment="center"):
            quantity = st.segmented_control(
                "Curve", quantities, default=metric, required=True, key="-".join(quantities)
            )
            log = st.toggle("Logarithmic scale", value=metric == "loss", key=f"curve-log-{metric}")
        showing.echarts(
            learning_curves(curves, quantity, log=log, markers=markers),
            key="curves",
            height=380,
            alt=f"Learning curves: {quantity} of every trained stage over the run's epochs",
        )
        lines = (
            told
            if told and quantity == "distance"
            else f"Full lines with marks: {quantity} on held-out examples. Dashed: on training "
            f"examples."
        )
        st.caption(
            f"{lines} {ASKED if len(markers) else ''} Seed {summary.recipe.seed}, {summary.device}."
        )
    if advised:
        st.caption(f"{PAYS} {advised}")
    if not stages.empty:
        words = stage_table(stages, metric).drop(columns="What it is")
        numbers = [f"Held-out {metric}", f"Test {metric}", f"Train {metric}"]
        st.dataframe(
            words,
            hide_index=True,
            key="progress-stages",
            alt="State and scores of every stage",
            placeholder="",
            column_config={name: st.column_config.NumberColumn(format="%.4f") for name in numbers},
        )


def advice_now(reader: RunReader) -> str:
    """Whether a merge pays here, once teacher A is trained; empty before, and for other runs."""
    recipe = reader.recipe
    trained = any(row["stage"] == "teacher_a" and row["finished"] for row in reader.stages())
    if not trained or not isinstance(recipe, Recipe | Refit):
        return ""
    told = advice(recipe, reader.metrics("teacher_a"))
    if told is None:
        return ""
    finished = reader.status()["state"] == "finished"
    return told.sentence + (" The table says what came of it here." if finished else "")


def after(summary: RunSummary, reader: RunReader) -> None:
    """What a finished run says, and where to look at it."""
    kind = "This sample" if summary.sample else "This run"
    took = reader.headway().elapsed
    st.success(
        f"{kind} is finished" + (f"; it took {duration(took)}." if took else "."),
        icon=":material/check:",
    )
    with st.container(horizontal=True):
        st.page_link("pages/overview.py", label="See the result", icon=":material/home:")
        st.page_link("pages/filters.py", label="See the filters", icon=":material/grid_view:")
        if isinstance(reader.recipe, Coupling):
            st.page_link(
                "pages/methods.py",
                label="Merge the teachers in other ways",
                icon=":material/call_merge:",
            )


navigation.require_app()
picked = next((r for r in picking.runs() if r.name == st.session_state.get(picking.RUN)), None)
with st.expander(
    "A new merge",
    expanded=picked is None or picked.state not in ALIVE,
    icon=":material/add:",
    key=f"new-{picked.name if picked else ''}",
):
    st.fragment(new_merge)()
if picked is not None:
    st.subheader(f"{recipe_title(picked.recipe)}, seed {picked.recipe.seed}: progress")
    progress_at, delete_at = st.container(), st.container()
    with delete_at:  # first: a run whose files are damaged ends the page, and can be deleted
        deleting.offer(picked)
    with progress_at:
        living.live(progress, every=1, summary=picking.picked_training)
