"""The colours and the frame that all charts share.

Categories take the Okabe-Ito colours, magnitudes take cividis; both stay apart for colour-blind
eyes and in both themes. Text takes its colour from the page's theme, so none is set here.
"""

import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

TEACHER_COLOURS = ("#0072B2", "#E69F00")
TEACHER_NAMES = ("A", "B")
STUDENT = "#009E73"
ENSEMBLE = "#CC79A7"
CONTROL = "#8A8F98"
KEPT = "#E3001B"
"""The outline of kept filters, red as in the paper's Fig. 2; always together with a mark."""
SELECTED = "#CC00CC"
"""The selected channel, in a colour that nothing else has."""
UNTOUCHED: dict[str, Any] = {"unselected": {"marker": {"opacity": 1}}}
"""Parts of a scatter that stays as it is when marks elsewhere in its figure are clicked."""
NEUTRAL = "#8A8F98"
GRID = "rgba(138, 143, 152, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"
_LETTERS, _LINE = 64, 16
"""How many letters of a note's line are seen on a telephone; how high a line is, in pixels."""
CIVIDIS = (
    "#00224E",
    "#123570",
    "#3B496C",
    "#575D6D",
    "#707173",
    "#8A8678",
    "#A59C74",
    "#C3B369",
    "#E1CC55",
    "#FEE838",
)

ROLE_COLOURS = {"bound": ENSEMBLE, "merge": STUDENT, "control": CONTROL, "measure": NEUTRAL}


def ring(size: float) -> dict[str, Any]:
    """Parts of a scatter whose marks can be clicked and are seen only when selected.

    Plotly fills an open symbol when it is clicked, so the ring is a disc that lets see through.
    """
    return {
        "marker": {
            "size": size,
            "symbol": "circle",
            "opacity": 0,
            "line": {"width": 4, "color": SELECTED},
        },
        "selected": {"marker": {"opacity": 1, "color": "rgba(204, 0, 204, 0.25)"}},
        "unselected": {"marker": {"opacity": 0}},
    }


def luminance(values: np.ndarray) -> np.ndarray:
    """The relative luminance of values from 0 to 1 in cividis, from 0 to 1 (WCAG 2.2)."""
    colours = np.array([[int(each[at : at + 2], 16) for at in (1, 3, 5)] for each in CIVIDIS])
    at = np.linspace(0, 1, len(CIVIDIS))
    parts = np.stack([np.interp(values, at, each) for each in colours.T], -1) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def stage_colour(stage: str, role: str) -> str:
    """The colour of a stage's marks: one for each teacher, one for each other role."""
    if role == "teacher":
        return TEACHER_COLOURS[0 if stage == "teacher_a" else 1]
    return ROLE_COLOURS[role]


def frame(figure: go.Figure, *, height: int, legend: bool = True) -> go.Figure:
    """Give a figure the margins, grid and legend of all figures here; returns it."""
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "font": {"size": 14}},
        hoverlabel={"align": "left"},
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(
            gridcolor=GRID,
            zeroline=False,
            automargin=True,
            tickfont={"size": 14},
            title_font={"size": 14},
        )
    return figure


def noted(figure: go.Figure, text: str) -> go.Figure:
    """Write at the foot of a framed figure what it rests on, so that saved pictures say it too.

    The words are the figure's title, the only text that finds its place below ticks and axis titles
    of any height; Streamlit sets titles in bold, which these are not.
    """
    lines = textwrap.wrap(text, _LETTERS)
    style = "font-weight: 400; fill-opacity: 0.7"
    figure.update_layout(
        height=figure.to_dict()["layout"]["height"] + _LINE * len(lines),
        title={
            "text": f'<span style="{style}">{"<br>".join(lines)}</span>',
            "font": {"size": 12},
            "xref": "container",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 1e-6,  # at 0 Plotly moves further lines down, out of the figure
            "yanchor": "bottom",
            "pad": {"t": 8, "b": 4, "l": 8},
            "automargin": True,
        },
    )
    return figure
