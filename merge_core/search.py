"""A search for the λ schedule of a recipe, one trial after the other (no torch).

A trial is the merge of the recipe's teachers under one λ schedule: gates, cut, fine-tuning. Its
file of JSON lines in `NETWELD_HOME/searches` says first what the search is, then has a line for
every trial that is over. What comes next depends on these lines alone, so a search that was stopped
goes on as if it had not been, and one that has ended can get more trials.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from merge_core import linefile, places
from merge_core.errors import RecipeError
from merge_core.lab import Axis, require_family, rounded
from merge_core.recipes import Recipe
from merge_core.schedules import PAPER_SCHEDULE, Schedule, as_kind

MOST_TRIALS = 1000
Numbers = tuple[float, float]
"""The two numbers of a schedule, as `merge_core.lab.AXES` names them."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A recipe, and the λ schedules among which one is looked for.

    Attributes:
        recipe: the recipe, which was not steered; the first trial has its own schedule.
        family: a key of `merge_core.lab.AXES`.
        seed: decides what is tried.

    Raises:
        RecipeError: there is no such family, or the seed is none.
    """

    recipe: Recipe
    family: str = "growth"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", replace(self.recipe, steering=()))
        require_family(self.family)
        if not 0 <= self.seed < 2**31:
            raise RecipeError(
                f"A search got the seed {self.seed}, but a whole number from 0 to 2³¹−1 is "
                f"expected; choose for example 0."
            )

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The two numbers."""
        return require_family(self.family)

    @property
    def own(self) -> Numbers | None:
        """Those of the recipe's own schedule; None where that is of another kind."""
        schedule = self.recipe.gates.schedule
        if schedule.kind != self.family:
            return None
        first, second = (getattr(schedule, axis.field) for axis in self.axes)
        return first, second

    @property
    def ranges(self) -> tuple[Numbers, Numbers]:
        """The least and the largest value of each number; the recipe's own lies between them."""
        inside = self.own or tuple(axis.paper for axis in self.axes)
        first, second = (
            (min(rounded(axis.low), value), max(rounded(axis.high), value))
            for axis, value in zip(self.axes, inside, strict=True)
        )
        return first, second

    def schedule(self, numbers: Numbers | None) -> Schedule:
        """The λ schedule of a trial; without numbers the recipe's own."""
        own = self.recipe.gates.schedule
        if numbers is None:
            return own
        kind = own if own.kind == self.family else as_kind(self.family, PAPER_SCHEDULE)
        titles = (axis.field for axis in self.axes)
        return replace(kind, **dict(zip(titles, numbers, strict=True)))

    def recipe_of(self, numbers: Numbers | None) -> Recipe:
        """The recipe of a full merge with the schedule of a trial."""
        gates = replace(self.recipe.gates, schedule=self.schedule(numbers))
        return replace(self.recipe, gates=gates)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One schedule, tried.

    Attributes:
        number: from 0 on; the first is the recipe's own schedule.
        numbers: the schedule's; None for the recipe's own where that is of another kind.
        cut_heldout: held-out score after the cut: loss where the recipe fits numbers, accuracy
            where it tells classes apart. None where the trial failed, like all scores.
        heldout, test: scores after fine-tuning; the held-out one decides.
        seconds: how long it took.
        failed: why it failed; else empty.
    """

    number: int
    numbers: Numbers | None
    cut_heldout: float | None = None
    heldout: float | None = None
    test: float | None = None
    seconds: float = 0.0
    failed: str = ""


def best_trial(search: Search, trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best held-out score after fine-tuning, the earlier one on a tie."""
    best, score = None, None
    for trial in trials:
        if trial.heldout is None:
            continue
        if score is None or search.recipe.better(trial.heldout, score):
            best, score = trial, trial.heldout
    return best


def best_so_far(search: Search, trials: Sequence[Trial]) -> list[float | None]:
    """The best held-out score after each trial; None before one has succeeded."""
    best = [best_trial(search, trials[: count + 1]) for count in range(len(trials))]
    return [None if trial is None else trial.heldout for trial in best]


class SearchFile:
    """The file of one search.

    Args:
        search: what it is of.
        home: where `searches` is; by default `NETWELD_HOME`.

    Attributes:
        said: the search as JSON values.
    """

    def __init__(self, search: Search, home: Path | None = None) -> None:
        self.search = search
        self.said = {**asdict(search), "recipe": json.loads(search.recipe.to_json())}
        self._what = json.dumps(self.said, sort_keys=True)
        mark = linefile.mark(self._what)
        recipe = search.recipe
        name = f"{recipe.name}-{recipe.preset}-s{recipe.seed}-{search.family}-{mark}.jsonl"
        self.path = directory(home) / name

    @classmethod
    def at(cls, path: Path) -> "SearchFile":
        """The search in a file.

        Raises:
            StoreError: the file is no search, or cannot be read.
            RecipeError: this version of netweld cannot read its recipe.
        """
        keys = [field.name for field in fields(Search)]
        made = cls(search_from(linefile.opening(path, keys, "a search")))
        made.path = path
        return made

    def trials(self) -> list[Trial]:
        """The trials that are over, by number."""
        found: dict[int, Trial] = {}
        for values in linefile.read(self.path):
            if values.keys() == {field.name for field in fields(Trial)}:
                trial = trial_from(values)
                found.setdefault(trial.number, trial)
        return sorted(found.values(), key=lambda trial: trial.number)

    def append(self, trials: Iterable[Trial]) -> None:
        """Write trials down.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.append(self.path, self._what, [asdict(trial) for trial in trials])

    def begin(self) -> None:
        """Write down what the search is, where no trial is over yet.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.begin(self.path, self._what)


def search_from(values: Mapping[str, Any]) -> Search:
    """A search as JSON has it."""
    recipe = Recipe.from_json(json.dumps(values["recipe"]))
    return Search(**{**values, "recipe": recipe})


def trial_from(values: Mapping[str, Any]) -> Trial:
    """A trial as JSON has it."""
    return Trial(**linefile.frozen(values))


def directory(home: Path | None = None) -> Path:
    """Where searches lie."""
    return (home or places.home()) / "searches"


def require_budget(trials: int, minutes: float) -> None:
    """RecipeError unless a search can be that long."""
    if not 1 <= trials <= MOST_TRIALS:
        raise RecipeError(
            f"A search got {trials} trials, but 1 to {MOST_TRIALS} are expected; choose for "
            f"example 20."
        )
    if not 0 <= minutes < math.inf:
        raise RecipeError(
            f"A search got {minutes} minutes, but a positive number is expected, or 0 for no "
            f"limit; choose for example 10."
        )
