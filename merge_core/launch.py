"""Starting and stopping workers from a terminal or a page (no torch).

A worker is a process of its own in a session of its own: it goes on when the terminal or the
browser that started it is closed.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from merge_core import places
from merge_core.errors import StoreError
from merge_core.recipes import Experiment
from merge_core.store import Store

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a person may ask for; whether the machine has it is found by the worker."""


WORKER = ("-P", "-m", "merge_core.worker")
"""How Python starts a worker. Without -P it would import a file called random.py where it runs."""

HOLD_SECONDS = 10.0
"""How long to wait for a worker to take hold of its run, before torch is imported."""


def begin(
    store: Store,
    recipe: Experiment,
    device: str = "auto",
    data: Path | None = None,
    inputs: Sequence[Path] = (),
) -> tuple[str, subprocess.Popen[bytes]]:
    """Create a run and start its worker; returns the run's name and the process.

    Args:
        store: where the run will be.
        recipe: what to do.
        device: one of `DEVICES`.
        data: where data sets lie.
        inputs: the file of each teacher of a comparison; they are copied.

    Raises:
        StoreError: an input cannot be read, the store cannot be written, or no process can be
            started.
        RecipeError: the recipe's name cannot be part of a run's name.
    """
    name = store.create(recipe, device, inputs)
    return name, start(store, name, data)


def resume(store: Store, name: str, data: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a worker that goes on with a stopped, failed, lost or never started run.

    Returns once the worker holds the run, so that nobody takes the old state for the new one.

    Raises:
        StoreError: the run is unknown, a sample, running or finished.
    """
    commands = store.commands(name)
    with store.open(name) as reader:
        state = reader.status()["state"]
        if state in ("finished", "running", "paused"):
            raise StoreError(f"Run {name} is {state}; look at it with `netweld show {name}`.")
        sessions = len(reader.sessions())
        # A wish to stop that an earlier worker did not live to see is not meant for the new one.
        process = start(store, name, data, after=commands[-1].id if commands else 0)
        deadline = time.monotonic() + HOLD_SECONDS
        while (
            len(reader.sessions()) == sessions
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
    return process


def stop(store: Store, name: str) -> int:
    """Ask the worker of a run to stop; returns the command's id.

    Raises:
        StoreError: the run is unknown, a sample, or not running.
    """
    store.directory(name)
    with store.open(name) as reader:
        state = reader.status()["state"]
    if state not in ("queued", "running", "paused"):
        raise StoreError(f"Run {name} is {state}, not running; there is nothing to stop.")
    return store.command(name, "stop")


def start(
    store: Store, name: str, data: Path | None = None, after: int = 0
) -> subprocess.Popen[bytes]:
    """Start the worker of a queued run.

    Args:
        store: where the run is.
        name: the run.
        data: where data sets lie.
        after: commands up to this id were meant for an earlier worker.

    Raises:
        StoreError: the run is unknown or a sample, or no process can be started.
    """
    with store.open(name) as reader:
        threads = reader.facts().get("threads") or available_threads()
    paths = {
        "NETWELD_HOME": str(store.home),
        "NETWELD_DATA": str((data or places.data_directory()).expanduser().resolve()),
    }
    command = [sys.executable, *WORKER, name, "--after", str(after)]
    try:
        with (store.directory(name) / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment(threads) | paths,
                cwd=store.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(
            f"The worker of run {name} could not be started ({error}); mend that, then "
            f"`netweld resume {name}`."
        ) from error
    # Somebody must wait for a child, or it stays behind as a zombie that looks alive.
    threading.Thread(target=process.wait, name=f"reap {name}", daemon=True).start()
    return process


def environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a process that computes beside the dashboard.

    Args:
        threads: how many it may use; as many as are available by default.
    """
    made = {
        **os.environ,
        # The number of threads decides in which order sums are taken, so a resumed run needs the
        # number it started with. Threads that spin while they wait would starve the dashboard.
        "OMP_NUM_THREADS": str(threads or available_threads()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }
    if places.dashboard() == places.PACKAGE.parent:  # a checkout, perhaps not installed
        paths = [str(places.PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        made["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return made


def available_threads() -> int:
    """How many threads a worker uses: `OMP_NUM_THREADS`, or the physical cores at its disposal."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdecimal() and int(wish) > 0:
        return int(wish)
    limits = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _container_quota()
    if quota is not None:
        limits.append(quota)
    return max(min(limits), 1)


def _container_quota() -> int | None:
    """Whole CPUs that a Linux container may use (control groups v2); None when not limited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(int(quota) // int(period), 1)
