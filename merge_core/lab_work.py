"""Carrying a λ lab out in worker processes, one for each core (no torch).

The carrier is the process of `netweld lab`, or `python -P -m merge_core.lab_work JSON`, which a
page starts.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from merge_core import crew, places, queue
from merge_core.carriers import Asked, Carrier, claim
from merge_core.crew import Headway
from merge_core.errors import NetweldError, RecipeError
from merge_core.lab import Cell, LabFile, missing, row_from

WORKER = "merge_core.lab_cells"
CARRIER = "merge_core.lab_work"


def carry_out(
    file: LabFile,
    n: int = 1,
    *,
    seed: int = 0,
    device: str = "cpu",
    data: Path | None = None,
    workers: int = 0,
) -> Generator[Headway, None, None]:
    """Do what is missing of a lab with n seeds in its turn, and tell how far it is.

    Whoever stops listening stops the workers; what is finished stays.

    Args:
        file: the lab.
        n: how many seeds every schedule shall have.
        seed: the first of them.
        device: where the workers compute.
        data: where data sets lie.
        workers: how many processes; by default one for each core, on a GPU one.

    Raises:
        RecipeError: n is not positive.
        StoreError: another process works on the lab, or it is somebody else's.
        NetweldError: a worker failed, says why; or it was taken out of the queue.
    """
    if n < 1:
        raise RecipeError(f"A lab got {n} seeds, but it needs 1 or more.")
    place = str((data or places.data_directory()).expanduser().resolve())
    claim(file.path)
    file.begin()
    carrier = Carrier(file.path, Asked(seed=seed, n=n, device=device, data=place, workers=workers))
    yield from crew.carry(carrier, _work(file, carrier))


def _work(file: LabFile, carrier: Carrier) -> Generator[Headway, None, None]:
    """Let workers do what is missing, and write rows down as they come."""
    asked = carrier.asked
    seeds = range(asked.seed, asked.seed + asked.n)
    todo = missing(file.lab, file.rows(), seeds)
    count = asked.workers or (queue.share() if asked.device == "cpu" else 1)
    extra = yield from crew.turn(carrier, count)

    def hear(said: dict) -> bool:
        file.append([row_from(said)])
        return True

    said = {"lab": file.said, "device": asked.device, "data": asked.data}
    shares = [{**said, "todo": share} for share in shared_out(todo, count)]
    yield from crew.work(WORKER, shares, hear, extra=extra)


def shared_out(todo: list[tuple[int, Cell]], count: int) -> list[list[tuple[int, Cell]]]:
    """What each of at most so many workers does, so that all end at about the same time.

    Where there are as many seeds as workers or more, a seed's teachers are trained by one worker
    alone, and a worker does its seeds one after the other at each degree of coarseness.
    """
    seeds = list(dict.fromkeys(seed for seed, _ in todo))
    if len(seeds) % count == 0:
        shares = [[each for each in todo if each[0] in seeds[i::count]] for i in range(count)]
    else:
        shares = [todo[i::count] for i in range(count)]
    return [share for share in shares if share]


def begin(
    file: LabFile, n: int = 1, *, seed: int = 0, device: str = "cpu", data: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process of its own that does what is missing of a lab.

    Returns once it holds the lab, so that nobody takes the old state for the new one.

    Raises:
        StoreError: no process can be started, another one works on the lab, or it is somebody
            else's.
    """
    claim(file.path)
    file.begin()
    asked = {
        "path": str(file.path),
        "n": n,
        "seed": seed,
        "device": device,
        "data": str((data or places.data_directory()).expanduser().resolve()),
    }
    return crew.begin(file.path, CARRIER, asked)


def main(text: str) -> None:
    """Carry out the lab that the JSON text asks for, until a SIGTERM asks to stop."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    asked = json.loads(text)
    file, data = LabFile.at(Path(asked["path"])), Path(asked["data"])
    wanted = {"seed": asked["seed"], "device": asked["device"], "data": data}
    for _ in carry_out(file, asked["n"], **wanted):
        pass


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
