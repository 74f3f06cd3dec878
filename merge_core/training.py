"""The only training loop: stochastic gradient descent that yields events.

It knows no method and no store. Losses are read in bulk, a few times a second, so that a GPU never
waits for Python.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_core.data import Split
from merge_core.errors import DivergedError
from merge_core.events import Arrays, EpochFinished, Progress
from merge_core.recipes import Training

_PROGRESS_SECONDS = 0.25
_EVALUATION_BATCH = 1024


class Companion(Protocol):
    """What learns beside the weights of a network: the gates."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """More groups for the optimizer; one with `"fixed": True` keeps its learning rate."""
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
    if training.rate == "steps":
        epoch = step * training.epochs / steps
        return training.learning_rate * 0.1 ** sum(epoch >= m for m in training.milestones)
    rise = 0.3
    progress = (step + 0.5) / steps
    if progress < rise:
        return training.learning_rate * progress / rise
    return training.learning_rate * (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2


def is_classification(split: Split) -> bool:
    """Whether the targets are classes; otherwise they are numbers to be fitted."""
    return not split.targets.is_floating_point()


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy for classes, mean squared error for numbers; a scalar."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets)


@torch.no_grad()
def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Loss, and for classes accuracy, of the network on a whole split, in eval mode.

    The network's mode is put back afterwards.
    """
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.inputs.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.inputs.device)
    for inputs, targets in zip(
        split.inputs.split(_EVALUATION_BATCH), split.targets.split(_EVALUATION_BATCH), strict=True
    ):
        outputs = network(inputs)
        loss += loss_of(outputs, targets).double() * len(inputs)
        if is_classification(split):
            hits += (outputs.argmax(1) == targets).sum()
    network.train(was_training)
    scores = {"loss": loss.item() / len(split)}
    if is_classification(split):
        scores["accuracy"] = hits.item() / len(split)
    return scores


def fit(job: Job, checkpoint: Arrays | None = None) -> Iterator[Progress | EpochFinished]:
    """Train the job's network in place.

    Args:
        job: what to train, on what, how.
        checkpoint: what `EpochFinished.checkpoint()` of the same job returned; training goes on
            after that epoch and ends with the same numbers as if it had never stopped.

    Raises:
        DivergedError: the loss became NaN or infinite; names the stage and the step.
    """
    training, network = job.training, job.network
    per_epoch = job.steps_per_epoch
    steps = training.epochs * per_epoch
    beside = job.companion.parameter_groups()
    its = {id(parameter) for group in beside for parameter in group["params"]}
    own = [parameter for parameter in network.parameters() if id(parameter) not in its]
    optimizer = torch.optim.SGD(
        [{"params": own, "weight_decay": training.weight_decay}, *beside],
        lr=training.learning_rate,
        momentum=training.momentum,
    )
    first_epoch = 0
    if checkpoint is not None:
        first_epoch = _restore(job, optimizer, checkpoint)
    losses: list[Tensor] = []
    last_progress = time.monotonic()
    for epoch in range(first_epoch, training.epochs):
        network.train()
        order = torch.randperm(len(job.train), generator=job.draws, device=job.train.inputs.device)
        epoch_loss = torch.zeros((), dtype=torch.float64, device=order.device)
        hits = torch.zeros((), dtype=torch.int64, device=order.device)
        seen = 0
        rate = training.learning_rate
        with torch.random.fork_rng():
            torch.manual_seed(job.dropout_seed + epoch)
            for index, batch in enumerate(order.split(training.batch_size)[:per_epoch]):
                step = epoch * per_epoch + index
                rate = rate_at(training, step, steps)
                for group in optimizer.param_groups:
                    if not group.get("fixed"):
                        group["lr"] = rate
                inputs = job.augment(job.train.inputs[batch], job.draws)
                targets = job.train.targets[batch]
                outputs = network(inputs)
                loss = loss_of(outputs, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                job.companion.after_step(step, steps)
                losses.append(loss.detach())
                with torch.no_grad():
                    epoch_loss += losses[-1].double() * len(batch)
                    if is_classification(job.train):
                        hits += (outputs.argmax(1) == targets).sum()
                seen += len(batch)
                if time.monotonic() - last_progress > _PROGRESS_SECONDS:
                    _refuse_divergence(job.stage, step, losses)
                    losses.clear()
                    last_progress = time.monotonic()
                    yield Progress(stage=job.stage, step=step + 1)
        step = (epoch + 1) * per_epoch
        _refuse_divergence(job.stage, step - 1, losses)
        losses.clear()
        metrics = {"train_loss": epoch_loss.item() / seen, "learning_rate": rate}
        if is_classification(job.train):
            metrics["train_accuracy"] = hits.item() / seen
        metrics |= {f"heldout_{k}": v for k, v in evaluate(network, job.heldout).items()}
        if not math.isfinite(metrics["heldout_loss"]):
            raise _diverged(job.stage, step, metrics["heldout_loss"])
        more, openness = job.companion.observe(step, steps)
        yield EpochFinished(
            stage=job.stage,
            epoch=epoch + 1,
            step=step,
            metrics=metrics | more,
            open_probabilities=openness,
            checkpoint=lambda epoch=epoch: _snapshot(job, optimizer, epoch + 1),
        )


def _refuse_divergence(stage: str, last_step: int, losses: list[Tensor]) -> None:
    if not losses:
        return
    values = torch.stack(losses)
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        first = int(bad[0])
        step = last_step - len(losses) + 1 + first
        raise _diverged(stage, step + 1, float(values[first]))


def _diverged(stage: str, step: int, loss: float) -> DivergedError:
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
