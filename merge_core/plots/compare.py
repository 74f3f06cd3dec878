"""Strategies or runs over repetitions: spread, differences, score against cost, way of stages."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from merge_core.plots.colours import colour_of
from merge_core.plots.style import (
    NEUTRAL,
    STUDENT,
    frame,
    noted,
)
from merge_core.views.evidence import Difference, difference_text
from merge_core.views.runs import score_text
from merge_core.views.scored import SPLITS, Spread, Way

ROW = 52
"""Pixels of a strategy's row."""
_PAPER = 0.27
"""Rows from a strategy's box down to the paper's figures, which stay clear of the next name."""
WIDE = 6
"""Losses that differ by more than this factor are drawn on a logarithmic axis."""
PUBLISHED = "#D55E00"
VERDICTS = {
    "better": ("clearly better", STUDENT, "circle"),
    "worse": ("clearly worse", "#D55E00", "x"),
    "unclear": ("not clear", NEUTRAL, "circle-open"),
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star")


def jitter(count: int) -> np.ndarray:
    """Offsets in (−½, ½) that keep equal points apart: the same for the same number of points."""
    golden = (np.sqrt(5) - 1) / 2
    return (np.arange(1, count + 1) * golden) % 1 - 0.5


def boxes(found: Sequence[Spread], split: str, metric: str, rests: str) -> go.Figure:
    """A row for each strategy: a box, every repetition as a point, the paper's figures beside.

    Args:
        found: `merge_core.views.compare.spreads`.
        split: "test" or "heldout".
        metric: "accuracy" or "loss".
        rests: what the figure rests on, `Scored.conditions`.
    """
    figure = go.Figure()
    for row, each in enumerate(found):
        scores = np.asarray(each.scores)
        figure.add_box(
            x=scores,
            y=np.full(len(scores), float(row)),
            orientation="h",
            width=0.36,
            boxpoints=False,
            line={"color": colour_of(each.key), "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=scores,
            y=row + 0.3 * jitter(len(scores)),
            mode="markers",
            marker={"size": 6, "color": colour_of(each.key), "opacity": 0.75},
            customdata=list(each.seeds),
            hovertemplate=f"<b>{each.title}</b>, seed %{{customdata}}<br>%{{x:.4f}}<extra></extra>",
            showlegend=False,
        )
        made = each.summary
        words = f"mean {score_text(made.mean, metric)}, median {score_text(made.median, metric)}"
        _words(figure, row - 0.4, f"<b>{each.title}</b>  {words}")
    _published(figure, found)
    _rows(figure, len(found), [score for each in found for score in each.scores], metric)
    figure.update_xaxes(title=_title(split, metric))
    return noted(figure, rests)


def _published(figure: go.Figure, found: Sequence[Spread]) -> None:
    """The paper's range as a line, its median and mean as marks, as far as it tells them."""
    for row, each in enumerate(found):
        if (theirs := each.published) is None or math.isnan(theirs.min):
            continue
        figure.add_scatter(
            x=[theirs.min, theirs.max],
            y=[row + _PAPER, row + _PAPER],
            mode="lines",
            line={"color": PUBLISHED, "width": 2},
            hoverinfo="skip",
            showlegend=False,
        )
    for name, symbol in (("median", "line-ns-open"), ("mean", "diamond")):
        told = [
            (row, each.published)
            for row, each in enumerate(found)
            if each.published is not None and not math.isnan(getattr(each.published, name))
        ]
        if told:
            figure.add_scatter(
                x=[getattr(theirs, name) for _, theirs in told],
                y=[row + _PAPER for row, _ in told],
                mode="markers",
                name=f"paper's {name}" + (" (line: its range)" if name == "median" else ""),
                marker={
                    "symbol": symbol,
                    "size": 11,
                    "color": PUBLISHED,
                    "line": {"width": 2, "color": PUBLISHED},
                },
                hovertemplate=f"paper's {name} %{{x:.3f}}<extra></extra>",
            )


def forest(found: Sequence[Difference], metric: str, rests: str) -> go.Figure:
    """Paired differences of one strategy to the others, with their intervals and a line at zero.

    Args:
        found: `merge_core.views.evidence.differences`.
        metric: "accuracy" or "loss"; accuracies are drawn in points.
        rests: as of `boxes`.
    """
    figure = go.Figure()
    unit = 100 if metric == "accuracy" else 1
    for row, each in enumerate(found):
        values = unit * np.asarray(each.values)
        figure.add_scatter(
            x=values,
            y=row + 0.3 * jitter(len(values)),
            mode="markers",
            marker={"size": 5, "color": NEUTRAL, "opacity": 0.45},
            customdata=list(each.seeds),
            hovertemplate="seed %{customdata}: %{x:.4f}<extra></extra>",
            showlegend=False,
        )
        mean = each.mean
        text = difference_text(mean.value, metric)
        ends = f"{difference_text(mean.low, metric)} to {difference_text(mean.high, metric)}"
        _words(figure, row - 0.4, f"<b>{each.title}</b>  {text} ({ends})")
    for verdict, (words, colour, symbol) in VERDICTS.items():
        mine = [(row, each) for row, each in enumerate(found) if each.verdict == verdict]
        rows = [(row, each.mean) for row, each in mine]
        if rows:
            figure.add_scatter(
                x=[unit * mean.value for _, mean in rows],
                y=[row for row, _ in rows],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [unit * (mean.high - mean.value) for _, mean in rows],
                    "arrayminus": [unit * (mean.value - mean.low) for _, mean in rows],
                    "color": colour,
                    "thickness": 3,
                    "width": 7,
                },
                mode="markers",
                name=words,
                marker={
                    "size": 12,
                    "color": colour,
                    "symbol": symbol,
                    "line": {"width": 2, "color": colour},
                },
                customdata=[f"better in {each.wins} of {len(each.seeds)}" for _, each in mine],
                hovertemplate="mean %{x:.4f}<br>%{customdata}<extra></extra>",
            )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 2, "dash": "dash"})
    _rows(figure, len(found), [], metric)
    better = "right of 0: better" if metric == "accuracy" else "left of 0: better"
    title = "difference in points" if metric == "accuracy" else f"difference in {metric}"
    figure.update_xaxes(title=f"{title} ({better})")
    return noted(figure, rests)


