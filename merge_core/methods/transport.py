"""Each channel averaged with a transport plan's share of the other teachers' channels."""

from collections.abc import Generator, Sequence
from functools import partial

from torch import Tensor, nn

from merge_core.activations import Moments, observe
from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.matching import blend, distance, sinkhorn
from merge_core.methods.base import Merged, Setting, weighted_mean


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Every other teacher is moved to the first one's channels, then all are averaged.

    With the setting `entropy` of a comparison.
    """
    yield from ()
    moments = observe(teachers, graph, setting.batches())
    moved, sources = blend(teachers, graph, moments, partial(_plan, setting.told.entropy))
    network = weighted_mean(moved, [1 / len(moved)] * len(moved))
    return Merged(network=network, sources=sources)


def _plan(entropy: float, moments: Moments, other: int) -> Tensor:
    """The plan that moves another teacher's channels (columns) to the first one's (rows)."""
    apart = distance(moments, 0, other)
    return sinkhorn(-apart / apart.mean().clamp(min=1e-300), entropy, tolerance=1e-3)
