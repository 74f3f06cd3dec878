"""Scores of networks on the splits of a comparison, with a sign of life between batches."""

from collections.abc import Callable

import torch
from torch import nn

from merge_core.data import Dataset, Split
from merge_core.errors import DivergedError
from merge_core.training import evaluate

Scores = dict[str, dict[str, float]]
"""`{split: {"loss": ..., "accuracy": ...}}`, accuracy only for classification."""

BATCH = 500


def judged(network: nn.Module, data: Dataset, done: Callable[[int], None]) -> Scores:
    """Loss, and for classes accuracy, on every split.

    Args:
        network: what is judged.
        data: the splits.
        done: called after every batch with its number of examples.

    Raises:
        DivergedError: a loss is not finite.
    """
    return {
        "train": _on(network, data.train, done),
        "heldout": _on(network, data.heldout, done),
        "test": _on(network, data.test, done),
    }


def _on(network: nn.Module, split: Split, done: Callable[[int], None]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for inputs, targets in zip(split.inputs.split(BATCH), split.targets.split(BATCH), strict=True):
        for name, value in evaluate(network, Split(inputs, targets)).items():
            sums[name] = sums.get(name, 0.0) + value * len(inputs)
        done(len(inputs))
    scores = {name: total / len(split) for name, total in sums.items()}
    if not torch.tensor(scores["loss"]).isfinite():
        raise DivergedError(
            "The network computes outputs whose loss is not finite; give teachers whose training "
            "did not diverge."
        )
    return scores