def score_against_flops(found: Sequence[Spread], split: str, metric: str, rests: str) -> go.Figure:
    """The mean score of each strategy against its training FLOPs, with the range of repetitions.

    Args:
        found, split, metric, rests: as of `boxes`.
    """
    figure = go.Figure()
    for number, each in enumerate(found):
        made = each.summary
        colour = colour_of(each.key)
        figure.add_scatter(
            x=[each.flops],
            y=[made.mean],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [made.max - made.mean],
                "arrayminus": [made.mean - made.min],
                "color": colour,
                "thickness": 1.5,
                "width": 5,
            },
            mode="markers",
            name=each.title,
            marker={
                "size": 14,
                "color": colour,
                "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                "line": {"width": 1, "color": NEUTRAL},
            },
            hovertemplate=f"<b>{each.title}</b><br>mean %{{y:.4f}}, %{{x:.3s}}FLOP"
            f"<br>{made.min:.4f} to {made.max:.4f}, n = {made.n}<extra></extra>",
        )
    frame(figure, height=520)
    costs = [each.flops for each in found]
    figure.update_xaxes(title="FLOPs of all training, forward and backward", tickformat="~s")
    if max(costs) > WIDE * min(costs):
        figure.update_xaxes(type="log", dtick="D2")
    elif max(costs) < 1.1 * min(costs):  # or every tick would have the same number
        figure.update_xaxes(range=[0.8 * min(costs), 1.2 * max(costs)])
    figure.update_yaxes(title=_title(split, metric))
    _maybe_log(figure.update_yaxes, [score for each in found for score in each.scores], metric)
    return noted(figure, rests)


