"""A run beside a relative on the same axes, as an ECharts option."""

from typing import Any

import numpy as np

from merge_core.plots.curves import pairs
from merge_core.plots.style import ENSEMBLE, NEUTRAL
from merge_core.views.family import Course

_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MOST_SPACES = len(_LINES)
"""More spaces than this are drawn as the mean over all of them."""


def beside(here: Course, there: Course, parted: int | None) -> dict[str, Any]:
    """Mean P[open] of each space and λ over the epochs of the gates, of two runs.

    The run itself has full lines, its relative dashed ones of the same colour.

    Args:
        here: the run.
        there: its relative.
        parted: epochs of the gates that both share; None where they share the whole stage.
    """
    series = []
    for course, who, style, width in (
        (here, "this run", "solid", 3),
        (there, "the other", "dashed", 2.5),
    ):
        means = dict(course.means)
        if len(means) > MOST_SPACES:
            means = {"all spaces": np.mean([*means.values()], axis=0)}
        lines = [
            (f"{space}, {who}", mean, 0, _LINES[i]) for i, (space, mean) in enumerate(means.items())
        ]
        lines.append((f"λ, {who}", course.weights, 1, ENSEMBLE))
        series += [
            {
                "type": "line",
                "name": name,
                "xAxisIndex": panel,
                "yAxisIndex": panel,
                "data": pairs(course.epochs, values),
                "showSymbol": len(values) < 3,
                "symbol": "circle",
                "lineStyle": {"width": width, "type": style, "color": colour},
                "itemStyle": {"color": colour},
            }
            for name, values, panel, colour in lines
        ]
    if parted is not None:
        for panel in (0, 1):
            first = next(each for each in series if each["xAxisIndex"] == panel)
            first["markLine"] = {
                "silent": True,
                "symbol": "none",
                "lineStyle": {"type": "dotted", "color": NEUTRAL, "width": 2},
                "label": {"show": panel == 0, "formatter": "parted here", "color": NEUTRAL},
                "data": [{"xAxis": parted + 0.5}],
            }
    last = max(here.planned, there.planned, 1) + 0.5
    panels = [(44, 190), (282, 90)]
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "valueFormatter": "%.4g", "confine": True},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "legend": {"type": "scroll", "top": 0, "left": 0, "right": 8, "selectedMode": False},
        "grid": [{"left": 64, "right": 24, "top": top, "height": height} for top, height in panels],
        "xAxis": [
            {"gridIndex": 0, "min": 0.5, "max": last, "axisLabel": {"show": False}},
            {
                "gridIndex": 1,
                "min": 0.5,
                "max": last,
                "minInterval": 1,
                "axisLabel": {"showMinLabel": False, "showMaxLabel": False},
                "name": "epochs of the gate stage",
                "nameLocation": "middle",
                "nameGap": 26,
            },
        ],
        "yAxis": [
            {"gridIndex": 0, "min": 0.4, "max": 1, "name": "mean P[open]"},
            {"gridIndex": 1, "name": "λ", "splitNumber": 2},
        ],
        "series": series,
    }


HEIGHT = 426
"""Pixels that `beside` takes."""
