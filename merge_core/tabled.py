"""Carrying a table out in worker processes, one for each core (no torch).

The carrier is the process of `netweld table`, or `python -P -m merge_core.tabled JSON`, which a
page starts.
"""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

from merge_core import crew, places, queue
from merge_core.carriers import Asked, Carrier, claim
from merge_core.crew import Headway
from merge_core.errors import NetweldError, RecipeError
from merge_core.recipes import Recipe
from merge_core.repetitions import UNITS, Budget, Failure, Results, Row, Session

WORKER = "merge_core.tables"
CARRIER = "merge_core.tabled"


def missing(
    rows: Sequence[Row], failures: Sequence[Failure], seeds: Sequence[int]
) -> dict[str, list[int]]:
    """For each of `UNITS` the seeds that have not all of its strategies, but can have them."""
    there = {(row.seed, row.strategy) for row in rows}
    failed = {(failure.seed, failure.unit) for failure in failures}
    return {
        unit: [
            seed
            for seed in seeds
            if (seed, unit) not in failed and any((seed, key) not in there for key in strategies)
        ]
        for unit, strategies in UNITS.items()
    }


def carry_out(
    results: Results, n: int, *, device: str = "cpu", data: Path | None = None, workers: int = 0
) -> Generator[Headway, None, None]:
    """Do what is missing of the first n repetitions in its turn, and tell how far it is.

    The repetitions have the seeds from the recipe's on. Whoever stops listening stops the workers;
    what is finished stays. Where a loss does not stay finite, that is written down in the place of
    the rows, and the others go on.

    Args:
        results: the table.
        n: how many repetitions it shall have.
        device: where the workers compute.
        data: where data sets lie.
        workers: how many processes; by default one for each core, on a GPU one.

    Raises:
        RecipeError: n is not positive.
        StoreError: another process works on the table, or it is somebody else's.
        NetweldError: a worker failed, says why; or it was taken out of the queue.
    """
    if n < 1:
        raise RecipeError(f"A table got n={n}, but it needs 1 repetition or more.")
    seed = results.recipe.seed
    place = str((data or places.data_directory()).expanduser().resolve())
    claim(results.path)
    carrier = Carrier(
        results.path, Asked(seed=seed, n=n, device=device, data=place, workers=workers)
    )
    yield from crew.carry(carrier, _work(results, carrier))


def _work(results: Results, carrier: Carrier) -> Generator[Headway, None, None]:
    """Let workers do what is missing, and write rows down as they come."""
    asked = carrier.asked
    todo = missing(results.rows(), results.failures(), range(asked.seed, asked.seed + asked.n))
    count = asked.workers or (queue.share() if asked.device == "cpu" else 1)
    count = min(count, max(len(seeds) for seeds in todo.values()))
    extra = yield from crew.turn(carrier, count)
    share = {
        "recipe": json.loads(results.recipe.to_json()),
        "budget": results.budget,
        "device": asked.device,
        "data": asked.data,
    }
    noted = False

    def hear(said: dict) -> bool:
        nonlocal noted
        if "failed" in said:
            results.fail(Failure(**said["failed"]))
            return True
        if "session" not in said:
            results.append([Row(**said)])
            return True
        if not noted:  # all workers compute on the same machine
            told = Session(**said["session"])
            results.begin(dataclasses.replace(told, workers=count))
        noted = True
        return False

    units = [{unit: seeds[i::count] for unit, seeds in todo.items()} for i in range(count)]
    yield from crew.work(WORKER, [{**share, "units": each} for each in units], hear, extra=extra)


def begin(
    recipe: Recipe, budget: Budget, n: int, *, device: str = "cpu", data: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process of its own that does what is missing of a table.

    Returns once it holds the table, so that nobody takes the old state for the new one.

    Args:
        recipe: what is repeated; its seed is the first repetition's.
        budget: what all strategies have the same of.
        n: how many repetitions the table shall have.
        device: where the workers compute.
        data: where data sets lie.

    Raises:
        StoreError: no process can be started, another one works on the table, or it is somebody
            else's.
    """
    asked = {
        "recipe": json.loads(recipe.to_json()),
        "budget": budget,
        "n": n,
        "device": device,
        "data": str((data or places.data_directory()).expanduser().resolve()),
    }
    return crew.begin(Results(recipe, budget).path, CARRIER, asked)


def main(text: str) -> None:
    """Carry out the table that the JSON text asks for, until a SIGTERM asks to stop."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    asked = json.loads(text)
    recipe = Recipe.from_json(json.dumps(asked["recipe"]))
    results = Results(recipe, asked["budget"])
    for _ in carry_out(results, asked["n"], device=asked["device"], data=Path(asked["data"])):
        pass


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
