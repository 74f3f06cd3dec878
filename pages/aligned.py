"""What the pages about an alignment share: which one is shown, and how one is started."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from merge_core import compared, launch, places
from merge_core.store import RunSummary, Store
from merge_core.views.similarity import Alignment, alignment
from pages import living, picking, showing

BY_WEIGHTS = (
    "The weights of the two teachers are compared with the channels around them matched by "
    "weights, whichever matching is picked here."
)
"""Said where similarities of weights are shown."""
READ_AT_ONCE = 2
"""Alignments that are kept in memory; one of a network with 2048 channels takes 200 MB."""


def show(body: Callable[[Alignment], None]) -> None:
    """Draw a page about the alignment of the picked run's networks.

    Without a comparison there is a button that starts one; while one runs, its progress.
    """
    with showing.errors_as_sentences():
        run = picking.picked_run()
        comparison = picking.pick_comparison()
        if comparison is None:
            offer(run)
            return
        name = comparison.name
        found = _aligned(name)
        if comparison.state != "finished":
            living.live(
                partial(progress, name, found is None),
                every=1,
                summary=lambda: picking.comparison_now(name),
            )
        if found is not None:
            a, b = found.teachers
            if (a, b) != ("A", "B"):
                st.caption(f"Teacher A is **{a}**, teacher B is **{b}**.")
            body(found)


def progress(name: str, waiting: bool) -> None:
    """How far the comparison is; the page is drawn again as soon as there is an alignment."""
    summary = picking.comparison_now(name)
    with picking.open_run(summary) as reader:
        living.progress(summary, reader)
    if waiting and _aligned(name) is not None:
        st.rerun(scope="app")


def offer(run: RunSummary) -> None:
    """Start a comparison of a run's teachers, without any method."""
    living.state_note(run)
    st.info(
        "The teachers of this run have not been compared yet: how alike their channels are and "
        "which belong together is measured in a process of its own, often within a minute.",
        icon=":material/compare_arrows:",
    )
    if st.button("Compare the teachers", type="primary", icon=":material/play_arrow:", key="align"):
        with picking.open_run(run) as reader:
            comparison, files = compared.of_run(reader, ())
        name, _ = launch.begin(Store(), comparison, inputs=files)
        picking.show_comparison(name, run.name)
    st.caption("The page *Methods* compares the ways to merge them as well, which takes longer.")


def _aligned(name: str) -> Alignment | None:
    """The alignment of a comparison, once it is measured."""
    with Store().open(name) as reader:
        stored: dict[str, Any] = {row["name"]: row for row in reader.artifacts()}
        over = [row for row in reader.stages() if row["stage"] == "alignment" and row["finished"]]
    if not over or "alignment" not in stored:
        return None
    return _read(str(places.home()), name, stored["alignment"]["sha256"])


@st.cache_resource(max_entries=READ_AT_ONCE, show_spinner=False)
def _read(home: str, name: str, digest: str) -> Alignment | None:
    """The alignment; `home` and `digest` tell those of one name apart."""
    with Store().open(name) as reader:
        return alignment(reader)
