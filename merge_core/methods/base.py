"""What every method gets and gives back."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph, fold, select
from merge_core.data import Dataset
from merge_core.events import Arrays, Event
from merge_core.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The surroundings of a merge: what a method may look at while it chooses.

    Attributes:
        recipe: the settings.
        data: the examples, on the run's device.
        augment: the recipe's augmentation.
        draws: makes the generator for one purpose, on the run's device.
        teachers: how many were concatenated.
    """

    recipe: Recipe
    data: Dataset
    augment: Callable[[Tensor, torch.Generator], Tensor]
    draws: Callable[[str], torch.Generator]
    teachers: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which channels of the big student survive, and the network they are cut from.

    Attributes:
        network: the big student as the method leaves it (learned gates train it).
        gated: what computes before the cut: the network with its gates; its state is stored.
        gates: the deterministic gate of every channel, `{space: (channels,)}`, in [0, 1].
        open_probability: P[gate > 0] of every channel, likewise.
        kept: indices to keep, `{space: (channels / teachers,)}` int64, ascending.
    """

    network: nn.Module
    gated: nn.Module
    gates: Mapping[str, Tensor]
    open_probability: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]

    def cut(self, graph: ChannelGraph) -> nn.Module:
        """The student: the gates absorbed by the layers that read them, the kept channels left."""
        return select(fold(self.network, graph, self.gates), graph, self.kept)


class Method(Protocol):
    """A way to choose half of a big student's channels.

    Attributes:
        key: the word in stores and on the command line.
        title: the words on a page.
        source: paper and section.
    """

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def source(self) -> str: ...

    def choose(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, checkpoint: Arrays | None
    ) -> Generator[Event, None, Choice]:
        """Yield the events of choosing, return the choice; `big` may be trained in place.

        Args:
            big: the big student, on the run's device.
            graph: its channel graph.
            setting: data, recipe and random draws.
            checkpoint: from an interrupted run of the same choice, or None.
        """
        ...

    def restore(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, arrays: Arrays
    ) -> Choice:
        """The choice whose `gated` network had this state; `big` is changed in place."""
        ...
