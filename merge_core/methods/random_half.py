"""A control: keep a random half of the channels of every space."""

from collections.abc import Generator, Sequence

import torch
from torch import nn

from merge_core.channels import ChannelGraph, concatenate, trace
from merge_core.events import Arrays, Event
from merge_core.methods.base import Choice, Merged, Setting, Surroundings, as_sources


class RandomHalf:
    """Nothing is learned: what the same cut and fine-tuning give without knowing what to keep."""

    key = "random_half"
    title = "Random half"
    source = "a control; no paper"

    def choose(
        self, big: nn.Module, graph: ChannelGraph, setting: Surroundings, checkpoint: Arrays | None
    ) -> Generator[Event, None, Choice]:
        """Draw the kept channels of every space, each subset equally likely."""
        yield from ()
        return _drawn(big, graph, setting)

    def restore(
        self, big: nn.Module, graph: ChannelGraph, setting: Surroundings, arrays: Arrays
    ) -> Choice:
        """The same draw again; nothing else was learned."""
        return _drawn(big, graph, setting)


def _drawn(big: nn.Module, graph: ChannelGraph, setting: Surroundings) -> Choice:
    draws = setting.draws("random_half")
    kept, ones = {}, {}
    for space in graph.free:
        order = torch.randperm(space.size, generator=draws, device=draws.device)
        kept[space.name] = order[: space.size // setting.teachers].sort().values
        ones[space.name] = torch.ones(space.size, device=draws.device)
    return Choice(network=big, gates=ones, open_probability=ones, kept=kept)


RANDOM_HALF = RandomHalf()


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """As many channels of every space as one teacher has; `learned` holds which, by space."""
    big = concatenate(teachers, graph)
    big_graph = trace(big, setting.example)
    choice = yield from RANDOM_HALF.choose(big, big_graph, setting, None)
    student = choice.cut(big_graph).eval()
    return Merged(network=student, learned=choice.kept, sources=as_sources(choice.kept))
