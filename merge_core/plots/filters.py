"""First-layer filters as tiles (the paper's Fig. 2) and hinges of a one-input network."""

import base64
import struct
import zlib
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.style import (
    KEPT,
    NEUTRAL,
    STUDENT,
    TEACHER_COLOURS,
    TEACHER_NAMES,
    frame,
    ring,
)

Normalise = Literal["filter", "layer", "globally"]
PER_ROW = 16
_BORDER = 1


def to_pixels(filters: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Weights as colours: zero is mid-grey, `-scale` is 0 and `scale` is 255.

    Args:
        filters: `(filters, channels, height, width)`; 3 channels are shown as red, green and blue,
            any other number as the grey of their mean.
        scale: the largest magnitude; one number, or one for each filter `(filters,)`.

    Returns:
        `(filters, height, width, 3)` uint8.
    """
    colours = filters if filters.shape[1] == 3 else filters.mean(1, keepdims=True).repeat(3, 1)
    scale = np.maximum(np.broadcast_to(np.asarray(scale, dtype=float), (len(filters),)), 1e-12)
    unit = 0.5 + 0.5 * colours / scale[:, None, None, None]
    return (unit.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def scales(bands: list[np.ndarray], normalise: Normalise) -> list[np.ndarray]:
    """The largest magnitude that each filter of each band is shown against.

    Args:
        bands: filters `(filters, channels, height, width)` of each band, e.g. teacher A, teacher B
            and the student.
        normalise: each filter against itself, against its own network's layer, or all together.
    """
    if normalise == "filter":
        return [np.abs(band).reshape(len(band), -1).max(1) for band in bands]
    largest = [float(np.abs(band).max()) for band in bands]
    if normalise == "globally":
        largest = [max(largest)] * len(bands)
    return [np.full(len(band), top) for band, top in zip(bands, largest, strict=True)]


def filter_bands(
    tiles: pd.DataFrame, bands: list[np.ndarray], normalise: Normalise, selected: str = ""
) -> go.Figure:
    """Bands of first-layer filters, one under the other; kept ones outlined and ticked.

    One image holds all the tiles; invisible markers over it carry the hover text and the channel.

    Args:
        tiles: one row per filter in drawing order, from `merge_core.views.filters.tile_frame`:
            `band` (0 for A, 1 for B, 2 for the student), `row` into that band's array, `kept`,
            `channel`, `hover`.
        bands: the filters of each band, `(filters, channels, height, width)`.
        normalise: see `scales`.
        selected: the selected channel, which is ringed.
    """
    height, width = bands[0].shape[-2:]
    tall, wide = height + 2 * _BORDER, width + 2 * _BORDER
    columns = min(PER_ROW, max(len(band) for band in bands))
    pixels = [
        to_pixels(band, scale) for band, scale in zip(bands, scales(bands, normalise), strict=True)
    ]
    rows = [-(-len(band) // columns) for band in bands]
    heading = max(2, round(0.9 * tall))  # above each band: its name must fit on a phone, too
    tops = np.cumsum([0] + [heading + count * tall for count in rows])[:-1] + heading
    canvas = np.zeros((int(tops[-1] + rows[-1] * tall), columns * wide, 4), np.uint8)
    places = []
    for band, group in tiles.groupby("band", sort=True):
        number = int(str(band))
        for place, row in enumerate(group["row"]):
            top = int(tops[number] + place // columns * tall) + _BORDER
            left = place % columns * wide + _BORDER
            canvas[top : top + height, left : left + width, :3] = pixels[number][row]
            canvas[top : top + height, left : left + width, 3] = 255
            places.append((top, left))
    top_left = np.array(places, float) - 0.5  # image pixels are centred on whole numbers
    figure = go.Figure(go.Image(source=png(canvas), hoverinfo="skip"))
    _outline(figure, top_left[tiles["kept"].to_numpy(bool)], height, width)
    figure.add_scatter(
        x=top_left[:, 1] + width / 2,
        y=top_left[:, 0] + height / 2,
        mode="markers",
        **ring(36),
        customdata=list(zip(tiles["channel"], tiles["hover"], strict=True)),
        hovertemplate="%{customdata[1]}<extra></extra>",
        selectedpoints=chosen(list(tiles["channel"]), selected),
        showlegend=False,
    )
    names = [f"Teacher {name}" for name in TEACHER_NAMES] + ["Merged network"]
    colours = [*TEACHER_COLOURS, STUDENT]
    for name, colour, top in zip(names[: len(bands)], colours, tops, strict=False):
        figure.add_annotation(
            x=-0.5,
            y=float(top) - 0.5,
            xanchor="left",
            yanchor="bottom",
            text=f"<b>{name}</b>",
            font={"color": colour, "size": 16},
            showarrow=False,
        )
    figure.update_xaxes(visible=False, range=[-1, columns * wide])
    figure.update_yaxes(visible=False, range=[canvas.shape[0], -1], scaleanchor="x")
    tile = 62 if columns > 8 else 80
    frame(figure, height=int(canvas.shape[0] / tall * tile) + 40, legend=False)
    figure.update_xaxes(constrain="domain")
    figure.update_yaxes(constrain="domain")
    return figure


def chosen(channels: list[str], selected: str) -> list[int] | None:
    """Which marks are the selected channel's; None where it is not among them."""
    return [place for place, channel in enumerate(channels) if channel == selected] or None


def _outline(figure: go.Figure, top_left: np.ndarray, height: int, width: int) -> None:
    """A red frame round each kept filter, and a tick on its corner."""
    if not len(top_left):
        return
    around = np.array([(0, 0), (0, width), (height, width), (height, 0), (0, 0)], float)
    corners = top_left[:, None, :] + around
    gap = np.full((len(corners), 1, 2), np.nan)
    path = np.concatenate([corners, gap], 1).reshape(-1, 2)
    figure.add_scatter(
        x=path[:, 1],
        y=path[:, 0],
        mode="lines",
        line={"color": KEPT, "width": 3},
        hoverinfo="skip",
        name="kept",
    )
    figure.add_scatter(
        x=top_left[:, 1] + width,
        y=top_left[:, 0],
        mode="markers+text",
        marker={"size": 17, "color": KEPT, "symbol": "circle"},
        text=["✓"] * len(top_left),
        textfont={"color": "white", "size": 12},
        unselected={"marker": {"opacity": 1}, "textfont": {"color": "white"}},
        textposition="middle center",
        cliponaxis=False,  # those of the last column stand out of the picture
        hoverinfo="skip",
        name="kept",
    )


def png(image: np.ndarray) -> str:
    """An RGBA image `(height, width, 4)` uint8 as a PNG data address."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    tall, wide = image.shape[:2]
    lines = np.concatenate([np.zeros((tall, 1), np.uint8), image.reshape(tall, -1)], 1)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", wide, tall, 8, 6, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines.tobytes()))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def hinges(neurons: pd.DataFrame, target: pd.DataFrame, selected: str = "") -> go.Figure:
    """Where each hidden ReLU bends, in one lane per network, under the curve to be learned.

    A triangle points to the side on which its neuron is active. Kept neurons are filled, with a
    red edge; the others are hollow.

    Args:
        neurons: `merge_core.views.filters.hinge_frame`: `lane` (0 for A, 1 for B, 2 for the
            student), `index`, `size` of the lane, `bend`, `right` (active to the right), `kept`,
            `channel`, `hover`; bends outside the data are left out by the caller.
        target: the curve to be learned, `x` and `y`.
        selected: the selected channel, which is drawn large.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=target["x"],
        y=target["y"],
        mode="lines",
        line={"color": NEUTRAL, "width": 3},
        name="target",
        hoverinfo="skip",
        yaxis="y2",
    )
    names = [f"Teacher {name}" for name in TEACHER_NAMES] + ["Merged network"]
    colours = [*TEACHER_COLOURS, STUDENT]
    for lane, kept in [(lane, kept) for lane in range(3) for kept in (False, True)]:
        group = neurons[(neurons["lane"] == lane) & (neurons["kept"] == kept)]
        if group.empty:
            continue
        shape = np.where(group["right"], "triangle-right", "triangle-left")
        word = "" if lane == 2 else ", kept ✓" if kept else ", cut away"
        figure.add_scatter(
            x=group["bend"],
            y=-lane + 0.35 - 0.7 * group["index"] / group["size"],
            mode="markers",
            name=f"{names[lane]}{word}",
            marker={
                "symbol": shape if kept else [f"{symbol}-open" for symbol in shape],
                "size": 13 if kept else 10,
                "color": colours[lane],
                "opacity": 1 if kept else 0.6,
                "line": {"width": 2, "color": KEPT if kept and lane < 2 else colours[lane]},
            },
            customdata=list(zip(group["channel"], group["hover"], strict=True)),
            hovertemplate="%{customdata[1]}<extra></extra>",
            selectedpoints=chosen(list(group["channel"]), selected),
            selected={"marker": {"opacity": 1, "size": 26}},
            unselected={"marker": {"opacity": 1 if kept else 0.6}},
        )
    figure.update_layout(
        yaxis={
            "domain": [0, 0.66],
            "range": [-2.5, 0.5],
            "tickvals": [0, -1, -2],
            "ticktext": names,
            "showgrid": False,
        },
        yaxis2={"domain": [0.7, 1], "title": "target", "showgrid": False},
    )
    figure.update_xaxes(title="input x", range=[-0.02, 1.02])
    return frame(figure, height=640)
