"""How much work and time a merge will take, told from runs that are over."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merge_core.recipes import Recipe, Training
from merge_core.store import RunSummary, Store
from merge_core.views.runs import stage_frame


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished run to estimate from.

    Attributes:
        name: the run's name.
        recipe: its recipe.
        device: the device it ran on.
        sample: whether it came with netweld, so that it ran on another machine.
        stages: its `merge_core.views.runs.stage_frame`.
        startup: seconds its worker spent outside the stages, e.g. on loading its libraries.
    """

    name: str
    recipe: Recipe
    device: str
    sample: bool
    stages: pd.DataFrame
    startup: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a merge will cost.

    Attributes:
        flops: floating-point operations of all stages.
        seconds: wall time.
        source: one sentence about what the estimate rests on.
    """

    flops: float
    seconds: float
    source: str


def comparable(store: Store, runs: Iterable[RunSummary], recipe: Recipe) -> list[Measured]:
    """The finished merges among some runs that a recipe's cost can be told from, in their order."""
    found = []
    for run in runs:
        known = isinstance(run.recipe, Recipe) and run.state == "finished"
        if not known or (run.recipe.data.name, run.recipe.model) != (
            recipe.data.name,
            recipe.model,
        ):
            continue
        with store.open(run.name) as reader:
            stages = stage_frame(reader)
            found.append(
                Measured(
                    name=run.name,
                    recipe=run.merge,
                    device=run.device,
                    sample=run.sample,
                    stages=stages,
                    startup=max(reader.headway().elapsed - _seconds(stages), 0.0),
                )
            )
    return found


def _seconds(stages: pd.DataFrame) -> float:
    return sum(stages["seconds"].dropna().tolist())


def epochs_of(recipe: Recipe, stage: str) -> int:
    """Epochs of training that a recipe gives to a stage."""
    return {
        "teacher_a": recipe.teacher.epochs,
        "teacher_b": recipe.teacher.epochs,
        "gates": recipe.gating.epochs,
        "fine_tune": recipe.fine_tune.epochs,
        "random_half": recipe.extra_epochs,
        "trained_on": recipe.extra_epochs,
    }.get(stage, 0)


def _batch(recipe: Recipe, stage: str) -> int:
    settings: Training = {
        "gates": recipe.gating,
        "fine_tune": recipe.fine_tune,
        "random_half": recipe.fine_tune,
    }.get(stage, recipe.teacher)
    return settings.batch_size


def estimate(recipe: Recipe, device: str, measured: Iterable[Measured]) -> Estimate | None:
    """Scale the best comparable run to a recipe.

    A stage's FLOPs grow with epochs and examples. Its time grows with FLOPs or, for networks so
    small that each step costs the same, with steps: the longer of both is taken. Runs of this
    machine on the same device come first, then its other runs, then samples; those that compute
    alike before others; newest first.

    Args:
        recipe: what is about to run.
        device: the device it will run on, or "auto".
        measured: finished runs, newest first.

    Returns:
        None when no run with the same data set and model is known.
    """
    known = [
        run
        for run in measured
        if (run.recipe.data.name, run.recipe.model) == (recipe.data.name, recipe.model)
    ]
    if not known:
        return None
    best = min(
        known,
        key=lambda run: (
            run.sample,
            device not in ("auto", run.device),
            recipe.computing != run.recipe.computing,
        ),
    )
    flops, seconds = 0.0, best.startup
    examples = _examples_ratio(recipe, best.recipe)
    for row in best.stages.to_dict("records"):
        stage = str(row["stage"])
        before, now = epochs_of(best.recipe, stage), epochs_of(recipe, stage)
        took = 0.0 if np.isnan(row["seconds"]) else float(row["seconds"])
        if before == 0:
            seconds += took
            continue
        work = now / before * examples
        steps = work * _batch(best.recipe, stage) / _batch(recipe, stage)
        flops += float(row["flops"]) * work
        seconds += took * max(work, steps)
    where = "the sample that came with netweld, on another machine" if best.sample else best.name
    return Estimate(
        flops=flops,
        seconds=seconds,
        source=f"Scaled from {where} (device {best.device}{best.recipe.computing}, seed "
        f"{best.recipe.seed}).",
    )


def _examples_ratio(recipe: Recipe, other: Recipe) -> float:
    """Training examples of one recipe over the other's; 1 where either takes all there are."""
    if not (recipe.data.train and other.data.train):
        return 1.0
    return recipe.data.train / other.data.train
