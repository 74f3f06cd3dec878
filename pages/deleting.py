"""Deleting a run for good: a fold that says what is lost, with the button that does it."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from merge_core.store import RunSummary, Store
from merge_core.views.losses import loss
from pages import identity, picking, showing


def offer(
    summary: RunSummary,
    label: str = "Delete this run",
    after: Callable[[str], object] = picking.show_another,
) -> None:
    """The fold for a run; nothing for a sample, which cannot be deleted.

    Args:
        summary: the run.
        label: of the fold.
        after: shows something else when the run is gone; it is given its name.
    """
    if not summary.sample:
        st.fragment(partial(_offer, summary, label, after))()


def _offer(summary: RunSummary, label: str, after: Callable[[str], object]) -> None:
    name = summary.name
    fold = st.expander(label, icon=":material/delete:", on_change="rerun", key=f"delete-{name}")
    if not fold.open:
        return
    with fold, showing.errors_as_sentences():
        store = Store()
        worked_on = summary.state in ("running", "paused")
        why = "It is being worked on: stop it first." if worked_on else identity.refusal(name)
        st.markdown(f"**Delete {name}?** {loss(store, summary).words()}")
        if why:
            st.caption(why)
        elif identity.for_many():
            st.caption("Whoever started a run may delete it, and an instructor any run.")
        if st.button(
            "Delete for good",
            type="primary",
            icon=":material/delete_forever:",
            key=f"delete-{name}-now",
            disabled=bool(why),
        ):
            store.delete(name)
            after(name)
