"""Searches for a λ schedule: which there are, and what is to be said of them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from merge_core import linefile
from merge_core.carriers import Carried, progress_of
from merge_core.errors import NetweldError
from merge_core.recipes import Recipe
from merge_core.schedules import TITLES
from merge_core.search import (
    Search,
    SearchFile,
    Trial,
    best_so_far,
    best_trial,
    directory,
)
from merge_core.views.compare import changes
from merge_core.views.estimates import Measured, estimate
from merge_core.views.runs import duration, flops_text, recipe_title

_TRIAL = ("gates", "cut", "norms", "fine_tune")
"""The stages of a merge that a trial goes through."""
CAUTION = (
    "The best of many trials on the same held-out examples looks better than it is, and this is "
    "one seed: before you trust it, start a full merge with it and with the recipe's own schedule, "
    "with other seeds, and compare them on test."
)


@dataclass(frozen=True, kw_only=True)
class SearchNow(Carried):
    """One search as it is now.

    Attributes:
        search: what it is.
        trials: those that are over, by number.
    """

    search: Search
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The best trial so far, by held-out score."""
        return best_trial(self.search, self.trials)


def search_files(home: Path) -> list[Path]:
    """The files of searches, the one that changed last first."""
    return linefile.newest(directory(home))


def read_search(path: Path) -> SearchNow:
    """The search in a file.

    Raises:
        NetweldError: the file is no search, or cannot be read.
    """
    file = SearchFile.at(path)
    return SearchNow(
        path=path, search=file.search, trials=tuple(file.trials()), progress=progress_of(path)
    )


def readable_search(path: Path) -> SearchNow | None:
    """The search in a file; None where this version of netweld cannot read it."""
    try:
        return read_search(path)
    except NetweldError:
        return None


def search_label(now: SearchNow) -> str:
    """A search in a few words: recipe, preset, seed, family, trials."""
    search = now.search
    changed = ", changed" if _otherwise(search.recipe) else ""
    return (
        f"**{recipe_title(search.recipe)}** ({search.recipe.preset}{changed}) · "
        f"{TITLES[search.family]} · seed {search.recipe.seed} · "
        f"{_trials(len(now.trials))}{now.mark}"
    )


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def schedule_text(search: Search, trial: Trial) -> str:
    """A schedule in words: its two numbers."""
    if trial.numbers is None:
        return f"the recipe's own schedule ({TITLES[search.recipe.gates.schedule.kind].lower()})"
    return ", ".join(
        f"{axis.title} = {value:.4g}"
        for axis, value in zip(search.axes, trial.numbers, strict=True)
    )


def findings(now: SearchNow) -> str:
    """The best schedule so far beside the recipe's own, as sentences; empty without any."""
    best, metric = now.best, now.search.recipe.metric
    if best is None or best.heldout is None or best.test is None:
        return ""
    said = (
        f"The best held-out {metric} after fine-tuning is **{best.heldout:.4g}**, "
        f"at **{schedule_text(now.search, best)}** (trial {best.number}; test "
        f"{best.test:.4g})."
    )
    own = now.trials[0]
    if best.number == 0:
        said += " That is the recipe's own schedule."
    elif own.number == 0 and own.heldout is not None and own.test is not None:
        said += f" The recipe's own schedule has {own.heldout:.4g} (test {own.test:.4g})."
    failed = sum(1 for trial in now.trials if trial.failed)
    if failed:
        said += f" {_trials(failed)} failed."
    return said


def trial_frame(now: SearchNow) -> pd.DataFrame:
    """A line for each trial that is over, in their order."""
    search, metric = now.search, now.search.recipe.metric
    first, second = (axis.title for axis in search.axes)
    best = best_so_far(search, now.trials)
    lines = [
        {
            "Trial": trial.number,
            first: trial.numbers[0] if trial.numbers else None,
            second: trial.numbers[1] if trial.numbers else None,
            f"Held-out {metric} after fine-tuning": trial.heldout,
            "Best so far": so_far,
            f"Held-out {metric} after the cut": trial.cut_heldout,
            f"Test {metric} after fine-tuning": trial.test,
            "Seconds": trial.seconds,
            "Note": trial.failed or ("the recipe's own schedule" if trial.number == 0 else ""),
        }
        for trial, so_far in zip(now.trials, best, strict=True)
    ]
    return pd.DataFrame(lines)


def failures(trials: Sequence[Trial]) -> str:
    """What became of the trials that failed, a line each; empty where none did."""
    return "\n".join(f"- Trial {trial.number}: {trial.failed}" for trial in trials if trial.failed)


def cost_text(
    search: Search,
    *,
    trials: int,
    minutes: float,
    device: str,
    measured: Sequence[Measured],
    run: str | None,
) -> str:
    """What a search will cost, before it starts, as sentences.

    Args:
        search: what is searched.
        trials: how many it still lacks.
        minutes: how long it may take; 0 for no limit.
        device: where it computes.
        measured: finished runs, newest first.
        run: whose teachers it uses; None where a merge must train them first.
    """
    source = (
        f"The teachers are those of {run}."
        if run
        else "A merge of the recipe goes first and trains the teachers."
    )
    limit = f" No trial begins that would end after {minutes:g} minutes." if minutes else ""
    whole = estimate(search.recipe, device, measured)
    alone = [
        replace(each, stages=each.stages[each.stages["stage"].isin(_TRIAL)], startup=0.0)
        for each in measured
    ]
    each = estimate(search.recipe, device, alone)
    if whole is None or each is None:
        return (
            f"{source}{limit} No finished run of this network on this data is known here, so there "
            f"is no estimate yet."
        )
    flops, seconds = trials * each.flops, trials * each.seconds
    if not run:
        flops, seconds = flops + whole.flops, seconds + whole.seconds
    first = "" if run else ", that merge included"
    return (
        f"{source} {_trials(trials)} of {flops_text(each.flops)} each take about "
        f"**{flops_text(flops)}** and **{duration(seconds)}**{first}.{limit} {each.source}"
    )


def search_command(now: SearchNow) -> str:
    """What to type for the same search."""
    search, asked = now.search, now.progress.asked if now.progress is not None else None
    parts = ["netweld", "search", *_recipe_words(search.recipe)]
    parts += ["--family", search.family]
    parts += ["--sampler-seed", str(search.seed)] if search.seed else []
    parts += ["--trials", str(asked.n if asked is not None else max(len(now.trials), 1))]
    parts += ["--minutes", f"{asked.minutes:g}"] if asked is not None and asked.minutes else []
    parts += ["--device", asked.device] if asked is not None else []
    return shlex.join([*parts, *_otherwise(search.recipe)])


def merge_command(search: Search, trial: Trial) -> str:
    """What to type for a full merge with the schedule of a trial."""
    recipe = search.recipe_of(trial.numbers)
    return shlex.join(["netweld", "merge", *_recipe_words(recipe), *_otherwise(recipe)])


def _recipe_words(recipe: Recipe) -> list[str]:
    return [recipe.name, "--preset", recipe.preset, "--seed", str(recipe.seed)]


def _otherwise(recipe: Recipe) -> list[str]:
    """The options for what a recipe's preset must be changed by."""
    return [word for setting in changes(recipe) for word in ("--set", setting)]
