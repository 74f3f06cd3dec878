"""Page Compare, stored runs: pick any, and see them as the strategies of a table are seen."""

import streamlit as st

from merge_core.recipes import Comparison
from merge_core.views.repeated import (
    RETURNED,
    Repeated,
    commands,
    picked,
    repeated,
    stage_words,
    stages_of,
)
from pages import evidence, picking

MOST_RUNS = 12
METRICS = {"accuracy": "accuracy", "loss": "loss (of sine)"}


def show_runs() -> None:
    """Stored runs side by side."""
    every = {run.name: run for run in picking.runs() if not isinstance(run.recipe, Comparison)}
    if not every:
        st.info("There is no run yet. Start your first merge on the page Merge.")
        st.page_link("pages/merge.py", label="Start a merge", icon=":material/merge:")
        return
    over = [name for name, run in every.items() if run.returned]
    names = st.multiselect(
        "Runs", list(every), default=over[:MOST_RUNS], key="compared-runs",
        persist_state="session",
        help="Runs of one recipe with different seeds count as its repetitions.",
    )  # fmt: skip
    if not names:
        st.caption("Choose one run or more.")
        return
    readers = [picking.open_run(every[name]) for name in names]
    try:
        groups = repeated(readers)
    finally:
        for reader in readers:
            reader.close()
    metric, stages = chosen(groups)
    scored = picked(groups, metric, stages)
    if not scored.rows:
        st.caption("None of these runs has finished what is chosen; choose other stages or runs.")
        return
    seen = evidence.choices(scored)
    evidence.show(
        scored,
        seen,
        "Runs with other settings differ in budget and data; for a comparison at one budget repeat "
        "an experiment.",
    )
    st.markdown("Every run again from a terminal:")
    st.code(commands(scored.groups), language="bash")


def chosen(groups: list[Repeated]) -> tuple[str, list[str]]:
    """Which runs by their metric, and which of their networks, are compared."""
    metrics = list(dict.fromkeys(group.recipe.metric for group in groups))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metric = metrics[0]
        if len(metrics) > 1:
            metric = st.segmented_control(
                "Runs judged by", metrics, format_func=METRICS.__getitem__, default=metrics[0],
                required=True, key="runs-metric",
            )  # fmt: skip
        some = [group for group in groups if group.recipe.metric == metric]
        stages = stages_of(some)
        usual = [RETURNED] if len(some) > 1 and RETURNED in stages else stages
        mark = f"{metric}-{len(some) > 1}"
        picks = st.multiselect(
            "Networks", stages, default=usual, format_func=stage_words, key=f"runs-stages-{mark}",
            help="What each run returned, or the network after any of its stages.",
        )  # fmt: skip
    return metric, [stage for stage in stages if stage in picks]
