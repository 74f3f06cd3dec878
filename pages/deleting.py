"""Deleting something for good: a fold that says what is lost, with the button that does it."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from merge_core import places
from merge_core.carriers import Carried
from merge_core.store import RunSummary, Store, key_of, kind_of
from merge_core.views.losses import Loss, loss, loss_of
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
        lost = partial(loss, Store(), summary)
        worked_on = summary.state in ("running", "paused")
        st.fragment(partial(_offer, summary.name, label, lost, worked_on, after))()


def offer_carried(now: Carried) -> None:
    """The fold for a table, a lab or a search; nothing for one that came with netweld."""
    key, home = key_of(now.path), places.home()
    if now.path.parent.parent == home:
        lost = partial(loss_of, home, key)
        label = f"Delete this {kind_of(key)}"
        st.fragment(partial(_offer, key, label, lost, now.running, _draw_again))()


def _draw_again(name: str) -> None:
    st.rerun(scope="app")


def _offer(
    name: str,
    label: str,
    lost: Callable[[], Loss],
    worked_on: bool,
    after: Callable[[str], object],
) -> None:
    fold = st.expander(label, icon=":material/delete:", on_change="rerun", key=f"delete-{name}")
    if not fold.open:
        return
    with fold, showing.errors_as_sentences():
        kind, short = kind_of(name), name.rpartition("/")[2]
        why = "It is being worked on: stop it first." if worked_on else identity.refusal(name)
        st.markdown(f"**Delete {short}?** {lost().words()}")
        if why:
            st.caption(why)
        elif identity.for_many():
            st.caption(f"Whoever started a {kind} may delete it, and an instructor any {kind}.")
        if st.button(
            "Delete for good",
            type="primary",
            icon=":material/delete_forever:",
            key=f"delete-{name}-now",
            disabled=bool(why),
        ):
            Store().delete(name)
            after(name)
