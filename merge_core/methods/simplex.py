"""Weights of an average, learned by gradient descent while the averaged networks stay frozen."""

import copy
import inspect
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from merge_core.channels import flops
from merge_core.devices import derived_seed
from merge_core.events import Event
from merge_core.methods.base import STEP_COST, Merged, Setting, as_progress
from merge_core.training import Job, fit

_RATE = 1.0
"""Learning rate of the logits: a step of a few weights, not of a network."""

_BIAS = 1e-3
"""Unit of the bias, so that one learning rate suits it and the logits."""


class _DifferentiableNorms(TorchFunctionMode):
    """Batch norms in eval mode with a gradient for their statistics, which torch's own lack."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not batch_norm:
            return func(*args, **kwargs)
        given = inspect.signature(func).bind(*args, **kwargs)
        given.apply_defaults()
        x, mean, variance, weight, bias, training, _, eps = given.args
        if training or mean is None:
            return func(*args, **kwargs)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * scale.view(shape) + shift.view(shape)


class AveragedNetwork(nn.Module):
    """Computes with the weighted average of frozen networks, always in eval mode.

    Args:
        teachers: of one class and one shape; not copied, not changed.
        groups: which weights (a row of the logits) each parameter and buffer is averaged with.
        bias: whether one learned number is added to every averaged parameter.
    """

    def __init__(
        self, teachers: Sequence[nn.Module], groups: Mapping[str, int], *, bias: bool
    ) -> None:
        super().__init__()
        states = [teacher.state_dict() for teacher in teachers]
        first = next(iter(teachers[0].parameters()))
        self.logits = nn.Parameter(
            torch.zeros(max(groups.values()) + 1, len(teachers), device=first.device)
        )
        self.shift = nn.Parameter(torch.zeros((), device=first.device)) if bias else None
        self._groups = dict(groups)
        self._numbers = {name: torch.stack([state[name] for state in states]) for name in groups}
        self._moved = {name for name, _ in teachers[0].named_parameters()}
        self._computes = (copy.deepcopy(teachers[0]).eval(),)  # no child: it does not learn

    def average(self) -> dict[str, Tensor]:
        """Every parameter and buffer of the averaged network."""
        weights = torch.softmax(self.logits, 1)
        averaged = {}
        for name, numbers in self._numbers.items():
            if numbers.is_floating_point():
                row = weights[self._groups[name]].to(numbers)
                averaged[name] = torch.tensordot(row, numbers, 1)
                if self.shift is not None and name in self._moved:
                    averaged[name] = averaged[name] + _BIAS * self.shift
            else:
                averaged[name] = numbers.amax(0)
        return averaged

    def bias(self) -> Tensor:
        """The number that is added to every averaged parameter; a scalar."""
        return torch.zeros(()) if self.shift is None else _BIAS * self.shift.detach()

    def forward(self, x: Tensor) -> Tensor:
        """What the averaged network computes."""
        with _DifferentiableNorms():
            return functional_call(self._computes[0], self.average(), (x,))

    def finished(self) -> nn.Module:
        """The averaged network as a plain one."""
        network = copy.deepcopy(self._computes[0])
        network.load_state_dict({name: each.detach() for name, each in self.average().items()})
        return network


def learn(
    teachers: Sequence[nn.Module],
    groups: Mapping[str, int],
    setting: Setting,
    stage: str,
    *,
    bias: bool = False,
) -> Generator[Event, None, tuple[AveragedNetwork, Merged]]:
    """Learn the weights on the training split, for the epochs and with the batches of `gating`.

    The networks run as they will be used, in eval mode, so the loss that falls is that of the
    averaged network without any repair. `learned` of the result is left to the method.
    """
    averaged = AveragedNetwork(teachers, groups, bias=bias)
    training = replace(setting.recipe.gating, learning_rate=_RATE, weight_decay=0.0)
    job = Job(
        stage=stage,
        network=averaged,
        training=training,
        train=setting.data.train,
        heldout=setting.data.heldout,
        augment=setting.augment,
        draws=setting.draws(f"train/{stage}"),
        dropout_seed=derived_seed(setting.recipe.seed, f"dropout/{stage}"),
    )
    yield from as_progress(_events(job), stage)
    forward = sum(flops(teachers[0], setting.example).values())
    examples = training.epochs * len(setting.data.train)
    merged = Merged(network=averaged.finished(), training_flops=STEP_COST * examples * forward)
    return averaged, merged


def _events(job: Job) -> Generator[Event, None, None]:
    yield from fit(job)
