"""The only training loop: stochastic gradient descent that yields events.

It knows no method and no store. Losses are read in bulk, a few times a second, so that a GPU never
waits for Python.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_core import compiling
from merge_core.data import Split
from merge_core.devices import laid_out, layout_for
from merge_core.errors import DivergedError
from merge_core.events import Arrays, EpochFinished, Progress
from merge_core.precision import outputs_of
from merge_core.recipes import Code, Precision, Training

PROGRESS_SECONDS = 0.25
"""At most one `Progress` in this time."""
_EVALUATION_BATCH = 1024
WARM_UP = 2
"""Epochs in which the learning rate rises from nothing, where it does."""


class Companion(Protocol):
    """What learns beside the weights of a network: the gates."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """More groups for the optimizer; one with `"fixed": True` keeps its learning rate."""
        ...

    def begin(self, course: "Course") -> bool:
        """Called before every epoch, also the first after a resume; False ends the training."""
        ...

    def after_step(self, step: int, steps: int) -> None:
        """Called after every optimizer step; `step` counts from 0."""
        ...

    def observe(self, step: int, steps: int) -> tuple[dict[str, float], Arrays]:
        """Metrics, and P[open] per space, at the end of an epoch."""
        ...


class Alone:
    """The companion of a network that learns alone."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def begin(self, course: "Course") -> bool:
        """Every epoch is trained."""
        return True

    def after_step(self, step: int, steps: int) -> None:
        """Nothing to do."""

    def observe(self, step: int, steps: int) -> tuple[dict[str, float], Arrays]:
        """Nothing to see."""
        return {}, {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage of training.

    Attributes:
        stage: its key; named in events and errors.
        network: what computes the outputs; trained in place, on `train`'s device.
        training: the recipe's settings of the stage; all parameters follow them but those of the
            companion.
        train, heldout: the split that trains and the one that is watched.
        augment: random change of a batch of inputs.
        draws: generator of the order of examples and of augmentation, on the splits' device.
        dropout_seed: with the epoch, seeds torch's global generator while the epoch runs, as
            dropout and stochastic depth can draw from no other.
        companion: what learns beside the network.
        generators: every other generator that the stage draws from, saved with its checkpoints.
        precision: the numbers that the network computes with while it learns.
        code: "compiled" where it learns as compiled code, if it can; see `merge_core.compiling`.
    """

    stage: str
    network: nn.Module
    training: Training
    train: Split
    heldout: Split
    augment: Callable[[Tensor, torch.Generator], Tensor]
    draws: torch.Generator
    dropout_seed: int
    companion: Companion = field(default_factory=Alone)
    generators: tuple[torch.Generator, ...] = ()
    precision: Precision = "float32"
    code: Code = "eager"

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last batch may be smaller, but has two examples."""
        return steps_per_epoch(len(self.train), self.training.batch_size)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps in an epoch; a last batch of one example is left out, for batch norm."""
    full, rest = divmod(examples, batch_size)
    return full + (1 if rest > 1 or full == 0 else 0)


def rate_at(training: Training, step: int, steps: int) -> float:
    """The learning rate at one step of the stage, from 0 to `steps − 1`."""
    if training.rate == "constant":
        return training.learning_rate
    if training.rate in ("steps", "warm-up and steps"):
        epoch = step * training.epochs / steps
        rate = training.learning_rate * 0.1 ** sum(epoch >= m for m in training.milestones)
        if training.rate == "steps":
            return rate
        return rate * min(1.0, (step + 1) * training.epochs / steps / WARM_UP)
    rise = 0.3
    progress = (step + 0.5) / steps
    if progress < rise:
        return training.learning_rate * progress / rise
    return training.learning_rate * (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


def is_classification(split: Split) -> bool:
    """Whether the targets are classes or their probabilities, not numbers to be fitted."""
    return not split.targets.is_floating_point() or split.targets.shape[1] > 1


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy for classes, mean squared error for numbers; a scalar.

    Targets with several columns are probabilities of classes, those with one column numbers.
    """
    if targets.is_floating_point() and targets.shape[1] == 1:
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    split: Split,
    told: Callable[[Tensor, Split], None] = lambda outputs, batch: None,
) -> dict[str, float]:
    """Loss, and for classes accuracy, of the network on a whole split, in eval mode.

    The network's mode is put back afterwards.

    Args:
        network: what is evaluated.
        split: on what.
        told: given what the network answers to each batch, and the batch.
    """
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.device)
    for batch in split.batches(_EVALUATION_BATCH):
        outputs = network(batch.inputs)
        loss += loss_of(outputs, batch.targets).double() * len(batch)
        if is_classification(split):
            hits += (outputs.argmax(1) == batch.targets).sum()
        told(outputs, batch)
    network.train(was_training)
    scores = {"loss": loss.item() / len(split)}
    if is_classification(split):
        scores["accuracy"] = hits.item() / len(split)
    return scores


