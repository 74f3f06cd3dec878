"""Frames to figures: Plotly figures, and ECharts options for what changes while a run runs.

No torch and no Streamlit here. A Plotly chart is rebuilt in the browser at every change of its
figure, an ECharts chart moves on in place: so whatever is watched live is an ECharts option (a
plain dictionary), everything else is a Plotly figure.
"""
