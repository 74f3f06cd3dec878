"""Forks: runs that share the past of another run and go on otherwise (no torch).

    fork(store, run, point, schedule=..., seed=..., settings=...)   →  the fork, what has started
    undo(store, run)                                                →  likewise

What a fork changes becomes a part of its recipe, so that a new run of that recipe gives the fork's
numbers; an unchanged fork gives its parent's.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from merge_core import launch
from merge_core.commanding import merge_of
from merge_core.errors import RecipeError, StoreError
from merge_core.recipes import Recipe
from merge_core.schedules import Schedule
from merge_core.steering import NewRate, NewSchedule, NewSeed, Steer, rate_in, schedule_in
from merge_core.store import ForkPoint, Store

_ORDER = ("teacher_a", "teacher_b", "ensemble", "big", "gates", "cut", "norms", "fine_tune")
_FIRST_USED = {
    "gates.selection": "cut",
    "gates": "gates",
    "gating": "gates",
    "fine_tune": "fine_tune",
}
"""Setting, or the part of the recipe that it belongs to → the first stage that depends on it."""
_FROM_THERE = ("gates.schedule", "gates.learning_rate")
"""Settings that can change in the middle of the gate stage."""


def fork(
    store: Store,
    name: str,
    point: ForkPoint,
    *,
    schedule: Schedule | None = None,
    rate: float | None = None,
    seed: int | None = None,
    settings: Mapping[str, str] | None = None,
    data: Path | None = None,
) -> tuple[str, list[str]]:
    """Start a run that shares another one's past and goes on otherwise; or likewise, unchanged.

    What was to change in the parent later on changes in the fork as well, unless another schedule
    or rate takes its place.

    Args:
        store: where the parent is.
        name: the parent, a merge in any state.
        point: where it branches off, one of `RunReader.fork_points`.
        schedule: another λ schedule from there.
        rate: another learning rate of the gates from there.
        seed: another seed for all draws from there.
        settings: dotted key → text, as for `Recipe.changed`, of the stages that are still to come,
            e.g. `{"gates.selection": "largest weights"}`; in the gate stage, `gates.schedule` and
            `gates.learning_rate` from there on.
        data: where data sets lie.

    Returns:
        The fork's name, and the runs that could be started at once: it is among them or waits.

    Raises:
        StoreError: the run is unknown or no merge, or cannot be forked from there.
        RecipeError: a change is invalid or would change the past.
    """
    with store.open(name) as reader:
        recipe = merge_of(reader)
    made = _otherwise(recipe, point, settings or {})
    steers: list[Steer] = []
    first = _first_epoch(recipe, point)
    if schedule is not None:
        steers.append(NewSchedule(epoch=first, schedule=schedule))
    if rate is not None:
        steers.append(NewRate(epoch=first, learning_rate=rate))
    if steers and first > recipe.gate_epochs:
        raise _past("λ and the learning rate of the gates", point)
    if seed is not None:
        if first > recipe.gating.epochs + 1:
            raise _past("the seed", point)
        steers.append(NewSeed(epoch=first, seed=seed))
    for steer in steers:
        made = made.steered(steer)
    fork = store.fork(name, made, point)
    return fork, launch.start(store, fork, data)


def undo(store: Store, name: str, data: Path | None = None) -> tuple[str, list[str]]:
    """Return to before the last change: a fork from the checkpoint before it, without it.

    A run that is being worked on is stopped; it can be resumed.

    Args:
        store: where the run is.
        name: the run.
        data: where data sets lie.

    Returns:
        The fork's name, and the runs that could be started at once: it is among them or waits.

    Raises:
        StoreError: the run is unknown, no merge or somebody else's, or nothing was changed.
    """
    store.require_command(name)  # the run is stopped; whoever may not do that forks it
    with store.open(name) as reader:
        recipe = merge_of(reader)
        if not recipe.steering:
            raise StoreError(f"Run {name} was not steered; there is nothing to undo.")
        last = recipe.steering[-1]
        before = [
            point for point in reader.fork_points() if _first_epoch(recipe, point) <= last.epoch
        ]
        alive = reader.status()["state"] in ("queued", "running", "paused")
    if not before:
        raise StoreError(
            f"Run {name} has trained nothing yet that could be kept; stop it and start its recipe "
            f"anew."
        )
    made = dataclasses.replace(recipe, steering=recipe.steering[:-1])
    fork = store.fork(name, made, before[-1])
    if alive:
        launch.stop(store, name)
    return fork, launch.start(store, fork, data)


def _otherwise(recipe: Recipe, point: ForkPoint, settings: Mapping[str, str]) -> Recipe:
    """The recipe with other settings, of which those of the gate stage hold from the point on."""
    at = _ORDER.index(point.stage) if point.stage in _ORDER else len(_ORDER)
    first = _first_epoch(recipe, point)
    later: dict[str, str] = {}
    now: dict[str, str] = {}
    for key, text in settings.items():
        parts = key.split(".")
        names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        if any(name in _FROM_THERE for name in names) and first <= recipe.gate_epochs:
            now[key] = text
            continue
        stage = next((_FIRST_USED[name] for name in names if name in _FIRST_USED), None)
        if stage is None or _ORDER.index(stage) <= at:
            raise _past(f"the setting {key!r}", point)
        later[key] = text
    made = recipe.changed(later)
    if now:
        schedule = schedule_in(recipe.gates.schedule, recipe.steering, first)
        rate = rate_in(recipe.gates.learning_rate, recipe.steering, first)
        gates = dataclasses.replace(recipe.gates, schedule=schedule, learning_rate=rate)
        asked = dataclasses.replace(recipe, gates=gates).changed(now).gates
        if asked.schedule != schedule:
            made = made.steered(NewSchedule(epoch=first, schedule=asked.schedule))
        if asked.learning_rate != rate:
            made = made.steered(NewRate(epoch=first, learning_rate=asked.learning_rate))
    return made


def _first_epoch(recipe: Recipe, point: ForkPoint) -> int:
    """The first epoch of the gate stage that is still to come; past the last one after it.

    One more than the stage has while nothing that came after it has drawn anything, two more then.
    """
    epochs = recipe.gating.epochs
    if point.stage == "gates":
        return epochs + 1 if point.epoch is None else point.epoch + 1
    if point.stage == "cut":
        return epochs + 1
    return 1 if point.stage in _ORDER[: _ORDER.index("gates")] else epochs + 2


def _past(what: str, point: ForkPoint) -> RecipeError:
    return RecipeError(
        f"A fork from {point} cannot change {what}, on which its past depends; fork from an "
        f"earlier moment, or start a run of your own with `netweld merge`."
    )
