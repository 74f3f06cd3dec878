"""How the gates of a space moved, and how they were steered, as ECharts options."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from merge_core.plots.commands import Moment, moments
from merge_core.plots.curves import MOST_LINES, TOOLBOX, pairs
from merge_core.plots.style import CIVIDIS, ENSEMBLE, NEUTRAL, SELECTED

Option = dict[str, Any]
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MOST_CELLS = 6_000
"""Cells of a heat map that a browser draws without a pause."""
FORKS = "checkpoints"
"""The series whose marks are the epochs that a run can be forked from."""
_LEFT, _RIGHT = 64, 84


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What steering adds to the evolution of gates.

    Attributes:
        course: λ of every epoch, `merge_core.views.steering.lambda_frame`.
        ghosts: λ as it would have gone on, `ghost_frame`.
        markers: what was asked and answered, `marker_frame`.
        forks: the epochs that the run can be forked from; 0 is the beginning of the stage.
    """

    course: pd.DataFrame
    ghosts: pd.DataFrame
    markers: pd.DataFrame
    forks: list[int]


def evolution_height(steered: Steered | None) -> int:
    """Pixels that `gate_evolution` takes."""
    return max(top + height for top, height in _panels(steered)) + 54


def _panels(steered: Steered | None) -> list[tuple[int, int]]:
    """Top and height of each panel in pixels: heat map, lines, λ, and the strip of commands."""
    if steered is None:
        return [(30, 380), (456, 137), (638, 68)]
    return [(30, 340), (416, 130), (660, 110), (580, 44)]


