"""Stored runs side by side: runs of one recipe with other seeds count as repetitions."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from merge_core.errors import NetweldError
from merge_core.learned import Learned
from merge_core.presets import preset_of
from merge_core.recipes import Experiment
from merge_core.repetitions import Row
from merge_core.stages import STAGE_BY_KEY
from merge_core.store import RunReader
from merge_core.views.compare import changes
from merge_core.views.runs import flops_text, recipe_title, stage_frame
from merge_core.views.scored import SPLITS, Basis, Scored, Way, seeds_text

RETURNED = "returned"
"""The stage that stands for the network that a run returned."""
_STEPS = ("teacher", "measure", "merge")
"""Roles of stages that a merge goes through; their work adds up."""
_FROM_ONE = "trained_on"
_FROM_TEACHERS = ("random_half", "untrained")
"""Controls that rest on teacher A, and on all teachers; the others stand alone."""


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The runs of one recipe, whatever their seeds.

    Attributes:
        title: of the recipe, with its preset; numbered where two recipes share them.
        recipe: with seed 0.
        runs: names, one for each seed.
        seeds: likewise.
        devices: where they ran.
        torch: the versions of PyTorch that they ran with.
        class_names: what people call the classes of their data; empty where nobody has said.
        rows: a row for each stage that is over in each run, `Row.strategy` its key or `RETURNED`;
            with the epochs and FLOPs of all training that the network rests on.
    """

    title: str
    recipe: Experiment
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    devices: tuple[str, ...]
    torch: tuple[str, ...]
    class_names: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def stages(self) -> list[str]:
        """The stages that are over in at least one run, in order; `RETURNED` comes last."""
        found = list(dict.fromkeys(row.strategy for row in self.rows))
        return sorted(found, key=lambda key: key == RETURNED)

    @property
    def basis(self) -> Basis:
        """The budget counts all training that a run's result rests on, once there is one."""
        costs = [(row.epochs, row.flops) for row in self.rows if row.strategy == RETURNED]
        spent = f" ({costs[0][0]} epochs, {flops_text(costs[0][1])})" if costs else ""
        return Basis(
            budget=f"its recipe's own budget{spent}",
            device=", ".join(self.devices),
            torch=", ".join(self.torch),
        )


@dataclass(frozen=True, kw_only=True)
class Picked(Scored):
    """Some stages of picked runs, compared as the strategies of a table are.

    Attributes:
        groups: the runs by their recipes; all with one metric.
        stages: the stages that are compared.
    """

    groups: tuple[Repeated, ...]
    stages: tuple[str, ...]

    @property
    def name(self) -> str:
        """What files that are saved begin with."""
        return "netweld-runs"

    @property
    def metric(self) -> str:
        return self.groups[0].recipe.metric

    @property
    def titles(self) -> Mapping[str, str]:
        alone = len(self.groups) == 1
        return {
            _key(number, stage): stage_words(stage) if alone else _words(group, stage, self.stages)
            for number, group in enumerate(self.groups)
            for stage in self.stages
        }

    @property
    def rule(self) -> str:
        return "with its recipe's own budget"

    def repetition(self, row: Row) -> str:
        """The name of the run."""
        group = self._group(row.strategy)
        return group.runs[group.seeds.index(row.seed)]

    def named(self, key: str) -> list[tuple[str, ...]]:
        return [self._group(key).class_names]

    def pairs(self, first: str, other: str) -> bool:
        """The same seed draws the same examples only where the settings of the data are equal."""
        return self._group(first).recipe.data == self._group(other).recipe.data

    def _group(self, key: str) -> Repeated:
        return self.groups[int(key.partition(":")[0])]

    def conditions(self, split: str) -> str:
        parts = []
        for group in self.groups:
            basis, seeds = group.basis, list(group.seeds)
            parts.append(
                f"{group.title}: n = {len(seeds)}, seed{'s' if len(seeds) > 1 else ''} "
                f"{seeds_text(seeds)}, {basis.budget}, {basis.device}, torch {basis.torch or '?'}"
            )
        return f"{'; '.join(parts)}; {SPLITS[split]} {self.metric}."

    def basis(self, key: str) -> Basis:
        return self._group(key).basis

    def ways(self, split: str) -> list[Way]:
        """Every stage of every recipe."""
        return [
            _way(_key(number, RETURNED), group, split) for number, group in enumerate(self.groups)
        ]


def _key(number: int, stage: str) -> str:
    return f"{number}:{stage}"


def _words(group: Repeated, stage: str, stages: Sequence[str]) -> str:
    return group.title if len(stages) == 1 else f"{group.title}, {stage_words(stage).lower()}"


def _way(key: str, group: Repeated, split: str) -> Way:
    found: dict[int, dict[str, float]] = {}
    for row in group.rows:
        if row.strategy != RETURNED:
            title = STAGE_BY_KEY[row.strategy].title
            found.setdefault(row.seed, {})[title] = getattr(row, split)
    keys = [stage for stage in group.stages if stage != RETURNED]
    apart = {
        STAGE_BY_KEY[stage].title
        for stage in keys
        if STAGE_BY_KEY[stage].role in ("teacher", "control")
    }
    columns = [STAGE_BY_KEY[stage].title for stage in keys]
    scores = pd.DataFrame(list(found.values()), index=list(found), columns=columns)
    return Way(key=key, title=group.title, scores=scores, apart=frozenset(apart))