class Course:
    """One network on its way through a job, step by step.

    `fit` takes a network through it alone; several are taken through theirs in lockstep by
    `merge_core.coupling`. For every epoch `begin`, then `per_epoch` times `backward` and `move`,
    then `end`.

    Attributes:
        job: what is trained, on what, how.
        epoch: epochs done.
        step: steps done.
        per_epoch: steps in an epoch.
        steps: steps in all epochs.
        rate: the learning rate of the step at hand.
        optimizer: moves the weights.
        dropout_seed: the job's, unless its companion gives another one.
        compiles: whether the network learns as compiled code.

    Args:
        job: what is trained, on what, how.
        checkpoint: what `snapshot` of the same job returned; it goes on from there.
        examples: how many are seen in an epoch; all of the job's by default.
        foreign: parameters of the network that somebody else moves.
    """

    def __init__(
        self,
        job: Job,
        checkpoint: Arrays | None = None,
        *,
        examples: int | None = None,
        foreign: Iterable[Tensor] = (),
    ) -> None:
        self.job = job
        training = job.training
        self.per_epoch = steps_per_epoch(examples or len(job.train), training.batch_size)
        self.steps = training.epochs * self.per_epoch
        beside = job.companion.parameter_groups()
        others = {id(parameter) for group in beside for parameter in group["params"]}
        others |= {id(parameter) for parameter in foreign}
        own = [each for each in job.network.parameters() if id(each) not in others]
        self.optimizer = torch.optim.SGD(
            [{"params": own, "weight_decay": training.weight_decay}, *beside],
            lr=training.learning_rate,
            momentum=training.momentum,
        )
        self.epoch = 0 if checkpoint is None else _restore(job, self.optimizer, checkpoint)
        self.step = self.epoch * self.per_epoch
        self.rate = training.learning_rate
        self.dropout_seed = job.dropout_seed
        self._losses: list[Tensor] = []
        self._layout = layout_for(job.network)
        whole = len(job.train) >= training.batch_size
        asked = whole and job.code == "compiled"
        self.compiles = asked and compiling.can_be_compiled(job.network)
        self._whole = compiling.compiled(job.network) if self.compiles else job.network

    def begin(self, order: Tensor | None = None) -> None:
        """An epoch begins.

        Args:
            order: indices of the examples in the order in which they are seen; drawn by default.
        """
        job = self.job
        device = job.train.device
        if order is None:
            order = torch.randperm(len(job.train), generator=job.draws, device=device)
        job.network.train()
        self._batches = iter(order.split(job.training.batch_size)[: self.per_epoch])
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._seen = 0

    def backward(self) -> None:
        """The gradients of the next batch's loss are added to those of all foreign parameters.

        Those of all others begin anew.
        """
        job = self.job
        batch = job.train.part(next(self._batches))
        self.rate = rate_at(job.training, self.step, self.steps)
        for group in self.optimizer.param_groups:
            if not group.get("fixed"):
                group["lr"] = self.rate
        inputs = laid_out(job.augment(batch.inputs, job.draws), self._layout)
        whole = len(batch) == job.training.batch_size
        outputs = outputs_of(self._whole if whole else job.network, inputs, job.precision)
        loss = loss_of(outputs, batch.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._losses.append(loss.detach())
        with torch.no_grad():
            self._loss += self._losses[-1].double() * len(batch)
            if is_classification(job.train):
                targets = batch.targets
                classes = targets.argmax(1) if targets.is_floating_point() else targets
                self._hits += (outputs.argmax(1) == classes).sum()
        self._seen += len(batch)

    def rehearse(self) -> None:
        """Take the first step with a copy of the network, so that its code is compiled."""
        job, network = self.job, copy.deepcopy(self.job.network).train()
        batch = job.train.part(slice(job.training.batch_size))
        changed = job.augment(batch.inputs, torch.Generator(job.train.device))
        with torch.random.fork_rng():
            code = compiling.compiled(network)
            outputs = outputs_of(code, laid_out(changed, self._layout), job.precision)
            loss_of(outputs, batch.targets).backward()

    def move(self) -> None:
        """The weights take the step that the gradients ask for."""
        self.optimizer.step()
        self.step += 1

    def end(self) -> dict[str, float]:
        """The epoch is over: its training metrics.

        Raises:
            DivergedError: a loss was not finite.
        """
        self.refuse_divergence()
        self.epoch += 1
        metrics = {"train_loss": self._loss.item() / self._seen, "learning_rate": self.rate}
        if is_classification(self.job.train):
            metrics["train_accuracy"] = self._hits.item() / self._seen
        return metrics

    def refuse_divergence(self) -> None:
        """Look at the losses since the last look: the only time that they are waited for.

        Raises:
            DivergedError: one is not finite; names the stage and the step.
        """
        if not self._losses:
            return
        values = torch.stack(self._losses)
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            first = int(bad[0])
            step = self.step - len(self._losses) + 1 + first
            raise diverged(self.job.stage, step, float(values[first]))
        self._losses.clear()

    def snapshot(self) -> Arrays:
        """Everything that the network needs to go on after this epoch."""
        return _snapshot(self.job, self.optimizer, self.epoch)


def fit(job: Job, checkpoint: Arrays | None = None) -> Iterator[Progress | EpochFinished]:
    """Train the job's network in place.

    Args:
        job: what to train, on what, how.
        checkpoint: what `EpochFinished.checkpoint()` of the same job returned; training goes on
            after that epoch and ends with the same numbers as if it had never stopped.

    Raises:
        DivergedError: the loss became NaN or infinite; names the stage and the step.
        RecipeError: the network cannot be compiled as the job asks.
    """
    course = Course(job, checkpoint)
    yield from rehearsed([course], job.stage)
    last_progress = time.monotonic()
    while course.epoch < job.training.epochs and job.companion.begin(course):
        course.begin()
        with torch.random.fork_rng():
            torch.manual_seed(course.dropout_seed + course.epoch)
            for _ in range(course.per_epoch):
                course.backward()
                course.move()
                job.companion.after_step(course.step - 1, course.steps)
                if time.monotonic() - last_progress > PROGRESS_SECONDS:
                    course.refuse_divergence()
                    last_progress = time.monotonic()
                    yield Progress(stage=job.stage, step=course.step)
        metrics = course.end()
        metrics |= {f"heldout_{k}": v for k, v in evaluate(job.network, job.heldout).items()}
        if not math.isfinite(metrics["heldout_loss"]):
            raise diverged(job.stage, course.step, metrics["heldout_loss"])
        more, openness = job.companion.observe(course.step, course.steps)
        yield EpochFinished(
            stage=job.stage,
            epoch=course.epoch,
            step=course.step,
            metrics=metrics | more,
            open_probabilities=openness,
            checkpoint=course.snapshot,
        )


def rehearsed(courses: Sequence[Course], stage: str) -> Iterator[Progress]:
    """Compile what learns as compiled code, before the first step of a stage.

    Raises:
        RecipeError: a network cannot be compiled.
    """
    for course in courses:
        if course.compiles:
            for _ in compiling.meanwhile(course.rehearse):
                yield Progress(stage=stage, step=course.step)


def diverged(stage: str, step: int, loss: float) -> DivergedError:
    """The refusal of a loss that is not finite."""
    return DivergedError(
        f"The loss became {loss} in stage {stage!r} at step {step}, but it must stay finite; "
        f"lower the learning rate of that stage and start again."
    )


def _snapshot(job: Job, optimizer: torch.optim.Optimizer, epoch: int) -> Arrays:
    """Everything the stage needs to go on after `epoch`, as arrays."""
    arrays = {f"network.{k}": to_array(v) for k, v in job.network.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        momentum = state.get("momentum_buffer")
        if momentum is not None:
            arrays[f"momentum.{i}"] = to_array(momentum)
    for i, draws in enumerate((job.draws, *job.generators)):
        arrays[f"generator.{i}"] = draws.get_state().numpy().copy()
    arrays["epoch"] = np.array(epoch)
    return arrays


def _restore(job: Job, optimizer: torch.optim.Optimizer, arrays: Arrays) -> int:
    """Put a snapshot back; the epoch after which it was taken."""
    prefix = "network."
    load_arrays(
        job.network,
        {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)},
    )
    state = optimizer.state_dict()
    state["state"] = {
        int(k.removeprefix("momentum.")): {"momentum_buffer": torch.from_numpy(v.copy())}
        for k, v in arrays.items()
        if k.startswith("momentum.")
    }
    optimizer.load_state_dict(state)
    for i, draws in enumerate((job.draws, *job.generators)):
        draws.set_state(torch.from_numpy(arrays[f"generator.{i}"].copy()))
    return int(arrays["epoch"])


def to_array(tensor: Tensor) -> np.ndarray:
    """A copy of the tensor's values as a NumPy array on the CPU."""
    return tensor.detach().cpu().numpy().copy()


def state_arrays(network: nn.Module) -> Arrays:
    """A network's parameters and buffers as arrays, by their names."""
    return {key: to_array(tensor) for key, tensor in network.state_dict().items()}


Network = TypeVar("Network", bound=nn.Module)


def load_arrays(network: Network, arrays: Arrays) -> Network:
    """Put a state from `state_arrays` into the network; the same network."""
    network.load_state_dict({key: torch.from_numpy(a.copy()) for key, a in arrays.items()})
    return network
