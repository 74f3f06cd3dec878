"""The trials of a search, as ECharts options."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from merge_core.plots.curves import TOOLBOX
from merge_core.plots.lab import colour_scale, score_span
from merge_core.plots.style import CONTROL, ENSEMBLE, NEUTRAL, SELECTED, STUDENT
from merge_core.search import Numbers, Search, Trial, best_so_far, best_trial

Option = dict[str, Any]


def trial_scores(search: Search, trials: Sequence[Trial]) -> Option:
    """The held-out score of each trial, the best so far as stairs, and the own schedule's.

    Trials that failed have no score and are left out.

    Args:
        search: what they are of.
        trials: those that are over, by number.
    """
    own = [trial.heldout for trial in trials if trial.number == 0 and trial.heldout is not None]
    over = [(trial.number, trial.heldout) for trial in trials if trial.heldout is not None]
    best = [
        [trial.number, so_far]
        for trial, so_far in zip(trials, best_so_far(search, trials), strict=True)
        if so_far is not None
    ]
    level = {
        "silent": True,
        "symbol": "none",
        "precision": 10,  # ECharts rounds places of lines to two digits
        "lineStyle": {"type": "dashed", "color": ENSEMBLE, "width": 2},
        "label": {
            "formatter": "own schedule",
            "position": "insideEndTop",
            "color": ENSEMBLE,
            "fontSize": 13,
        },
        "data": [{"yAxis": value} for value in own],
    }
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "tooltip": {"trigger": "item", "confine": True, "formatter": "{a}<br/>trial, score: {c}"},
        "legend": {"top": 0, "left": 0},
        "grid": {"left": 40, "right": 24, "top": 40, "bottom": 36, "containLabel": True},
        "xAxis": {
            "type": "value",
            "name": "trial",
            "nameLocation": "middle",
            "nameGap": 28,
            "min": 0,
            "max": max([1, *(trial.number for trial in trials)]),
            "minInterval": 1,
        },
        "yAxis": {
            "type": "value",
            "name": f"held-out {search.recipe.metric}",
            "nameLocation": "middle",
            "nameGap": 52,
            "scale": True,
            "axisLabel": {"hideOverlap": True},
        },
        "series": [
            {
                "type": "line",
                "name": "best so far",
                "step": "end",
                "data": best,
                "symbol": "none",
                "lineStyle": {"width": 2.5, "color": STUDENT},
                "itemStyle": {"color": STUDENT},
                "markLine": level,
            },
            {
                "type": "scatter",
                "name": "trial",
                "data": [list(point) for point in over],
                "symbolSize": 9,
                "itemStyle": {"color": CONTROL},
            },
        ],
    }


def trial_map(search: Search, trials: Sequence[Trial]) -> Option:
    """The trials over their two numbers, both on log scales, coloured by held-out score.

    Trials that failed are crosses without a colour; a schedule of another kind has no place here.

    Args:
        search: what they are of.
        trials: those that are over, by number.
    """
    lower = search.recipe.metric == "loss"
    placed = [(trial, trial.numbers) for trial in trials if trial.numbers is not None]
    best = best_trial(search, trials)
    known = np.array([trial.heldout for trial, _ in placed if trial.heldout is not None])
    low, high = score_span(known, lower=lower) if len(known) else (0.0, 1.0)
    first, second = search.axes
    failed = ["failed"] if any(trial.failed for trial, _ in placed) else []
    return {
        "animation": False,
        "toolbox": TOOLBOX,
        "tooltip": {"trigger": "item", "confine": True},
        "legend": {"top": 0, "left": 0, "data": failed},
        "grid": {"left": 28, "right": 84, "top": 40, "bottom": 36, "containLabel": True},
        "xAxis": _axis(f"{first.title} (log scale)", search.ranges[0], gap=28),
        "yAxis": _axis(f"{second.title} (log scale)", search.ranges[1], gap=52),
        "visualMap": colour_scale(low, high, lower=lower),
        "series": [
            {
                "type": "scatter",
                "name": "trial",
                "data": [
                    _mark(search, trial, numbers, best)
                    for trial, numbers in placed
                    if trial.heldout is not None
                ],
                "itemStyle": {"borderColor": NEUTRAL, "borderWidth": 1},
            },
            {
                "type": "scatter",
                "name": "failed",
                "symbol": "path://M0,1L1,0L5,4L9,0L10,1L6,5L10,9L9,10L5,6L1,10L0,9L4,5Z",
                "symbolSize": 12,
                "itemStyle": {"color": NEUTRAL},
                "data": [
                    {"value": list(numbers), "tooltip": {"formatter": _place(search, trial)}}
                    for trial, numbers in placed
                    if trial.failed
                ],
            },
        ],
    }


def _axis(title: str, ends: tuple[float, float], *, gap: int) -> Option:
    return {
        "type": "log",
        "name": title,
        "nameLocation": "middle",
        "nameGap": gap,
        "min": ends[0],
        "max": ends[1],
        "axisLabel": {"hideOverlap": True},
    }


def _place(search: Search, trial: Trial) -> str:
    assert trial.numbers is not None
    pairs = zip(search.axes, trial.numbers, strict=True)
    where = ", ".join(f"{axis.title} = {value:g}" for axis, value in pairs)
    return f"trial {trial.number}: {where}"


def _mark(search: Search, trial: Trial, numbers: Numbers, best: Trial | None) -> Option:
    """One trial that has a score: a diamond for the recipe's own schedule, a ring for the best."""
    assert trial.heldout is not None
    names = ["★ best"] * (trial == best) + ["own"] * (trial.number == 0)
    mark: Option = {
        "value": [*numbers, trial.heldout],
        "symbol": "diamond" if trial.number == 0 else "circle",
        "symbolSize": 18 if names else 12,
        "tooltip": {"formatter": f"{_place(search, trial)}<br/>{trial.heldout:.4f}"},
        "label": {
            "show": bool(names),
            "formatter": ", ".join(names),
            "position": "top" if trial == best else "left",
            "fontSize": 13,
        },
    }
    if trial == best:
        mark["itemStyle"] = {"borderColor": SELECTED, "borderWidth": 3}
    return mark
