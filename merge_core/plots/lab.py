"""The landscape of a λ lab and the gates of one of its schedules, as ECharts options."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from merge_core.lab import Cell, Lab
from merge_core.plots.curves import TOOLBOX, pairs
from merge_core.plots.style import CIVIDIS, ENSEMBLE, NEUTRAL, SELECTED

Option = dict[str, Any]
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_LABELLED = 12
"""Values on an axis beyond which numbers in the cells would not fit."""
_CLIP = 90
"""Percent of the cells that the colours tell apart; those that are worse share the last colour."""


def _span(values: np.ndarray, measure: str, *, lower: bool) -> tuple[float, float]:
    """The values of the first and the last colour."""
    known = values[~np.isnan(values)]
    if measure.startswith("open"):
        return 0.5, 1.0
    if not measure.endswith("heldout") or not len(known):
        return 0.0, 1.0
    return score_span(known, lower=lower)


def score_span(known: np.ndarray, *, lower: bool) -> tuple[float, float]:
    """The scores of the first and the last colour.

    Args:
        known: the scores, one or more.
        lower: whether lower ones are better.
    """
    low, high = float(known.min()), float(known.max())
    if lower:
        high = float(np.percentile(known, _CLIP))
    else:
        low = float(np.percentile(known, 100 - _CLIP))
    return (low, high) if high > low else (low - 1e-6, low + 1e-6)


def landscape_map(
    lab: Lab,
    values: np.ndarray,
    measure: str,
    words: str,
    *,
    best: Cell | None,
    chosen: Cell | None,
) -> Option:
    """A measure of every schedule over its two numbers, both on log scales; cells can be clicked.

    Cell (i, j) is item i · (number of second values) + j of the first series.

    Args:
        lab: what it is of.
        values: `merge_core.lab.landscape`.
        measure: a key of `merge_core.lab.MEASURES`.
        words: what the colours mean.
        best: the cell with the best score.
        chosen: the cell whose gates are shown.
    """
    lower = lab.recipe.metric == "loss" and measure.endswith("heldout")
    low, high = _span(values, measure, lower=lower)
    labelled = max(lab.shape) <= _LABELLED
    cells = []
    for i in range(lab.shape[0]):
        for j in range(lab.shape[1]):
            marks = ["★"] * ((i, j) == best) + ["paper"] * ((i, j) == lab.paper)
            value = float(values[i, j])
            part = (value - low) / (high - low)
            bright = part < 0.5 if lower else part > 0.5
            shown = [f"{value:.3f}"] * (labelled and not np.isnan(value)) + marks
            ink = "#000000" if bright else "#FFFFFF" if not np.isnan(value) else NEUTRAL
            cells.append(_cell(lab, (i, j), value, shown, ink))
    if chosen is not None:
        cells[chosen[0] * lab.shape[1] + chosen[1]]["itemStyle"] = {
            "borderColor": SELECTED,
            "borderWidth": 4,
        }
    first, second = lab.axes
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "tooltip": {"trigger": "item", "confine": True},
        "grid": {"left": 32, "right": 76, "top": 28, "bottom": 36, "containLabel": True},
        "xAxis": _axis(f"{first.title} (log scale)", lab.first, gap=28),
        "yAxis": _axis(f"{second.title} (log scale)", lab.second, gap=58),
        "visualMap": colour_scale(low, high, lower=lower),
        "series": [
            {
                "type": "heatmap",
                "name": words,
                "data": cells,
                "selectedMode": "single",
                "select": {"itemStyle": {"borderColor": SELECTED, "borderWidth": 4}},
                "emphasis": {"itemStyle": {"borderColor": NEUTRAL, "borderWidth": 2}},
            }
        ],
    }


def colour_scale(low: float, high: float, *, lower: bool) -> Option:
    """How scores, the third number of a mark, become colours; the brightest is the best.

    Args:
        low, high: the scores at the ends of the scale.
        lower: whether lower scores are better.
    """
    return {
        "seriesIndex": 0,
        "dimension": 2,
        "min": low,
        "max": high,
        "calculable": False,
        "precision": 3,
        "right": 0,
        "top": 40,
        "itemHeight": 200,
        "text": [f"{high:.3g}", f"{low:.3g}"],
        "inRange": {"color": list(reversed(CIVIDIS)) if lower else list(CIVIDIS)},
    }


def _axis(title: str, values: tuple[float, ...], *, gap: int) -> Option:
    return {
        "type": "category",
        "data": [f"{value:g}" for value in values],
        "name": title,
        "nameLocation": "middle",
        "nameGap": gap,
        "splitArea": {"show": True},
    }


def _cell(lab: Lab, cell: Cell, value: float, shown: list[str], ink: str) -> Option:
    """One cell: its place, its colour, its words and their colour."""
    known = not np.isnan(value)
    first, second = lab.numbers(cell)
    place = f"{lab.axes[0].title} = {first:g}, {lab.axes[1].title} = {second:g}"
    return {
        "name": place,  # items of one name would be selected together
        "value": [cell[0], cell[1], value if known else "-"],
        "tooltip": {"formatter": f"{place}<br/>{f'{value:.4f}' if known else 'not finished'}"},
        "label": {
            "show": bool(shown),
            "formatter": "\n".join(shown),
            "fontSize": 12,
            "lineHeight": 16,
            "color": ink,
        },
    }


def cell_curves(means: Mapping[str, np.ndarray], weights: np.ndarray) -> Option:
    """Mean P[open] of each space over the epochs of gates, and λ below it on a log scale.

    Args:
        means: of each space after each epoch, `(epochs,)` each.
        weights: λ in each epoch, `(epochs,)`.
    """
    epochs = np.arange(1, len(weights) + 1)

    def line(name: str, values: np.ndarray, panel: int, colour: str) -> Option:
        return {
            "type": "line",
            "name": name,
            "xAxisIndex": panel,
            "yAxisIndex": panel,
            "data": pairs(epochs[: len(values)], values),
            "showSymbol": len(values) < 3,
            "lineStyle": {"width": 2.5, "color": colour},
            "itemStyle": {"color": colour},
        }

    half = {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"type": "dashed", "color": NEUTRAL, "width": 2},
        "label": {"formatter": "½", "position": "insideStartTop", "color": NEUTRAL},
        "data": [{"yAxis": 0.5}],
    }
    lines = [
        line(space, mean, 0, _LINES[i % len(_LINES)])
        for i, (space, mean) in enumerate(means.items())
    ]
    if lines:
        lines[0]["markLine"] = half
    time = {"type": "value", "min": 0, "max": len(weights)}
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "tooltip": {"trigger": "axis", "valueFormatter": "%.3g"},
        "legend": {"type": "scroll", "top": 0, "left": 0, "right": 40},
        "grid": [
            {"left": 56, "right": 16, "top": 48, "height": 170},
            {"left": 56, "right": 16, "top": 262, "height": 110},
        ],
        "xAxis": [
            {**time, "axisLabel": {"show": False}},
            {
                **time,
                "gridIndex": 1,
                "name": "epochs of the gate stage",
                "nameLocation": "middle",
                "nameGap": 26,
            },
        ],
        "yAxis": [
            {"min": 0, "max": 1, "interval": 0.5, "name": "mean P[open]"},
            {"gridIndex": 1, "type": "log", "name": "λ"},
        ],
        "series": [*lines, line("λ", weights, 1, ENSEMBLE)],
    }
