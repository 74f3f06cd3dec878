"""Methods side by side: the score against what a prediction costs, and against seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from merge_core.plots.scores import WIDE
from merge_core.plots.style import ENSEMBLE, NEUTRAL, STUDENT, TEACHER_COLOURS, frame
from merge_core.views.methods import size_words
from merge_core.views.outcomes import SPLITS, STATES, Network, Outcome, Outcomes
from merge_core.views.runs import score_text

MARKS = {
    "merged": ("circle-open", NEUTRAL, 12),
    "repaired": ("diamond", "#56B4E9", 12),
    "fine_tuned": ("circle", STUDENT, 13),
}
"""State → symbol, colour and size of its marks."""
ROW = 46
"""Pixels of a method's row."""
SOONEST = 0.001
"""Seconds that the quickest methods are drawn at: a logarithmic axis has no zero."""
_COLOURS = (*TEACHER_COLOURS, "#D55E00", "#F0E442")


@dataclass(frozen=True)
class Place:
    """Where a network's mark stands."""

    method: Outcome
    network: Network
    x: float
    y: float


def by_method(found: Outcomes, split: str) -> go.Figure:
    """A row per method with up to three connected marks, grouped by the cost of a prediction.

    The teachers have a row with a mark each, and dotted lines down from it; the output ensemble is
    a dashed line. Names and numbers stand above their row, so that the chart can be narrow.

    Args:
        found: `merge_core.views.outcomes.outcomes`, with at least one method.
        split: "heldout" or "test".
    """
    figure = go.Figure()
    rows, headings = _rows(found)
    bottom = max(rows.values()) + 0.6
    _upright(figure, found, split, bottom)
    places = [
        Place(method, network, network.scores[split], rows[method.card.key])
        for method in found.methods
        for network in method.networks
    ]
    _ways(figure, places)
    _state_marks(figure, places)
    for method in found.methods:
        scores = (score_text(each.scores[split], found.metric) for each in method.networks)
        chose = f" ({method.alone} alone)" if method.alone else ""
        words = f"{method.title}{chose}  {' → '.join(scores)}"
        _words(figure, rows[method.card.key] - 0.42, words)
    for row, words in headings.items():
        _words(figure, row - 0.1, f"<b>{words}</b>")
    _words(figure, 0, "<b>Teachers</b>")
    frame(figure, height=round(150 + ROW * bottom))
    figure.update_yaxes(range=[bottom, -0.9], visible=False, fixedrange=True)
    figure.update_xaxes(title=_title(found, split))
    if _is_wide(found, split):
        figure.update_xaxes(type="log", dtick="D2")
    return figure


def _rows(found: Outcomes) -> tuple[dict[str, float], dict[float, str]]:
    """The row of every method, and the headings between them; the teachers have row 0."""
    rows: dict[str, float] = {}
    headings: dict[float, str] = {}
    row = 1.0
    for size in ("all networks", "a wider network", "one network"):
        group = [method for method in found.methods if method.size == size]
        if group:
            headings[row] = size_words(group[0])
            for method in group:
                row += 1
                rows[method.card.key] = row
            row += 1
    return rows, headings


def _upright(figure: go.Figure, found: Outcomes, split: str, bottom: float) -> None:
    """The teachers and the output ensemble, as lines from top to bottom."""
    for number, teacher in enumerate(found.teachers):
        colour, score = _colour(number), teacher.scores[split]
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
            name=f"teacher {teacher.label} {score_text(score, found.metric)}",
            marker={"color": colour, "size": 14, "symbol": "triangle-down"},
            hovertemplate=f"<b>Teacher {teacher.label}</b><br>%{{x:.4f}}<extra></extra>",
        )
    if found.ensemble is not None:
        score = found.ensemble.best.scores[split]
        _ensemble_line(figure, found, score, x=[score, score], y=[-0.2, bottom])


