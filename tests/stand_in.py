"""A process that carries something out as a table, a lab or a search is, but computes nothing.

`python -P -m stand_in JSON`, with the path of the file, for how many seconds it has its turn, and
how the worker of a run is started.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from merge_core import crew, processes
from merge_core.carriers import Asked, Carrier, claim
from merge_core.crew import Headway

TESTS = str(Path(__file__).resolve().parent)


def carried(path: Path, seconds: float | None = 0.0, *, device: str = "cpu") -> Generator[Headway]:
    """The work in this process; it claims the file and holds it from the first headway on."""
    claim(path)
    carrier = Carrier(path, Asked(seed=0, n=1, device=device, data="", workers=1))
    idle = _with_a_worker(carrier) if seconds is None else _idle(carrier, seconds)
    yield from crew.carry(carrier, idle)


def _idle(carrier: Carrier, seconds: float) -> Generator[Headway]:
    yield from crew.turn(carrier, 1)
    until = time.monotonic() + seconds
    yield Headway(fraction=0.5, left=seconds, rows=0)
    while time.monotonic() < until:
        time.sleep(0.02)
        yield Headway(fraction=0.5, left=until - time.monotonic(), rows=0)


def _with_a_worker(carrier: Carrier) -> Generator[Headway]:
    yield from crew.turn(carrier, 1)
    yield from crew.work("stand_in", [{}], lambda said: False)


def begin(
    monkeypatch: pytest.MonkeyPatch, path: Path, seconds: float | None
) -> "subprocess.Popen[bytes]":
    """The work in a process of its own, as a page would begin it.

    Without a number of seconds it has a worker that works for ever, and listens to that.
    """
    monkeypatch.setenv("PYTHONPATH", TESTS)
    return crew.begin(
        path, "stand_in", {"path": str(path), "seconds": seconds, "worker": processes.WORKER}
    )


def work() -> None:
    """What the worker does."""
    while True:
        time.sleep(0.05)
        print(json.dumps({"done": 0.0}), flush=True)


def main(text: str) -> None:
    """Do what the JSON text asks for, until a SIGTERM asks to stop."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    asked: dict[str, Any] = json.loads(text)
    if not asked:
        work()
    processes.WORKER = tuple(asked["worker"])  # of the runs that it lets begin
    for _ in carried(Path(asked["path"]), asked["seconds"]):
        pass


if __name__ == "__main__":
    main(sys.argv[1])
