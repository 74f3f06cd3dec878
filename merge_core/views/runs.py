"""A run as tables and sentences: its name, its stages, its curves, its verdict."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from merge_core.catalogue import METHOD_BY_KEY
from merge_core.errors import RecipeError
from merge_core.presets import preset_of
from merge_core.progress import Reading
from merge_core.recipes import Averaging, Comparison, Coupling, Experiment, Recipe, Refit
from merge_core.stages import STAGE_BY_KEY
from merge_core.store import RunReader, RunSummary

ALIVE = ("queued", "running", "paused")
STATE_WORDS = {
    "queued": "◌ queued",
    "running": "▶ running",
    "paused": "‖ paused",
    "finished": "✓ finished",
    "stopped": "■ stopped",
    "failed": "✗ failed",
    "lost": "? lost",
}


def recipe_title(recipe: Experiment) -> str:
    """The title of the preset a recipe came from; its name when no preset has that name.

    A comparison is called by what it compares.
    """
    if isinstance(recipe, Comparison):
        return f"Comparison of {recipe.model} on {recipe.data.name}"
    try:
        return preset_of(recipe.name, recipe.preset).title
    except RecipeError:
        return recipe.name


def stage_title(key: str) -> str:
    """The words for a stage of any run; in a comparison a method is a stage."""
    return METHOD_BY_KEY[key].title if key in METHOD_BY_KEY else STAGE_BY_KEY[key].title


def run_label(summary: RunSummary) -> str:
    """A run in words for people: recipe, seed, state."""
    kind = "sample" if summary.sample else STATE_WORDS[summary.state]
    return f"**{recipe_title(summary.recipe)}** · seed {summary.recipe.seed} · {kind}"


def duration(seconds: float) -> str:
    """A time span in the unit that people would use: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def reading_text(reading: Reading) -> str:
    """How far a run is with its images: "Reads its images: 256 of 9,025, about 1 min 10 s left"."""
    left = "" if reading.left is None else f", about {duration(reading.left)} left"
    return f"Reads its images: {reading.done:,} of {reading.of:,}{left}"


