"""Steering a run that is being worked on, from a terminal or a page (no torch).

Every steer is a command in the store's queue; the worker answers it within a fraction of a second
(`answer`), also where it refuses it:

    pause / step / go_on / cut_now / change_schedule / change_rate   →  id of the command
    answer(store, run, id)                                           →  Answer, None before that

`merge_core.forking` has what makes a new run of an old one.
"""

import dataclasses

from merge_core.errors import StoreError
from merge_core.recipes import Recipe, with_article
from merge_core.schedules import Schedule
from merge_core.store import Answer, RunReader, Store


def pause(store: Store, name: str) -> int:
    """Let the worker wait until it is told to go on; it computes nothing meanwhile.

    Returns:
        The command's id.

    Raises:
        StoreError: the run is unknown, a sample, or not being worked on.
    """
    return _command(store, name, "pause")


def step(store: Store, name: str) -> int:
    """Go on until the next epoch is over, then pause; arguments and errors as of `pause`."""
    return _command(store, name, "step")


def go_on(store: Store, name: str) -> int:
    """End a pause; arguments and errors as of `pause`."""
    return _command(store, name, "go")


def cut_now(store: Store, name: str) -> int:
    """End the gate stage after the epoch at hand and go on with the cut; as `pause`.

    StoreError, too, when the run is no merge.
    """
    _require_merge(store, name)
    return _command(store, name, "cut")


def change_schedule(store: Store, name: str, schedule: Schedule, epoch: int | None = None) -> int:
    """Change λ from an epoch of the gate stage on.

    Args:
        store: where the run is.
        name: the run.
        schedule: λ over the whole stage, of which the part from `epoch` on counts.
        epoch: the first epoch that it holds for, from 1; by default the next that begins.

    Returns:
        The command's id.

    Raises:
        StoreError: the run is unknown, a sample, no merge, or not being worked on.
    """
    _require_merge(store, name)
    given = dataclasses.asdict(schedule)
    return _command(store, name, "lambda", schedule=given, epoch=epoch)


def change_rate(store: Store, name: str, rate: float, epoch: int | None = None) -> int:
    """Change the learning rate of the gates from an epoch on; as `change_schedule`."""
    _require_merge(store, name)
    return _command(store, name, "rate", rate=rate, epoch=epoch)


def answer(store: Store, name: str, command: int) -> Answer | None:
    """What became of a command; None before its worker has heard it."""
    with store.open(name) as reader:
        return next((each for each in reader.answers() if each.command == command), None)


def merge_of(reader: RunReader) -> Recipe:
    """The recipe of a run that has gates, as steered so far; StoreError for any other."""
    recipe = reader.recipe
    if isinstance(recipe, Recipe):
        return recipe
    raise StoreError(
        f"Run {reader.name} is {with_article(recipe.kind)} without a gate stage, so there is no λ "
        f"to steer and nothing to fork; give a run of a recipe that merges with gates."
    )


def _require_merge(store: Store, name: str) -> None:
    with store.open(name) as reader:
        merge_of(reader)


def _command(store: Store, name: str, verb: str, **arguments: object) -> int:
    store.directory(name)  # a sample is refused
    with store.open(name) as reader:
        state = reader.status()["state"]
    if state not in ("queued", "running", "paused"):
        instead = "fork it" if state == "finished" else "resume it first"
        raise StoreError(f"Run {name} is {state}, so no worker can obey; {instead}.")
    return store.command(name, verb, **arguments)
