"""Keep the channels with the largest weights, in one shot, and refit their readers."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor, nn

from merge_core.activations import observe_readers
from merge_core.channels import ChannelGraph, concatenate, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting, as_sources
from merge_core.reconstruction import cut, power
from merge_core.similarity import unit_norms


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Of all teachers' channels in a space, those with the largest norm in × norm out survive.

    The norms are of a channel's own weights: those that write it (with its bias) and those that
    read it. `learned` holds the kept channels of the big student, by space.
    """
    yield from ()
    moments = observe_readers(teachers, graph, setting.batches())
    big = concatenate(teachers, graph)
    big_graph = trace(big, setting.example)
    tensors = named_tensors(big)
    kept: dict[str, Tensor] = {}
    for space in graph.free:
        strength = torch.stack(unit_norms(big_graph, tensors, space.name)).prod(0)
        order = torch.argsort(strength, descending=True, stable=True)
        kept[space.name] = order[: space.size].sort().values
    network = cut(big, big_graph, kept, {at: power(each) for at, each in moments.items()})
    return Merged(network=network.eval(), learned=kept, sources=as_sources(kept))
