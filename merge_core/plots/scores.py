"""The strip of stages: the score after each stage, from the teachers to the returned network."""

import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.style import ENSEMBLE, NEUTRAL, STUDENT, frame, stage_colour
from merge_core.views.runs import score_text

SPLITS = {"heldout": "held-out (chooses)", "test": "test (only reports)"}
WIDE = 4
"""Losses that differ by more than this factor are drawn on a logarithmic axis."""
_NEAR = 0.1
"""Teachers whose scores differ by less than this part of all scores' span need room for words."""
_SHORT = {
    "teacher_a": "Teacher A",
    "teacher_b": "Teacher B",
    "big": "Big student",
    "gates": "Gated",
    "cut": "Cut",
    "norms": "Norms<br>re-estimated",
    "fine_tune": "Fine-tuned",
    "random_half": "Control:<br>random half",
    "trained_on": "Control: A<br>trained on",
    "average": "Average",
    "average_norms": "Norms<br>re-estimated",
    "alone": "Control:<br>one alone",
    "worker_alone": "Control:<br>worker alone",
    "one_on_all": "Control:<br>one on all",
}


def strip(stages: pd.DataFrame, metric: str) -> go.Figure:
    """The score after each finished stage.

    The merge's own stages are joined by a line, so that the drop at the cut and the recovery show;
    teachers and controls are separate marks; the output ensemble is a dashed line across, as it
    costs two networks. Test is filled, held-out small and hollow beside it. The returned stage
    wears a ring and a word.

    Args:
        stages: `merge_core.views.runs.stage_frame`.
        metric: "accuracy" or "loss".
    """
    figure = go.Figure()
    apart = (stages["stage"] == "ensemble") | (stages["role"] == "measure")
    shown = stages.loc[~apart].reset_index(drop=True)
    shown["colour"] = [
        stage_colour(stage, role) for stage, role in zip(shown["stage"], shown["role"], strict=True)
    ]
    _way(figure, shown)
    for split, label in SPLITS.items():
        _marks(figure, shown, split, label, metric)
    _ensemble_line(figure, stages, metric)
    _returned_ring(figure, shown)
    title = "accuracy (higher is better)" if metric == "accuracy" else "loss (lower is better)"
    frame(figure, height=430)
    figure.update_xaxes(
        tickvals=list(shown.index),
        ticktext=[_SHORT[stage] for stage in shown["stage"]],
        range=[-0.5, len(shown) - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(title=title)
    tested = shown["test"].dropna()
    if metric == "loss" and len(tested) and tested.max() > WIDE * tested.min():
        figure.update_yaxes(type="log", dtick="D2")
    return figure


def _way(figure: go.Figure, shown: pd.DataFrame) -> None:
    """The line from the teachers to the student."""
    way = shown.loc[shown["role"] == "merge"].dropna(subset=["test"])
    if way.empty:
        return
    for index, row in shown.loc[shown["role"] == "teacher"].dropna(subset=["test"]).iterrows():
        figure.add_scatter(
            x=[index, way.index[0]],
            y=[row["test"], way["test"].iloc[0]],
            mode="lines",
            line={"color": NEUTRAL, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=way.index,
        y=way["test"],
        mode="lines",
        line={"color": STUDENT, "width": 3},
        hoverinfo="skip",
        showlegend=False,
    )


def _marks(figure: go.Figure, shown: pd.DataFrame, split: str, label: str, metric: str) -> None:
    hollow = split == "heldout"
    symbols = ["diamond" if role == "control" else "circle" for role in shown["role"]]
    figure.add_scatter(
        x=shown.index - (0.14 if hollow else 0),
        y=shown[split],
        mode="markers" if hollow else "markers+text",
        marker={
            "color": shown["colour"],
            "size": 9 if hollow else 14,
            "symbol": [f"{symbol}-open" if hollow else symbol for symbol in symbols],
            "line": {"width": 2, "color": shown["colour"]},
        },
        text=_labels(shown, metric),
        textposition=_label_places(shown),
        textfont={"size": 15},
        cliponaxis=False,
        customdata=shown[["title", "note"]].to_numpy(),
        hovertemplate=f"<b>%{{customdata[0]}}</b><br>{label}: %{{y:.4f}}"
        "<br>%{customdata[1]}<extra></extra>",
        showlegend=False,
    )
    symbol = "circle-open" if hollow else "circle"
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=label,
        marker={"symbol": symbol, "color": NEUTRAL, "size": 9 if hollow else 13},
    )


def _labels(shown: pd.DataFrame, metric: str) -> list[str]:
    """The test scores as words beside their marks."""
    words = ["" if pd.isna(v) else score_text(v, metric) for v in shown["test"]]
    return [
        f"<b>{word} returned</b>" if word and returned else word
        for word, returned in zip(words, shown["returned"], strict=True)
    ]


def _label_places(shown: pd.DataFrame) -> list[str]:
    """For each mark the side on which its neighbours and the merge's line leave room for words."""
    scores, near = shown["test"].tolist(), _NEAR * (shown["test"].max() - shown["test"].min())
    places = [
        "top right"
        if index and role == "teacher" and abs(scores[index] - scores[index - 1]) < near
        else "top center"
        for index, role in enumerate(shown["role"])
    ]
    way = [
        index
        for index, (role, score) in enumerate(zip(shown["role"], shown["test"], strict=True))
        if role == "merge" and not pd.isna(score)
    ]
    for before, here, after in zip([None, *way], way, [*way[1:], None], strict=False):
        falls = before is not None and scores[before] > scores[here]
        rises = after is not None and scores[after] > scores[here]
        drops = after is not None and scores[after] < scores[here]
        if falls:
            places[here] = "bottom center" if rises or not drops else "top right"
        elif rises:
            places[here] = "bottom right"
    return places


def _ensemble_line(figure: go.Figure, stages: pd.DataFrame, metric: str) -> None:
    ensemble = stages.loc[stages["stage"] == "ensemble"].dropna(subset=["test"])
    if ensemble.empty:
        return
    value = float(ensemble["test"].iloc[0])
    figure.add_scatter(
        x=[-0.5, len(stages)],
        y=[value, value],
        mode="lines",
        line={"color": ENSEMBLE, "width": 2, "dash": "dash"},
        name=f"output ensemble, test {score_text(value, metric)} (costs two networks)",
        hoverinfo="skip",
    )


def _returned_ring(figure: go.Figure, shown: pd.DataFrame) -> None:
    returned = shown.loc[shown["returned"]].dropna(subset=["test"])
    if returned.empty:
        return
    figure.add_scatter(
        x=returned.index,
        y=returned["test"],
        mode="markers",
        marker={"size": 24, "symbol": "circle-open", "color": STUDENT, "line": {"width": 3}},
        hoverinfo="skip",
        showlegend=False,
        name="returned",
    )
