"""Several networks trained side by side, one step of each at a time."""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from merge_core.events import Arrays, EpochFinished, Progress
from merge_core.training import PROGRESS_SECONDS, Course, diverged, rehearsed


class Tie(Protocol):
    """What holds the networks together.

    Attributes:
        generators: those that the tie draws from, saved with the checkpoints.
    """

    generators: tuple[torch.Generator, ...]

    def orders(self) -> Sequence[Tensor | None]:
        """For an epoch that begins: which examples each network sees, in order; None draws all."""
        ...

    def before_move(self, step: int, steps: int) -> None:
        """All gradients of a step are there, and no weight has moved; `step` counts from 0."""
        ...

    def after_move(self, step: int, steps: int) -> None:
        """All networks have taken the step."""
        ...

    def observe(self) -> dict[str, float]:
        """Metrics at the end of an epoch, the held-out ones among them."""
        ...


def in_lockstep(
    stage: str, courses: Sequence[Course], tie: Tie, checkpoint: Arrays | None
) -> Iterator[Progress | EpochFinished]:
    """Train all networks in place; the first one's steps are those of the stage.

    Dropout draws, for each network, what it would draw if it were trained alone by `fit`.

    Args:
        stage: its key.
        courses: of the networks, with as many epochs and steps each.
        tie: what happens between their steps.
        checkpoint: what `EpochFinished.checkpoint()` returned here; the courses have been made
            with their `parts` of it.

    Raises:
        DivergedError: a loss became NaN or infinite.
        RecipeError: a network cannot be compiled as its job asks.
    """
    if checkpoint is not None:
        for number, draws in enumerate(tie.generators):
            draws.set_state(torch.from_numpy(checkpoint[f"tie.{number}"].copy()))
    first = courses[0]
    assert len({(course.epoch, course.steps) for course in courses}) == 1
    yield from rehearsed(courses, stage)
    streams = [_Stream(course) for course in courses]
    last_progress = time.monotonic()
    while first.epoch < first.job.training.epochs:
        for course, stream, order in zip(courses, streams, tie.orders(), strict=True):
            course.begin(order)
            stream.begin()
        for _ in range(first.per_epoch):
            for course, stream in zip(courses, streams, strict=True):
                with stream.drawing():
                    course.backward()
            tie.before_move(first.step, first.steps)
            for course in courses:
                course.move()
            tie.after_move(first.step - 1, first.steps)
            if time.monotonic() - last_progress > PROGRESS_SECONDS:
                for course in courses:
                    course.refuse_divergence()
                last_progress = time.monotonic()
                yield Progress(stage=stage, step=first.step)
        metrics = _mean([course.end() for course in courses]) | tie.observe()
        if not math.isfinite(metrics["heldout_loss"]):
            raise diverged(stage, first.step, metrics["heldout_loss"])
        yield EpochFinished(
            stage=stage,
            epoch=first.epoch,
            step=first.step,
            metrics=metrics,
            checkpoint=lambda: _snapshot(courses, tie),
        )


def parts(checkpoint: Arrays | None, count: int) -> list[Arrays | None]:
    """What each of so many courses needs of a checkpoint."""
    if checkpoint is None:
        return [None] * count
    return [within(checkpoint, f"{number}|") for number in range(count)]


def within(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, under the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _snapshot(courses: Sequence[Course], tie: Tie) -> Arrays:
    arrays = {
        f"{number}|{name}": array
        for number, course in enumerate(courses)
        for name, array in course.snapshot().items()
    }
    arrays |= {f"tie.{i}": draws.get_state().numpy() for i, draws in enumerate(tie.generators)}
    return {**arrays, "epoch": np.array(courses[0].epoch)}


class _Stream:
    """One network's own place in the stream of torch's global generator."""

    def __init__(self, course: Course) -> None:
        self._course = course
        device = course.job.train.device
        self._source = torch if device.type == "cpu" else torch.get_device_module(device)
        self._state = torch.empty(0)

    def begin(self) -> None:
        """An epoch begins."""
        with torch.random.fork_rng():
            torch.manual_seed(self._course.job.dropout_seed + self._course.epoch)
            self._state = self._source.get_rng_state()

    @contextmanager
    def drawing(self) -> Generator[None, None, None]:
        """What is drawn inside comes from this network's stream."""
        before = self._source.get_rng_state()
        self._source.set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = self._source.get_rng_state()
            self._source.set_rng_state(before)


def _mean(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}