def epochs_per_column(epochs: int, channels: int) -> int:
    """How many epochs share a column of the heat map, so that it has at most `MOST_CELLS` cells."""
    return -(-epochs * channels // MOST_CELLS)


def _spans(first: int, columns: int, wide: int) -> list[str]:
    """The names of the heat map's columns: "7", or "5–8" where epochs share a column."""
    if wide == 1:
        return [str(first + column) for column in range(columns)]
    starts = range(first, first + columns * wide, wide)
    return [f"{start}–{start + wide - 1}" for start in starts]


def _cells(probability: np.ndarray, column: np.ndarray) -> pd.DataFrame:
    """One row per cell: column, row, and the mean P[open] of the epochs in that column.

    A frame travels to the browser as binary columns, quicker than lists of numbers.
    """
    columns, first = np.unique(column, return_index=True)
    counts = np.diff([*first, len(column)])
    rows = probability.shape[1]
    means = np.empty((0, rows))
    if len(columns):
        means = np.add.reduceat(probability, first, axis=0) / counts[:, None]
    return pd.DataFrame(
        {
            "column": np.repeat(columns, rows).astype(np.int32),
            "row": np.tile(np.arange(rows, dtype=np.int32), len(columns)),
            "P[open]": means.ravel().astype(np.float32),
        }
    )


def _epoch_axis(first: int, last: int, *, labelled: bool) -> Option:
    """The time axis of a panel below the heat map, in line with the map's columns."""
    axis: Option = {"type": "value", "min": first - 0.5, "max": last + 0.5, "minInterval": 1}
    axis |= {"axisLabel": {"show": labelled, "showMinLabel": False, "showMaxLabel": False}}
    if labelled:
        axis |= {"name": "epochs of the gate stage", "nameLocation": "middle", "nameGap": 26}
    else:
        axis |= {"axisTick": {"show": False}}
    return axis


def gate_evolution(
    probability: np.ndarray,
    epochs: np.ndarray,
    labels: list[str],
    order: np.ndarray,
    weights: np.ndarray,
    chosen: list[int],
    planned: int,
    *,
    window: tuple[int, int] | None = None,
    steered: Steered | None = None,
) -> Option:
    """P[open] of every channel of a space over the epochs, and λ on the same time axis.

    Three panels share the epochs: the heat map (one line of cells per channel), the mean against ½
    with the chosen channels, and λ. A fourth, between the last two, has the commands of a steered
    run above the epochs that it can be forked from.

    Args:
        probability: `(epochs, channels)` in [0, 1].
        epochs: `(epochs,)` epochs done, from 1.
        labels: the channels' names, e.g. "A 5".
        order: channels from the bottom of the heat map to its top.
        weights: λ at each epoch, `(epochs,)`.
        chosen: channels drawn as lines; at most `MOST_LINES`.
        planned: epochs of the gate stage, so that the time axis stays where it is.
        window: first and last epoch to show; by default all that are planned.
        steered: how the run was steered; None leaves the fourth panel out.
    """
    assert len(chosen) <= MOST_LINES
    first, last = window or (1, planned)
    wide = epochs_per_column(last - first + 1, len(order))
    columns = -(-(last - first + 1) // wide)
    end = first + columns * wide - 1
    seen = (epochs >= first) & (epochs <= end)
    cells = _cells(probability[seen][:, order], (epochs[seen] - first) // wide)
    panels = _panels(steered)

    def line(name: str, values: np.ndarray, panel: int, colour: str, width: float) -> Option:
        return {
            "type": "line",
            "name": name,
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "data": pairs(epochs, values),
            "showSymbol": len(epochs) < 3,
            "lineStyle": {"width": width, "color": colour},
            "itemStyle": {"color": colour},
            "endLabel": {"show": panel == 1, "formatter": "{a}", "color": "inherit"},
            "labelLayout": {"moveOverlap": "shiftY"},
        }

    half = {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"type": "dashed", "color": NEUTRAL, "width": 2},
        "label": {"formatter": "½", "position": "insideStartTop", "color": NEUTRAL},
        # It ends where the mean does, whose name stands there and would be struck through.
        "data": [[{"coord": [first - 0.5, 0.5]}, {"coord": [end, 0.5]}]],
    }
    lines = [line("mean", probability.mean(1), 1, "#009E73", 4) | {"markLine": half}]
    lines += [
        line(labels[channel], probability[:, channel], 1, _LINES[i % len(_LINES)], 1.5)
        for i, channel in enumerate(chosen)
    ]
    weight = line("λ", weights, 2, ENSEMBLE, 3)
    extra: list[Option] = []
    if steered is not None:
        marked = _marks(steered.markers, first, end)
        weight |= {"markLine": _changes(marked)}
        extra = [*_weights(steered), _commands(marked), _forks(steered.forks, first, end)]
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "dataset": {"source": cells},
        "tooltip": {"trigger": "item", "confine": True},
        "grid": [
            {"left": _LEFT, "right": _RIGHT, "top": top, "height": height} for top, height in panels
        ],
        "xAxis": [
            {"type": "category", "data": _spans(first, columns, wide), "show": False},
            *(
                {"gridIndex": panel, **_epoch_axis(first, end, labelled=panel == 2)}
                for panel in range(1, len(panels))
            ),
        ],
        "yAxis": [
            {
                "type": "category",
                "gridIndex": 0,
                "data": [labels[channel] for channel in order],
                "axisTick": {"show": False},
            },
            {"gridIndex": 1, "min": 0, "max": 1, "interval": 0.5, "name": "P[open]"},
            {"gridIndex": 2, "name": "λ", "type": "log"},
            *([] if steered is None else [_STRIP]),
        ],
        "visualMap": {
            "seriesIndex": 0,
            "min": 0,
            "max": 1,
            "calculable": False,
            "precision": 1,
            "right": 0,
            "top": panels[0][0],
            "itemHeight": 180,
            "text": ["open", "shut"],
            "inRange": {"color": list(CIVIDIS)},
        },
        "series": [
            {
                "type": "heatmap",
                "name": "P[open]",
                "encode": {"x": "column", "y": "row", "value": "P[open]"},
                "progressive": 0,
                "selectedMode": "single",
                "select": {"itemStyle": {"borderColor": SELECTED, "borderWidth": 2}},
                "emphasis": {"itemStyle": {"borderColor": "#FFFFFF", "borderWidth": 1}},
            },
            *lines,
            weight,
            *extra,
        ],
    }


_STRIP: Option = {
    "gridIndex": 3,
    "type": "category",
    "data": ["forks", "commands"],
    "axisTick": {"show": False},
    "axisLine": {"show": False},
    "splitLine": {"show": False},
}
"""The two rows of the panel of commands."""


def _weights(steered: Steered) -> list[Option]:
    """λ as planned, and as it would have gone on without each change."""
    course = steered.course
    future = course[course["part"] == "future"]
    parts = []
    if len(future):
        # The plan begins at the last epoch that is over, so that the line has no gap.
        past = course[(course["part"] == "past") & (course["epoch"] < future["epoch"].min())]
        parts.append(("λ as planned", pd.concat([past.tail(1), future]), "dashed", ENSEMBLE))
    for _, ghost in steered.ghosts.groupby("change", sort=True):
        before = f"before {ghost['words'].iloc[0]}"
        parts.append((f"λ {before}", ghost, "dotted", NEUTRAL))
    return [
        {
            "type": "line",
            "name": name,
            "xAxisIndex": 2,
            "yAxisIndex": 2,
            "data": pairs(rows["epoch"].to_numpy(float), rows["value"].to_numpy(float)),
            "showSymbol": False,
            "lineStyle": {"width": 2, "color": colour, "type": style},
            "itemStyle": {"color": colour},
        }
        for name, rows, style, colour in parts
        if len(rows)
    ]


def _marks(markers: pd.DataFrame, first: int, last: int) -> list[Moment]:
    """The moments of the gate stage with commands that are in sight."""
    placed = [(float(row["epoch"]) + 0.5, row) for row in markers.to_dict("records")]
    return moments(
        (place, {str(key): value for key, value in row.items()})
        for place, row in placed
        if row["stage"] == "gates" and first - 0.5 <= place <= last + 0.5
    )


def _changes(marked: list[Moment]) -> Option:
    """Upright lines in the panel of λ where numbers were changed."""
    return {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"type": "solid", "color": NEUTRAL, "width": 1.5},
        "data": [{"xAxis": each.place} for each in marked if each.changes],
    }


