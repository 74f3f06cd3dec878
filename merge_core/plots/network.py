"""The layers of a network, coloured by channel space."""

import math

import plotly.graph_objects as go

from merge_core.plots.style import NEUTRAL, frame
from merge_core.views.network import Diagram

SPACE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's colours that are seen on light and on dark; spaces take them in turn."""
_MARKS = {
    "writes": ("circle", "writes the space"),
    "reads": ("circle-open", "reads it"),
    "passes": ("square-open", "works within it"),
}
_MANY = 60
"""Beyond so many rows or lanes everything is drawn smaller."""


def spaces_diagram(diagram: Diagram) -> go.Figure:
    """Layers from top to bottom, channel spaces as upright lines, marks where they meet.

    A space that several layers write, such as a residual stream, is a thick line. The number at
    the head of a line is its size.
    """
    small = len(diagram.labels) > _MANY
    size = 8 if small else 11
    figure = go.Figure()
    _links(figure, diagram)
    for thick in (False, True):
        for colour in dict.fromkeys(_colour(lane.colour) for lane in diagram.lanes):
            mine = [
                lane
                for lane in diagram.lanes
                if lane.stream == thick and _colour(lane.colour) == colour
            ]
            if mine:
                figure.add_scatter(
                    x=[x for lane in mine for x in (lane.lane, lane.lane, None)],
                    y=[y for lane in mine for y in (lane.first, lane.last, None)],
                    mode="lines",
                    line={"color": colour, "width": (3 if small else 4) * (2.5 if thick else 1)},
                    opacity=0.55,
                    hoverinfo="skip",
                    showlegend=False,
                )
    for how, (symbol, words) in _MARKS.items():
        marks = diagram.marks[diagram.marks["how"] == how]
        if len(marks):
            colours = [_colour(number) for number in marks["colour"]]
            figure.add_scatter(
                x=marks["lane"],
                y=marks["row"],
                mode="markers",
                name=words,
                marker={
                    "symbol": symbol,
                    "size": size + 1 if how == "writes" else size,
                    "color": colours,
                    "line": {"width": 2, "color": colours},
                },
                customdata=marks["text"],
                hovertemplate="%{customdata}<extra></extra>",
            )
    figure.add_scatter(
        x=[lane.lane for lane in diagram.lanes],
        y=[lane.first - 0.5 for lane in diagram.lanes],
        text=[str(lane.size) for lane in diagram.lanes],
        mode="text",
        textfont={"size": 10 if small else 12},
        hoverinfo="skip",
        showlegend=False,
    )
    frame(figure, height=90 + (16 if small else 24) * len(diagram.labels))
    figure.update_yaxes(
        tickvals=list(range(len(diagram.labels))),
        ticktext=diagram.labels,
        tickfont={"size": 10 if small else 13},
        range=[len(diagram.labels) - 0.4, -1.1],
        showgrid=True,
    )
    most = max((lane.lane for lane in diagram.lanes), default=0)
    figure.update_xaxes(visible=False, range=[-0.6, max(most, 7) + 0.6], fixedrange=True)
    return figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})


def _links(figure: go.Figure, diagram: Diagram) -> None:
    """A thin line along each row, from what a layer reads to what it writes."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, marks in diagram.marks.groupby("row"):
        x += [marks["lane"].min(), marks["lane"].max(), None]
        y += [row, row, None]  # pyright: ignore[reportOperatorIssue]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": NEUTRAL, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )


def _colour(number: float | None) -> str:
    """The colour of a space by its running number; fixed spaces are grey."""
    if number is None or math.isnan(number):
        return NEUTRAL
    return SPACE_COLOURS[int(number) % len(SPACE_COLOURS)]
