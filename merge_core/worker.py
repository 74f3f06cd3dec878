"""Executes one run in a process of its own: `python -m merge_core.worker RUN`.

It writes what happens to the store and obeys the commands it finds there. Its home is
`NETWELD_HOME`, its data sets are in `NETWELD_DATA`; `merge_core.launch` starts it.
"""

import argparse
import dataclasses
import math
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
from types import TracebackType
from typing import Any, Self

from merge_core import places, queue
from merge_core.errors import NetweldError, StoreError
from merge_core.events import EpochFinished, Event, Progress, Resume, StagePlanned
from merge_core.hearing import Ears, Stopped
from merge_core.progress import Reading
from merge_core.recipes import Averaging, Comparison, Coupling, Experiment, Recipe, Refit
from merge_core.steering import Steering
from merge_core.store import RunWriter, Store

CHECKPOINT_SECONDS = 2.0
"""At most one checkpoint in this time: what a killed run loses, and what checkpoints cost."""
SERIES = 24
SERIES_BYTES = 2**30
BEAT_SECONDS = 1.0
LAST_SECONDS = 30.0
"""How long a step may take to its end when the run can no longer be written to."""
PROGRESS_SECONDS = 0.2
"""At most one `Progress` is written in this time in the middle of a long computation."""

Note = Callable[[str, Any], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a strategy gets.

    Attributes:
        recipe: what to do.
        device: the device asked for.
        resume: what an interrupted run already has.
        inputs: the files that were given to the run.
        code: the folder in which a person's own network is found; None where the run has none.
        note: where to note facts about the run.
        pulse: to be called with the headway in the middle of a long computation, where no event
            can be yielded; it raises when the run shall stop.
        reading: to be called while images are read, before anything is planned, with how many are
            read and of how many; it raises when the run shall stop.
    """

    recipe: Experiment
    device: str
    resume: Resume | None
    inputs: tuple[Path, ...]
    code: Path | None
    note: Note
    pulse: Callable[[Progress], None]
    reading: Callable[[int, int], None]
    steering: Callable[[], Steering]


Strategy = Callable[[Work], Iterator[Event]]


def carry_out(work: Work) -> Iterator[Event]:
    """The real strategy: what the recipe is for, on the device that this machine has."""
    # Torch takes seconds to import; meanwhile the run is already held and its heart beats.
    import torch

    from merge_core import compiling, precision
    from merge_core.data.reading import told_to
    from merge_core.devices import resolve
    from merge_core.models.own import look_in

    if work.code is not None:
        look_in(work.code)
    device = resolve(work.device)
    precision.require(work.recipe.precision, device)
    compiling.require(work.recipe.code, device)
    work.note("device", device)
    numbers = precision.settled(work.recipe.precision, device)
    work.note("computing", dataclasses.replace(work.recipe, precision=numbers).computing)
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
    with told_to(work.reading):
        yield from _strategy(work, device, places.data_directory())


def _strategy(work: Work, device: str, data: Path) -> Iterator[Event]:
    """The events of what the recipe is for."""
    match work.recipe:
        case Recipe() as recipe:
            from merge_core.strategies import merge

            yield from merge(
                recipe, device, resume=work.resume, data_dir=data, steering=work.steering
            )
        case Refit() as recipe:
            from merge_core.refits.strategy import refit

            yield from refit(recipe, device, resume=work.resume, data_dir=data)
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
                if not self._over.wait(LAST_SECONDS):
                    os._exit(1)  # in the middle of a long step, with nowhere to write to
                return

    def require_sound(self) -> None:
        """Raise what it died of."""
        if self.failure is not None:
            raise self.failure

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


class _Checkpoints:
    """Writes a checkpoint now and then, and keeps some of the gate stage's as long as the run.

    From those that are kept the run can be forked. They are at most `SERIES` at equal distances,
    after every epoch where the stage has no more, and no more than fit in `SERIES_BYTES`, which may
    be none of a very large network. As many again can be added by whoever steers: before an epoch
    from which something changes, and where the run was paused at the end of an epoch.
    """

    def __init__(self, writer: RunWriter, kept: set[int]) -> None:
        self._writer = writer
        self._kept = kept
        self._saved = time.monotonic()
        self._epochs = 0
        self._bytes = 0
        self.steering: Callable[[], Steering] = tuple

    def planned(self, event: StagePlanned) -> None:
        """Learn how long the gate stage is; it can get shorter, but the distances stay."""
        if event.stage == "gates":
            self._epochs = max(self._epochs, event.epochs)

    def after(self, event: EpochFinished) -> None:
        """Write one after this epoch if it is time."""
        if event.stage == "gates":
            most = self._most(event)
            if most and event.epoch % math.ceil(self._epochs / most) == 0:
                self._write(event, kept=True)
            elif any(steer.epoch == event.epoch + 1 for steer in self.steering()):
                self.keep(event)
        if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self._write(event, kept=False)

    def keep(self, event: EpochFinished) -> None:
        """Keep the state after this epoch, unless too many are kept already."""
        wanted = event.stage == "gates" and event.epoch not in self._kept
        if wanted and len(self._kept) < 2 * self._most(event):
            self._write(event, kept=True)

    def _most(self, event: EpochFinished) -> int:
        """How many are kept at equal distances."""
        if not self._bytes:
            self._bytes = sum(array.nbytes for array in event.checkpoint().values())
        return min(SERIES, SERIES_BYTES // max(self._bytes, 1))

    def _write(self, event: EpochFinished, *, kept: bool) -> None:
        self._writer.checkpoint(event.stage, event.epoch, event.checkpoint(), kept=kept)
        if kept:
            self._kept.add(event.epoch)
        self._saved = time.monotonic()


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
    with store.writer(name) as writer:
        with store.open(name) as reader:
            recipe = reader.recipe
            kept = {p.epoch for p in reader.fork_points() if p.epoch is not None}
        checkpoints = _Checkpoints(writer, kept)
        heart = _Heart(writer)
        ears = Ears(
            store, writer, name, recipe, after, keep=checkpoints.keep, check=heart.require_sound
        )
        handlers = {
            number: signal.signal(number, ears.catch) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            with heart:
                status = _work(store, name, writer, strategy, ears, heart, checkpoints)
                ears.close()
                return status
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _work(
    store: Store,
    name: str,
    writer: RunWriter,
    strategy: Strategy,
    ears: Ears,
    heart: _Heart,
    checkpoints: _Checkpoints,
) -> int:
    def steering() -> Steering:
        return ears.recipe.steering if isinstance(ears.recipe, Recipe) else ()

    checkpoints.steering = steering
    try:
        with store.open(name) as reader:
            work = Work(
                recipe=ears.recipe,
                device=reader.facts()["device_asked"],
                resume=reader.resume() if writer.resumed else None,
                inputs=tuple(reader.inputs()),
                code=reader.code,
                note=writer.fact,
                pulse=_pulse(writer, ears),
                reading=_reading(writer, ears),
                steering=steering,
            )
            answered = {answer.command for answer in reader.answers()}
        ears.begin(answered)
        for event in strategy(work):
            # First the rows, then the checkpoint: a run that dies in between repeats the epoch,
            # in the other order its rows would be lost.
            writer.write(event)
            if isinstance(event, StagePlanned):
                checkpoints.planned(event)
            elif isinstance(event, EpochFinished):
                checkpoints.after(event)
            heart.require_sound()
            ears.obey(event)
    except Stopped as stopped:
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


def _pulse(writer: RunWriter, ears: Ears) -> Callable[[Progress], None]:
    """What a strategy calls in the middle of a long computation."""
    written = time.monotonic()

    def pulse(event: Progress) -> None:
        nonlocal written
        if time.monotonic() - written >= PROGRESS_SECONDS:
            writer.write(event)
            written = time.monotonic()
        ears.obey()

    return pulse


def _reading(writer: RunWriter, ears: Ears) -> Callable[[int, int], None]:
    """What is called while images are read."""
    begun: tuple[float, int] | None = None
    written = -math.inf

    def reading(done: int, of: int) -> None:
        nonlocal begun, written
        now = time.monotonic()
        begun = begun or (now, done)
        if done == of:
            writer.reading(None)
            begun = None  # test images may follow, from files of their own
        elif now - written >= PROGRESS_SECONDS:
            since, before = begun
            left = (of - done) * (now - since) / (done - before) if done > before else None
            writer.reading(Reading(done=done, of=of, left=left))
            written = now
        ears.heed_stop()

    return reading


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; returns its exit status, 2 when there is nothing to work on."""
    parser = argparse.ArgumentParser(prog="python -m merge_core.worker")
    parser.add_argument("run", help="name of a run in NETWELD_HOME")
    parser.add_argument("--after", type=int, default=0, help="ignore commands up to this id")
    chosen = parser.parse_args(arguments)
    store = Store()
    try:
        return run(store, chosen.run, carry_out, after=chosen.after)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        try:
            queue.leave(store, chosen.run)
        except StoreError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
