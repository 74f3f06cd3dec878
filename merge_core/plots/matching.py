"""Who is matched with whom, and what the matching is worth."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.filters import png, scales, to_pixels
from merge_core.plots.style import (
    CIVIDIS,
    NEUTRAL,
    SELECTED,
    STUDENT,
    TEACHER_COLOURS,
    TEACHER_NAMES,
    frame,
    ring,
)

MOST_BANDS = 64
"""Pairs that can be told apart as bands; beyond, they are drawn as lines."""
PAIRS_PER_ROW = 6
FEW_PER_ROW, FEW_PAIRS = 4, 24
"""So few pairs stand in shorter rows: they can be seen in a narrow window, too."""
_LINES = {"naive": NEUTRAL, "matched": "#0072B2", "repaired": STUDENT}
_SYMBOLS = {"naive": "x", "matched": "circle", "repaired": "diamond"}


def bands(pairs: pd.DataFrame, sort: str, selected: str) -> dict[str, Any]:
    """At most `MOST_BANDS` pairs as an ECharts Sankey: nodes of A on the left, of B on the right.

    The nodes are those of A in the order of `pairs`, then those of B, as `band_channels` has them.

    Args:
        pairs: A, B, similarity, in drawing order.
        sort: "similarity" puts partners side by side; "index" puts both sides in their own order.
        selected: the name of the selected node, e.g. "A 5"; empty for none.
    """
    similarity = pairs["similarity"].to_numpy()
    low, high = float(similarity.min()), float(similarity.max())
    values = {
        name: float(value)
        for letter in TEACHER_NAMES
        for name, value in zip(
            [f"{letter} {i}" for i in pairs[letter]], pairs["similarity"], strict=True
        )
    }
    nodes = []
    for name in band_channels(pairs, sort):
        teacher = TEACHER_NAMES.index(name[0])
        style = {"color": TEACHER_COLOURS[teacher]}
        if name == selected:
            style |= {"borderColor": SELECTED, "borderWidth": 4}
        text = f"▶ {name}" if name == selected else name
        label = {"formatter": text if teacher == 0 else f"{text} · {values[name]:.2f}"}
        nodes.append({"name": name, "itemStyle": style, "label": label})
        nodes[-1]["label"] |= {"position": "left" if teacher == 0 else "right", "fontSize": 13}
    links = [
        {
            "source": f"A {a}",
            "target": f"B {b}",
            "value": 1,
            "lineStyle": {"color": _cividis(value, low, high), "opacity": 0.9},
        }
        for a, b, value in zip(pairs["A"], pairs["B"], pairs["similarity"], strict=True)
    ]
    return {
        "animation": False,
        "tooltip": {"trigger": "item", "formatter": "{b}"},
        "series": [
            {
                "type": "sankey",
                "data": nodes,
                "links": links,
                "left": 64,
                "right": 110,
                "top": 8,
                "bottom": 8,
                "nodeGap": 5,
                "nodeWidth": 14,
                "layoutIterations": 0,
                "draggable": False,
                "selectedMode": "single",
                "select": {"itemStyle": {"borderColor": SELECTED, "borderWidth": 3}},
                "emphasis": {"focus": "adjacency"},
            }
        ],
    }


def band_channels(pairs: pd.DataFrame, sort: str) -> list[str]:
    """The names of the nodes of `bands`, in their order."""
    b = pairs["B"].to_numpy()
    b = b if sort == "similarity" else np.sort(b)
    return [*(f"A {index}" for index in pairs["A"]), *(f"B {index}" for index in b)]


def _cividis(value: float, low: float, high: float) -> str:
    """The colour of a band; without the darkest ones, which a dark page swallows."""
    part = 0.5 if high == low else (value - low) / (high - low)
    scale = CIVIDIS[2:]
    return scale[min(int(part * len(scale)), len(scale) - 1)]


def lines(pairs: pd.DataFrame, space: str, size: int, sort: str, selected: str) -> go.Figure:
    """Many pairs as lines between two columns of marks that select channels.

    B's channels stand by number, and A's as well or, with the most alike on top, evenly spread.

    Args:
        pairs: A, B, similarity, in drawing order.
        space: their channel space.
        size: its channels.
        sort: "similarity" or "index".
        selected: as of `bands`.
    """
    count = len(pairs)
    a = pairs["A"].to_numpy() if sort == "index" else np.linspace(0, size - 1, count)
    b = pairs["B"].to_numpy()
    gap = np.full(count, np.nan)
    # One path for all, in SVG: WebGL, which not every browser has, drops the lines when the page
    # changes their chart's size.
    figure = go.Figure(
        go.Scatter(
            x=np.tile([0.0, 1.0, np.nan], count),
            y=np.stack([a, b, gap], 1).ravel(),
            mode="lines",
            line={"color": NEUTRAL, "width": 1, "simplify": False},
            opacity=0.6,
            hoverinfo="skip",
        )
    )
    texts = [
        f"<b>A {i} · B {j}</b><br>similarity {value:.3f}"
        for i, j, value in zip(pairs["A"], pairs["B"], pairs["similarity"], strict=True)
    ]
    names = [f"{letter} {i}" for letter in TEACHER_NAMES for i in pairs[letter]]
    channels = [f"{space}:{letter}:{i}" for letter in TEACHER_NAMES for i in pairs[letter]]
    partner = (names.index(selected) + count) % (2 * count) if selected in names else 0
    figure.add_scatter(
        x=np.repeat([0, 1], count),
        y=np.concatenate([a, b]),
        mode="markers",
        marker={
            "size": 7,
            "color": np.tile(pairs["similarity"].to_numpy(np.float32), 2),
            "colorscale": list(CIVIDIS),
            "colorbar": {"title": {"text": "similarity", "side": "right"}, "thickness": 14},
        },
        customdata=[list(pair) for pair in zip(channels, texts * 2, strict=True)],
        hovertemplate="%{customdata[1]}<extra></extra>",
        selectedpoints=[names.index(selected), partner] if selected in names else None,
        selected={"marker": {"opacity": 1, "color": SELECTED, "size": 15}},
        unselected={"marker": {"opacity": 0.8}},
    )
    frame(figure, height=720, legend=False)
    figure.update_xaxes(
        tickvals=[0, 1], ticktext=["teacher A", "teacher B"], range=[-0.1, 1.1], showgrid=False
    )
    if sort == "similarity":
        figure.update_xaxes(ticktext=["teacher A, most alike on top", "teacher B, by number"])
    title = "channel" if sort == "index" else "channel of B"
    return figure.update_yaxes(title=title, range=[1.02 * size, -0.02 * size], showgrid=False)


def filter_pairs(
    pairs: pd.DataFrame, first: tuple[np.ndarray, np.ndarray], space: str, selected: str
) -> go.Figure:
    """Matched first-layer filters side by side, A left and B right, their similarity below.

    Args:
        pairs: A, B, similarity, in drawing order.
        first: the filters of A and of B, `(n, channels, height, width)`.
        space: their channel space.
        selected: as of `bands`.
    """
    height, width = first[0].shape[-2:]
    per_row = min(FEW_PER_ROW if len(pairs) <= FEW_PAIRS else PAIRS_PER_ROW, len(pairs))
    tall, wide = height + max(2, round(0.5 * height)), 2 * width + max(3, round(0.5 * width))
    pixels = [
        to_pixels(filters, scale)
        for filters, scale in zip(first, scales(list(first), "filter"), strict=True)
    ]
    canvas = np.zeros((-(-len(pairs) // per_row) * tall, per_row * wide, 4), np.uint8)
    marks = []
    for place, (a, b, value) in enumerate(
        zip(pairs["A"], pairs["B"], pairs["similarity"], strict=True)
    ):
        top, left = place // per_row * tall, place % per_row * wide
        for number, (letter, index) in enumerate((("A", a), ("B", b))):
            start = left + number * (width + 1)
            canvas[top : top + height, start : start + width, :3] = pixels[number][index]
            canvas[top : top + height, start : start + width, 3] = 255
            text = f"<b>{letter} {index}</b><br>of the pair A {a} · B {b}<br>similarity {value:.3f}"
            x, y = start + width / 2 - 0.5, top + height / 2 - 0.5
            marks.append((f"{letter} {index}", x, y, [f"{space}:{letter}:{index}", text]))
    figure = go.Figure(go.Image(source=png(canvas), hoverinfo="skip"))
    names, x, y, data = zip(*marks, strict=True)
    figure.add_scatter(
        x=x[::2],
        y=[each + height * 0.78 for each in y[::2]],
        text=[f"{value:.2f}" for value in pairs["similarity"]],
        mode="text",
        textposition="middle right",
        textfont={"size": 13, "color": NEUTRAL},
        unselected={"textfont": {"color": NEUTRAL}},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        **ring(34),
        customdata=data,
        hovertemplate="%{customdata[1]}<extra></extra>",
        selectedpoints=[names.index(selected)] if selected in names else None,
    )
    figure.update_xaxes(visible=False, range=[-1, canvas.shape[1]], constrain="domain")
    figure.update_yaxes(
        visible=False, range=[canvas.shape[0], -1], scaleanchor="x", constrain="domain",
        constraintoward="top",
    )  # fmt: skip
    return frame(figure, height=40 + 80 * (canvas.shape[0] // tall), legend=False)


def agreement_dots(table: pd.DataFrame) -> go.Figure:
    """For every space the share of channels that both matchings pair alike.

    Args:
        table: `merge_core.views.matching.agreement`.
    """
    figure = go.Figure(
        go.Scatter(
            x=table["share"],
            y=table["space"],
            mode="markers+text",
            marker={"size": 13, "color": STUDENT},
            text=[
                f"{same} of {size}" for same, size in zip(table["same"], table["size"], strict=True)
            ],
            textposition="middle right",
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
            cliponaxis=False,
        )
    )
    frame(figure, height=90 + 30 * len(table), legend=False)
    figure.update_xaxes(title="paired alike", tickformat=".0%", range=[-0.03, 1.2], showgrid=True)
    # Without lines of its own: they would strike the numbers through.
    return figure.update_yaxes(autorange="reversed", type="category", showgrid=False)


def objective_curve(objective: list[float]) -> go.Figure:
    """What matching by weights maximises, after every pass over the layers."""
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(objective))),
            y=objective,
            mode="lines+markers",
            line={"color": STUDENT, "width": 3},
            marker={"size": 9},
            hovertemplate="after %{x} passes: %{y:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="passes over all layers", dtick=max(1, len(objective) // 10))
    figure.update_yaxes(title="Σ of matched weight products")
    return frame(figure, height=300, legend=False)


def barrier_curves(curves: pd.DataFrame, metric: str, names: dict[str, str]) -> go.Figure:
    """A metric on the line from A to B: test full, train dashed.

    Args:
        curves: `merge_core.views.matching.Barrier.curves`.
        metric: one of its columns.
        names: of the lines.
    """
    figure = go.Figure()
    for line, name in names.items():
        for split, dash in (("test", "solid"), ("train", "dot")):
            part = curves[(curves["line"] == line) & (curves["split"] == split)]
            figure.add_scatter(
                x=part["share"],
                y=part[metric],
                mode="lines+markers",
                name=f"{name}, {split}",
                line={"color": _LINES[line], "width": 3 if split == "test" else 2, "dash": dash},
                marker={"symbol": _SYMBOLS[line], "size": 8 if split == "test" else 5},
                hovertemplate=f"{name}, {split}: %{{y:.4f}}<extra></extra>",
            )
    figure.update_xaxes(title="from teacher A (0) to teacher B (1)")
    figure.update_yaxes(title=metric)
    return frame(figure, height=420).update_layout(hovermode="x unified")
