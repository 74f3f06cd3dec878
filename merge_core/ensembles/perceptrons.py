"""Networks with one hidden layer of ReLUs and one output, many in one batched step, by hand.

A hidden unit that is on is linear in the inputs, so everything goes through its mask M: 1 where the
unit is on and 0 where not, times its gate where there are gates, `(batch, hidden)`. With x the
inputs with a last one for the biases, W the first layer and v the output layer,

    outputs   = Σ over inputs of x ∘ ((W ∘ v) Mᵀ) + bias
    S         = (x ∘ residuals) M
    gradients = S ∘ v for W,  Σ over inputs of S ∘ W for v.

So a step makes four passes over tensors of `(networks, batch, hidden)`, where autograd makes about
twenty, and none of its matrix products has a slow shape.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.channels import scales_of
from merge_core.ensembles.noise import SLOPE, alike, fill_uniform, gates_
from merge_core.gates import Gates, Pull, open_probability, pull_to_half
from merge_core.methods.learned_gates import GateLearning
from merge_core.models.small import SineMLP
from merge_core.schedules import Closing, Schedule
from merge_core.training import Job

_CACHE = 1_300_000
"""Bytes of the large tensors of a step. On a processor they should stay in the second-level cache;
with more networks at once a step takes longer per network."""


def fits(job: Job) -> bool:
    """Whether a job can be trained here."""
    probe = job.train.inputs[:1]
    return (
        type(job.network) is SineMLP
        and job.network.output.out_features == 1
        and job.train.targets.is_floating_point()
        and job.precision == "float32"
        and job.code == "eager"
        and job.augment(probe, torch.Generator(probe.device)) is probe
    )


def at_once(job: Job) -> int:
    """How many networks like the job's to train at once."""
    network: Any = job.network
    tensors = 1 if scales_of(network) is None else 3
    each = 4 * tensors * job.training.batch_size * network.hidden.out_features
    return max(1, _CACHE // each)


def _row(job: Job) -> Tensor:
    """All that a network learns, in a row: first layer, its biases, output, its bias, logits."""
    network: Any = job.network
    gates = scales_of(network)
    parts = [network.hidden.weight.T, network.hidden.bias]
    parts += [network.output.weight, network.output.bias]
    parts += gates.spaces().values() if gates is not None else []
    return torch.cat([part.detach().flatten() for part in parts])


class Perceptrons:
    """Networks of one width that take their steps together.

    Args:
        jobs: each with a network for which `fits`; either all with gates or none.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.rows = torch.stack([_row(job) for job in jobs])
        self.momentum = torch.zeros_like(self.rows)
        self.gradient = torch.zeros_like(self.rows)
        first: Any = jobs[0].network
        self.hidden, features = first.hidden.weight.shape
        self.sizes = [(features + 1) * self.hidden, self.hidden, 1]
        self.weights = sum(self.sizes)  # what follows in a row are logits
        self.first, self.output, self.bias, self.logits = self._views(self.rows)
        self.d_first, self.d_output, self.d_bias, self.d_logits = self._views(self.gradient)
        self.large: dict[int, Tensor] = {}
        self.inertia = self.each([job.training.momentum for job in jobs])
        self.decay = self.each([job.training.weight_decay for job in jobs])
        self.decays = bool(self.decay.any())
        self.gates = _GateStage(self) if self.rows.shape[1] > self.weights else None
        self.inputs, self.targets, self.residuals = (torch.empty(0) for _ in range(3))

    def _views(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first, output, bias, logits = rows.split([*self.sizes, rows.shape[1] - sum(self.sizes)], 1)
        return first.view(len(rows), -1, self.hidden), output, bias, logits

    def each(self, values: Sequence[float]) -> Tensor:
        """One number for each network, `(networks, 1)`."""
        return torch.tensor(values, dtype=self.rows.dtype, device=self.rows.device).unsqueeze(1)

    def begin_epoch(self, orders: Sequence[Tensor]) -> None:
        """Lay the examples out in the order of the epoch's batches."""
        chosen = list(zip(self.jobs, orders, strict=True))
        inputs = torch.stack([job.train.inputs[order].T for job, order in chosen])
        self.inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        self.targets = torch.stack([job.train.targets[order].squeeze(1) for job, order in chosen])
        self.residuals = torch.empty_like(self.targets)

    def step(self, batch: slice, step: int, rates: Tensor) -> None:
        """One step of every network.

        Args:
            batch: which examples of the epoch.
            step: its number in the stage.
            rates: learning rates, `(networks, 1)`.
        """
        x, residual = self.inputs[:, :, batch], self.residuals[:, batch]
        n, size = residual.shape
        if size not in self.large:
            self.large[size] = x.new_empty(n, size, self.hidden)
        mask = torch.bmm(x.transpose(1, 2), self.first, out=self.large[size])
        if self.gates is None:
            mask.gt_(0)
        else:
            self.gates.forward_(mask)
        lines = torch.bmm(self.first * self.output.unsqueeze(1), mask.transpose(1, 2))
        torch.sum(lines.mul_(x), 1, out=residual)
        residual.add_(self.bias).sub_(self.targets[:, batch])
        weighted = x * residual.unsqueeze(1)
        shared = torch.bmm(weighted, mask)
        torch.mul(shared, self.output.unsqueeze(1), out=self.d_first)
        torch.sum(shared.mul_(self.first), 1, out=self.d_output)
        torch.sum(residual, 1, keepdim=True, out=self.d_bias)
        if self.gates is not None:
            self.gates.backward(weighted)
        self._descend(2 / size, rates)
        if self.gates is not None:
            self.gates.pull(step)

    def _descend(self, scale: float, rates: Tensor) -> None:
        """A step down the gradient, which is of half the sum of squares, times `scale`."""
        weights, logits = slice(None, self.weights), slice(self.weights, None)
        self.momentum.mul_(self.inertia).add_(self.gradient, alpha=scale)
        if self.decays:
            self.momentum[:, weights].addcmul_(self.rows[:, weights], self.decay)
        self.rows[:, weights].addcmul_(self.momentum[:, weights], rates, value=-1)
        if self.gates is not None:
            self.rows[:, logits].addcmul_(self.momentum[:, logits], self.gates.rates, value=-1)

    def losses(self, examples: int) -> Tensor:
        """Mean loss of every network over the first examples of the epoch, `(networks,)`."""
        return self.residuals[:, :examples].double().square().mean(1)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every network what it has learned."""
        for job, first, output, bias, logits in zip(
            self.jobs, self.first, self.output, self.bias, self.logits, strict=True
        ):
            network: Any = job.network
            network.hidden.weight.copy_(first[:-1].T)
            network.hidden.bias.copy_(first[-1])
            network.output.weight.copy_(output.unsqueeze(0))
            network.output.bias.copy_(bias)
            gates = scales_of(network)
            if gates is not None:
                next(iter(gates.spaces().values())).copy_(logits)
        if self.gates is not None:
            self.gates.write_back()


class _GateStage:
    """The gates of all networks in a step: their noise, their gradient, the pull to half."""

    def __init__(self, stack: Perceptrons) -> None:
        self.stack = stack
        learning = [each for job in stack.jobs if isinstance(each := job.companion, GateLearning)]
        gates = [each for job in stack.jobs if isinstance(each := scales_of(job.network), Gates)]
        assert len(learning) == len(gates) == len(stack.jobs), (
            "gates are learned, or there are none"
        )
        settings = [each.settings for each in learning]
        self.steps = stack.jobs[0].training.epochs * stack.jobs[0].steps_per_epoch
        self.rates = stack.each([each.learning_rate for each in settings])
        self.pulls = stack.each([each.pull for each in settings])
        curves: dict[Schedule, np.ndarray] = {}
        self.controlled: list[tuple[int, Closing]] = []
        for number, each in enumerate(settings):
            if isinstance(each.schedule, Closing):
                self.controlled.append((number, each.schedule))
                curves[each.schedule] = np.full(self.steps, np.nan)  # known only step by step
            elif each.schedule not in curves:
                curves[each.schedule] = each.schedule.over(self.steps)
        weights = np.stack([curves[each.schedule] for each in settings], 1)
        self.schedule = torch.from_numpy(weights).to(stack.rows)
        self.draws = [each.draws for each in gates]
        self.alike = alike(self.draws)
        self.large: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.slopes = stack.rows

    def forward_(self, hidden: Tensor) -> None:
        """Turn what the first layer gives into the mask: fresh gates where it is above 0."""
        size = hidden.shape[1]
        if size not in self.large:
            gates, slopes = torch.empty_like(hidden), torch.empty_like(hidden)
            self.large[size] = (gates, slopes, torch.empty_like(gates[:1]) if self.alike else gates)
        gates, self.slopes, noise = self.large[size]
        fill_uniform(noise, self.draws[: len(noise)])
        gates_(noise, self.slopes, self.stack.logits, gates)
        self.slopes.mul_(hidden.relu_())
        hidden.sign_().mul_(gates)

    def backward(self, weighted: Tensor) -> None:
        """The logits' gradient, from inputs ∘ residuals, `(networks, inputs, batch)`.

        The last input is 1. A product with all of them is many times as fast as with that alone.
        """
        along = torch.bmm(weighted, self.slopes)[:, -1]
        torch.mul(along, self.stack.output, out=self.stack.d_logits).mul_(SLOPE)

    def pull(self, step: int) -> None:
        """The penalty, after the step."""
        weight = self.schedule[step]
        if self.controlled:
            means = open_probability(self.stack.logits).mean(1)
            for number, schedule in self.controlled:
                weight[number] = schedule.weight(step / self.steps, means[number])
        weight = weight.unsqueeze(1)
        pull = Pull.at(weight, self.pulls, step, self.steps)
        self.stack.logits.copy_(pull_to_half(self.stack.logits, pull))

    def write_back(self) -> None:
        """Leave every network's generator as it would be alone."""
        if self.alike:
            for each in self.draws[1:]:
                each.set_state(self.draws[0].get_state())
