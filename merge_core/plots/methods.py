"""Methods side by side: the score against what a prediction costs, and against seconds."""

import math

import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.scores import WIDE
from merge_core.plots.style import ENSEMBLE, NEUTRAL, STUDENT, TEACHER_COLOURS, frame
from merge_core.views.methods import SPLITS, STATES, Outcomes, flops_words, score_text

MARKS = {
    "merged": ("circle-open", NEUTRAL, 12),
    "repaired": ("diamond", "#56B4E9", 12),
    "fine_tuned": ("circle", STUDENT, 13),
}
"""State → symbol, colour and size of its marks."""
ROW = 42
"""Pixels of a method's row."""
_COLOURS = (*TEACHER_COLOURS, "#D55E00", "#F0E442")


def by_method(found: Outcomes, split: str) -> go.Figure:
    """A row per method with up to three connected marks, grouped by the cost of a prediction.

    The teachers have a row with a mark each, and dotted lines down from it; the output ensemble is
    a dashed line. Names and numbers stand above their row, so that the chart can be narrow.

    Args:
        found: `merge_core.views.methods.outcomes`, with at least one method.
        split: "heldout" or "test".
    """
    figure = go.Figure()
    places, headings = _places(found)
    bottom = max(places.values()) + 0.6
    _upright(figure, found, split, bottom)
    for method, group in found.methods.groupby("method", sort=False):
        _way(figure, group[split], pd.Series(places[str(method)], group.index))
    _state_marks(figure, found, split, y=found.methods["method"].map(places))
    for method, group in found.methods.groupby("method", sort=False):
        numbers = " → ".join(score_text(value, found.metric) for value in group[split])
        alone = group["alone"].iloc[0]
        chose = f" ({alone} alone)" if alone else ""
        _words(figure, places[str(method)] - 0.38, f"{group['title'].iloc[0]}{chose}  {numbers}")
    for place, words in headings.items():
        _words(figure, place - 0.1, f"<b>{words}</b>")
    _words(figure, 0, "<b>Teachers</b>")
    frame(figure, height=round(150 + ROW * bottom))
    figure.update_yaxes(range=[bottom, -0.9], visible=False, fixedrange=True)
    figure.update_xaxes(title=_title(found, split))
    if _is_wide(found, split):
        figure.update_xaxes(type="log", dtick="D2")
    return figure


def _places(found: Outcomes) -> tuple[dict[str, float], dict[float, str]]:
    """The row of every method, and the headings between them; the teachers have row 0."""
    places: dict[str, float] = {}
    headings: dict[float, str] = {}
    row = 1.0
    for size in ("all networks", "one network"):
        group = found.methods.loc[found.methods["size"] == size, "method"].unique()
        if len(group):
            headings[row] = flops_words(found, size)
            for method in group:
                row += 1
                places[str(method)] = row
            row += 1
    return places, headings


