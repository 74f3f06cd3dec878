"""Channels paired within and across two teachers, and each pair made one."""

from collections.abc import Generator, Sequence

from torch import nn

from merge_core.activations import observe
from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.matching import match_zips, zipped
from merge_core.methods.base import Merged, Setting


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Both teachers zipped in every space; `sources` are the pairs."""
    yield from ()
    first, second = teachers
    pairs = match_zips(observe(teachers, graph, setting.batches()))
    return Merged(network=zipped(first, second, graph, pairs).eval(), sources=pairs)
