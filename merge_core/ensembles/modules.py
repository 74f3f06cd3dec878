"""Networks of any class, many in one batched step, through `torch.func`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from merge_core.channels import scales_of
from merge_core.precision import settled
from merge_core.training import Alone, Job, loss_of


def fits(job: Job) -> bool:
    """Whether a job can be trained here: nothing draws or learns beside its network's weights.

    Nor in bfloat16, as the transforms of `torch.func` do not know what autocast has cast, nor as
    compiled code, which is that of one network.
    """
    drops = any(
        isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        for module in job.network.modules()
    )
    alone = scales_of(job.network) is None and isinstance(job.companion, Alone)
    usual = settled(job.precision, job.train.device.type) == "float32" and job.code == "eager"
    return not drops and alone and usual


class Modules:
    """Networks of one class and shape that take their steps together.

    Args:
        jobs: each with a network for which `fits`.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        networks = [job.network.train() for job in jobs]
        self.network = networks[0]
        parameters, self.buffers = stack_module_state(networks)
        self.parameters = {name: each.detach() for name, each in parameters.items()}
        self.momentum = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        self.inertia = [job.training.momentum for job in jobs]
        self.decay = [job.training.weight_decay for job in jobs]
        self.orders: Sequence[Tensor] = ()
        self.total = torch.zeros(len(jobs), dtype=torch.float64)
        self.gradients = vmap(grad_and_value(self._loss, has_aux=True), randomness="error")

    def _loss(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one network, and its buffers after the pass (norm statistics move)."""
        moved = {name: buffer.clone() for name, buffer in buffers.items()}
        outputs = functional_call(self.network, (parameters, moved), (inputs,))
        return loss_of(outputs, targets), moved

    def begin_epoch(self, orders: Sequence[Tensor]) -> None:
        """Take the examples in these orders, one for each network."""
        self.orders = orders
        self.total = torch.zeros(len(orders), dtype=torch.float64, device=orders[0].device)

    def step(self, batch: slice, step: int, rates: Tensor) -> None:
        """One step of every network on a part of its order, at its rate `(networks, 1)`."""
        chosen = [
            (job, job.train.part(order[batch]))
            for job, order in zip(self.jobs, self.orders, strict=True)
        ]
        inputs = torch.stack([job.augment(mine.inputs, job.draws) for job, mine in chosen])
        targets = torch.stack([mine.targets for _, mine in chosen])
        gradients, (losses, self.buffers) = self.gradients(
            self.parameters, self.buffers, inputs, targets
        )
        self.total += losses.double() * inputs.shape[1]
        for name, weights in self.parameters.items():
            gradient, momentum = gradients[name], self.momentum[name]
            momentum.mul_(self._each(self.inertia, weights)).add_(gradient)
            momentum.addcmul_(weights, self._each(self.decay, weights))
            weights.addcmul_(momentum, self._shaped(rates, weights), value=-1)

    def _each(self, values: Sequence[float], like: Tensor) -> Tensor:
        return self._shaped(torch.tensor(values, dtype=like.dtype, device=like.device), like)

    def _shaped(self, values: Tensor, like: Tensor) -> Tensor:
        """One number for each network, to be multiplied with its weights."""
        return values.view(-1, *[1] * (like.dim() - 1))

    def losses(self, examples: int) -> Tensor:
        """Mean loss of every network over the epoch, of so many examples; `(networks,)`."""
        return self.total / examples

    def write_back(self) -> None:
        """Give every network what it has learned."""
        for number, job in enumerate(self.jobs):
            state = {**self.parameters, **self.buffers}
            job.network.load_state_dict({name: each[number] for name, each in state.items()})