def flops_text(flops: float) -> str:
    """Floating-point operations with a prefix: "3.2 TFLOP"."""
    if flops <= 0:
        return "0 FLOP"
    power = min(int(math.log10(flops) // 3), 6)
    return f"{flops / 10 ** (3 * power):.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}FLOP"


def score_text(value: float, metric: str) -> str:
    """A score as text: accuracy with three digits, a loss with four."""
    return f"{value:.3f}" if metric == "accuracy" else f"{value:.4f}"


def stage_frame(reader: RunReader) -> pd.DataFrame:
    """One row per stage of the run, in the order in which they are gone through.

    Columns: stage, title, role, note, state ("waiting", "running", "interrupted" or "finished"),
    epochs, steps, flops, seconds, train, heldout, test (in the recipe's metric; NaN before the
    stage is over), returned.
    """
    metric = reader.recipe.metric
    scores = {
        (row["stage"], row["split"]): row["value"]
        for row in reader.scores()
        if row["metric"] == metric
    }
    begun = "running" if reader.status()["state"] in ALIVE else "interrupted"
    returned = reader.facts().get("returned")
    rows = []
    for row in reader.plan():
        stage = STAGE_BY_KEY[row["stage"]]
        finished, started = row["finished"] is not None, row["started"] is not None
        rows.append(
            {
                "stage": stage.key,
                "title": stage.title,
                "role": stage.role,
                "note": stage.note,
                "state": "finished" if finished else begun if started else "waiting",
                "epochs": row["epochs"],
                "steps": row["steps"],
                "flops": row["flops"],
                "seconds": row["seconds"],
                "train": scores.get((stage.key, "train"), math.nan),
                "heldout": scores.get((stage.key, "heldout"), math.nan),
                "test": scores.get((stage.key, "test"), math.nan),
                "returned": stage.key == returned,
            }
        )
    columns = ["stage", "title", "role", "note", "state", "epochs", "steps", "flops", "seconds"]
    frame = pd.DataFrame(rows, columns=[*columns, "train", "heldout", "test", "returned"])
    return frame.astype({"seconds": float, "train": float, "heldout": float, "test": float})


def stage_table(stages: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`stage_frame` with the words of a page: what is shown beside the strip of stages."""
    words = {
        "waiting": "◌ waiting",
        "running": "▶ running",
        "interrupted": "■ interrupted",
        "finished": "✓ finished",
    }
    return pd.DataFrame(
        {
            "Stage": [
                f"{title} ★ returned" if returned else title
                for title, returned in zip(stages["title"], stages["returned"], strict=True)
            ],
            "State": [words[state] for state in stages["state"]],
            "Epochs": stages["epochs"],
            f"Held-out {metric}": stages["heldout"],
            f"Test {metric}": stages["test"],
            f"Train {metric}": stages["train"],
            "Work": [flops_text(flops) for flops in stages["flops"]],
            "Time": ["" if math.isnan(s) else duration(s) for s in stages["seconds"]],
            "What it is": stages["note"],
        }
    )


def curve_frame(reader: RunReader) -> pd.DataFrame:
    """The metrics of every epoch of every trained stage, one row per epoch.

    Columns: stage, epoch (from 1 in its stage), run_epoch (from 1 over the whole run), planned
    (epochs of the whole run), and one column per metric, e.g. heldout_accuracy, train_loss, lambda.
    """
    offsets, planned = {}, 0
    for row in reader.plan():
        offsets[row["stage"]] = planned
        planned += row["epochs"]
    long = pd.DataFrame(reader.metrics(), columns=["stage", "epoch", "step", "name", "value"])
    if long.empty:
        return pd.DataFrame(columns=["stage", "epoch", "run_epoch", "planned"])
    wide = long.pivot_table(index=["stage", "epoch"], columns="name", values="value").reset_index()
    wide["run_epoch"] = wide["epoch"] + [offsets[stage] for stage in wide["stage"]]
    wide["planned"] = planned
    wide.columns.name = None
    return wide.sort_values("run_epoch", ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a finished run says, honestly.

    Attributes:
        better: the returned network beats the better teacher and every control on test.
        sentence: what beats what, by how much, on which split.
        caution: how far the sentence can be trusted.
    """

    better: bool
    sentence: str
    caution: str


_RIVALS = {
    "teacher_a": "the better teacher (A)",
    "teacher_b": "the better teacher (B)",
    "teacher_c": "the best teacher (C)",
    "teacher_d": "the best teacher (D)",
    "random_half": "a random half, fine-tuned",
    "trained_on": "teacher A trained on",
    "untrained": "an untrained student, fine-tuned alike",
    "alone": "one network trained alone",
    "worker_alone": "one worker alone",
    "one_on_all": "one network on all data",
}
"""The stages that a returned network is compared with, in the words of a verdict."""


def verdict(recipe: Experiment, stages: pd.DataFrame) -> Verdict | None:
    """Compare the returned network on test with the better teacher and the controls.

    The better teacher is the better one on test, which is the harder comparison. Workers that are
    averaged are no teachers.

    Args:
        recipe: the run's recipe.
        stages: `stage_frame` of the run.

    Returns:
        None before the run has returned a network.
    """
    over = stages.dropna(subset=["test"])
    scores: dict[str, float] = dict(zip(over["stage"], over["test"], strict=True))
    returned = [str(stage) for stage in over.loc[over["returned"], "stage"]]
    roles = {str(stage): STAGE_BY_KEY[str(stage)].role for stage in stages["stage"]}
    teachers = [stage for stage, role in roles.items() if role == "teacher"]
    if not returned or not set(teachers) <= scores.keys():
        return None
    value = scores[returned[0]]
    choose = max if recipe.metric == "accuracy" else min
    best = [choose(teachers, key=scores.__getitem__)] if teachers else []
    controls = [stage for stage, role in roles.items() if role == "control" and stage in scores]
    wins, losses = [], []
    for rival in (*best, *controls):
        other = scores[rival]
        number = score_text(other, recipe.metric)
        words = f"{_RIVALS[rival]} ({number}, {_difference(value, other, recipe)})"
        (wins if recipe.better(value, other) else losses).append(words)
    title = STAGE_BY_KEY[returned[0]].title.lower()
    number = score_text(value, recipe.metric)
    parts = [f"The returned network ({title}) has a test {recipe.metric} of {number}."]
    if wins:
        parts.append(f"It beats {_listed(wins)}.")
    if losses:
        parts.append(f"It does not beat {_listed(losses)}.")
    wanting = len(controls) < _CONTROLS[recipe.kind]
    return Verdict(
        better=not losses, sentence=" ".join(parts), caution=_caution(recipe, value, wanting)
    )


def _difference(value: float, other: float, recipe: Experiment) -> str:
    if recipe.metric == "accuracy":
        return f"{(value - other) * 100:+.1f} points".replace("-", "−")
    return f"{'lower' if value < other else 'higher'} by {abs(value - other):.4f}"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


_CONTROLS = {Recipe.kind: 2, Refit.kind: 2, Coupling.kind: 1, Averaging.kind: 2}
"""How many controls a finished run of each kind has."""


def _caution(recipe: Experiment, value: float, wanting: bool) -> str:
    text = "This is one run with one seed (n = 1): other seeds may tell otherwise."
    if wanting:
        text += " The controls are missing, so the gain may come from more training alone."
    if recipe.metric == "accuracy" and recipe.data.test and 0 < value < 1:
        error = math.sqrt(2 * value * (1 - value) / recipe.data.test)
        text += (
            f" On {recipe.data.test:,} test examples, differences below about "
            f"{200 * error:.1f} points can be chance."
        )
    return text


def budget(recipe: Experiment, place: str, stages: pd.DataFrame) -> str:
    """What a run cost and how it was judged, in one line: beside every comparison."""
    flops: dict[str, float] = dict(zip(stages["stage"], stages["flops"], strict=True))
    match recipe:
        case Recipe():
            text = _merge_budget(recipe, flops)
        case Refit():
            text = _refit_budget(recipe, flops)
        case Coupling():
            text = (
                f"Epochs: 2 × {recipe.teacher.epochs} teachers, {recipe.alone.epochs} the one "
                f"alone. Work: both teachers {flops_text(flops.get('coupled', 0.0))}, the one "
                f"alone {flops_text(flops.get('alone', 0.0))}"
            )
        case Averaging():
            text = (
                f"Epochs over all data: {recipe.training.epochs}, dealt to {recipe.workers} "
                f"workers. Work: all workers {flops_text(flops.get('workers', 0.0))}, one alone "
                f"{flops_text(flops.get('worker_alone', 0.0))}, one on all data "
                f"{flops_text(flops.get('one_on_all', 0.0))}"
            )
        case _:
            raise AssertionError(recipe.kind)
    return (
        f"Seed {recipe.seed}, {place}. {text}. Held-out chose the returned "
        f"stage; test only reports."
    )


def _merge_budget(recipe: Recipe, flops: dict[str, float]) -> str:
    way = sum(flops.get(key, 0.0) for key in ("teacher_a", "teacher_b", "gates", "fine_tune"))
    control = flops.get("trained_on", 0.0)
    text = (
        f"Epochs: 2 × {recipe.teacher.epochs} teachers, "
        f"{recipe.gating.epochs} gates, {recipe.fine_tune.epochs} fine-tuning; each control "
        f"{recipe.extra_epochs}. Work: the merge with its teachers {flops_text(way)}"
    )
    if control:
        text += f", teacher A trained on {flops_text(flops.get('teacher_a', 0.0) + control)}"
    return text


def _refit_budget(recipe: Refit, flops: dict[str, float]) -> str:
    taught = [value for stage, value in flops.items() if stage.startswith("teacher_")]
    way = sum(taught) + flops.get("tuned", 0.0)
    return (
        f"Epochs: {recipe.teachers} × {recipe.teacher.epochs} teachers, "
        f"{recipe.fine_tune.epochs} fine-tuning; each control {recipe.fine_tune.epochs}. "
        f"Work: the merge with its teachers {flops_text(way)}"
    )


def checks(reader: RunReader) -> str | None:
    """What was checked before the gates started; None before that."""
    facts = {row["stage"]: row["facts"] for row in reader.stages()}.get("big", {})
    if not facts:
        return None
    worst = max(facts["law_errors"].values())
    return (
        f"Checked before the merge: permuting, concatenating and selecting channels leaves the "
        f"networks' outputs as they should be to a relative error of {worst:.0e}; the fresh big "
        f"student computes the teachers' mean to {facts['mean_error']:.0e}."
    )


def runs_frame(summaries: Iterable[RunSummary]) -> pd.DataFrame:
    """The table of runs: one row each, newest first, in the words of a page."""
    rows = []
    for run in summaries:
        returned = STAGE_BY_KEY[run.returned].title if run.returned else ""
        rows.append(
            {
                "Run": run.name,
                "Recipe": f"{recipe_title(run.recipe)} ({run.recipe.preset})",
                "Seed": run.recipe.seed,
                "State": "sample" if run.sample else STATE_WORDS[run.state],
                "Done": 100 * run.fraction,
                "Returned": returned,
                "Test score": ""
                if run.score is None
                else f"{score_text(run.score, run.recipe.metric)} {run.recipe.metric}",
                "Device": run.device,
                "Started": ""
                if run.sample
                else datetime.fromtimestamp(run.created).strftime("%Y-%m-%d %H:%M"),
            }
        )
    columns = ["Run", "Recipe", "Seed", "State", "Done", "Returned", "Test score", "Device"]
    return pd.DataFrame(rows, columns=[*columns, "Started"])
