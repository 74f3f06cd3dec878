"""Tables of repeated experiments: what there is, in frames and in words."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from merge_core import linefile
from merge_core.carriers import Carried, progress_of
from merge_core.errors import NetweldError
from merge_core.presets import find_preset
from merge_core.published import PUBLISHED
from merge_core.recipes import Recipe
from merge_core.repetitions import (
    CURVE_POINTS,
    STRATEGIES,
    WAYS,
    Budget,
    Results,
    Row,
    Session,
    Summary,
    curve_places,
    summary,
)
from merge_core.views.runs import flops_text, recipe_title

STATISTICS = ("min", "max", "median", "mean", "std")
SPLITS = {"test": "test (only reports)", "heldout": "held-out (chooses)"}
BUDGETS: dict[Budget, str] = {"epochs": "equal training epochs", "flops": "equal training FLOPs"}
TITLES = {strategy.key: strategy.title for strategy in STRATEGIES}
PEAKS = tuple((2 * i + 1) / 20 for i in range(10))
"""Where the target of `sine` has its five maxima and, between them, its five minima."""
MISSED = 0.5
"""A peak counts as missed where the curve stays below this share of it."""
_NEAR = 0.025  # how far beside its place a peak may be


@dataclass(frozen=True, kw_only=True)
class Table(Carried):
    """One table as it is now.

    Attributes:
        sample: whether it came with netweld.
        recipe: what is repeated; its seed is 0.
        budget: what all strategies have the same of.
        rows: what is finished, by seed.
        sessions: when and where that was computed; empty where that was not written down.
    """

    sample: bool
    recipe: Recipe
    budget: Budget
    rows: tuple[Row, ...]
    sessions: tuple[Session, ...]

    @property
    def metric(self) -> str:
        return self.recipe.metric

    @property
    def seeds(self) -> list[int]:
        """The repetitions of which at least one strategy is finished."""
        return sorted({row.seed for row in self.rows})

    @property
    def strategies(self) -> list[str]:
        """The keys of the strategies that it has, in the order of all tables."""
        there = {row.strategy for row in self.rows}
        return [key for key in TITLES if key in there]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes; numbers where nobody has said."""
        count = max((len(row.classes) for row in self.rows), default=0)
        for session in self.sessions:
            if len(session.class_names) == count:
                return session.class_names
        return tuple(f"class {number}" for number in range(count))

    def of(self, strategy: str) -> list[Row]:
        """The rows of one strategy, by seed."""
        return [row for row in self.rows if row.strategy == strategy]

    def scores(self, strategy: str, split: str) -> dict[int, float]:
        """Seed → score on "test" or "heldout"."""
        return {row.seed: getattr(row, split) for row in self.of(strategy)}


def read_table(path: Path, sample: bool = False) -> Table:
    """The table in a file.

    Raises:
        NetweldError: it cannot be read.
    """
    results = Results.at(path)
    return Table(
        path=path,
        sample=sample,
        recipe=results.recipe,
        budget=results.budget,
        rows=tuple(results.rows()),
        sessions=tuple(results.sessions()),
        progress=progress_of(path),
    )


def table_files(home: Path, samples: Path) -> list[tuple[Path, bool]]:
    """The files of all tables, the one that changed last first; then netweld's, by their size."""
    own = sorted(samples.glob("tables/*.jsonl"), key=lambda path: -path.stat().st_size)
    return [(path, False) for path in linefile.newest(home / "tables")] + [
        (path, True) for path in own
    ]


def readable(files: Sequence[tuple[Path, bool]]) -> list[Table]:
    """The tables in files; those that this version of netweld cannot read are left out."""
    found = []
    for path, sample in files:
        try:
            found.append(read_table(path, sample))
        except NetweldError:
            continue
    return found


def label(table: Table) -> str:
    """A table in a few words: recipe, preset, budget, repetitions."""
    kind = " · sample" if table.sample else table.mark
    changed = "" if _is_preset(table.recipe) else ", changed"
    return (
        f"**{recipe_title(table.recipe)}** ({table.recipe.preset}{changed}) · "
        f"{BUDGETS[table.budget]} · n = {len(table.seeds)}{kind}"
    )


