"""The dashboard: `streamlit run app.py`, or just `netweld`."""

import streamlit as st

from merge_core import places
from pages import identity, selection, shared

st.set_page_config(
    page_title="Netweld",
    page_icon=str(places.dashboard() / "assets" / "icon.png"),
    layout="wide",
    menu_items={"About": "**Netweld** merges trained neural networks into a better one."},
)
page = shared.navigation()
identity.welcome()
shared.pick_run()
selection.follow_address(page)
with shared.inside_app():
    page.run()
identity.remember()
