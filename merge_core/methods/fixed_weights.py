"""One weighted average: with given weights, or with those of a grid of least held-out loss."""

import math
from collections.abc import Generator, Iterator, Sequence

import torch
from torch import nn

from merge_core.channels import ChannelGraph
from merge_core.events import Event, Progress
from merge_core.methods.base import Merged, Setting, weighted_mean
from merge_core.training import evaluate

KEY = "fixed_weights"
_FINEST, _MOST = 10, 70


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """The plain average with the best of a grid of weights, single teachers included.

    A comparison that gives `weights` has a grid of that one point.

    The grid has steps of a tenth, or coarser for more than two teachers, so that it has no more
    than 70 points; on a tie the first one wins. `learned` holds the chosen `weights`,
    `(teachers,)`, the `grid`, `(points, teachers)`, and its held-out `losses`, `(points,)`.
    """
    given = setting.told.weights
    grid = [list(given)] if given else list(simplex(len(teachers)))
    heldout = setting.data.heldout
    examples = heldout.part(slice(setting.examples))
    losses = []
    for step, weights in enumerate(grid):
        setting.pulse()
        loss = evaluate(weighted_mean(teachers, weights), examples)["loss"]
        losses.append(loss if math.isfinite(loss) else math.inf)
        yield Progress(stage=KEY, step=step + 1)
    best = grid[losses.index(min(losses))]
    learned = {
        "weights": torch.tensor(best),
        "grid": torch.tensor(grid),
        "losses": torch.tensor(losses),
    }
    return Merged(network=weighted_mean(teachers, best), learned=learned, shares=best)


def simplex(count: int) -> Iterator[list[float]]:
    """The weights of `count` teachers in equal steps, none negative, with sum 1; in order."""
    steps = _FINEST
    while steps > 1 and math.comb(steps + count - 1, count - 1) > _MOST:
        steps -= 1
    for parts in _shared_out(steps, count):
        yield [part / steps for part in parts]


def _shared_out(total: int, count: int) -> Iterator[list[int]]:
    if count == 1:
        yield [total]
        return
    for first in range(total, -1, -1):
        for rest in _shared_out(total - first, count - 1):
            yield [first, *rest]
