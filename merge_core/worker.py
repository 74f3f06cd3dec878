"""Executes one run in a process of its own: `python -m merge_core.worker RUN`.

It writes what happens to the store and obeys the commands it finds there. Its home is
`NETWELD_HOME`, its data sets are in `NETWELD_DATA`; `merge_core.launch` starts it.
"""

import argparse
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from merge_core import places
from merge_core.errors import NetweldError, StoreError
from merge_core.events import EpochFinished, Event, Progress, Resume
from merge_core.recipes import Averaging, Comparison, Coupling, Experiment, Recipe
from merge_core.store import RunWriter, Store

CHECKPOINT_SECONDS = 2.0
"""At most one checkpoint in this time: what a killed run loses, and what checkpoints cost."""
POLL_SECONDS = 0.2
"""At most one look at the command queue in this time."""
BEAT_SECONDS = 1.0

Note = Callable[[str, Any], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a strategy gets.

    Attributes:
        recipe: what to do.
        device: the device asked for.
        resume: what an interrupted run already has.
        inputs: the files that were given to the run.
        note: where to note facts about the run.
        pulse: to be called with the headway in the middle of a long computation, where no event
            can be yielded; it raises when the run shall stop.
    """

    recipe: Experiment
    device: str
    resume: Resume | None
    inputs: tuple[Path, ...]
    note: Note
    pulse: Callable[[Progress], None]


Strategy = Callable[[Work], Iterator[Event]]


class _Stopped(Exception):
    """Somebody asked the run to stop; the message is the sentence for its status."""


def carry_out(work: Work) -> Iterator[Event]:
    """The real strategy: what the recipe is for, on the device that this machine has."""
    # Torch takes seconds to import; meanwhile the run is already held and its heart beats.
    import torch

    from merge_core.devices import resolve

    device = resolve(work.device)
    work.note("device", device)
    work.note("threads", torch.get_num_threads())
    work.note("cpus", os.cpu_count())
    work.note(
        "versions",
        {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "netweld": places.netweld_version(),
        },
    )
    data = places.data_directory()
    match work.recipe:
        case Recipe() as recipe:
            from merge_core.strategies import merge

            yield from merge(recipe, device, resume=work.resume, data_dir=data)
        case Coupling() as recipe:
            from merge_core.coupling import couple

            yield from couple(recipe, device, resume=work.resume, data_dir=data)
        case Averaging() as recipe:
            from merge_core.coupling import average

            yield from average(recipe, device, resume=work.resume, data_dir=data)
        case Comparison() as recipe:
            from merge_core.comparisons import compare

            yield from compare(
                recipe,
                device,
                inputs=work.inputs,
                resume=work.resume,
                data_dir=data,
                pulse=work.pulse,
            )


class _Heart(threading.Thread):
    """Beats beside the work, so that a long step is not mistaken for death."""

    def __init__(self, writer: RunWriter) -> None:
        super().__init__(name="heart", daemon=True)
        self._writer = writer
        self._over = threading.Event()
        self.failure: StoreError | None = None

    def run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._writer.heartbeat()
            except StoreError as error:
                self.failure = error
                return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self.join()


class _Ears:
    """Hears commands from the queue and signals from the system, between two events."""

    def __init__(self, store: Store, name: str, writer: RunWriter, after: int) -> None:
        self._store = store
        self._name = name
        self._writer = writer
        self._heard = after
        self._next_look = 0.0
        self.signal: int | None = None

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: only remember."""
        self.signal = number

    def obey(self) -> None:
        """Carry out what was asked for.

        Raises:
            _Stopped: the run shall stop; already acknowledged.
            StoreError: the run is no longer in the index.
        """
        if self.signal is not None:
            raise _Stopped(f"Stopped by the signal {signal.Signals(self.signal).name}.")
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + POLL_SECONDS
        stopping = False
        for command in self._store.commands(self._name, after=self._heard):
            self._heard = command.id
            if command.verb == "stop":
                self._writer.acknowledge(command.id)
                stopping = True
        if stopping:
            raise _Stopped("Stopped as asked.")


def run(store: Store, name: str, strategy: Strategy, after: int = 0) -> int:
    """Execute a run, or what is left of it, until it ends one way or another.

    Args:
        store: where the run is.
        name: the run.
        strategy: yields the events.
        after: commands up to this id are not for this session.

    Returns:
        The exit status of the process: 0 finished, 1 failed, 3 stopped.

    Raises:
        StoreError: the run is unknown, finished, held by another worker, or cannot be written.
    """
    with store.open(name) as reader:
        if reader.status()["state"] == "finished":
            raise StoreError(f"Run {name} is finished; look at it with `netweld show {name}`.")
    with store.writer(name) as writer:
        ears = _Ears(store, name, writer, after)
        handlers = {
            number: signal.signal(number, ears.catch) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            with _Heart(writer) as heart:
                return _work(store, name, writer, strategy, ears, heart)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _work(
    store: Store, name: str, writer: RunWriter, strategy: Strategy, ears: _Ears, heart: _Heart
) -> int:
    try:
        with store.open(name) as reader:
            work = Work(
                recipe=reader.recipe,
                device=reader.facts()["device_asked"],
                resume=reader.resume() if writer.resumed else None,
                inputs=tuple(reader.inputs()),
                note=writer.fact,
                pulse=_pulse(writer, ears),
            )
        ears.obey()
        saved = time.monotonic()
        for event in strategy(work):
            # First the rows, then the checkpoint: a run that dies in between repeats the epoch,
            # in the other order its rows would be lost.
            writer.write(event)
            if isinstance(event, EpochFinished) and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                writer.checkpoint(event.stage, event.epoch, event.checkpoint())
                saved = time.monotonic()
            if heart.failure is not None:
                raise heart.failure
            ears.obey()
    except _Stopped as stopped:
        writer.finish("stopped", str(stopped))
        return 3
    except NetweldError as error:
        print(error, file=sys.stderr)
        writer.finish("failed", str(error))
        return 1
    except Exception:
        traceback.print_exc()
        writer.finish(
            "failed",
            f"Run {name} failed for a reason that netweld did not expect; "
            f"worker.log in the run's directory has the details.",
        )
        return 1
    writer.finish("finished")
    return 0


def _pulse(writer: RunWriter, ears: _Ears) -> Callable[[Progress], None]:
    """What a strategy calls in the middle of a long computation."""
    written = time.monotonic()

    def pulse(event: Progress) -> None:
        nonlocal written
        if time.monotonic() - written >= POLL_SECONDS:
            writer.write(event)
            written = time.monotonic()
        ears.obey()

    return pulse


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; returns its exit status, 2 when there is nothing to work on."""
    parser = argparse.ArgumentParser(prog="python -m merge_core.worker")
    parser.add_argument("run", help="name of a run in NETWELD_HOME")
    parser.add_argument("--after", type=int, default=0, help="ignore commands up to this id")
    chosen = parser.parse_args(arguments)
    try:
        return run(Store(), chosen.run, carry_out, after=chosen.after)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
