"""A table, a lab or a search that somebody works on: how far it is, where it waits, and its end."""

import streamlit as st

from merge_core import carriers
from merge_core.carriers import Carried
from merge_core.store import key_of
from pages import identity, living


def refusal(now: Carried) -> str:
    """Why the visitor may not stop it nor add to it; empty where they may."""
    return identity.refusal(key_of(now.path))


def at_work(now: Carried, words: str, kind: str) -> None:
    """How far it is, or who is before it in the queue; and the button that ends either.

    Args:
        now: what a process works on or is about to.
        words: how far it is.
        kind: "table", "lab" or "search".
    """
    told, why = now.progress, refusal(now)
    assert told is not None, "nobody works on it"
    waits = told.state == "waiting"
    if waits:
        place = living.queue_place(key_of(now.path))
        where = "Its turn has come" if place is None else place.words
        st.info(
            f"{where}. It begins as a place on this machine becomes free, also when this page is "
            f"closed.",
            icon=":material/hourglass:",
        )
    else:
        st.progress(told.fraction, text=words)
    if why:
        st.caption(why)
    if st.button(
        "Take out of the queue" if waits else "Stop",
        icon=":material/playlist_remove:" if waits else ":material/stop:",
        key=f"stop-{kind}",
        disabled=bool(why),
    ):
        carriers.stop(now.path)
        st.rerun(scope="app")


def follow(now: Carried, kind: str) -> None:
    """Draw the whole page again when the work begins or ends, for the page around is out of date.

    Args:
        now: what is shown.
        kind: "table", "lab" or "search".
    """
    before = st.session_state.get(f"{kind}_seen")
    st.session_state[f"{kind}_seen"] = seen = (now.name, now.mark)
    if before is not None and before[0] == seen[0] and before != seen:
        st.rerun(scope="app")
