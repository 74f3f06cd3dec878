"""A table, a lab or a search that somebody works on: how far it is, where it waits, and its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import streamlit as st

from merge_core import carriers
from merge_core.carriers import Carried
from merge_core.store import key_of
from pages import deleting, identity, living

Kind = TypeVar("Kind", bound=Carried)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is said where one of several tables, labs or searches is picked.

    Attributes:
        kind: "table", "lab" or "search"; also the name in the address and in the session.
        title: of the picker.
        name: what the names tell.
        nothing: what to do while there is none.
        begin: of the fold in which another one is started.
        icon, begin_icon: of `nothing` and of the fold.
    """

    kind: str
    title: str
    name: str
    nothing: str
    begin: str
    icon: str = ":material/rocket_launch:"
    begin_icon: str = ":material/add:"


def pick(
    words: Words,
    found: Mapping[str, Kind],
    label: Callable[[Kind], str],
    show: Callable[[str], None],
    start: Callable[[], None],
) -> None:
    """Pick one and see it, delete it; start another one.

    Args:
        words: what is said.
        found: by name, the one that is shown first before all others.
        label: a badge beside the picker.
        show: draws the one of this name; once a second while somebody works on it.
        start: draws the form that starts one.
    """
    key = words.kind
    wanted = st.session_state.pop(f"next_{key}", None)
    if wanted in found:
        st.session_state[key] = wanted
    if not found:
        st.info(words.nothing, icon=words.icon)
    else:
        if st.session_state.get(key) not in (None, *found):
            st.session_state.pop(key)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox(
                words.title, list(found), key=key, bind="query-params", persist_state="session",
                width=360, help=words.name,
            )  # fmt: skip
            now = found[name]
            st.session_state[f"{key}_drawn"] = now.mark
            st.markdown(label(now), width="content")
        st.fragment(partial(show, name), run_every=1 if now.running else None)()
        deleting.offer_carried(now)
    with st.expander(words.begin, expanded=not found, icon=words.begin_icon):
        st.fragment(start)()


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
    if now.mark != st.session_state[f"{kind}_drawn"]:
        st.rerun(scope="app")
