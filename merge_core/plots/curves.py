"""Charts that are watched while a run runs, as ECharts options (plain dictionaries).

Streamlit keeps an ECharts chart with a key in place when its option changes, so these move on
without a flicker.
"""

from typing import Any

import numpy as np
import pandas as pd

from merge_core.plots.commands import moments
from merge_core.plots.style import NEUTRAL, stage_colour
from merge_core.stages import STAGE_BY_KEY

Option = dict[str, Any]
MOST_MARKS = 150
"""Beyond so many epochs marks on a curve would only hide it."""
MOST_LINES = 12
"""How many lines may be drawn before nobody can tell them apart."""
TOOLBOX = {"feature": {"saveAsImage": {"title": "Save as image"}}, "right": 0, "top": 0}


def pairs(x: np.ndarray, y: np.ndarray) -> list[list[float | None]]:
    """Points for a series; a missing value becomes a gap."""
    return [[float(a), None if np.isnan(b) else float(b)] for a, b in zip(x, y, strict=True)]


def _axis(name: str, *, log: bool) -> Option:
    """An axis that does not begin at zero; a logarithmic one has ticks at powers of two."""
    axis = {"name": name, "nameLocation": "middle", "nameGap": 44, "scale": True}
    return axis | ({"type": "log", "logBase": 2} if log else {"type": "value"})


def learning_curves(
    curves: pd.DataFrame, quantity: str, *, log: bool, markers: pd.DataFrame | None = None
) -> Option:
    """A quantity per stage over the epochs of the whole run.

    Args:
        curves: `merge_core.views.runs.curve_frame`.
        quantity: "accuracy" or "loss", held-out as a full line and training as a dashed one, or
            "distance", of networks that are tied together.
        log: a logarithmic scale.
        markers: what was asked of the run, `merge_core.views.steering.marker_frame`; each answer
            is an upright line with a sign where it took effect.
    """
    series: list[Option] = []
    for stage, group in curves.groupby("stage", sort=False):
        role = STAGE_BY_KEY[str(stage)]
        colour = stage_colour(role.key, role.role)
        columns = {f"heldout_{quantity}": "solid", f"train_{quantity}": "dashed", quantity: "solid"}
        for column, kind in columns.items():
            if column not in group or np.isnan(group[column].to_numpy()).all():
                continue
            series.append(
                {
                    "type": "line",
                    "name": role.title,
                    "data": pairs(group["run_epoch"].to_numpy(), group[column].to_numpy()),
                    "showSymbol": kind == "solid" and len(curves) <= MOST_MARKS,
                    "symbolSize": 6,
                    "symbol": "diamond" if role.role == "control" else "circle",
                    "lineStyle": {"type": kind, "width": 3 if kind == "solid" else 1.5},
                    "itemStyle": {"color": colour},
                    "color": colour,
                    "endLabel": {"show": False},
                    "tooltip": {"valueFormatter": "%.4f"},
                }
            )
    if series and markers is not None and len(markers):
        series[0]["markLine"] = _upright(markers)
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "tooltip": {"trigger": "item", "formatter": "{a}<br/>epoch, value: {c}"},
        "legend": {"type": "scroll", "top": 0, "left": 0, "width": "80%"},
        "grid": {"left": 36, "right": 24, "top": 40, "bottom": 32, "containLabel": True},
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


def _upright(markers: pd.DataFrame) -> Option:
    """A line for every moment at which commands took effect, with their signs on top."""
    rows = [{str(key): value for key, value in row.items()} for row in markers.to_dict("records")]
    return {
        "symbol": "none",
        "lineStyle": {"type": "dotted", "color": NEUTRAL, "width": 1.5},
        "tooltip": {"formatter": "{b}", "extraCssText": "max-width:320px;white-space:normal"},
        "data": [
            {
                "xAxis": each.place,
                "name": each.words,
                "label": {"formatter": each.signs, "position": "end", "color": NEUTRAL},
            }
            for each in moments((float(row["run_epoch"]), row) for row in rows)
        ],
    }
