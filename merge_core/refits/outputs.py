"""What a student should give: numbers fitted in closed form, classes as the teachers see them."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

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


@torch.no_grad()
def softened(split: Split, teachers: Sequence[nn.Module], share: float) -> Split:
    """A split whose targets are class probabilities: a share of the teachers', the rest the truth.

    The teachers' are those of their mean logits on the unchanged inputs. Trained on by
    cross-entropy this is knowledge distillation (Hinton et al. 2015) at temperature 1.

    Args:
        split: examples with their classes.
        teachers: give logits.
        share: 0 to 1.
    """
    logits = []
    for batch in split.inputs.split(_BATCH):
        logits.append(torch.stack([teacher.eval()(batch) for teacher in teachers]).mean(0))
    soft = torch.cat(logits).softmax(1)
    true = functional.one_hot(split.targets, soft.shape[1]).to(soft)
    return Split(split.inputs, share * soft + (1 - share) * true)
