"""How a run was steered: λ over its epochs with ghosts, markers, and its family of forks."""

import math
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd

from merge_core.errors import StoreError
from merge_core.recipes import Recipe
from merge_core.steering import CutEarly, NewRate, NewSchedule, NewSeed, Steer, weights, words
from merge_core.store import Branch, ForkPoint, RunReader, Store
from merge_core.views.runs import stage_title

_VERBS = {NewSchedule: "lambda", NewRate: "rate", CutEarly: "cut", NewSeed: "seed"}


@dataclass(frozen=True, kw_only=True)
class GateStage:
    """Where a run is in its gate stage.

    Attributes:
        recipe: of the run, as steered so far.
        epochs: of the stage, as the recipe has them; an early cut may leave some out.
        per_epoch: optimizer steps in one.
        done: epochs that are over.
    """

    recipe: Recipe
    epochs: int
    per_epoch: int
    done: int


def gate_stage(reader: RunReader) -> GateStage | None:
    """Where a run is in its gate stage; None for a run without one, or before it is planned."""
    recipe = reader.recipe
    planned = next((row for row in reader.plan() if row["stage"] == "gates"), None)
    if not isinstance(recipe, Recipe) or planned is None:
        return None
    return GateStage(
        recipe=recipe,
        epochs=recipe.gating.epochs,
        per_epoch=planned["steps"] // planned["epochs"],
        done=reader.epochs_done("gates"),
    )


def lambda_frame(reader: RunReader) -> pd.DataFrame:
    """λ at the end of every epoch of the gate stage, as steered so far.

    Columns: epoch (from 1), value (NaN where a controller will set it), part: "past" for an epoch
    that is over, "future" for one that is planned, "left out" after an early cut.
    """
    columns = ["epoch", "value", "part"]
    stage = gate_stage(reader)
    if stage is None:
        return pd.DataFrame(columns=columns)
    recipe = stage.recipe
    curve = weights(recipe.gates.schedule, recipe.steering, stage.epochs, stage.per_epoch)
    measured = {
        row["epoch"]: row["value"]
        for row in reader.metrics("gates")
        if row["name"] == "lambda" and row["epoch"] <= stage.done
    }
    rows = []
    for epoch, planned in enumerate(curve.tolist(), start=1):
        part = "past" if epoch in measured else "future"
        if epoch > recipe.gate_epochs:
            part = "left out"
        rows.append({"epoch": epoch, "value": measured.get(epoch, planned), "part": part})
    return pd.DataFrame(rows, columns=columns)


def ghost_frame(reader: RunReader) -> pd.DataFrame:
    """λ as it would have gone on without each change of the schedule.

    Columns: change (index into the recipe's steering), epoch, value, words (the change). The rows
    of a change begin one epoch before it, where both curves still touch.
    """
    columns = ["change", "epoch", "value", "words"]
    stage = gate_stage(reader)
    if stage is None:
        return pd.DataFrame(columns=columns)
    recipe = stage.recipe
    rows = []
    for number, steer in enumerate(recipe.steering):
        if not isinstance(steer, NewSchedule):
            continue
        before = recipe.steering[:number]
        curve = weights(recipe.gates.schedule, before, stage.epochs, stage.per_epoch).tolist()
        rows += [
            {"change": number, "epoch": epoch, "value": value, "words": words(steer)}
            for epoch, value in enumerate(curve, start=1)
            if epoch >= steer.epoch - 1
        ]
    return pd.DataFrame(rows, columns=columns)


def marker_frame(reader: RunReader) -> pd.DataFrame:
    """What was asked of the run, in order, and what became of it.

    Columns: command (id; 0 for a change that came with the recipe), verb, stage, epoch (done when
    it takes effect, may be fractional: where its mark stands on the time axis of its stage; NaN
    before the first stage and in stages without epochs), run_epoch (the same over the whole run,
    where such a stage begins), step, words, refused, time (NaN with the recipe).
    """
    columns = [
        "command", "verb", "stage", "epoch", "run_epoch", "step", "words", "refused", "time",
    ]  # fmt: skip
    plan = reader.plan()
    lengths = {row["stage"]: (row["steps"], row["epochs"]) for row in plan}
    before = dict(zip(lengths, accumulate((r["epochs"] for r in plan), initial=0), strict=False))
    rows = []
    answered = []
    for answer in reader.answers():
        steps, epochs = lengths.get(answer.stage or "", (0, 0))
        if answer.epoch is not None and not answer.refused:
            answered.append(answer.words)
            epoch = float(answer.epoch - 1)
        else:
            epoch = answer.step * epochs / steps if steps else math.nan
        rows.append(
            {
                "command": answer.command,
                "verb": answer.verb,
                "stage": answer.stage or "",
                "epoch": epoch,
                "step": answer.step,
                "words": answer.words,
                "refused": answer.refused,
                "time": answer.time,
            }
        )
    stage = gate_stage(reader)
    given = [_given(steer, stage) for steer in _unanswered(stage, answered)] if stage else []
    found = pd.DataFrame([*given, *rows], columns=columns)
    found["run_epoch"] = [
        before.get(row, 0) + (0.0 if math.isnan(epoch) else epoch)
        for row, epoch in zip(found["stage"].tolist(), found["epoch"].tolist(), strict=True)
    ]
    return found


def _unanswered(stage: GateStage, answered: list[str]) -> list[Steer]:
    """The changes that no command of this run has made."""
    left = list(answered)
    found = []
    for steer in reversed(stage.recipe.steering):
        if left and words(steer) == left[-1]:
            left.pop()
        else:
            found.insert(0, steer)
    return found


def _given(steer: Steer, stage: GateStage) -> dict[str, object]:
    """The marker of a change that came with the recipe."""
    return {
        "command": 0,
        "verb": _VERBS[type(steer)],
        "stage": "gates",
        "epoch": float(steer.epoch - 1),
        "step": (steer.epoch - 1) * stage.per_epoch,
        "words": words(steer),
        "refused": False,
        "time": math.nan,
    }


def fork_frame(reader: RunReader) -> pd.DataFrame:
    """The moments that the run can be forked from, in order.

    Columns: stage, epoch (-1 at the end of a stage), words.
    """
    rows = []
    for point in reader.fork_points():
        title = stage_title(point.stage)
        if point.epoch is None:
            rows.append({"stage": point.stage, "epoch": -1, "words": f"the end of {title}"})
        else:
            text = f"{title}, after epoch {point.epoch}"
            rows.append({"stage": point.stage, "epoch": point.epoch, "words": text})
    return pd.DataFrame(rows, columns=["stage", "epoch", "words"])


def fork_point(reader: RunReader, epoch: int) -> ForkPoint:
    """The latest moment that was kept at or before an epoch of the gate stage.

    Args:
        reader: the run.
        epoch: how many epochs of the gate stage are done; 0 for its beginning.

    Raises:
        StoreError: there is none; the gates have not begun.
    """
    points = reader.fork_points()
    kept = [p for p in points if p.stage == "gates" and p.epoch is not None and p.epoch <= epoch]
    if kept:
        return kept[-1]
    beginning = ForkPoint(stage="big")
    if beginning in points:
        return beginning
    raise StoreError(
        f"Run {reader.name} has no gates that learn yet, so there is no epoch to fork it from; "
        f"wait until its big student is made."
    )


def parent(reader: RunReader) -> Branch | None:
    """Where the run was forked from; None when it was not."""
    return reader.branch()


def children(store: Store, name: str) -> list[Branch]:
    """The forks of a run, oldest first."""
    return [branch for branch in store.forks() if branch.parent == name]
