"""Compare: an experiment repeated with every strategy, at one budget; or stored runs."""

import streamlit as st

from pages import navigation, showing
from pages.compared_runs import show_runs
from pages.compared_tables import show_tables

WHAT = {"tables": "Repeated experiments", "runs": "Stored runs"}

navigation.require_app()
st.header("Compare")
st.markdown(
    "**Does merging pay, and how sure is that?** Every strategy gets the same budget and the same "
    "seeds, many times, so that chance shows."
)
with showing.errors_as_sentences():
    what = st.segmented_control(
        "Compare what", WHAT, format_func=WHAT.__getitem__, default="tables", required=True,
        key="what", bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    (show_tables if what == "tables" else show_runs)()
