"""Steering a run that is being worked on, and forking one, from a terminal or a page (no torch).

Every steer is a command in the store's queue; the worker answers it within a fraction of a second
(`answer`), also where it refuses it. A fork is a run of its own that shares the past of its parent.

    pause / step / go_on / cut_now / change_schedule / change_rate   →  id of the command
    answer(store, run, id)                                           →  Answer, None before that
    fork(store, run, point, ...)                                     →  name and process of the fork
    undo(store, run)                                                 →  likewise
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from merge_core.schedules import Schedule
from merge_core.store import Answer, ForkPoint, Store


def pause(store: Store, name: str) -> int:
    """Let the worker wait until it is told to go on; it computes nothing meanwhile.

    Returns:
        The command's id.

    Raises:
        StoreError: the run is unknown, a sample, or not being worked on.
    """
    raise NotImplementedError


def step(store: Store, name: str) -> int:
    """Go on until the next epoch is over, then pause; arguments and errors as of `pause`."""
    raise NotImplementedError


def go_on(store: Store, name: str) -> int:
    """End a pause; arguments and errors as of `pause`."""
    raise NotImplementedError


def cut_now(store: Store, name: str) -> int:
    """End the gate stage after the epoch at hand and go on with the cut; as `pause`."""
    raise NotImplementedError


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
        StoreError: the run is unknown, a sample, or not being worked on.
    """
    raise NotImplementedError


def change_rate(store: Store, name: str, rate: float, epoch: int | None = None) -> int:
    """Change the learning rate of the gates from an epoch on; as `change_schedule`."""
    raise NotImplementedError


def answer(store: Store, name: str, command: int) -> Answer | None:
    """What became of a command; None before its worker has heard it."""
    raise NotImplementedError


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
) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a run that shares another one's past and goes on otherwise; or likewise, unchanged.

    Args:
        store: where the parent is.
        name: the parent, a merge in any state.
        point: where it branches off, one of `RunReader.fork_points`.
        schedule: another λ schedule from there.
        rate: another learning rate of the gates from there.
        seed: another seed for all draws from there.
        settings: dotted key → text, as for `Recipe.changed`, of the stages that are still to come,
            e.g. `{"gates.selection": "largest weights"}`.
        data: where data sets lie.

    Returns:
        The fork's name and its worker's process.

    Raises:
        StoreError: the run is unknown or no merge, or cannot be forked from there.
        RecipeError: a change is invalid or would change the past.
    """
    raise NotImplementedError


def undo(store: Store, name: str, data: Path | None = None) -> tuple[str, subprocess.Popen[bytes]]:
    """Return to before the last change: a fork from the checkpoint before it, without it.

    A run that is being worked on is stopped; it can be resumed.

    Raises:
        StoreError: the run is unknown or no merge, or nothing was changed.
    """
    raise NotImplementedError