def _is_preset(recipe: Recipe) -> bool:
    try:
        return recipe == replace(find_preset(recipe.name, recipe.preset).recipe, seed=0)
    except NetweldError:
        return False


def score_frame(table: Table) -> pd.DataFrame:
    """One row for each strategy of each repetition.

    Columns: seed, strategy (key), title, heldout, test, epochs, flops.
    """
    columns = ["seed", "strategy", "title", "heldout", "test", "epochs", "flops"]
    rows = [
        (row.seed, row.strategy, TITLES[row.strategy], row.heldout, row.test, row.epochs, row.flops)
        for key in table.strategies
        for row in table.of(key)
    ]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The scores of one strategy on one split.

    Attributes:
        key, title: of the strategy.
        seeds, scores: one for each repetition.
        summary: of the scores.
        published: what the paper published; None where it did not.
        epochs, flops: of all training that went into one repetition.
    """

    key: str
    title: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    summary: Summary
    published: Summary | None
    epochs: int
    flops: float


def spreads(table: Table, split: str) -> list[Spread]:
    """The spread of every strategy, in the order of all tables."""
    published = PUBLISHED.get(table.recipe.name)
    theirs = published.rows if published is not None and split == "test" else {}
    found = []
    for key in table.strategies:
        rows, scores = table.of(key), table.scores(key, split)
        found.append(
            Spread(
                key=key,
                title=TITLES[key],
                seeds=tuple(scores),
                scores=tuple(scores.values()),
                summary=summary(scores.values()),
                published=theirs.get(key),
                epochs=rows[0].epochs,
                flops=rows[0].flops,
            )
        )
    return found


def stage_ways(table: Table, split: str) -> list[pd.DataFrame]:
    """The score after each stage of a merge: a frame for each way of `repetitions.WAYS` there.

    A row for each seed that has all stages of the way, a column for each stage (its key).
    """
    found = []
    for way in WAYS:
        here = [key for key in way if key in table.strategies]
        if len(here) > 1:
            frame = pd.DataFrame({key: pd.Series(table.scores(key, split)) for key in here})
            found.append(frame.dropna())
    return found


def curves(table: Table) -> dict[str, list[tuple[float, ...]]]:
    """Strategy → the curve that it has learned in each repetition, at `curve_places()`."""
    found = {key: [row.curve for row in table.of(key) if row.curve] for key in table.strategies}
    return {key: each for key, each in found.items() if each}


def missed_peaks(curve: Sequence[float]) -> int:
    """How many of the ten extrema of sin(10πx) a learned curve does not reach half of."""
    assert len(curve) == CURVE_POINTS
    places, missed = curve_places(), 0
    for number, peak in enumerate(PEAKS):
        sign = 1 if number % 2 == 0 else -1
        near = [sign * y for x, y in zip(places, curve, strict=True) if abs(x - peak) <= _NEAR]
        missed += max(near) < MISSED
    return missed


def missing_runs(found: Sequence[Sequence[float]]) -> int:
    """How many learned curves miss a peak."""
    return sum(missed_peaks(curve) > 0 for curve in found)


def class_frame(table: Table) -> pd.DataFrame:
    """The test accuracy of each class: a row for each strategy, repetition and class.

    Columns: strategy, title, seed, number (of the class), name, accuracy (NaN without examples).
    """
    names = table.class_names
    rows = [
        (key, TITLES[key], row.seed, number, names[number], math.nan if value is None else value)
        for key in table.strategies
        for row in table.of(key)
        for number, value in enumerate(row.classes)
    ]
    frame = pd.DataFrame(rows, columns=["strategy", "title", "seed", "number", "name", "accuracy"])
    return frame.astype({"accuracy": float})


def class_summaries(table: Table, chosen: Sequence[str]) -> dict[str, dict[str, Summary]]:
    """Name of each class → strategy → its test accuracies over the repetitions.

    Classes without test examples for one of the strategies are left out.
    """
    found: dict[str, dict[str, Summary]] = {}
    for number, name in enumerate(table.class_names):
        known = {
            key: [
                value
                for row in table.of(key)
                if row.classes and (value := row.classes[number]) is not None
            ]
            for key in chosen
        }
        if all(known.values()):
            found[name] = {key: summary(values) for key, values in known.items()}
    return found


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds in words: "0 to 49", "0, 2 and 5"."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    words = [str(seed) for seed in seeds]
    if len(words) > 8:
        words = [*words[:6], "…", words[-1]]
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def devices_text(table: Table) -> str:
    """Where a table was computed, and with what."""
    told = dict.fromkeys(
        f"{session.device} ({session.hardware}), torch {session.versions.get('torch', '?')}, "
        f"netweld {session.versions.get('netweld', '?')}"
        for session in table.sessions
    )
    return "; ".join(told) or "a device that was not written down"


def conditions(table: Table, split: str) -> str:
    """What every figure of a table rests on, in one line."""
    counts = sorted({len(table.of(key)) for key in table.strategies})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    seeds = table.seeds
    return (
        f"{n}, seed{'s' if len(seeds) > 1 else ''} {seeds_text(seeds)}, {BUDGETS[table.budget]}, "
        f"{SPLITS[split]} {table.metric}, {devices_text(table)}."
    )


def cost_text(table: Table) -> str:
    """What the budget leaves unequal, in a sentence; empty where nothing is worth telling."""
    costs = {each.key: each.flops for each in spreads(table, "test")}
    if table.budget == "flops" or not {"student", "one_model"} <= costs.keys():
        return ""
    ratio = costs["student"] / costs["one_model"]
    return (
        f"At equal epochs the student has spent {ratio:.2f} times the training FLOPs of the one "
        f"model ({flops_text(costs['student'])} against {flops_text(costs['one_model'])}), because "
        f"gates learn on a network of double width; the budget flops makes that equal."
    )


def published_text(table: Table) -> str:
    """What the paper's figures beside a table are, in sentences; empty where there are none."""
    if (theirs := PUBLISHED.get(table.recipe.name)) is None:
        return ""
    text = (
        f"The paper's figures (Pašen and Boža 2022, {theirs.source}) are of {theirs.of}: equal "
        f"epochs, its full schedule, and models chosen by test scores."
    )
    if (table.recipe.preset, table.budget) != ("paper", "epochs") or not _is_preset(table.recipe):
        changed = "" if _is_preset(table.recipe) else ", changed"
        text += (
            f" This table has the preset {table.recipe.preset}{changed} at "
            f"{BUDGETS[table.budget]}: compare the order of the strategies, not their scores."
        )
    return text