def stage_lines(ways: Sequence[Way], split: str, metric: str, rests: str) -> go.Figure:
    """The score after each stage: a thin line for each repetition, a thick one for their mean.

    Teachers and controls, which are no steps of a way, are marks of their own.

    Args:
        ways: of `merge_core.views.scored.Scored.ways`.
        split, metric, rests: as of `boxes`.
    """
    figure = go.Figure()
    ticks = _in_order(ways)
    for number, way in enumerate(ways):
        aside = 0.5 * ((number + 0.5) / len(ways) - 0.5)
        places = {title: ticks.index(title) + aside for title in map(str, way.scores.columns)}
        steps = [title for title in places if title not in way.apart]
        colour = colour_of(way.key)
        for seed, scores in way.scores.to_dict("index").items():
            x, y = _broken(places, scores, steps)
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines+markers",
                line={"width": 1, "color": colour},
                marker={"size": 4},
                opacity=0.45,
                hovertemplate=f"{way.title}, seed {seed}: %{{y:.4f}}<extra></extra>",
                showlegend=False,
            )
        means = {str(title): float(mean) for title, mean in way.scores.mean().items()}
        x, y = _broken(places, means, steps)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers+text" if len(ways) == 1 else "lines+markers",
            line={"width": 4, "color": colour},
            marker={"size": 11},
            text=["" if mean is None else score_text(mean, metric) for mean in y],
            textposition="top center",
            textfont={"size": 14},
            cliponaxis=False,
            name=f"{way.title}, mean of {len(way.scores)}",
            hovertemplate=f"{way.title}<br>mean %{{text}}<extra></extra>",
        )
    frame(figure, height=480)
    figure.update_xaxes(
        tickvals=list(range(len(ticks))),
        ticktext=[tick.replace(": ", ":<br>").replace(", ", ",<br>") for tick in ticks],
        range=[-0.6, len(ticks) - 0.4],
        showgrid=False,
    )
    figure.update_yaxes(title=_title(split, metric))
    values = [each for way in ways for each in way.scores.to_numpy().ravel().tolist()]
    _maybe_log(figure.update_yaxes, [each for each in values if not math.isnan(each)], metric)
    return noted(figure, rests)


def _in_order(ways: Sequence[Way]) -> list[str]:
    """The stages of all ways, each once; one that a way adds stands where the way has it."""
    found: list[str] = []
    for way in ways:
        titles = [str(title) for title in way.scores.columns]
        at = 0 if set(titles) & {*found} else len(found)
        for title in titles:
            if title not in found:
                found.insert(at, title)
            at = found.index(title) + 1
    return found


def _broken(
    places: Mapping[str, float], scores: Mapping[str, float], steps: Sequence[str]
) -> tuple[list[float | None], list[float | None]]:
    """A line through the steps, then the other stages each by itself."""
    x: list[float | None] = []
    y: list[float | None] = []
    known = {title: place for title, place in places.items() if not math.isnan(scores[title])}
    for title in sorted(known, key=lambda title: title not in steps):
        if title not in steps and x:
            x.append(None)
            y.append(None)
        x.append(known[title])
        y.append(scores[title])
    return x, y


def _words(figure: go.Figure, y: float, text: str) -> None:
    figure.add_annotation(
        x=0, y=y, xref="paper", text=text, showarrow=False, xanchor="left", font={"size": 13}
    )


def _rows(figure: go.Figure, count: int, scores: Sequence[float], metric: str) -> None:
    """The frame of a figure with a row for each strategy, the first on top."""
    frame(figure, height=round(110 + ROW * count))
    figure.update_yaxes(range=[count - 0.4, -0.75], visible=False, fixedrange=True)
    _maybe_log(figure.update_xaxes, scores, metric)


def _maybe_log(update, scores: Sequence[float], metric: str) -> None:
    if metric == "loss" and len(scores) and max(scores) > WIDE * min(scores) > 0:
        steps = [step * 10.0**power for power in range(-6, 4) for step in (1, 2, 5)]
        ticks = [tick for tick in steps if min(scores) / 2 < tick < max(scores) * 2]
        update(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def _title(split: str, metric: str) -> str:
    better = "higher" if metric == "accuracy" else "lower"
    return f"{SPLITS[split].partition(' (')[0]} {metric} ({better} is better)"