def _upright(figure: go.Figure, found: Outcomes, split: str, bottom: float) -> None:
    """The teachers and the output ensemble, as lines from top to bottom."""
    for number, (_, teacher) in enumerate(found.teachers.iterrows()):
        colour = _colour(number)
        score = teacher[split]
        figure.add_scatter(
            x=[score, score],
            y=[0, bottom],
            mode="lines",
            line={"color": colour, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=[score],
            y=[0],
            mode="markers",
            name=f"teacher {teacher['label']} {score_text(score, found.metric)}",
            marker={"color": colour, "size": 14, "symbol": "triangle-down"},
            hovertemplate=f"<b>Teacher {teacher['label']}</b><br>%{{x:.4f}}<extra></extra>",
        )
    ensemble = found.ensemble
    if ensemble is not None:
        figure.add_scatter(
            x=[ensemble[split], ensemble[split]],
            y=[-0.2, bottom],
            mode="lines",
            line={"color": ENSEMBLE, "width": 2, "dash": "dash"},
            name=f"output ensemble {score_text(ensemble[split], found.metric)}",
            hoverinfo="skip",
        )


def by_seconds(found: Outcomes, split: str) -> go.Figure:
    """The score against the seconds from the teachers to the network, one connected way per method.

    Named are the methods that no other beats on held-out in less time.

    Args:
        found, split: as of `by_method`.
    """
    figure = go.Figure()
    shown = found.methods[found.methods["method"] != "output_ensemble"]
    shown = shown.assign(seconds=shown["seconds"].clip(lower=0.001))
    span = (shown["seconds"].min() / 1.6, shown["seconds"].max() * 1.6)
    _level(figure, found, split, span)
    for _, group in shown.groupby("method", sort=False):
        _way(figure, group["seconds"], group[split])
    _state_marks(figure, found, split, x=shown["seconds"], y=shown[split])
    front = shown.loc[_front(shown, found.metric)]
    figure.add_scatter(
        x=front["seconds"],
        y=front[split],
        mode="text",
        text=[f"  {title}" for title in front["title"]],
        textposition="middle right",
        textfont={"size": 13},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    frame(figure, height=560)
    low, high = (math.log10(end) for end in span)
    figure.update_xaxes(
        title="seconds from the teachers to the network", type="log", range=[low, high]
    )
    figure.update_yaxes(title=_title(found, split))
    if _is_wide(found, split):
        figure.update_yaxes(type="log", dtick="D2")
    return figure


def _level(figure: go.Figure, found: Outcomes, split: str, span: tuple[float, float]) -> None:
    """The teachers, which take no merging, as marks at the left; the output ensemble as a line."""
    for number, (_, teacher) in enumerate(found.teachers.iterrows()):
        figure.add_scatter(
            x=[span[0]],
            y=[teacher[split]],
            mode="markers",
            cliponaxis=False,
            name=f"teacher {teacher['label']} {score_text(teacher[split], found.metric)}",
            marker={"color": _colour(number), "size": 14, "symbol": "triangle-right"},
            hovertemplate=f"<b>Teacher {teacher['label']}</b><br>%{{y:.4f}}<extra></extra>",
        )
    ensemble = found.ensemble
    if ensemble is not None:
        figure.add_scatter(
            x=list(span),
            y=[ensemble[split]] * 2,
            mode="lines",
            line={"color": ENSEMBLE, "width": 2, "dash": "dash"},
            name=f"output ensemble {score_text(ensemble[split], found.metric)}",
            hoverinfo="skip",
        )


def _front(shown: pd.DataFrame, metric: str) -> list[int]:
    """The networks that no other of their size beats on held-out in less time, methods once."""
    sign = 1 if metric == "accuracy" else -1
    front = list(shown.index[shown["size"] == "all networks"])
    best, named = -math.inf, set()
    for index, row in shown[shown["size"] == "one network"].sort_values("seconds").iterrows():
        if sign * row["heldout"] > best:
            best = sign * row["heldout"]
            if row["method"] not in named:
                front.append(index)
            named.add(row["method"])
    return front


def _way(figure: go.Figure, x: pd.Series, y: pd.Series) -> None:
    """The line through the states of one method."""
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": NEUTRAL, "width": 2},
        opacity=0.6,
        hoverinfo="skip",
        showlegend=False,
    )


def _state_marks(
    figure: go.Figure, found: Outcomes, split: str, *, y: pd.Series, x: pd.Series | None = None
) -> None:
    for state, (symbol, colour, size) in MARKS.items():
        rows = found.methods.loc[y.index]
        rows = rows[rows["state"] == state]
        if rows.empty:
            continue
        figure.add_scatter(
            x=rows[split] if x is None else x[rows.index],
            y=y[rows.index],
            mode="markers",
            name=STATES[state],
            marker={
                "symbol": symbol,
                "color": colour,
                "size": size,
                "line": {"width": 2, "color": colour},
            },
            cliponaxis=False,
            customdata=[
                f"<b>{row['title']}</b>, {STATES[state]}<br>held-out {row['heldout']:.4f} · test "
                f"{row['test']:.4f}<br>{row['seconds']:.3g} s from the teachers to here"
                for _, row in rows.iterrows()
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _words(figure: go.Figure, y: float, text: str) -> None:
    figure.add_annotation(
        x=0, y=y, xref="paper", text=text, showarrow=False, xanchor="left", font={"size": 13}
    )


def _colour(number: int) -> str:
    return _COLOURS[number] if number < len(_COLOURS) else NEUTRAL


def _title(found: Outcomes, split: str) -> str:
    better = "higher" if found.metric == "accuracy" else "lower"
    return f"{SPLITS[split]} {found.metric} ({better} is better)"


def _is_wide(found: Outcomes, split: str) -> bool:
    """Whether losses lie so far apart that their axis must be logarithmic."""
    scores = pd.concat([found.methods[split], found.teachers[split]])
    return found.metric == "loss" and scores.max() > WIDE * scores.min()
