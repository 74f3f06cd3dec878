"""Charts that are watched while a run runs, as ECharts options (plain dictionaries).

Streamlit keeps an ECharts chart with a key in place when its option changes, so these move on
without a flicker.
"""

from typing import Any

import numpy as np
import pandas as pd

from merge_core.plots.style import CIVIDIS, ENSEMBLE, NEUTRAL, SELECTED, stage_colour
from merge_core.stages import STAGE_BY_KEY

Option = dict[str, Any]
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MOST_MARKS = 150
"""Beyond so many epochs marks on a curve would only hide it."""
MOST_CELLS = 6_000
"""Cells of a heat map that a browser draws without a pause."""
MOST_LINES = 12
"""How many channels may be drawn as lines of their own before nobody can tell them apart."""

_TOOLBOX = {"feature": {"saveAsImage": {"title": "Save as image"}}, "right": 0, "top": 0}


def _pairs(x: np.ndarray, y: np.ndarray) -> list[list[float | None]]:
    """Points for a series; a missing value becomes a gap."""
    return [[float(a), None if np.isnan(b) else float(b)] for a, b in zip(x, y, strict=True)]


def _axis(name: str, *, log: bool) -> Option:
    """An axis that does not begin at zero; a logarithmic one has ticks at powers of two."""
    axis = {"name": name, "nameLocation": "middle", "nameGap": 44, "scale": True}
    return axis | ({"type": "log", "logBase": 2} if log else {"type": "value"})


def learning_curves(curves: pd.DataFrame, quantity: str, *, log: bool) -> Option:
    """A quantity per stage over the epochs of the whole run.

    Args:
        curves: `merge_core.views.runs.curve_frame`.
        quantity: "accuracy" or "loss"; held-out is a full line, training a dashed one.
        log: a logarithmic scale.
    """
    series = []
    for stage, group in curves.groupby("stage", sort=False):
        role = STAGE_BY_KEY[str(stage)]
        colour = stage_colour(role.key, role.role)
        for split, kind in (("heldout", "solid"), ("train", "dashed")):
            column = f"{split}_{quantity}"
            if column not in group:
                continue
            series.append(
                {
                    "type": "line",
                    "name": role.title,
                    "data": _pairs(group["run_epoch"].to_numpy(), group[column].to_numpy()),
                    "showSymbol": split == "heldout" and len(curves) <= MOST_MARKS,
                    "symbolSize": 6,
                    "symbol": "diamond" if role.role == "control" else "circle",
                    "lineStyle": {"type": kind, "width": 3 if split == "heldout" else 1.5},
                    "itemStyle": {"color": colour},
                    "color": colour,
                    "endLabel": {"show": False},
                    "tooltip": {"valueFormatter": "%.4f"},
                }
            )
    return {
        "animation": False,
        "toolbox": _TOOLBOX,
        "tooltip": {"trigger": "item", "formatter": "{a}<br/>epoch, value: {c}"},
        "legend": {"type": "scroll", "top": 0, "left": 0, "right": 40},
        "grid": {"left": 28, "right": 24, "top": 40, "bottom": 32, "containLabel": True},
        "xAxis": {
            "type": "value",
            "name": "epochs of the whole run",
            "nameLocation": "middle",
            "nameGap": 28,
            "min": 0,
            "max": int(curves["planned"].to_numpy().max(initial=1)),
        },
        "yAxis": _axis(quantity, log=log),
        "series": series,
    }


