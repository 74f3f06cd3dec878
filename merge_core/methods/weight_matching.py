"""The mean of the teachers after their channels were matched by weights."""

from collections.abc import Generator, Sequence

import torch
from torch import nn

from merge_core.channels import ChannelGraph, permute
from merge_core.events import Event
from merge_core.matching import merge_many, sources
from merge_core.methods.base import Merged, Setting, weighted_mean


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """All teachers in the first one's order, averaged; `learned` holds the objective's rise."""
    yield from ()
    found = merge_many(teachers, graph, setting.draws("weight_matching"))
    moved = [permute(t, graph, order) for t, order in zip(teachers, found.orders, strict=True)]
    return Merged(
        network=weighted_mean(moved, [1 / len(moved)] * len(moved)),
        learned={"objective": torch.tensor(found.objective, dtype=torch.float64)},
        sources=sources(found.orders),
    )
