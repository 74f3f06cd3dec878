"""The dashboard: `streamlit run app.py`, or just `netweld`."""

import streamlit as st

from merge_core import places
from pages import identity, navigation, picking, selection

st.set_page_config(
    page_title="Netweld",
    page_icon=str(places.dashboard() / "assets" / "icon.png"),
    layout="wide",
    menu_items={"About": "**Netweld** merges trained neural networks into a better one."},
)
page = navigation.announce()
identity.welcome()
picking.pick_run()
selection.follow_address(page)
with navigation.inside_app():
    page.run()
identity.remember()
