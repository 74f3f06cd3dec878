"""Overview: what a run achieved, stage by stage, what to do next, and all runs."""

import streamlit as st

from merge_core.plots.scores import strip
from merge_core.recipes import Comparison
from merge_core.views.comparisons import comparison_label
from merge_core.views.runs import (
    ALIVE,
    budget,
    checks,
    recipe_title,
    runs_frame,
    stage_frame,
    stage_table,
    verdict,
)
from pages import living, navigation, picking, showing

EVERY = 4
"""Seconds from one look to the next: scores come with the end of a stage, and each look costs the
training that it looks at (`netweld bench watched`)."""

navigation.require_app()
st.markdown(
    "**Netweld makes one network out of two.** It puts two trained networks side by side, lets "
    "gates learn which half of the channels to keep, and cuts the rest away: one network of the "
    "original size, better than either when things go well."
)


def result() -> None:
    """The strip of stages of the picked run, with its verdict."""
    summary = picking.picked_training()
    living.state_note(summary)
    with picking.open_run(summary) as reader:
        stages, checked, place = stage_frame(reader), checks(reader), reader.place
    if not stages["test"].notna().to_numpy().any():
        st.info("No stage is over yet; the first scores come when a network is trained.")
        return
    metric = summary.recipe.metric
    st.subheader(
        f"{recipe_title(summary.recipe)}, seed {summary.recipe.seed}: the score after each stage"
    )
    found = verdict(summary.recipe, stages)
    if found:
        show = st.success if found.better else st.warning
        show(found.sentence, icon=":material/verified:" if found.better else ":material/balance:")
        st.caption(found.caution)
    showing.plotly(
        strip(stages, metric),
        key="strip",
        alt=f"Test and held-out {metric} after each stage of the run. {found.sentence}"
        if found
        else f"Test and held-out {metric} after each stage that is over.",
    )
    st.caption(budget(summary.recipe, place, stages))
    if checked:
        st.caption(checked)
    showing.table(
        stage_table(stages, metric),
        key="stages",
        title="The stages as a table",
        alt="Scores, work and time of every stage",
        file=f"{summary.name}-stages.csv",
        columns={
            column: st.column_config.NumberColumn(format="%.4f")
            for column in (f"Held-out {metric}", f"Test {metric}", f"Train {metric}")
        },
    )


def compared() -> None:
    """The comparisons of the picked run's networks, in a line."""
    found = picking.comparisons()
    if found:
        st.page_link(
            "pages/methods.py",
            label=f"Compared with other ways to merge: {comparison_label(found[0])}",
            icon=":material/compare_arrows:",
        )


def recent() -> None:
    """All runs with their live state; a click on a row picks the run."""
    runs = picking.runs()
    picked = st.dataframe(
        runs_frame(runs),
        hide_index=True,
        key="runs",
        alt="All runs, newest first",
        selection_mode="single-row",
        on_select="rerun",
        column_config={
            "Done": st.column_config.ProgressColumn(min_value=0, max_value=100, format="%.0f %%")
        },
    )
    rows = picked.selection.rows
    if rows and rows[0] < len(runs) and runs[rows[0]].name != st.session_state[picking.RUN]:
        picking.show_run(runs[rows[0]].name)


def next_steps() -> None:
    """Where to go from here."""
    with st.container(horizontal=True):
        st.page_link("pages/merge.py", label="Start a merge of your own", icon=":material/merge:")
        st.page_link(
            "pages/filters.py", label="See which filters survive", icon=":material/grid_view:"
        )
        st.page_link("pages/gates.py", label="Watch the gates learn", icon=":material/toggle_on:")
        st.page_link(
            "pages/channels.py", label="Trace the channels back", icon=":material/account_tree:"
        )
        st.page_link(
            "pages/methods.py",
            label="Compare with other methods",
            icon=":material/compare_arrows:",
        )


if isinstance(picking.picked_run().recipe, Comparison):
    st.info(
        "This run compares trained networks from files, so it has no stages of a merge.",
        icon=":material/compare_arrows:",
    )
    compared()
else:
    living.live(result, every=EVERY, summary=picking.picked_training)
    compared()
    st.subheader("What to do next")
    next_steps()
st.subheader("Runs")
st.caption("Click a row to show that run on every page.")
anything_alive = any(run.state in ALIVE for run in picking.runs())
st.fragment(recent, run_every=EVERY if anything_alive else None)()
