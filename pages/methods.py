"""Methods: the same networks merged by every method, score against cost."""

import streamlit as st

from pages import shared

shared.require_app()
st.header("Methods")
with shared.errors_as_sentences():
    shared.picked_run()
    shared.pick_comparison()
