"""The training loop of many networks at once: what `training.fit` does for each, in fewer steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from merge_core.ensembles import modules, perceptrons
from merge_core.errors import DivergedError, RecipeError
from merge_core.events import EpochFinished
from merge_core.training import Job, fit, rate_at

_AT_ONCE_ON_A_DEVICE = 512


@dataclass(frozen=True)
class EpochOfMany:
    """An epoch of some of the networks is over.

    Attributes:
        networks: the numbers of their jobs.
        epoch: how many epochs they have behind them.
        losses: the mean training loss of each in that epoch, `(networks,)` float64.
        write_back: gives the jobs' networks what they have learned so far, for whoever wants to
            look at them before the training is over.
    """

    networks: range
    epoch: int
    losses: Tensor
    write_back: Callable[[], None] = lambda: None


class Stack(Protocol):
    """Networks that take their steps together."""

    def begin_epoch(self, orders: Sequence[Tensor]) -> None:
        """Take the examples in these orders, one for each network."""
        ...

    def step(self, batch: slice, step: int, rates: Tensor) -> None:
        """One step of every network on a part of its order, at its rate `(networks, 1)`."""
        ...

    def losses(self, examples: int) -> Tensor:
        """Mean loss of every network over the epoch, of so many examples; `(networks,)`."""
        ...

    def write_back(self) -> None:
        """Give every network what it has learned."""
        ...


def fit_together(jobs: Sequence[Job], at_once: int | None = None) -> Iterator[EpochOfMany]:
    """Train the networks of all jobs in place, many as one batched network.

    Afterwards every network is what `training.fit` would have made of it, to rounding: each job
    draws from its own generators, in the same order. Held-out scores are not watched.

    Args:
        jobs: one stage of many runs. Networks of one class and shape; as many examples, epochs and
            batches each; data, seeds, learning rates, decay, gates and λ schedules of their own.
            Perceptrons with one hidden layer (`SineMLP`), gated or not, take steps written by hand;
            other networks go through `torch.func`, but those with gates or dropout, which draw
            for one network at a time, and all in bfloat16 or as compiled code train one after the
            other. So do all others on a processor.
        at_once: how many networks take their steps together; by default as many as are fastest.

    Raises:
        RecipeError: the jobs differ where they must not.
        DivergedError: a loss became NaN or infinite; names the stage, the job and the epoch.
    """
    if not jobs:
        return
    _refuse_different(jobs)
    make: Callable[[Sequence[Job]], Stack]
    at_once = at_once or group_size(jobs[0])
    if all(perceptrons.fits(job) for job in jobs):
        make = perceptrons.Perceptrons
    elif at_once > 1 and all(modules.fits(job) for job in jobs):
        make = modules.Modules
    else:
        yield from _one_by_one(jobs)
        return
    for start in range(0, len(jobs), at_once):
        some = jobs[start : start + at_once]
        stack = make(some)
        for epoch, losses in _epochs(some, stack):
            if not bool(torch.isfinite(losses).all()):
                number = int((~torch.isfinite(losses)).nonzero()[0])
                raise DivergedError(
                    f"The loss became {losses[number].item()} in stage {some[0].stage!r} of network"
                    f" {start + number} in epoch {epoch}, but it must stay finite; lower the "
                    f"learning rate of that stage and start again."
                )
            numbers = range(start, start + len(some))
            yield EpochOfMany(numbers, epoch, losses, stack.write_back)
        stack.write_back()


def group_size(job: Job) -> int:
    """How many networks like the job's take their steps together where that is fastest.

    On a processor the grouped convolutions of a stack gain nothing: one after the other,
    `patch-cnn` learns 1.6 times as fast as five at once, LeNet and `digits-cnn` as fast as five and
    eight, and at double width all three 1.1 to 1.3 times as fast. Nor is it worth while for the
    schedules of a λ lab, which see the same examples: eight big students of `digits-cnn` learn 0.88
    times as fast batched, gates left out, in one thread, and 1.1 times in two, while the lab has
    one process on each core (batches of 64, medians of 25 turns, two busy cores).
    """
    hand_written = perceptrons.fits(job)
    if job.train.device.type == "cpu":
        return perceptrons.at_once(job) if hand_written else 1
    return _AT_ONCE_ON_A_DEVICE if hand_written or modules.fits(job) else 1


def _refuse_different(jobs: Sequence[Job]) -> None:
    """RecipeError unless one loop fits all jobs."""
    for what, kinds in {
        "classes of networks": {type(job.network) for job in jobs},
        "shapes of networks": {
            tuple((name, p.shape) for name, p in job.network.named_parameters()) for job in jobs
        },
        "numbers of epochs": {job.training.epochs for job in jobs},
        "batch sizes": {job.training.batch_size for job in jobs},
        "numbers of examples": {len(job.train) for job in jobs},
    }.items():
        if len(kinds) > 1:
            raise RecipeError(
                f"Networks that train together got {len(kinds)} {what}, but one is expected; "
                f"train each kind by itself."
            )


def _one_by_one(jobs: Sequence[Job]) -> Iterator[EpochOfMany]:
    """The same by `training.fit`, which looks at one held-out example where nobody asks for all."""
    for number, job in enumerate(jobs):
        for event in fit(replace(job, heldout=job.heldout.part(slice(1)))):
            if isinstance(event, EpochFinished):
                loss = torch.tensor([event.metrics["train_loss"]], dtype=torch.float64)
                yield EpochOfMany(range(number, number + 1), event.epoch, loss)


def _epochs(jobs: Sequence[Job], stack: Stack) -> Iterator[tuple[int, Tensor]]:
    """Train; after each epoch its number and the mean loss of every network."""
    first = jobs[0]
    per_epoch, size, count = first.steps_per_epoch, first.training.batch_size, len(first.train)
    steps = first.training.epochs * per_epoch
    device = first.train.device
    trainings = list(dict.fromkeys(job.training for job in jobs))
    whose = [trainings.index(job.training) for job in jobs]
    rates, known = torch.empty(0), []
    for epoch in range(first.training.epochs):
        stack.begin_epoch(
            [torch.randperm(count, generator=job.draws, device=device) for job in jobs]
        )
        for index in range(per_epoch):
            step = epoch * per_epoch + index
            now = [rate_at(training, step, steps) for training in trainings]
            if now != known:
                known = now
                rates = torch.tensor([now[i] for i in whose], device=device).unsqueeze(1)
            stack.step(slice(index * size, min((index + 1) * size, count)), step, rates)
        yield epoch + 1, stack.losses(min(per_epoch * size, count))
