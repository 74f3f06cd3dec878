"""The pages, as the menu announces them, and how each of them comes to be drawn by `app.py`."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.navigation.page import StreamlitPage


def announce() -> StreamlitPage:
    """Announce the pages; returns the one that the address asks for."""
    return st.navigation(
        [
            st.Page(
                "pages/overview.py",
                title="Overview",
                icon=":material/home:",
                default=True,
                help="What a run achieved, stage by stage, and all runs.",
            ),
            st.Page(
                "pages/merge.py",
                title="Merge",
                icon=":material/merge:",
                help="Choose a recipe, start a merge, watch it, stop it, resume it.",
            ),
            st.Page(
                "pages/filters.py",
                title="Filters",
                icon=":material/grid_view:",
                help="The first layers of both teachers and of the merged network.",
            ),
            st.Page(
                "pages/gates.py",
                title="Gates",
                icon=":material/toggle_on:",
                help="How the gates learned which channels to keep.",
            ),
            st.Page(
                "pages/channels.py",
                title="Channels",
                icon=":material/account_tree:",
                help="Which teacher each channel of the merged network comes from.",
            ),
            st.Page(
                "pages/similarity.py",
                title="Similarity",
                icon=":material/grid_on:",
                help="How alike the channels and the layers of two teachers are.",
            ),
            st.Page(
                "pages/matching.py",
                title="Matching",
                icon=":material/conversion_path:",
                help="Which channel of one teacher belongs to which of the other.",
            ),
            st.Page(
                "pages/methods.py",
                title="Methods",
                icon=":material/compare_arrows:",
                help="The same networks merged by every method: score against cost.",
            ),
            st.Page(
                "pages/compare.py",
                title="Compare",
                icon=":material/leaderboard:",
                help="An experiment repeated with every strategy: does merging pay, how sure is "
                "that?",
            ),
            st.Page(
                "pages/lab.py",
                title="Lab",
                icon=":material/science:",
                help="One recipe under a whole grid of λ schedules at once, as a landscape.",
            ),
            st.Page(
                "pages/network.py",
                title="Network",
                icon=":material/schema:",
                help="A network's layers by channel space, and what merging it costs.",
            ),
        ],
        position="top",
    )


@contextmanager
def inside_app() -> Iterator[None]:
    """Around the page that `app.py` runs."""
    st.session_state["inside_app"] = True
    try:
        yield
    finally:
        del st.session_state["inside_app"]


def require_app() -> None:
    """The first line of every page: run again by way of `app.py` where that was left out.

    Streamlit runs files in a folder called pages by themselves, without `app.py`, until a server
    has met `st.navigation` once. The first visitor who follows a link to a page, or reloads it,
    would find it without its picker.
    """
    if "inside_app" not in st.session_state:
        announce()
        st.rerun()
