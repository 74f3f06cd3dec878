"""Starting, resuming and stopping runs from a terminal or a page (no torch).

A run that is started waits for its turn (see `merge_core.queue`), which may be at once. Its worker
goes on when the terminal or the browser that asked for it is closed.
"""

from collections.abc import Sequence
from pathlib import Path

from merge_core import carriers, queue
from merge_core.architectures import is_factory
from merge_core.errors import StoreError
from merge_core.recipes import Comparison, Experiment
from merge_core.store import Store, file_of, kind_of

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a person may ask for; whether the machine has it is found by the worker."""


def begin(
    store: Store,
    recipe: Experiment,
    device: str = "auto",
    data: Path | None = None,
    inputs: Sequence[Path] = (),
    code: Path | None = None,
) -> tuple[str, list[str]]:
    """Create a run and let it wait for its turn.

    Args:
        store: where the run will be.
        recipe: what to do.
        device: one of `DEVICES`.
        data: where data sets lie.
        inputs: the file of each teacher of a comparison; they are copied.
        code: the folder in which the worker finds a person's own network, `package.module:factory`.
            A comparison of a run finds it where the run does.

    Returns:
        The run's name, and the runs that could be started at once: it is among them or waits.

    Raises:
        StoreError: an input cannot be read, or the store cannot be written.
        RecipeError: the recipe's name cannot be part of a run's name.
    """
    if not is_factory(recipe.model):
        code = None
    elif isinstance(recipe, Comparison) and recipe.of:
        with store.open(recipe.of) as reader:
            code = reader.code
    name = store.create(recipe, device, inputs, code)
    return name, start(store, name, data)


def start(store: Store, name: str, data: Path | None = None, after: int = 0) -> list[str]:
    """Let a queued run wait for its turn; returns the runs that could be started at once.

    Args:
        store: where the run is.
        name: the run.
        data: where data sets lie.
        after: commands up to this id were meant for an earlier worker.

    Raises:
        StoreError: the run is unknown, a sample, worked on or somebody else's.
    """
    return queue.enqueue(store, name, data, after)


def resume(store: Store, name: str, data: Path | None = None) -> list[str]:
    """Let a stopped, failed, lost or never started run wait for its turn to go on.

    Returns:
        The runs that could be started at once.

    Raises:
        StoreError: the run is unknown, a sample, waiting, running, finished or somebody else's.
    """
    commands = store.commands(name)
    with store.open(name) as reader:
        state = reader.status()["state"]
    if state in ("finished", "running", "paused"):
        raise StoreError(f"Run {name} is {state}; look at it with `netweld show {name}`.")
    if queue.waits(store, name):
        raise StoreError(f"Run {name} is queued already; look at it with `netweld queue`.")
    # A wish to stop that an earlier worker did not live to see is not meant for the new one.
    return start(store, name, data, after=commands[-1].id if commands else 0)


def stop(store: Store, name: str) -> int | None:
    """Ask whoever works on a run, a table, a lab or a search to stop, or take it out of the queue.

    Args:
        store: where it is.
        name: of the run; or what the other is known by (see `merge_core.store.Turn`).

    Returns:
        The command's id; None when a run waited and is stopped already, and for the others, which
        are told by a signal.

    Raises:
        StoreError: it is unknown, a sample, not running, or somebody else's.
    """
    if kind_of(name) != "run":
        carriers.stop(file_of(store.home, name))
        return None
    store.directory(name)
    with store.open(name) as reader:
        state = reader.status()["state"]
    if state not in ("queued", "running", "paused"):
        raise StoreError(f"Run {name} is {state}, not running; there is nothing to stop.")
    if state == "queued" and queue.withdraw(store, name):
        return None
    return store.command(name, "stop")
