"""The dashboard: `streamlit run app.py`, or just `netweld`."""

import streamlit as st

from pages import shared

st.set_page_config(
    page_title="Netweld",
    page_icon=":material/join_inner:",
    layout="wide",
    menu_items={"About": "**Netweld** merges trained neural networks into a better one."},
)
page = st.navigation(
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
    ],
    position="top",
)
shared.pick_run()
page.run()