def repeated(readers: Sequence[RunReader]) -> list[Repeated]:
    """Runs by their recipes, in the order given; of two runs with one seed the first counts.

    Args:
        readers: of runs that train networks.
    """
    groups: dict[str, list[RunReader]] = {}
    for reader in readers:
        groups.setdefault(replace(reader.recipe, seed=0).to_json(), []).append(reader)
    titles: dict[str, int] = {}
    found = []
    for mine in groups.values():
        by_seed = {reader.recipe.seed: reader for reader in reversed(mine)}
        recipe = replace(mine[0].recipe, seed=0)
        title = f"{recipe_title(recipe)} ({recipe.preset})"
        titles[title] = titles.get(title, 0) + 1
        number = f", settings {titles[title]}" if titles[title] > 1 else ""
        seeds = sorted(by_seed)
        facts = [by_seed[seed].facts() for seed in seeds]
        names = (each.get("class_names", ()) for each in facts)
        versions = (each.get("versions", {}).get("torch", "") for each in facts)
        found.append(
            Repeated(
                title=title + number,
                recipe=recipe,
                runs=tuple(by_seed[seed].name for seed in seeds),
                seeds=tuple(seeds),
                devices=tuple(dict.fromkeys(by_seed[seed].place for seed in seeds)),
                torch=tuple(dict.fromkeys(filter(None, versions))),
                class_names=tuple(next(filter(None, names), ())),
                rows=tuple(row for seed in seeds for row in _rows(by_seed[seed], seed)),
            )
        )
    return found


def picked(groups: Sequence[Repeated], metric: str, stages: Sequence[str]) -> Picked:
    """Some stages of the runs that are judged by one metric, as what is compared.

    Args:
        groups: `repeated`; at least one has the metric.
        metric: "accuracy" or "loss".
        stages: keys of stages, or `RETURNED`.
    """
    some = tuple(group for group in groups if group.recipe.metric == metric)
    rows = tuple(
        replace(row, strategy=_key(number, row.strategy))
        for number, group in enumerate(some)
        for row in group.rows
        if row.strategy in stages
    )
    return Picked(groups=some, stages=tuple(stages), rows=rows)


def stages_of(groups: Sequence[Repeated]) -> list[str]:
    """The stages of all groups, each once, in order; `RETURNED` comes last."""
    found = list(dict.fromkeys(key for group in groups for key in group.stages))
    return sorted(found, key=lambda key: key == RETURNED)


def stage_words(key: str) -> str:
    """The words for a stage, or for the network that a run returned."""
    return "Returned" if key == RETURNED else STAGE_BY_KEY[key].title


def _rows(reader: RunReader, seed: int) -> list[Row]:
    """A row for each stage of a run that is over."""
    frame = stage_frame(reader).to_dict("records")
    facts = {row["stage"]: row["facts"] for row in reader.stages()}
    epochs, flops, found = 0, 0.0, []
    costs: dict[str, tuple[int, float]] = {}
    for line in frame:
        stage, role = str(line["stage"]), line["role"]
        beside = float(facts[stage].get("selection_flops", 0.0))
        own = int(line["epochs"]), float(line["flops"]) + beside
        if role in _STEPS:
            epochs, flops = epochs + own[0], flops + own[1]
            costs[stage] = own if role == "teacher" and own[0] else (epochs, flops)
        elif role == "control":
            first = costs.get("teacher_a", (0, 0.0))
            taught = [cost for key, cost in costs.items() if key.startswith("teacher_")]
            base = {_FROM_ONE: [first], **dict.fromkeys(_FROM_TEACHERS, taught)}.get(stage, [])
            costs[stage] = own[0] + sum(e for e, _ in base), own[1] + sum(f for _, f in base)
        else:
            costs[stage] = epochs, flops
        if line["test"] == line["test"]:  # no NaN: the stage is over
            found.append(_row(line, seed, stage, costs[stage], facts[stage]))
    last = [line for line in frame if line["returned"]]
    return found + [
        _row(line, seed, RETURNED, (epochs, flops), facts[str(line["stage"])]) for line in last
    ]


def _row(line: Mapping, seed: int, key: str, cost: tuple[int, float], facts: Mapping) -> Row:
    learned = Learned.of(facts.get("learned", {}))
    return Row(
        seed=seed,
        strategy=key,
        heldout=float(line["heldout"]),
        test=float(line["test"]),
        epochs=cost[0],
        flops=cost[1],
        classes=learned.accuracies("test"),
        heldout_classes=learned.accuracies("heldout"),
        curve=learned.curve,
    )


def command_of(recipe: Experiment, device: str) -> str:
    """What to type to get a run's numbers again.

    A run that was steered while its gates learned has no such command; then a comment says so.
    """
    parts = ["netweld", "merge", recipe.name, "--preset", recipe.preset]
    parts += ["--seed", str(recipe.seed)] if recipe.seed else []
    parts += ["--device", device]
    told = changes(recipe)
    try:
        usual = preset_of(recipe.name, recipe.preset).recipe
        settings = dict(setting.split("=", 1) for setting in told)
        same = usual.changed({**settings, "seed": str(recipe.seed)}) == recipe
    except NetweldError:
        same = False
    if not same:
        return "# steered while it ran, or of another version: `netweld show` tells its settings"
    for setting in told:
        parts += ["--set", setting]
    return shlex.join(parts)


def commands(groups: Sequence[Repeated]) -> str:
    """The command of every run, each below its name."""
    return "\n".join(
        f"# {name}\n{command_of(replace(group.recipe, seed=seed), group.devices[0])}"
        for group in groups
        for name, seed in zip(group.runs, group.seeds, strict=True)
    )