def _commands(marked: list[Moment]) -> Option:
    """The signs of the commands."""
    return {
        "type": "scatter",
        "name": "commands",
        "xAxisIndex": 3,
        "yAxisIndex": 3,
        "symbol": "roundRect",
        "symbolSize": [22, 18],
        "itemStyle": {"color": "#0072B2"},
        "tooltip": {"formatter": "{b}", "extraCssText": "max-width:320px;white-space:normal"},
        "labelLayout": {"hideOverlap": False},
        "data": [
            {
                "name": each.words,
                "value": [each.place, "commands"],
                "label": {
                    "show": True,
                    "formatter": each.signs,
                    "color": "#FFFFFF",
                    "fontSize": 13,
                },
                "symbolSize": [10 + 11 * (each.signs.count(" ") + 1), 18],
            }
            for each in marked
        ],
    }


def _forks(epochs: list[int], first: int, last: int) -> Option:
    """A mark at every epoch that the run can be forked from, to be clicked."""
    return {
        "type": "scatter",
        "name": FORKS,
        "xAxisIndex": 3,
        "yAxisIndex": 3,
        "symbol": "diamond",
        "symbolSize": 13,
        "selectedMode": "single",
        "itemStyle": {"color": "#E69F00"},
        "emphasis": {"scale": 1.5},
        "select": {"itemStyle": {"borderColor": SELECTED, "borderWidth": 3}},
        "tooltip": {"formatter": "{b}"},
        "data": [
            {
                "name": f"Click to fork after epoch {epoch}"
                if epoch
                else "Click to fork from the beginning of the stage",
                "value": [epoch + 0.5, "forks"],
                "itemStyle": {"opacity": 1 if first - 1 <= epoch <= last else 0},
            }
            for epoch in epochs
        ],
    }


def gate_histogram(probability: np.ndarray, epoch: int) -> Option:
    """How the gates of a space are spread over P[open] at one epoch.

    Args:
        probability: `(channels,)` in [0, 1].
        epoch: epochs done, for the axis title.
    """
    counts, edges = np.histogram(probability, bins=20, range=(0, 1))
    return {
        "animation": False,
        "tooltip": {"trigger": "axis"},
        "grid": {"left": 8, "right": 16, "top": 32, "bottom": 32, "containLabel": True},
        "xAxis": {
            "type": "category",
            "data": [f"{low:.2f}–{low + 0.05:.2f}" for low in edges[:-1]],
            "name": f"P[open] after epoch {epoch}",
            "nameLocation": "middle",
            "nameGap": 28,
        },
        "yAxis": {"name": "channels", "minInterval": 1},
        "series": [
            {
                "type": "bar",
                "name": "channels",
                "data": [
                    {"value": int(count), "itemStyle": {"color": CIVIDIS[min(i // 2, 9)]}}
                    for i, count in enumerate(counts)
                ],
                "barCategoryGap": "8%",
            }
        ],
    }
