"""How the channels of two networks correspond: the numbers behind every view of an alignment."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from merge_core.activations import Moments, observe
from merge_core.architectures import Shape
from merge_core.channels import ChannelGraph
from merge_core.events import Arrays
from merge_core.matching import match_activations, match_weights
from merge_core.similarity import correlation, dead, incoming, layer_cka, outgoing, unit_norms

PASSES = 5
"""Forward passes of one network over the examples: two to observe both, three for CKA."""

_MEASURES: tuple[Literal["cosine", "l2"], ...] = ("cosine", "l2")


def align(
    a: nn.Module,
    b: nn.Module,
    graph: ChannelGraph,
    batches: Callable[[int], Iterable[Tensor]],
    shape: Shape,
    draws: torch.Generator,
) -> tuple[Arrays, dict[str, Any]]:
    """Measure every similarity between the channels of two networks, and match them.

    Args:
        a, b: the networks, of one architecture.
        graph: their channel graph.
        batches: makes the inputs that are passed through so many networks at once, again and again
            the same.
        shape: of one example.
        draws: for the matching by weights.

    Returns:
        Arrays, for every free space S of n units: `S|correlation`, `S|correlation_aa` (A with A)
        and `S|correlation_bb`; `S|incoming_cosine`, `S|incoming_l2`, `S|outgoing_cosine` and
        `S|outgoing_l2` of A's units (rows) with B's, the spaces around them matched by weights, and
        the same with the suffix `_aa` of A's with A's; all `(n, n)` float16. `S|dead_a` and
        `S|dead_b`, `(n,)` bool, and likewise `S|incoming_zero_a`, `S|outgoing_zero_a` and those of
        B: whether all weights that write a unit, or that read it, are zero. `S|match_activations`
        and `S|match_weights`, `(n,)` int64, the unit of B that matches unit i of A. `cka` and
        `cka_aa`, `(spaces, spaces)` float32. Where the first layer's weights are pictures,
        `first|a` and `first|b`, `(n, channels, height, width)` float32.

        Facts: "spaces" (name and size of each), "objective" (of matching by weights, after every
        pass) and, where there are pictures, "first_layer" (its space).
    """
    moments = observe([a, b], graph, batches(2))
    by_weights = match_weights(a, b, graph, draws)
    by_activations = match_activations(moments)
    arrays: dict[str, np.ndarray] = {
        "cka": layer_cka(a, b, graph, batches(2)).float().numpy(),
        "cka_aa": layer_cka(a, a, graph, batches(1)).float().numpy(),
    }
    for space in graph.free:
        own = {
            **_activity(moments[space.name]),
            **_weights(a, b, graph, space.name, by_weights.orders),
            "match_activations": by_activations[space.name].numpy(),
            "match_weights": by_weights.orders[space.name].numpy(),
        }
        arrays |= {f"{space.name}|{name}": array for name, array in own.items()}
    facts: dict[str, Any] = {
        "spaces": [{"name": space.name, "size": space.size} for space in graph.free],
        "objective": by_weights.objective,
    }
    first_a, first_b = (_pictures(network, graph, shape) for network in (a, b))
    if first_a is not None and first_b is not None:
        arrays |= {"first|a": first_a, "first|b": first_b}
        facts["first_layer"] = {"space": graph.free[0].name}
    return arrays, facts


def _half(matrix: Tensor) -> np.ndarray:
    """Similarities as they are stored: a heat map needs no more than half precision."""
    return matrix.clamp(max=torch.finfo(torch.float16).max).to(torch.float16).cpu().numpy()


def _activity(moments: Moments) -> dict[str, np.ndarray]:
    return {
        "correlation": _half(correlation(moments, 0, 1)),
        "correlation_aa": _half(correlation(moments, 0, 0)),
        "correlation_bb": _half(correlation(moments, 1, 1)),
        "dead_a": dead(moments, 0).numpy(),
        "dead_b": dead(moments, 1).numpy(),
    }


def _weights(
    a: nn.Module, b: nn.Module, graph: ChannelGraph, space: str, matched: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    found = {}
    for name, compare in (("incoming", incoming), ("outgoing", outgoing)):
        for measure in _MEASURES:
            found[f"{name}_{measure}"] = _half(
                compare(graph, ours, theirs, space, measure, matched)
            )
            found[f"{name}_{measure}_aa"] = _half(compare(graph, ours, ours, space, measure, {}))
    for teacher, tensors in (("a", ours), ("b", theirs)):
        into, out = unit_norms(graph, tensors, space)
        found[f"incoming_zero_{teacher}"] = (into == 0).cpu().numpy()
        found[f"outgoing_zero_{teacher}"] = (out == 0).cpu().numpy()
    return found


def _pictures(network: nn.Module, graph: ChannelGraph, shape: Shape) -> np.ndarray | None:
    """The first layer's weights as one picture per unit; None where they are none."""
    space = graph.free[0]
    name = f"{space.writers[0]}.weight" if space.writers else ""
    axis = graph.axes[name][0] if name in graph.axes else None
    if axis is None or not torch.equal(axis.unit, torch.arange(space.size)):
        return None
    weight = network.get_parameter(name).detach().float().cpu()
    if weight.dim() == 4 and weight.shape[1] in (1, 3):
        return weight.numpy().copy()
    pixels = (shape.channels, shape.side, shape.side)
    if weight.dim() == 2 and shape.side and weight.shape[1] == np.prod(pixels):
        return weight.unflatten(1, pixels).numpy().copy()
    return None