def by_seconds(found: Outcomes, split: str) -> go.Figure:
    """The score against the seconds from the teachers to the network, one connected way per method.

    Named are the methods that no other beats on held-out in less time.

    Args:
        found, split: as of `by_method`.
    """
    figure = go.Figure()
    places = [
        Place(method, network, max(network.seconds, SOONEST), network.scores[split])
        for method in found.methods
        if method is not found.ensemble
        for network in method.networks
    ]
    seconds = [place.x for place in places]
    span = (min(seconds, default=1.0) / 1.6, max(seconds, default=1.0) * 1.6)
    _level(figure, found, split, span)
    _ways(figure, places)
    _state_marks(figure, places)
    front = _front(places, found)
    figure.add_scatter(
        x=[place.x for place in front],
        y=[place.y for place in front],
        mode="text",
        text=[f"  {place.method.title}" for place in front],
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
    for number, teacher in enumerate(found.teachers):
        score = teacher.scores[split]
        figure.add_scatter(
            x=[span[0]],
            y=[score],
            mode="markers",
            cliponaxis=False,
            name=f"teacher {teacher.label} {score_text(score, found.metric)}",
            marker={"color": _colour(number), "size": 14, "symbol": "triangle-right"},
            hovertemplate=f"<b>Teacher {teacher.label}</b><br>%{{y:.4f}}<extra></extra>",
        )
    if found.ensemble is not None:
        score = found.ensemble.best.scores[split]
        _ensemble_line(figure, found, score, x=list(span), y=[score, score])


def _ensemble_line(
    figure: go.Figure, found: Outcomes, score: float, *, x: list[float], y: list[float]
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": ENSEMBLE, "width": 2, "dash": "dash"},
        name=f"output ensemble {score_text(score, found.metric)}",
        hoverinfo="skip",
    )


def _front(places: Sequence[Place], found: Outcomes) -> list[Place]:
    """The networks that no other of their size beats on held-out in less time, methods once."""
    front = [place for place in places if place.method.size != "one network"]
    single = [place for place in places if place.method.size == "one network"]
    best, named = -math.inf, set()
    for place in sorted(single, key=lambda place: place.x):
        worth = found.worth(place.network.scores["heldout"])
        if worth > best:
            best = worth
            if place.method.card.key not in named:
                front.append(place)
            named.add(place.method.card.key)
    return front


def _ways(figure: go.Figure, places: Sequence[Place]) -> None:
    """A line through the states of every method."""
    for key in dict.fromkeys(place.method.card.key for place in places):
        way = [place for place in places if place.method.card.key == key]
        figure.add_scatter(
            x=[place.x for place in way],
            y=[place.y for place in way],
            mode="lines",
            line={"color": NEUTRAL, "width": 2},
            opacity=0.6,
            hoverinfo="skip",
            showlegend=False,
        )


def _state_marks(figure: go.Figure, places: Sequence[Place]) -> None:
    for state, (symbol, colour, size) in MARKS.items():
        shown = [place for place in places if place.network.state == state]
        if not shown:
            continue
        figure.add_scatter(
            x=[place.x for place in shown],
            y=[place.y for place in shown],
            mode="markers",
            name=STATES[state],
            marker={
                "symbol": symbol,
                "color": colour,
                "size": size,
                "line": {"width": 2, "color": colour},
            },
            cliponaxis=False,
            customdata=[_told(place) for place in shown],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _told(place: Place) -> str:
    """What a mark tells when one points at it."""
    scores = place.network.scores
    return (
        f"<b>{place.method.title}</b>, {STATES[place.network.state]}"
        f"<br>held-out {scores['heldout']:.4f} · test {scores['test']:.4f}"
        f"<br>{place.network.seconds:.3g} s from the teachers to here"
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
    networks = [network for method in found.methods for network in method.networks]
    scores = [each.scores[split] for each in (*networks, *found.teachers)]
    return found.metric == "loss" and max(scores) > WIDE * min(scores)
