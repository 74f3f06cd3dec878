"""Tables of repeated experiments: what there is, in frames and in words."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from merge_core import linefile
from merge_core.carriers import Carried, progress_of
from merge_core.errors import NetweldError
from merge_core.presets import preset_of
from merge_core.published import PUBLISHED
from merge_core.recipes import Experiment, Recipe
from merge_core.repetitions import UNITS, WAYS, Budget, Failure, Results, Row, Session, Summary
from merge_core.stages import STAGE_BY_KEY
from merge_core.views.runs import flops_text, recipe_title
from merge_core.views.scored import SPLITS, TITLES, Basis, Scored, Way, seeds_text, spreads

BUDGETS: dict[Budget, str] = {"epochs": "equal training epochs", "flops": "equal training FLOPs"}


@dataclass(frozen=True, kw_only=True)
class Table(Scored, Carried):
    """One table as it is now; its kinds of networks are the strategies.

    Attributes:
        sample: whether it came with netweld.
        recipe: what is repeated; its seed is 0.
        budget: what all strategies have the same of.
        sessions: when and where that was computed; empty where that was not written down.
        failures: strategies that some seeds cannot have.
    """

    sample: bool
    recipe: Recipe
    budget: Budget
    sessions: tuple[Session, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def metric(self) -> str:
        return self.recipe.metric

    @property
    def titles(self) -> Mapping[str, str]:
        return TITLES

    @property
    def rule(self) -> str:
        return f"at {BUDGETS[self.budget]}"

    def rivals(self, key: str) -> bool:
        """Stages of a merge have spent less."""
        return all(key not in way[:-1] for way in WAYS)

    def published(self, split: str) -> Mapping[str, Summary]:
        """On test, as the paper."""
        theirs = PUBLISHED.get(self.recipe.name)
        return theirs.rows if theirs is not None and split == "test" else {}

    def conditions(self, split: str) -> str:
        counts = sorted({len(self.of(key)) for key in self.strategies})
        n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
        seeds = self.seeds
        return (
            f"{recipe_title(self.recipe)} ({_preset(self.recipe)}): {n}, "
            f"seed{'s' if len(seeds) > 1 else ''} {seeds_text(seeds)}, "
            f"{BUDGETS[self.budget]}, {SPLITS[split]} {self.metric}, {devices_text(self)}."
        )

    def basis(self, key: str) -> Basis:
        """All kinds of a table share one."""
        devices = (session.place for session in self.sessions)
        versions = (session.versions.get("torch", "") for session in self.sessions)
        return Basis(
            budget=BUDGETS[self.budget],
            device="; ".join(dict.fromkeys(devices)),
            torch="; ".join(dict.fromkeys(filter(None, versions))),
        )

    def unequal(self) -> str:
        costs = {each.key: each.flops for each in spreads(self, "test")}
        if self.budget == "flops" or not {"student", "one_model"} <= costs.keys():
            return ""
        ratio = costs["student"] / costs["one_model"]
        return (
            f"At equal epochs the student has spent {ratio:.2f} times the training FLOPs of the "
            f"one model ({flops_text(costs['student'])} against {flops_text(costs['one_model'])}), "
            f"because gates learn on a network of double width; the budget flops makes that equal."
        )

    def ways(self, split: str) -> list[Way]:
        """Every stage of the student and of `ours` where repetitions have recorded them.

        Tables of early versions have recorded only those that are strategies.
        """
        return [
            each
            for way in WAYS
            if (each := self._recorded(way[-1], split) or self._strategies(way, split)) is not None
        ]

    def _recorded(self, strategy: str, split: str) -> Way | None:
        found = {
            row.seed: {
                STAGE_BY_KEY[stage].title: heldout if split == "heldout" else test
                for stage, heldout, test in row.stages
            }
            for row in self.of(strategy)
            if row.stages
        }
        if not found:
            return None
        titles = list(dict.fromkeys(title for each in found.values() for title in each))
        apart = {stage.title for stage in STAGE_BY_KEY.values() if stage.role == "teacher"}
        scores = pd.DataFrame.from_dict(found, orient="index", columns=titles)
        return Way(
            key=strategy, title=TITLES[strategy], scores=scores, apart=frozenset(apart & {*titles})
        )

    def _strategies(self, way: Sequence[str], split: str) -> Way | None:
        here = [key for key in way if key in self.strategies]
        if len(here) < 2:
            return None
        known = {TITLES[key]: pd.Series(self.scores(key, split)) for key in here}
        scores = pd.DataFrame(known).dropna()
        return Way(key=way[-1], title=TITLES[way[-1]], scores=scores) if len(scores) else None

    def repetition(self, row: Row) -> str:
        return f"seed {row.seed}"

    def named(self, key: str) -> list[tuple[str, ...]]:
        return [session.class_names for session in self.sessions]


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
        failures=tuple(results.failures()),
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
    return (
        f"**{recipe_title(table.recipe)}** ({_preset(table.recipe)}) · "
        f"{BUDGETS[table.budget]} · n = {len(table.seeds)}{kind}"
    )


def _preset(recipe: Recipe) -> str:
    """A recipe's preset, and whether something else was changed."""
    return recipe.preset + ("" if _is_preset(recipe) else ", changed")


def _is_preset(recipe: Recipe) -> bool:
    try:
        return recipe == replace(preset_of(recipe.name, recipe.preset).recipe, seed=0)
    except NetweldError:
        return False


def devices_text(table: Table) -> str:
    """Where a table was computed, and with what."""
    told = dict.fromkeys(
        f"{session.place}, torch {session.versions.get('torch', '?')}, "
        f"netweld {session.versions.get('netweld', '?')}"
        for session in table.sessions
    )
    return "; ".join(told) or "a device that was not written down"


def failures_text(table: Table) -> str:
    """Which seeds some strategies lack, and why, in sentences; empty where none do."""
    by_unit: dict[str, list[Failure]] = {}
    for failure in table.failures:
        by_unit.setdefault(failure.unit, []).append(failure)
    alike: dict[tuple[int, ...], list[str]] = {}
    for unit, failures in by_unit.items():
        alike.setdefault(tuple(sorted({each.seed for each in failures})), []).append(unit)
    return " ".join(
        f"Of {', '.join(TITLES[key] for unit in units for key in UNITS[unit])}, seed"
        f"{'s' if len(seeds) > 1 else ''} {seeds_text(seeds)} may be missing, which flatters them: "
        f"{by_unit[units[0]][0].message}"
        for seeds, units in alike.items()
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
        text += (
            f" This table has the preset {_preset(table.recipe)} at "
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


def changes(recipe: Experiment) -> list[str]:
    """What a recipe's preset must be changed by, as `--set` takes it; the seed is left out."""
    try:
        preset = preset_of(recipe.name, recipe.preset).recipe
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
    """The day on which work on it began for the last time; empty where that was not written down.

    Not the file's own: that of a table which came with netweld is of whoever unpacked it.
    """
    started = [session.started for session in table.sessions]
    return datetime.fromtimestamp(max(started)).strftime("%Y-%m-%d") if started else ""
