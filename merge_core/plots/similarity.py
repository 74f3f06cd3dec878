"""Similarity between channels and between layers, as heat maps and histograms."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.style import (
    CIVIDIS,
    NEUTRAL,
    SELECTED,
    STUDENT,
    UNTOUCHED,
    frame,
    luminance,
    ring,
)
from merge_core.views.maps import CELLS, Map

_DIVERGING = ((0.0, "#0072B2"), (0.5, "#F7F7F7"), (1.0, "#D55E00"))
_MOST_TICKS = 24
_HEIGHT = 640
_MOST_NUMBERED = 20
"""Layers whose cells hold a number."""
_EVEN = 0.179
"""The luminance on which black and white text have the same contrast, 4.6 to 1 (WCAG 2.2)."""


def similarity_map(shown: Map) -> go.Figure:
    """A heat map with the first row on top; its invisible marks select channels."""
    size = len(shown.values)
    figure = go.Figure(
        go.Heatmap(
            z=np.ascontiguousarray(shown.values, np.float32),
            hoverinfo="skip",
            colorbar={"title": {"text": shown.measure, "side": "right"}, "thickness": 14},
            **_colours(shown),
        )
    )
    if shown.matched is not None:
        _outline(figure, shown.matched)
    if size <= CELLS:
        _cell_marks(figure, shown)
    else:
        _row_marks(figure, shown)
    frame(figure, height=_HEIGHT, legend=False)
    pad = 0.5 if size <= CELLS else 0.5 + 0.05 * size
    figure.update_xaxes(
        **_ticks(shown.columns), title=shown.column_title, range=[-pad, size - 0.5], showgrid=False
    )
    figure.update_yaxes(
        **_ticks(shown.rows), title=shown.row_title, range=[size - 0.5, -0.5], showgrid=False
    )
    return figure.update_layout(
        hovermode="closest" if size <= CELLS else "y", hoverdistance=20 if size <= CELLS else -1
    )


def _colours(shown: Map) -> dict[str, Any]:
    if shown.signed:
        largest = max(float(np.abs(shown.values).max()), 1e-6)
        return {"colorscale": _DIVERGING, "zmin": -largest, "zmax": largest, "zmid": 0}
    scale = CIVIDIS[::-1] if shown.near_is_small else CIVIDIS
    return {"colorscale": list(scale)}


def _ticks(labels: Sequence[str]) -> dict[str, Any]:
    """As many numbers as there is room for; of a block its first."""
    step = -(-len(labels) // _MOST_TICKS)
    places = list(range(0, len(labels), step))
    short = [labels[place].partition(" ")[2].partition("–")[0] for place in places]
    return {"tickvals": places, "ticktext": short, "tickangle": 0, "tickfont": {"size": 11}}


def _outline(figure: go.Figure, matched: np.ndarray) -> None:
    """Frames round the matched cells, black on white, so that they show on every colour.

    Where cells are too small: lines beside the diagonal, or a dot on each cell.
    """
    size = len(matched)
    rows = np.arange(size)
    if size > CELLS and np.array_equal(matched, rows):
        gap = max(1.0, 0.012 * size)
        ends = np.array([-0.5, size - 0.5, np.nan])
        x = np.concatenate([ends + gap, ends - gap])
        y = np.concatenate([ends - gap, ends + gap])
        inside = np.where(np.isnan(x), np.nan, np.clip(x, -0.5, size - 0.5))
        _halo(figure, inside, np.where(np.isnan(y), np.nan, np.clip(y, -0.5, size - 0.5)))
    elif size > CELLS:
        figure.add_scatter(
            x=matched,
            y=rows,
            mode="markers",
            marker={
                "size": 5,
                "symbol": "square",
                "color": "black",
                "line": {"color": "white", "width": 1},
            },
            hoverinfo="skip",
            **UNTOUCHED,
        )
    else:
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
        cells = np.stack([matched, rows], 1)[matched >= 0]
        path = cells[:, None, :] + 0.92 * corners
        path = np.concatenate([path, np.full((len(cells), 1, 2), np.nan)], 1).reshape(-1, 2)
        _halo(figure, path[:, 0], path[:, 1])


def _halo(figure: go.Figure, x: np.ndarray, y: np.ndarray) -> None:
    for colour, width in (("white", 4), ("black", 2)):
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": colour, "width": width},
            hoverinfo="skip",
        )


def _cell_marks(figure: go.Figure, shown: Map) -> None:
    """One mark on every cell: it tells the cell, and selects the row's channel."""
    size = len(shown.values)
    row, column = (places.ravel().tolist() for places in np.indices((size, size)))
    texts = [
        f"<b>{shown.rows[i]} · {shown.columns[j]}</b><br>{shown.measure} {value:.3f}"
        + ("<br>matched" if shown.matched is not None and shown.matched[i] == j else "")
        for i, j, value in zip(row, column, shown.values.ravel(), strict=True)
    ]
    chosen = None
    if shown.selected is not None:
        partner = shown.selected if shown.matched is None else int(shown.matched[shown.selected])
        chosen = [shown.selected * size + partner]
    figure.add_scatter(
        x=column,
        y=row,
        mode="markers",
        **ring(max(18, 360 // size)),
        customdata=[[shown.channels[i], text] for i, text in zip(row, texts, strict=True)],
        hovertemplate="%{customdata[1]}<extra></extra>",
        selectedpoints=chosen,
    )


def _row_marks(figure: go.Figure, shown: Map) -> None:
    """One mark beside every row: it tells and selects the row's channel."""
    size = len(shown.values)
    figure.add_scatter(
        x=np.full(size, -0.5 - 0.025 * size),
        y=np.arange(size),
        mode="markers",
        marker={"size": 12, "symbol": "triangle-right", "opacity": 0},
        customdata=[list(pair) for pair in zip(shown.channels, shown.hover, strict=True)],
        hovertemplate="%{customdata[1]}<extra></extra>",
        selectedpoints=None if shown.selected is None else [shown.selected],
        selected={"marker": {"opacity": 1, "color": SELECTED}},
        unselected={"marker": {"opacity": 0}},
    )


def spread_bars(spread: pd.DataFrame, measure: str, kind: str) -> go.Figure:
    """How similar matched channels are, against all other pairs.

    Args:
        spread: `merge_core.views.similarity.spread`.
        measure: the axis title.
        kind: what the first kind of pairs is called: "matched", or "self".
    """
    figure = go.Figure()
    for name, column, colour in (
        ("other pairs", "unmatched", NEUTRAL),
        (f"{kind} pairs", "matched", STUDENT),
    ):
        figure.add_bar(
            x=(spread["low"] + spread["high"]) / 2,
            y=spread[column],
            width=spread["high"] - spread["low"],
            name=name,
            marker={"color": colour, "opacity": 0.65, "line": {"width": 0}},
            customdata=spread[["low", "high"]],
            hovertemplate=(
                f"%{{y:.1%}} of the {name}<br>%{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}"
                "<extra></extra>"
            ),
        )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title=measure)
    figure.update_yaxes(title="share of the pairs", tickformat=".0%")
    return frame(figure, height=300)


def cka_map(values: np.ndarray, spaces: Sequence[str], rows: str, columns: str) -> go.Figure:
    """Linear CKA of layers with layers, the first row on top.

    Args:
        values: `(spaces, spaces)`, mostly 0 to 1.
        spaces: their names.
        rows, columns: whose layers they are, e.g. "A".
    """
    figure = go.Figure()
    bright = luminance(values.clip(0, 1)) > _EVEN
    # Numbers have one colour in a heat map: so the dark cells are one map and the bright another.
    for cells, colour in ((~bright, "white"), (bright, "black")):
        figure.add_heatmap(
            z=np.where(cells, values, np.nan).astype(np.float32),
            x=list(range(len(spaces))),
            y=list(range(len(spaces))),
            zmin=0,
            zmax=1,
            colorscale=list(CIVIDIS),
            showscale=colour == "white",
            colorbar={"title": {"text": "CKA", "side": "right"}, "thickness": 14},
            hoverongaps=False,
            texttemplate="%{z:.2f}" if len(spaces) <= _MOST_NUMBERED else None,
            textfont={"color": colour},
            customdata=[[[a, b] for b in spaces] for a in spaces],
            hovertemplate=(
                f"{rows} %{{customdata[0]}} · {columns} %{{customdata[1]}}<br>CKA %{{z:.3f}}"
                "<extra></extra>"
            ),
        )
    frame(figure, height=max(320, min(640, 120 + 28 * len(spaces))), legend=False)
    ticks = {"tickvals": list(range(len(spaces))), "ticktext": list(spaces), "showgrid": False}
    figure.update_xaxes(**ticks, title=f"layers of {columns}", tickfont={"size": 12})
    figure.update_yaxes(**ticks, title=f"layers of {rows}", range=[len(spaces) - 0.5, -0.5])
    return figure
