"""Batch-norm statistics, measured afresh after the network around them has changed."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from merge_core.data import Split


def has_norm_statistics(network: nn.Module) -> bool:
    """Whether any layer of the network keeps running statistics."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in network.modules())


Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def norms_reestimated(
    network: Network,
    split: Split,
    batch_size: int,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    draws: torch.Generator,
) -> Network:
    """A copy of the network whose batch-norm statistics are those of `split`, in eval mode.

    The estimator is the mean over batches of each batch's mean and unbiased variance, in one pass
    over the split, augmented as in training; weights do not change. Give batches as large as in
    training: with small ones the variance misses what lies between batches.

    Args:
        network: any module with batch norms.
        split: the training split.
        batch_size: examples per batch; a last batch of one example is left out.
        augment: the recipe's augmentation.
        draws: its generator.
    """
    fresh = copy.deepcopy(network).eval()
    for module in fresh.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.reset_running_stats()
            module.momentum = None  # torch's word for a cumulative average
            module.train()
    for inputs in split.inputs.split(batch_size):
        if len(inputs) > 1:
            fresh(augment(inputs, draws))
    for ours, theirs in zip(fresh.modules(), network.modules(), strict=True):
        if isinstance(ours, _BatchNorm) and isinstance(theirs, _BatchNorm):
            ours.momentum = theirs.momentum
    return fresh.eval()
