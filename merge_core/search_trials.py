"""The worker of a search: proposes λ schedules, trains under them and says how they fared.

    python -P -m merge_core.search_trials JSON

prints JSON lines: `{"planned": 1}` once, `{"done": share}` since the last such line, and the fields
of a `Trial` for each one that is over. `merge_core.search_work` starts it.

Every trial is what a fork of the run with the teachers would be: it goes on from their big student
and gives the numbers of a full merge with its schedule. The controls are left out.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from merge_core import compiling, precision
from merge_core.devices import derived_seed, resolve
from merge_core.errors import NetweldError
from merge_core.events import EpochFinished, Progress, Resume, StageFinished, StagePlanned
from merge_core.lab import rounded
from merge_core.recipes import Recipe
from merge_core.search import Numbers, Search, SearchFile, Trial
from merge_core.stages import RETURNABLE
from merge_core.store import Store
from merge_core.strategies import merge

TEACHERS = ("teacher_a", "teacher_b", "ensemble", "big")
"""The stages that all trials share."""
_REPORT_SECONDS = 0.5


class Scores(NamedTuple):
    """What is judged of a trial: its held-out score after the cut, both scores at its end."""

    cut_heldout: float
    heldout: float
    test: float


Judge = Callable[[Recipe], Scores]
"""Carries a trial out; a NetweldError is why it failed."""


def propose(search: Search, trials: Sequence[Trial]) -> Numbers | None:
    """What is tried after some trials, by a tree-structured Parzen estimator.

    It depends on the search and these trials alone. A trial that failed is known to have failed.

    Source: Bergstra et al., "Algorithms for hyper-parameter optimization", section 4, as in Optuna.

    Args:
        search: what is searched.
        trials: those from 0 on, by number.

    Returns:
        First the recipe's own schedule: its numbers, or None where it is of another kind.
    """
    if not trials:
        return search.own
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fields = [axis.field for axis in search.axes]
    space: dict[str, optuna.distributions.BaseDistribution] = {
        field: FloatDistribution(low, high, log=True)
        for field, (low, high) in zip(fields, search.ranges, strict=True)
    }
    seed = derived_seed(search.seed, f"trial/{len(trials)}") % 2**32
    study = optuna.create_study(
        direction="maximize" if search.recipe.metric == "accuracy" else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    for trial in trials:
        if trial.numbers is not None:
            state = TrialState.FAIL if trial.failed else TrialState.COMPLETE
            study.add_trial(
                create_trial(
                    params=dict(zip(fields, trial.numbers, strict=True)),
                    distributions=space,
                    value=trial.heldout,
                    state=state,
                )
            )
    asked = study.ask(space).params
    first, second = (
        min(max(rounded(asked[field]), low), high)
        for field, (low, high) in zip(fields, search.ranges, strict=True)
    )
    return first, second


def searched(
    search: Search,
    done: Sequence[Trial],
    judge: Judge,
    *,
    trials: int,
    minutes: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Trial]:
    """Carry out the trials that are missing.

    Args:
        search: what is searched.
        done: the trials that are over.
        judge: carries one out.
        trials: how many there shall be in all.
        minutes: no trial begins that would end later, if it took as long as the longest so far;
            one is carried out in any case. 0 for no limit.
        clock: tells the seconds.

    Yields:
        Each trial when it is over.
    """
    over = {trial.number: trial for trial in done}
    begun, longest = clock(), 0.0
    for number in range(trials):
        if number in over:
            continue
        if minutes and longest and clock() - begun + longest > 60 * minutes:
            return
        numbers = propose(search, [over[each] for each in range(number)])
        started = clock()
        trial = Trial(number=number, numbers=numbers)
        try:
            scores = judge(search.recipe_of(numbers))
            trial = dataclasses.replace(trial, **scores._asdict())
        except NetweldError as error:
            trial = dataclasses.replace(trial, failed=str(error))
        longest = max(longest, clock() - started)
        over[number] = dataclasses.replace(trial, seconds=round(clock() - started, 2))
        yield over[number]


def judged(
    recipe: Recipe,
    resume: Resume,
    *,
    device: str,
    data_dir: Path,
    report: Callable[[float], None] = lambda share: None,
) -> Scores:
    """Carry out a trial: gates, cut and fine-tuning on top of trained teachers.

    Args:
        recipe: with the trial's schedule.
        resume: the teachers and the big student.
        device: "cpu", "cuda" or "mps".
        data_dir: where data sets lie.
        report: told which share of the trial is over.

    Raises:
        NetweldError: the training failed.
    """
    plan: dict[str, StagePlanned] = {}
    heldout: dict[str, float] = {}
    test = 0.0
    for event in merge(recipe, device, data_dir=data_dir, resume=resume):
        match event:
            case StagePlanned():
                plan[event.stage] = event
            case Progress() | EpochFinished():
                stage = plan[event.stage]
                work = {each: plan[each].flops for each in ("gates", "fine_tune") if each in plan}
                before = work["gates"] if stage.stage == "fine_tune" else 0.0
                share = event.step / max(stage.steps, 1)
                report((before + share * stage.flops) / sum(work.values()))
            case StageFinished() if event.stage in RETURNABLE:
                heldout[event.stage] = event.scores["heldout"][recipe.metric]
                test = event.scores["test"][recipe.metric]
                if len(heldout) == sum(stage in plan for stage in RETURNABLE):
                    break
    return Scores(heldout["cut"], list(heldout.values())[-1], test)


def teachers_of(store: Store, run: str) -> Resume:
    """The teachers of a run and what is made of them, for trials to go on from.

    Raises:
        StoreError: the run is gone, or its files are damaged.
    """
    with store.open(run) as reader:
        finished = reader.resume().finished
    return Resume(finished={stage: finished[stage] for stage in TEACHERS})


def _say(values: dict) -> None:
    print(json.dumps(values), flush=True)


class _Share:
    """Tells how much of the budget is used: of the trials, or of the time if that is more."""

    def __init__(self, missing: int, minutes: float) -> None:
        self._missing, self._minutes = missing, minutes
        self._begun = self._spoke = time.monotonic()
        self._over, self._said = 0, 0.0

    def of_trial(self, share: float) -> None:
        """So much of a trial is over."""
        now = time.monotonic()
        if now - self._spoke < _REPORT_SECONDS:
            return
        used = (self._over + share) / self._missing
        if self._minutes:
            used = max(used, (now - self._begun) / (60 * self._minutes))
        used = min(used, 1.0)
        if used > self._said:
            _say({"done": used - self._said})
            self._said, self._spoke = used, now

    def next_trial(self) -> None:
        """One trial more is over."""
        self._over += 1


def main(text: str) -> None:
    """Carry out the trials that the JSON text asks for."""
    asked = json.loads(text)
    file = SearchFile.at(Path(asked["path"]))
    done, trials, minutes = file.trials(), asked["trials"], asked["minutes"]
    resume, device = teachers_of(Store(), asked["run"]), resolve(asked["device"])
    precision.require(file.search.recipe.precision, device)
    compiling.require(file.search.recipe.code, device)
    share = _Share(max(trials - len(done), 1), minutes)

    def judge(recipe: Recipe) -> Scores:
        data = Path(asked["data"])
        return judged(recipe, resume, device=device, data_dir=data, report=share.of_trial)

    _say({"planned": 1.0})
    for trial in searched(file.search, done, judge, trials=trials, minutes=minutes):
        _say(dataclasses.asdict(trial))
        share.next_trial()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