def epochs_per_column(planned: int, channels: int) -> int:
    """How many epochs share a column of the heat map, so that it has at most `MOST_CELLS` cells."""
    return -(-planned * channels // MOST_CELLS)


def _spans(columns: int, wide: int) -> list[str]:
    """The names of the heat map's columns: "7", or "5–8" where epochs share a column."""
    if wide == 1:
        return [str(column + 1) for column in range(columns)]
    return [f"{column * wide + 1}–{(column + 1) * wide}" for column in range(columns)]


def _cells(probability: np.ndarray, column: np.ndarray) -> pd.DataFrame:
    """One row per cell: column, row, and the mean P[open] of the epochs in that column.

    A frame travels to the browser as binary columns, quicker than lists of numbers.
    """
    columns, first = np.unique(column, return_index=True)
    counts = np.diff([*first, len(column)])
    means = np.add.reduceat(probability, first, axis=0) / counts[:, None]
    rows = probability.shape[1]
    return pd.DataFrame(
        {
            "column": np.repeat(columns, rows).astype(np.int32),
            "row": np.tile(np.arange(rows, dtype=np.int32), len(columns)),
            "P[open]": means.ravel().astype(np.float32),
        }
    )


def _epoch_axis(last: int, is_lowest: bool) -> Option:
    """The time axis of a panel below the heat map, in line with the map's columns."""
    axis: Option = {"type": "value", "min": 0.5, "max": last + 0.5, "minInterval": 1}
    axis |= {"axisLabel": {"show": is_lowest, "showMinLabel": False, "showMaxLabel": False}}
    if is_lowest:
        axis |= {"name": "epochs of the gate stage", "nameLocation": "middle", "nameGap": 26}
    return axis


def gate_evolution(
    probability: np.ndarray,
    epochs: np.ndarray,
    labels: list[str],
    order: np.ndarray,
    weights: np.ndarray,
    chosen: list[int],
    planned: int,
) -> Option:
    """P[open] of every channel of a space over the epochs, and λ on the same time axis.

    Three panels share the epochs: the heat map (one line of cells per channel), the mean against ½
    with the chosen channels, and λ.

    Args:
        probability: `(epochs, channels)` in [0, 1].
        epochs: `(epochs,)` epochs done, from 1.
        labels: the channels' names, e.g. "A 5".
        order: channels from the bottom of the heat map to its top.
        weights: λ at each epoch, `(epochs,)`.
        chosen: channels drawn as lines; at most `MOST_LINES`.
        planned: epochs of the gate stage, so that the time axis stays where it is.
    """
    assert len(chosen) <= MOST_LINES
    wide = epochs_per_column(planned, len(order))
    columns = -(-planned // wide)
    cells = _cells(probability[:, order], (epochs - 1) // wide)
    mean = probability.mean(1)

    def line(name: str, values: np.ndarray, panel: int, colour: str, width: float) -> Option:
        return {
            "type": "line",
            "name": name,
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "data": _pairs(epochs, values),
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
        "data": [{"yAxis": 0.5}],
    }
    lines = [line("mean", mean, 1, "#009E73", 4) | {"markLine": half}]
    lines += [
        line(labels[channel], probability[:, channel], 1, _LINES[i % len(_LINES)], 1.5)
        for i, channel in enumerate(chosen)
    ]
    grids = [("4%", "50%"), ("60%", "18%"), ("84%", "9%")]
    return {
        "animation": False,
        "toolbox": _TOOLBOX,
        "dataset": {"source": cells},
        "tooltip": {"trigger": "item"},
        "grid": [{"left": 64, "right": 84, "top": top, "height": height} for top, height in grids],
        "xAxis": [
            {"type": "category", "data": _spans(columns, wide), "show": False},
            *({"gridIndex": panel, **_epoch_axis(columns * wide, panel == 2)} for panel in (1, 2)),
        ],
        "yAxis": [
            {
                "type": "category",
                "gridIndex": 0,
                "data": [labels[channel] for channel in order],
                "axisTick": {"show": False},
            },
            {"gridIndex": 1, "min": 0, "max": 1, "interval": 0.5, "name": "P[open]"},
            {"gridIndex": 2, "name": "λ", "splitNumber": 2},
        ],
        "visualMap": {
            "seriesIndex": 0,
            "min": 0,
            "max": 1,
            "calculable": False,
            "precision": 1,
            "right": 0,
            "top": "4%",
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
            line("λ", weights, 2, ENSEMBLE, 3),
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
