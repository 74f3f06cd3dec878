"""Stored runs side by side: runs of one recipe with other seeds count as repetitions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from merge_core.recipes import Experiment
from merge_core.repetitions import Summary, summary
from merge_core.stages import STAGE_BY_KEY
from merge_core.store import RunReader
from merge_core.views.compare import SPLITS, seeds_text
from merge_core.views.runs import recipe_title, stage_frame


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The runs of one recipe, whatever their seeds.

    Attributes:
        title: of the recipe, with its preset; numbered where two recipes share them.
        recipe: with seed 0.
        runs: names, one for each seed.
        seeds: likewise.
        devices: where they ran.
        scores: a row for each run (by seed), a column for each stage (its key) in order; NaN where
            a stage is not over. The column "returned" is the network that the run returned.
    """

    title: str
    recipe: Experiment
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    devices: tuple[str, ...]
    scores: pd.DataFrame

    @property
    def summaries(self) -> dict[str, Summary]:
        """Stage → what is to be said of its scores, where at least one run has it."""
        known = {str(key): self.scores[key].dropna().tolist() for key in self.scores.columns}
        return {key: summary(values) for key, values in known.items() if values}


def repeated(readers: Sequence[RunReader], split: str) -> list[Repeated]:
    """Runs by their recipes, in the order given; of two runs with one seed the first counts.

    Args:
        readers: of runs that train networks.
        split: "test" or "heldout".
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
        rows = {seed: _scores(by_seed[seed], split) for seed in sorted(by_seed)}
        found.append(
            Repeated(
                title=title + number,
                recipe=recipe,
                runs=tuple(by_seed[seed].name for seed in rows),
                seeds=tuple(rows),
                devices=tuple(dict.fromkeys(by_seed[seed].device for seed in rows)),
                scores=pd.DataFrame(list(rows.values()), index=list(rows)),
            )
        )
    return found


def _scores(reader: RunReader, split: str) -> dict[str, float]:
    stages = stage_frame(reader)
    scores = dict(zip(stages["stage"].tolist(), stages[split].tolist(), strict=True))
    returned = stages.loc[stages["returned"], split].tolist()
    return scores | ({"returned": float(returned[0])} if returned else {})


def column_title(key: str) -> str:
    """The words for a column of `Repeated.scores`."""
    return "returned" if key == "returned" else STAGE_BY_KEY[key].title


def repeated_frame(groups: Sequence[Repeated]) -> pd.DataFrame:
    """A line for each stage of each recipe.

    Columns: Recipe, Stage, n, Seeds, min, max, median, mean, std, Metric.
    """
    return pd.DataFrame(
        [
            {
                "Recipe": group.title,
                "Stage": column_title(key),
                "n": each.n,
                "Seeds": seeds_text(list(group.seeds)),
                "min": each.min,
                "max": each.max,
                "median": each.median,
                "mean": each.mean,
                "std": each.std,
                "Metric": group.recipe.metric,
            }
            for group in groups
            for key, each in group.summaries.items()
        ]
    )


def repeated_conditions(groups: Sequence[Repeated], split: str) -> str:
    """What a figure of several runs rests on, in one line."""
    parts = [
        f"{group.title}: n = {len(group.runs)}, seed{'s' if len(group.seeds) > 1 else ''} "
        f"{seeds_text(list(group.seeds))}, {', '.join(group.devices)}"
        for group in groups
    ]
    return f"{SPLITS[split]} scores; every run has its recipe's own budget. {'; '.join(parts)}."
