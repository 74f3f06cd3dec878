"""Carrying a table out in worker processes, one for each core (no torch).

Small networks are too small for several threads, so every worker takes a share of the repetitions
and computes in one thread. The carrier alone writes to the table's file: the process of `netweld
table`, or `python -P -m merge_core.tabled JSON`, which a page starts and which goes on when the
page is closed.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile

from merge_core import places, processes
from merge_core.carriers import Asked, Carrier, folder, progress_of
from merge_core.errors import NetweldError, RecipeError, StoreError
from merge_core.recipes import Recipe
from merge_core.repetitions import UNITS, Budget, Results, Row, Session

WORKER = ("-P", "-m", "merge_core.tables")
CARRIER = ("-P", "-m", "merge_core.tabled")

HOLD_SECONDS = 10.0
"""How long to wait for a carrier to take hold of its table."""


@dataclass(frozen=True, kw_only=True)
class Headway:
    """How far a table is.

    Attributes:
        fraction: of the FLOPs that were missing at the start, 0 to 1.
        left: seconds to go at the speed so far; None when too little is done to tell.
        rows: strategies of repetitions that are finished since the start.
    """

    fraction: float
    left: float | None
    rows: int


def missing(rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, list[int]]:
    """For each of `UNITS` the seeds that have not all of its strategies."""
    there = {(row.seed, row.strategy) for row in rows}
    return {
        unit: [seed for seed in seeds if any((seed, key) not in there for key in strategies)]
        for unit, strategies in UNITS.items()
    }


def carry_out(
    results: Results, n: int, *, device: str = "cpu", data: Path | None = None, workers: int = 0
) -> Generator[Headway, None, None]:
    """Do what is missing of the first n repetitions, and tell how far it is.

    The repetitions have the seeds from the recipe's on. Whoever stops listening stops the workers;
    what is finished stays.

    Args:
        results: the table.
        n: how many repetitions it shall have.
        device: where the workers compute.
        data: where data sets lie.
        workers: how many processes; by default one for each core, on a GPU one.

    Raises:
        RecipeError: n is not positive.
        NetweldError: a worker failed; says why.
    """
    if n < 1:
        raise RecipeError(f"A table got n={n}, but it needs 1 repetition or more.")
    seed = results.recipe.seed
    place = str((data or places.data_directory()).expanduser().resolve())
    carrier = Carrier(
        results.path, Asked(seed=seed, n=n, device=device, data=place, workers=workers)
    )
    try:
        todo = missing(results.rows(), range(seed, seed + n))
        count = workers or (processes.available_threads() if device == "cpu" else 1)
        count = min(count, max(len(seeds) for seeds in todo.values()))
        shares = [{unit: seeds[i::count] for unit, seeds in todo.items()} for i in range(count)]
        asked = {
            "recipe": json.loads(results.recipe.to_json()),
            "budget": results.budget,
            "device": device,
            "data": place,
        }
        running = [_Worker({**asked, "units": share}) for share in shares]
        try:
            for headway in _listened(running, results):
                carrier.report(headway.fraction, headway.left)
                yield headway
        finally:
            for worker in running:
                worker.stop()
    except Exception as error:
        carrier.end("failed", str(error))
        raise
    except BaseException:  # whoever listened has stopped listening
        carrier.end("stopped")
        raise
    carrier.report(1.0, None)
    carrier.end("finished")


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
        StoreError: no process can be started, or another one works on the table.
    """
    table = Results(recipe, budget).path
    before = progress_of(table)
    if before is not None and before.state == "running":
        raise StoreError(f"Another process works on the table {table.stem} already; stop it first.")
    asked = {
        "recipe": json.loads(recipe.to_json()),
        "budget": budget,
        "n": n,
        "device": device,
        "data": str((data or places.data_directory()).expanduser().resolve()),
    }
    try:
        folder(table).mkdir(parents=True, exist_ok=True)
        with (folder(table) / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *CARRIER, json.dumps(asked)],
                env=processes.environment() | {"NETWELD_HOME": str(places.home())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(
            f"The table {table.stem} could not be started ({error}); mend that and try again."
        ) from error
    # Somebody must wait for a child, or it stays behind as a zombie that looks alive.
    threading.Thread(target=process.wait, name=f"reap {table.stem}", daemon=True).start()
    deadline = time.monotonic() + HOLD_SECONDS
    while progress_of(table) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


class _Worker:
    """A process that works on a share, and what it has said."""

    def __init__(self, asked: dict) -> None:
        self.planned: float | None = None
        self.done = 0.0
        self.complaints = TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self.process = subprocess.Popen(
            [sys.executable, *WORKER, json.dumps(asked)],
            env=processes.environment(1) | {"NETWELD_HOME": str(places.home())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches this process only, which stops it
        )

    def tell(self, lines: "SimpleQueue[tuple[_Worker, dict | None]]") -> None:
        """Put what it says into the queue, and None at its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.put((self, json.loads(line)))
        lines.put((self, None))

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.complaints.close()

    def last_words(self) -> str:
        """The last line of what it complained about."""
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _listened(running: Sequence[_Worker], results: Results) -> Iterator[Headway]:
    """Write rows down as they come, until every worker has ended."""
    lines: SimpleQueue[tuple[_Worker, dict | None]] = SimpleQueue()
    listeners = [
        threading.Thread(target=worker.tell, args=(lines,), daemon=True) for worker in running
    ]
    for listener in listeners:
        listener.start()
    working, rows, begun, noted = len(running), 0, None, False
    while working:
        worker, said = lines.get()
        if said is None:
            listeners[running.index(worker)].join()
            working -= 1
            if worker.process.wait():
                raise NetweldError(f"A worker of the table failed: {worker.last_words()}")
        elif "planned" in said:
            worker.planned = said["planned"]
            begun = begun or time.monotonic()
        elif "session" in said:
            if not noted:  # all workers compute on the same machine
                told = Session(**said["session"])
                results.begin(dataclasses.replace(told, workers=len(running)))
            noted = True
        elif "done" in said:
            worker.done += said["done"]
        else:
            results.append([Row(**said)])
            rows += 1
            continue
        planned, done = sum(w.planned or 0 for w in running), sum(w.done for w in running)
        known = all(w.planned is not None for w in running)
        fraction = done / planned if planned and known else 0.0
        left = None
        if begun is not None and fraction > 0.01:
            left = (time.monotonic() - begun) * (1 - fraction) / fraction
        yield Headway(fraction=min(fraction, 1.0), left=left, rows=rows)


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
