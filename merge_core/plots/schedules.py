"""What a λ schedule is expected to do to the gates, as an ECharts option."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from merge_core.plots.curves import MOST_LINES
from merge_core.plots.style import NEUTRAL

_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_STYLES = ("solid", "dashed")


def expected_openness(
    epochs: int,
    ends: np.ndarray,
    means: Mapping[str, np.ndarray],
    *,
    closing: float,
    past: Mapping[str, np.ndarray] | None = None,
    path: np.ndarray | None = None,
) -> dict[str, Any]:
    """Mean P[open] of each space over the epochs of the gate stage.

    Args:
        epochs: of the gate stage.
        ends: epochs, fractions included, at which the means are expected, `(moments,)`.
        means: expected mean of each space, `(moments,)`.
        closing: the epoch at which the part begins that shifts all gates alike.
        past: the mean that each space had after each epoch so far, `(epochs so far,)`.
        path: what a controlled λ aims at, pairs of epoch and mean, `(points, 2)`.
    """
    if len(means) > MOST_LINES:
        every = np.array([*means.values()])
        means = {
            "the most open space": every.max(0),
            "the median space": np.median(every, 0),
            "the least open space": every.min(0),
        }
        past = None
    series = []
    for i, (space, mean) in enumerate(means.items()):
        before = np.empty(0) if past is None else past.get(space, np.empty(0))
        x = np.concatenate([np.arange(1, len(before) + 1), ends])
        y = np.concatenate([before, mean])
        style = _STYLES[i // len(_LINES) % len(_STYLES)]
        series.append(
            _line(space, np.stack([x, y], 1), _LINES[i % len(_LINES)], width=2.5, style=style)
        )
    if path is not None:
        series.append(_line("aimed at", path, NEUTRAL, width=1.5, style="dotted"))
    area = [[{"xAxis": closing}, {"xAxis": epochs}]]
    half = [{"yAxis": 0.5}]
    if past is not None and any(len(each) for each in past.values()):
        half.append({"xAxis": max(len(each) for each in past.values())})
    series[0] |= {
        "markArea": {
            "silent": True,
            "itemStyle": {"color": NEUTRAL, "opacity": 0.15},
            "data": area,
        },
        "markLine": {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "lineStyle": {"color": NEUTRAL, "type": "dashed", "width": 1},
            "data": half,
        },
    }
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "valueFormatter": "%.3f"},
        "legend": {"type": "scroll", "top": 0, "left": 0, "right": 8},
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 32, "containLabel": True},
        "xAxis": {
            "type": "value",
            "name": "epochs of the gate stage",
            "nameLocation": "middle",
            "nameGap": 28,
            "min": 0,
            "max": epochs,
        },
        "yAxis": {"type": "value", "name": "", "min": 0.4, "max": 1},
        "series": series,
    }


def _line(
    name: str, points: np.ndarray, colour: str, *, width: float, style: str
) -> dict[str, Any]:
    return {
        "type": "line",
        "name": name,
        "showSymbol": False,
        "data": points.round(4).tolist(),
        "lineStyle": {"width": width, "color": colour, "type": style},
        "itemStyle": {"color": colour},
    }
