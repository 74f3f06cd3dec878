"""Carrying a search out in a worker process, with teachers that are trained once (no torch).

The teachers are those of a run: of one that has them already, or of a new merge of the recipe that
goes first. The carrier is the process of `netweld search`, or
`python -P -m merge_core.search_work JSON`, which a page starts.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from merge_core import crew, launch, places, queue
from merge_core.carriers import Asked, Carrier, claim
from merge_core.crew import Headway
from merge_core.errors import NetweldError, RecipeError, StoreError
from merge_core.recipes import Recipe
from merge_core.search import SearchFile, require_budget, trial_from
from merge_core.store import ForkPoint, RunSummary, Store

WORKER = "merge_core.search_trials"
CARRIER = "merge_core.search_work"
_LOOK_SECONDS = 0.5
_ON_THEIR_WAY = ("queued", "running", "paused")


def teachers_run(store: Store, runs: Iterable[RunSummary], recipe: Recipe) -> str | None:
    """The run whose teachers a search of the recipe uses: the first that has them.

    Failing that, the first that is on its way to them; None where there is neither.
    """
    coming = None
    for run in runs:
        other = run.recipe
        if not isinstance(other, Recipe) or _teachers(other) != _teachers(recipe):
            continue
        if _has_teachers(store, run.name):
            return run.name
        if coming is None and run.state in _ON_THEIR_WAY:
            coming = run.name
    return coming


def _teachers(recipe: Recipe) -> tuple[object, ...]:
    """What decides the teachers of a recipe."""
    return recipe.seed, recipe.data, recipe.model, recipe.computing, recipe.teacher


def _has_teachers(store: Store, run: str) -> bool:
    try:
        with store.open(run) as reader:
            return ForkPoint(stage="big") in reader.fork_points()
    except StoreError:
        return False


def asked_for(
    file: SearchFile,
    trials: int,
    *,
    minutes: float = 0.0,
    device: str = "auto",
    data: Path | None = None,
) -> Asked:
    """All that a search needs to begin; a merge of its recipe is started if nobody has teachers.

    Args:
        file: the search.
        trials: how many it shall have in all.
        minutes: how long it may take from its first trial on; 0 for no limit.
        device: where it computes.
        data: where data sets lie.

    Raises:
        RecipeError: the budget is none, or Optuna is not installed.
        StoreError: the merge cannot be started, or the search is somebody else's.
    """
    require_budget(trials, minutes)
    if find_spec("optuna") is None:
        raise RecipeError(
            "The search needs Optuna, which is not installed here; install it with "
            "`pip install 'optuna>=5'` and start the search again."
        )
    claim(file.path)
    store, recipe = Store(), file.search.recipe
    run = teachers_run(store, store.runs(), recipe) or launch.begin(store, recipe, device, data)[0]
    return Asked(
        seed=file.search.seed,
        n=trials,
        device=device,
        data=str((data or places.data_directory()).expanduser().resolve()),
        workers=1,
        minutes=minutes,
        run=run,
    )


def carry_out(file: SearchFile, asked: Asked) -> Generator[Headway, None, None]:
    """Do the trials that a search lacks in its turn, and tell how far it is.

    Whoever stops listening stops the worker; trials that are over stay.

    Raises:
        StoreError: another process works on the search, it is somebody else's, or the run with the
            teachers ended before it had them.
        NetweldError: the worker failed, says why; or it was taken out of the queue.
    """
    claim(file.path)
    file.begin()
    carrier = Carrier(file.path, asked)
    yield from crew.carry(carrier, _work(file, carrier))


def _work(file: SearchFile, carrier: Carrier) -> Generator[Headway, None, None]:
    """Let the worker do trials and write them down as they come.

    The teachers are waited for outside of the queue: the run that trains them needs a turn itself.
    """
    store, asked = Store(), carrier.asked
    for _ in _waited(store, asked.run):
        yield Headway(fraction=0.0, left=None, rows=0)

    def hear(said: dict) -> bool:
        file.append([trial_from(said)])
        return True

    share = {
        "path": str(file.path),
        "trials": asked.n,
        "minutes": asked.minutes,
        "device": asked.device,
        "data": asked.data,
        "run": asked.run,
    }
    threads = queue.threads_for(file.search.recipe)
    extra = yield from crew.turn(carrier, threads)
    yield from crew.work(WORKER, [share], hear, threads, extra)


def _waited(store: Store, run: str) -> Generator[None, None, None]:
    """Let a run that is on its way go first: the cores are better not shared with it.

    Raises:
        StoreError: it ended without the teachers.
    """
    while True:
        queue.dispatch(store)
        with store.open(run) as reader:
            state = reader.status()["state"]
        ready = _has_teachers(store, run)
        if ready and state not in ("queued", "running"):
            return
        if state not in _ON_THEIR_WAY:
            raise StoreError(
                f"Run {run}, whose teachers the search uses, is {state} and has not trained them; "
                f"`netweld resume {run}`, then let the search go on."
            )
        yield
        time.sleep(_LOOK_SECONDS)


def begin(file: SearchFile, asked: Asked) -> subprocess.Popen[bytes]:
    """Start a process of its own that does what is missing of a search.

    Returns once it holds the search, so that nobody takes the old state for the new one.

    Raises:
        StoreError: no process can be started, another one works on the search, or it is somebody
            else's.
    """
    claim(file.path)
    file.begin()
    return crew.begin(file.path, CARRIER, {"path": str(file.path), "asked": asdict(asked)})


def main(text: str) -> None:
    """Carry out the search that the JSON text asks for, until a SIGTERM asks to stop."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    values = json.loads(text)
    for _ in carry_out(SearchFile.at(Path(values["path"])), Asked(**values["asked"])):
        pass


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