def command(table: Table) -> str:
    """What to type to get the same table."""
    recipe, seeds = table.recipe, table.seeds
    asked = table.progress.asked if table.progress is not None else None
    first = asked.seed if asked is not None else seeds[0] if seeds else 0
    count = asked.n if asked is not None else max(len(seeds), 1)
    parts = ["netweld", "table", recipe.name, "--preset", recipe.preset, "--n", str(count)]
    parts += ["--budget", table.budget]
    parts += ["--seed", str(first)] if first else []
    device = asked.device if asked is not None else next((s.device for s in table.sessions), "cpu")
    parts += ["--device", device] if device != "cpu" else []
    for setting in changes(recipe):
        parts += ["--set", setting]
    return shlex.join(parts)


def changes(recipe: Recipe) -> list[str]:
    """What a recipe's preset must be changed by, as `--set` takes it; the seed is left out."""
    try:
        preset = find_preset(recipe.name, recipe.preset).recipe
    except NetweldError:
        return []
    mine, usual = (_flat(json.loads(each.to_json())) for each in (recipe, preset))
    return [
        f"{key}={value}" for key, value in mine.items() if key != "seed" and usual.get(key) != value
    ]


def _flat(values: dict, head: str = "") -> dict[str, str]:
    """Dotted key → value as text."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{head}{key}.")
        else:
            found[f"{head}{key}"] = _text(value)
    return found


def _text(value: object) -> str:
    """A setting as it is typed; points have colons between their two numbers."""
    if not isinstance(value, list):
        return str(value)
    return ",".join(
        ":".join(map(str, each)) if isinstance(each, list) else str(each) for each in value
    )


def when(table: Table) -> str:
    """The day of the last row."""
    return datetime.fromtimestamp(table.path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
