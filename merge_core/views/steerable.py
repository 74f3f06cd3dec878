"""Which commands the worker of a run would take now, and why not the others."""

import math
from dataclasses import dataclass

import numpy as np

from merge_core.recipes import Recipe
from merge_core.schedules import TITLES
from merge_core.store import Command, RunReader, Store
from merge_core.views.expectations import Past
from merge_core.views.runs import STATE_WORDS
from merge_core.views.steering import gate_stage


@dataclass(frozen=True, kw_only=True)
class Steerable:
    """A merge as somebody finds it who wants to steer it.

    Attributes:
        recipe: as steered so far.
        state: of the run, as in `RunReader.status`.
        stepping: the worker will pause at the end of this epoch.
        at: whether the gates are still to come ("before"), learn ("gates") or have learned
            ("after").
        begun: epochs of the gate stage that have begun.
        done: epochs of the gate stage that are over.
        step: of the current stage.
        stage: key of the current stage; None before the first.
        pending: commands that no worker has answered yet, oldest first.
    """

    recipe: Recipe
    state: str
    stepping: bool
    at: str
    begun: int
    done: int
    step: int
    stage: str | None
    pending: tuple[Command, ...]

    @property
    def alive(self) -> bool:
        """Whether a worker listens."""
        return self.state in ("running", "paused")

    @property
    def learning(self) -> bool:
        """Whether λ of an epoch that has not begun can still be changed by a command."""
        return self.alive and self.at != "after" and self.begun < self.recipe.gate_epochs

    def refusal(self, verb: str) -> str:
        """Why a command would be of no use now; empty when it can be given."""
        if not self.alive:
            return f"The run is {STATE_WORDS[self.state]}; no worker listens."
        if any(each.verb == verb for each in self.pending):
            return "It is sent already; the worker answers within a second."
        match verb:
            case "pause" if self.state == "paused":
                return "The run is paused already."
            case "step" if self.stepping and self.state == "running":
                return "The run will pause at the end of this epoch already."
            case "go" if self.state != "paused" and not self.stepping:
                return "The run is not paused."
            case "cut" if self.at == "before":
                return "The gates have not begun to learn; there is nothing to cut yet."
            case "cut" | "lambda" | "rate" if not self.learning:
                return "The last epoch of the gates has begun; fork the run instead."
        return ""


def steerable(store: Store, reader: RunReader) -> Steerable | None:
    """How a run can be steered; None for one that has no gates or came with netweld."""
    recipe = reader.recipe
    if reader.sample or not isinstance(recipe, Recipe):
        return None
    status, stages = reader.status(), [row["stage"] for row in reader.plan()]
    answers = reader.answers()
    heard = {each.command for each in answers}
    begin = max((session["started"] for session in reader.sessions()), default=0.0)
    manner = [
        each.verb
        for each in answers
        if not each.refused and each.verb in ("pause", "step", "go") and each.time >= begin
    ]
    stage = gate_stage(reader)
    at, begun, done = "before", 0, 0
    if stage is not None and status["stage"] in stages:
        place = stages.index(status["stage"]) - stages.index("gates")
        at = "before" if place < 0 else "gates" if place == 0 else "after"
        begun = stage.epochs if place > 0 else 0
        done = stage.done
        if place == 0:
            begun = math.ceil(status["step"] / max(stage.per_epoch, 1))
    return Steerable(
        recipe=recipe,
        state=status["state"],
        stepping=status["state"] == "running" and manner[-1:] == ["step"],
        at=at,
        begun=begun,
        done=done,
        step=status["step"],
        stage=status["stage"],
        pending=tuple(each for each in store.commands(reader.name) if each.id not in heard),
    )


def sent_words(command: Command) -> str:
    """A command in words, as long as nobody has answered it."""
    given = command.arguments
    match command.verb:
        case "lambda":
            title = TITLES.get(given["schedule"].get("kind", "growth"), "")
            return f"λ {_since(given)}: {title}"
        case "rate":
            return f"gate learning rate {_since(given)}: {given['rate']:g}"
        case verb:
            return _PLAIN.get(verb, verb)


_PLAIN = {
    "pause": "pause",
    "step": "one epoch, then pause",
    "go": "go on",
    "stop": "stop",
    "cut": "cut now",
}


def _since(given: dict[str, object]) -> str:
    epoch = given.get("epoch")
    return "from the next epoch on" if epoch is None else f"from epoch {epoch} on"


def past_until(reader: RunReader, epoch: int) -> Past:
    """The first epochs of a gate stage, which cannot be changed any more.

    Args:
        reader: the run.
        epoch: how many; 1 or more, of those that are over.
    """
    means: dict[str, list[float]] = {}
    opened = {}
    for row in reader.openness():
        if row["epoch"] <= epoch:
            means.setdefault(row["space"], []).append(float(row["probabilities"].mean()))
            opened[row["space"]] = row["probabilities"]
    weights = [
        row["value"]
        for row in reader.metrics("gates")
        if row["name"] == "lambda" and row["epoch"] <= epoch
    ]
    return Past(
        weights=np.array(weights),
        means={space: np.array(each) for space, each in means.items()},
        opened=opened,
    )
