"""What a student should give: numbers in closed form, classes as teachers see mixed examples."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merge_core.data import Split

_BATCH = 1000


@torch.no_grad()
def output_fitted(network: nn.Module, split: Split, ridge: float) -> nn.Module:
    """A copy of a network for numbers whose output layer fits the targets best, in eval mode.

    Weights and bias of the last linear layer are the ridge regression of the targets on what it
    reads; the rest of the network stays.

    Args:
        network: gives `(n, targets)`; its last layer is linear and has a bias.
        split: the examples with their targets.
        ridge: of the mean variance of what the layer reads; keeps weights small.
    """
    fitted = copy.deepcopy(network).eval()
    layer, features = _read_last(fitted, split.inputs)
    features, targets = features.double(), split.targets.double()
    centre, middle = features.mean(0), targets.mean(0)
    features = features - centre
    inner = features.T @ features
    inner.diagonal().add_((ridge * inner.diagonal().mean()).clamp(min=1e-30))
    weight = torch.linalg.solve(inner, features.T @ (targets - middle)).T
    layer.weight.copy_(weight)
    layer.bias.copy_(middle - weight @ centre)
    return fitted


def _read_last(network: nn.Module, inputs: Tensor) -> tuple[nn.Linear, Tensor]:
    """The last linear layer that a network executes, and what it reads; `(examples, features)`."""
    seen: dict[nn.Linear, list[Tensor]] = {}
    order: list[nn.Linear] = []

    def note(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        seen.setdefault(layer, []).append(arguments[0])
        order.append(layer)

    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        for batch in inputs.split(_BATCH):
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    last = order[-1]
    return last, torch.cat(seen[last])


@dataclass(frozen=True)
class Mixed(Split):
    """Pairs of examples, mixed where they are looked at: whatever their number, they need no room.

    Attributes:
        of: the split whose examples are mixed.
        pairs: the numbers of its two examples, `(n, 2)` int64.
        share: of the first of them, `(n,)` in 0 to 1.
    """

    of: Split = field(kw_only=True)
    pairs: Tensor = field(kw_only=True)
    share: Tensor = field(kw_only=True)

    @property
    def inputs(self) -> Tensor:
        """`(n, ...)` float32."""
        first, second = (self.of.part(numbers).inputs for numbers in self.pairs.unbind(1))
        return torch.lerp(second, first, self.share.view(-1, *[1] * (first.dim() - 1)))

    def part(self, which: slice | Tensor) -> "Mixed":
        """Some of the pairs, by a slice or by their numbers `(k,)` int64."""
        return replace(
            self,
            targets=self.targets[which],
            pairs=self.pairs[which],
            share=self.share[which],
        )

    def to(self, device: str) -> "Mixed":
        """The same pairs on `device`."""
        of = self.of.to(device)
        targets, pairs, share = (each.to(device) for each in (self.targets, self.pairs, self.share))
        return Mixed(of.stored, targets, of=of, pairs=pairs, share=share)


@torch.no_grad()
def imitated(
    split: Split,
    teachers: Sequence[nn.Module],
    mixes: int,
    draws: torch.Generator,
    labels: float = 0.0,
) -> Mixed:
    """Mixed pairs of examples with what the teachers give for them together.

    Every example is mixed with another one, with a share that is uniform in 0 to 1. The targets are
    the probabilities of the teachers' mean logits. On the examples themselves teachers that have
    learned them by heart only repeat the classes; between them they show the function that they
    have learned. Distillation on mixed inputs after Beyer et al. (2022), "Knowledge distillation: a
    good teacher is patient and consistent", at temperature 1.

    Args:
        split: the training examples.
        teachers: give logits.
        mixes: how many pairs for each example.
        draws: of partners and shares, on the split's device.
    """
    count, device = len(split), split.device
    itself = torch.arange(count, device=device)
    pairs, shares = [], []
    for _ in range(mixes):
        partners = torch.randperm(count, generator=draws, device=device)
        pairs.append(torch.stack([itself, partners], 1))
        shares.append(torch.rand(count, generator=draws, device=device))
    unseen = torch.empty(mixes * count, 0, device=device)
    mixed = Mixed(split.stored, unseen, of=split, pairs=torch.cat(pairs), share=torch.cat(shares))
    targets = [
        torch.stack([teacher.eval()(batch.inputs) for teacher in teachers]).mean(0).softmax(1)
        for batch in mixed.batches(_BATCH)
    ]
    taught = torch.cat(targets)
    if not labels:
        return replace(mixed, targets=taught)
    first, second = F.one_hot(split.targets, taught.shape[1]).to(taught.dtype)[mixed.pairs.T]
    classes = torch.lerp(second, first, mixed.share[:, None])
    return replace(mixed, targets=torch.lerp(taught, classes, labels))
