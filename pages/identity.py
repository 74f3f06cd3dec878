"""Who looks at the dashboard, what they may command, and the corner of an instructor.

On a server for this machine only, without an instructor's key, everybody is the person at the
terminal. On a shared one a browser is known by a signed cookie, or by the login of whoever uses it
where the server's secrets switch `st.login` on.
"""

import os
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import streamlit as st
from streamlit.components.v2 import component
from streamlit.runtime.scriptrunner import get_script_run_ctx

from merge_core import owners, places, queue
from merge_core.errors import NetweldError
from merge_core.owners import Visitor
from merge_core.store import Limits, Store, Turns, kind_of
from merge_core.views.queued import queue_frame

COOKIE = "netweld-owner"
VISITOR = "visitor"
"""Where a session keeps who it is."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_REMEMBER = """
export default function ({ data }) {
  document.cookie = `${data.name}=${data.token}; path=/; max-age=31536000; SameSite=Strict`;
}
"""


def visitor() -> Visitor:
    """Who looks at this moment, also in a callback; outside of a page whoever started the server.

    Raises:
        StoreError: the key that signs cannot be read.
    """
    if get_script_run_ctx(suppress_warning=True) is None or not for_many():
        return owners.of_the_terminal()
    if _signs_in():
        made = Visitor(owner=owners.of_login(st.user) if st.user.get("is_logged_in") else "")
        instructor = VISITOR in st.session_state and st.session_state[VISITOR].instructor
        return _instructor(made) if instructor else made
    if VISITOR not in st.session_state:
        shown = st.context.cookies.get(COOKIE)
        st.session_state[VISITOR] = owners.known(places.home(), shown) or owners.new_browser()
    return st.session_state[VISITOR]


def _instructor(who: Visitor) -> Visitor:
    return Visitor(owner=who.owner, commands_all=True, instructor=True)


def for_many() -> bool:
    """Whether more people than the one at the terminal may come."""
    return (
        st.get_option("server.address") not in _LOCAL
        or bool(os.environ.get(owners.INSTRUCTOR_KEY))
        or _signs_in()
    )


def _signs_in() -> bool:
    return bool(_auth())


def _auth() -> Mapping[str, Any]:
    """The part of the server's secrets that is about logins; empty where there is none."""
    return st.secrets.get("auth", {}) if st.secrets.load_if_toml_exists() else {}


def refusal(name: str) -> str:
    """Why the visitor may not command a run; empty where they may.

    Args:
        name: of the run; or what a table, a lab or a search is known by (`merge_core.store.Turn`).
    """
    try:
        who = visitor()
        if not who.commands_all:
            who.require(name, Turns(places.home()).owner(name), kind_of(name))
    except NetweldError as error:
        return str(error)
    return ""


def welcome() -> None:
    """At the start of every page: let whoever must sign in do so, and show an instructor's corner.

    From then on, commands are those of whoever looks.
    """
    owners.tell_who_acts(visitor)
    if not for_many():
        return
    if _signs_in() and not visitor().owner:
        _sign_in()
        st.stop()
    if os.environ.get(owners.INSTRUCTOR_KEY):
        with st.sidebar:
            _corner()


def _sign_in() -> None:
    """What somebody sees whose login is not known, or names nobody."""
    st.title("Netweld")
    if not all(find_spec(needed) for needed in ("authlib", "httpx")):
        st.error(
            "This server asks for a login, but what that needs is not installed: whoever runs it "
            "installs netweld with its extra `login` and starts it again.",
            icon=":material/error:",
        )
        return
    if st.user.get("is_logged_in"):
        st.error(
            "Your login tells neither an e-mail address nor a `sub`, so that nothing could be "
            "yours; sign out and use another one.",
            icon=":material/error:",
        )
        st.button("Sign out", icon=":material/logout:", on_click=st.logout)
        return
    st.write("This server is shared: sign in, and your runs are yours.")
    named = [name for name, settings in _auth().items() if isinstance(settings, Mapping)]
    if "client_id" in _auth():
        st.button("Sign in", type="primary", icon=":material/login:", on_click=st.login)
    for name in named:
        st.button(
            f"Sign in with {name}",
            type="primary",
            icon=":material/login:",
            key=f"login-{name}",
            on_click=partial(st.login, name),
        )


def remember() -> None:
    """At the end of every page: let the browser keep who it is."""
    if not for_many() or _signs_in():
        return
    token = owners.token(places.home(), visitor())
    if st.context.cookies.get(COOKIE) != token:
        keep = component("netweld_owner", js=_REMEMBER)
        keep(key="owner", data={"name": COOKIE, "token": token}, height=0)


def _corner() -> None:
    """The sidebar: where an instructor says who they are, and then has the queue in hand."""
    who = visitor()
    if not who.instructor:
        with st.expander("Instructor", icon=":material/school:"):
            st.caption(f"You are `{who.owner}`: an instructor knows your runs by that.")
            st.text_input(
                "Key",
                type="password",
                key="instructor-key",
                on_change=_try_key,
                help="The word in NETWELD_INSTRUCTOR_KEY of the server.",
            )
            if st.session_state.pop("instructor-wrong", False):
                st.error("That is not the key of this server.", icon=":material/key_off:")
        return
    st.subheader("Instructor")
    st.caption("You may command everyone's runs.")
    store = Store()
    st.fragment(_queue, run_every=2)(store)
    _limits(Turns(store.home))


def _try_key() -> None:
    if owners.may_instruct(st.session_state["instructor-key"]):
        st.session_state[VISITOR] = _instructor(visitor())
    else:
        st.session_state["instructor-wrong"] = True
    st.session_state["instructor-key"] = ""


def _queue(store: Store) -> None:
    """Everybody's turns, and a button that ends the waiting."""
    try:
        frame = queue_frame(store, brief=True)[["Turn", "Kind", "Name", "Owner"]]
        waiting = sum(turn != "has it" for turn in frame["Turn"].tolist())
        st.markdown(f"**Queue**: {len(frame) - waiting} with a worker, {waiting} waiting.")
        if len(frame):
            st.dataframe(
                frame, hide_index=True, key="queue", alt="Who has a turn, who waits, and how long"
            )
        if st.button(
            "Clear the queue",
            icon=":material/delete_sweep:",
            key="clear-queue",
            disabled=not waiting,
            help="What waits is stopped and can go on later; what has a worker goes on.",
        ):
            queue.withdraw(store)
            st.rerun(scope="app")
    except NetweldError as error:
        st.error(str(error), icon=":material/error:")


def _limits(turns: Turns) -> None:
    """What each user may have."""
    now = turns.limits()
    with st.form("limits"):
        st.markdown("**Limits for each user**")
        running = st.number_input(
            "Turns at once", 1, 1000, now.running, key="limit-running", placeholder="no limit"
        )
        minutes = st.number_input(
            "Minutes of computing in all",
            0.0,
            1e6,
            now.minutes,
            key="limit-minutes",
            placeholder="no limit",
        )
        if st.form_submit_button("Set", icon=":material/rule:"):
            turns.allow(Limits(running=None if running is None else int(running), minutes=minutes))
