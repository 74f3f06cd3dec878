"""What repeated networks have learned: curves over the target, accuracy of each class."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from merge_core.learned import curve_places
from merge_core.plots.colours import colours_of
from merge_core.plots.style import frame, noted
from merge_core.repetitions import Summary
from merge_core.views.learned import missing_runs

MOST_CLASSES = 25
"""More classes than these nobody reads; those are shown in which two strategies differ most."""
_COLUMNS = 2
_TITLE, _LINE = 24, 18
"""How wide a panel's title may be on a telephone, in letters; how high a line of it is."""
_TARGET = "#D55E00"


def overlaid_curves(
    found: Mapping[str, Sequence[Sequence[float]]], words: Mapping[str, str], rests: str
) -> go.Figure:
    """The paper's Figs. 9 and 10: all repetitions of a strategy over the target, a panel each.

    Args:
        found: `merge_core.views.learned.curves`.
        words: key of every strategy → its title.
        rests: what the figure rests on, `Scored.conditions`.
    """
    rows = -(-len(found) // _COLUMNS)
    titles = [
        [*textwrap.wrap(words[key], _TITLE), f"{missing_runs(each)} of {len(each)} miss a peak"]
        for key, each in found.items()
    ]
    above = 6 + _LINE * max(map(len, titles))
    height = 24 + (154 + above) * rows
    colours = colours_of(list(found))
    figure = make_subplots(
        rows,
        _COLUMNS,
        subplot_titles=[f"<b>{'<br>'.join(name)}</b><br>{told}" for *name, told in titles],
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=above / (height - above - 24),
        horizontal_spacing=0.02,
    )
    x = np.append(np.asarray(curve_places(), dtype=np.float32), np.nan)
    for number, (key, each) in enumerate(found.items()):
        place = {"row": number // _COLUMNS + 1, "col": number % _COLUMNS + 1}
        gaps = np.full((len(each), 1), np.nan, dtype=np.float32)
        figure.add_scatter(
            x=np.tile(x, len(each)),
            y=np.hstack([np.asarray(each, dtype=np.float32), gaps]).ravel(),
            mode="lines",
            line={"width": 1.2, "color": colours[key]},
            opacity=max(0.25, min(0.8, 4 / len(each))),
            hoverinfo="skip",
            showlegend=False,
            **place,
        )
        figure.add_scatter(
            x=x[:-1],
            y=np.sin(10 * np.pi * x[:-1]),
            mode="lines",
            line={"width": 2, "color": _TARGET, "dash": "dot"},
            name="target sin(10πx)",
            hoverinfo="skip",
            showlegend=number == 0,
            **place,
        )
    frame(figure, height=height)
    figure.update_layout(margin={"t": above + _LINE + 8}, legend={"y": 1 + above / (height - 90)})
    figure.update_yaxes(range=[-1.9, 1.9], tickvals=[-1, 0, 1])
    figure.update_annotations(font={"size": 13})
    return noted(figure, rests)


def class_dots(
    found: Mapping[str, Mapping[str, Summary]], words: Mapping[str, str], split: str, rests: str
) -> go.Figure:
    """A row for each class: the mean accuracy of some strategies, with the range of repetitions.

    The class that the first strategy knows best stands on top. Of very many classes those are shown
    in which the first and the last strategy differ most.

    Args:
        found: `merge_core.views.learned.class_summaries`.
        words: key of every strategy → its title.
        split: "test" or "heldout".
        rests: as of `overlaid_curves`.
    """
    chosen = list(next(iter(found.values())))
    colours = colours_of(chosen)
    gaps = {name: abs(each[chosen[-1]].mean - each[chosen[0]].mean) for name, each in found.items()}
    shown = sorted(found, key=gaps.__getitem__, reverse=True)[:MOST_CLASSES]
    shown.sort(key=lambda name: found[name][chosen[0]].mean)
    figure = go.Figure()
    for number, key in enumerate(chosen):
        made = [found[name][key] for name in shown]
        offset = 0.5 * ((number + 0.5) / len(chosen) - 0.5)
        figure.add_scatter(
            x=[each.mean for each in made],
            y=[row + offset for row in range(len(shown))],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [each.max - each.mean for each in made],
                "arrayminus": [each.mean - each.min for each in made],
                "color": colours[key],
                "thickness": 1.5,
                "width": 0,
            },
            mode="markers",
            name=words[key],
            marker={"size": 10, "color": colours[key], "symbol": _symbol(number)},
            customdata=shown,
            hovertemplate=f"<b>%{{customdata}}</b>, {words[key]}<br>mean %{{x:.3f}}<extra></extra>",
        )
    frame(figure, height=110 + 32 * len(shown))
    figure.update_yaxes(
        tickvals=list(range(len(shown))), ticktext=shown, range=[-0.6, len(shown) - 0.4]
    )
    figure.update_xaxes(title=f"{'test' if split == 'test' else 'held-out'} accuracy of the class")
    return noted(figure, rests)


def _symbol(number: int) -> str:
    return ("circle", "diamond", "square", "triangle-up", "x", "star")[number % 6]
