"""The line between two networks: loss and accuracy along it, and how high the barrier on it is.

The barrier is how far the loss on the straight line between two networks rises above the line
between their losses (Frankle et al. 2020, "Linear mode connectivity and the lottery ticket
hypothesis", section 2; as a difference from the interpolated losses in Entezari et al. 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph, permute
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.data import Split
from merge_core.repair import repaired
from merge_core.training import evaluate

Kind = Literal["naive", "matched", "repaired"]

POINTS = tuple(step / 10 for step in range(11))
"""Shares of the second network at which the line is looked at."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Scores along a line between two networks.

    Attributes:
        points: shares of the second network, ascending from 0 to 1.
        scores: `{split: {"loss": [...], "accuracy": [...]}}`, one number per point; accuracy only
            for classification.
    """

    points: tuple[float, ...]
    scores: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def barrier(self) -> dict[str, dict[str, float]]:
        """For every split and score the furthest that the line is worse than the ends promise.

        What they promise is the straight line between their own scores; the loss is worse above it,
        accuracy below. Never negative, as the ends lie on it.
        """
        return {
            split: {name: self._worst(name, values) for name, values in scores.items()}
            for split, scores in self.scores.items()
        }

    def _worst(self, name: str, values: Sequence[float]) -> float:
        worse = -1 if name == "accuracy" else 1
        first, last = values[0], values[-1]
        return max(
            max(worse * (value - ((1 - point) * first + point * last)), 0.0)
            for point, value in zip(self.points, values, strict=True)
        )


@torch.no_grad()
def between(a: nn.Module, b: nn.Module, share: float) -> nn.Module:
    """The network at `share` of the way from a to b: parameters and statistics in between.

    Whole numbers, such as how many batches a norm has seen, are a's. Exactly a where both are the
    same number, and exactly a or b at the ends.
    """
    theirs = named_tensors(b)
    mixed = {
        name: torch.lerp(tensor.detach(), theirs[name].detach(), share)
        for name, tensor in named_tensors(a).items()
        if tensor.is_floating_point()
    }
    return rebuild(a, mixed).eval()


def line(
    a: nn.Module,
    b: nn.Module,
    splits: Mapping[str, Split],
    points: Sequence[float] = POINTS,
    *,
    graph: ChannelGraph | None = None,
    inputs: Tensor | None = None,
    batch_size: int = 250,
    done: Callable[[int], None] = lambda examples: None,
) -> Line:
    """Scores on the line between two networks as they lie.

    Args:
        a, b: networks of one architecture.
        splits: what to evaluate on, by name.
        points: shares of b, ascending from 0 to 1.
        graph, inputs, batch_size: given, the networks between the ends are repaired on these
            inputs (see `repair.repaired`), each to its own mean of the ends' statistics. The ends
            are the networks themselves.
        done: called after every evaluation with its number of examples.
    """
    assert points[0] == 0, points
    assert points[-1] == 1, points
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in splits}
    for share in points:
        network = between(a, b, share)
        if graph is not None and inputs is not None and 0 < share < 1:
            network = repaired(
                network, [a, b], graph, inputs, batch_size, shares=[1 - share, share]
            )
        for name, split in splits.items():
            for key, value in evaluate(network, split).items():
                scores[name].setdefault(key, []).append(value)
            done(len(split))
    return Line(points=tuple(points), scores=scores)


def lines(
    a: nn.Module,
    b: nn.Module,
    graph: ChannelGraph,
    orders: Mapping[str, Tensor],
    splits: Mapping[str, Split],
    inputs: Tensor,
    points: Sequence[float] = POINTS,
    done: Callable[[int], None] = lambda examples: None,
) -> dict[Kind, Line]:
    """The lines from a to b as it is, to b in a's order, and the latter repaired.

    Args:
        a, b: networks of the architecture of `graph`.
        graph: their channel graph.
        orders: which channel of b matches channel i of a, for every matched space.
        splits: what to evaluate on, by name.
        inputs: `(examples, ...)` of the training split, to repair on.
        points: shares of b, ascending from 0 to 1.
        done: called after every evaluation with its number of examples.
    """
    matched = permute(b, graph, orders).eval()
    return {
        "naive": line(a, b, splits, points, done=done),
        "matched": line(a, matched, splits, points, done=done),
        "repaired": line(a, matched, splits, points, graph=graph, inputs=inputs, done=done),
    }
