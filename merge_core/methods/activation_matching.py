"""The mean of the teachers after their channels were matched by what they carry."""

from collections.abc import Generator, Sequence

from torch import nn

from merge_core.activations import observe
from merge_core.channels import ChannelGraph, permute
from merge_core.events import Event
from merge_core.matching import match_many, sources
from merge_core.methods.base import Merged, Setting, weighted_mean


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """All teachers in the first one's order, averaged."""
    yield from ()
    orders = match_many(observe(teachers, graph, setting.batches()))
    moved = [permute(t, graph, order) for t, order in zip(teachers, orders, strict=True)]
    return Merged(
        network=weighted_mean(moved, [1 / len(moved)] * len(moved)), sources=sources(orders)
    )
