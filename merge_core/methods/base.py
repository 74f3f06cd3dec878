"""What every method gets and gives back."""

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph, detach, fold, select
from merge_core.data import Dataset
from merge_core.events import Arrays, EpochFinished, Event, Progress
from merge_core.recipes import Comparison, MethodSettings, Recipe
from merge_core.repair import Shares
from merge_core.steering import Steering

STEP_COST = 3
"""A training step costs as much as a forward pass and about two for the backward pass."""
_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a method may look at while it chooses.

    Attributes:
        data: the examples, on the run's device.
        augment: the recipe's augmentation.
        draws: makes the generator for one purpose, on the run's device.
        teachers: how many there are.
        examples: training examples that statistics are measured on.
        pulse: called between two batches of statistics; it may raise to stop the run.
    """

    data: Dataset
    augment: Callable[[Tensor, torch.Generator], Tensor]
    draws: Callable[[str], torch.Generator]
    teachers: int
    examples: int = 2000
    pulse: Callable[[], None] = lambda: None

    @property
    def example(self) -> Tensor:
        """A few inputs, to trace networks with."""
        return self.data.heldout.part(slice(4)).inputs

    def batches(self) -> Iterator[Tensor]:
        """The training inputs that statistics are measured on, unchanged, a batch at a time."""
        for batch in self.data.train.part(slice(self.examples)).batches(_BATCH):
            self.pulse()
            yield batch.inputs


@dataclass(frozen=True, kw_only=True)
class Setting(Surroundings):
    """The surroundings of a merge whose method may train.

    Attributes:
        recipe: the settings.
        steering: what has changed in the gate stage so far; asked before every epoch.
    """

    recipe: Recipe | Comparison
    steering: Callable[[], Steering] = tuple

    @property
    def told(self) -> MethodSettings:
        """What the methods of a comparison have been told; a merge has nothing to tell them."""
        return self.recipe if isinstance(self.recipe, Comparison) else MethodSettings()


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a method makes of its teachers, before any repair or fine-tuning.

    Attributes:
        network: of the teachers' class and widths; of a method that costs all networks at test
            time, a module that holds them. A method that is told to merge a part may leave spaces
            wider than a teacher's.
        learned: what the method found out on the way, by name, e.g. the weight of each teacher.
        sources: for every space, which of the teachers' channels went into each of the network's:
            `(size, m)` int64, numbered as in the big student (channel i of teacher t is
            t · size + i). In spaces not named, channel i of every teacher. None where the network
            was trained, so that its channels need no longer vary as the teachers' do. For repair.
        shares: how much each of the m columns counts, for all layers or by the name of a layer's
            weight; alike by default. For repair.
        training_flops: floating-point operations of its training, forward and backward.
    """

    network: nn.Module
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    sources: Mapping[str, Tensor] | None = field(default_factory=dict)
    shares: Shares = None
    training_flops: float = 0.0


class Implementation(Protocol):
    """The module of one method, `merge_core/methods/<key>.py`."""

    def merge(
        self, teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
    ) -> Generator[Event, None, Merged]:
        """Yield `Progress` events of the stage `<key>` while it takes long; return the network.

        Args:
            teachers: of one class and one shape, on the run's device; they are left as they are.
            graph: the channel graph of each of them.
            setting: data, recipe and random draws. With the same seed the result is the same.

        Raises:
            NetweldError: these teachers cannot be merged in this way; see its message.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which channels of the big student survive, and the network they are cut from.

    Attributes:
        network: the big student as the method leaves it, with its gates if it has any; its state
            is stored.
        gates: the deterministic gate of every channel, `{space: (channels,)}`, in [0, 1].
        open_probability: P[gate > 0] of every channel, likewise.
        kept: indices to keep, `{space: (channels / teachers,)}` int64, ascending.
    """

    network: nn.Module
    gates: Mapping[str, Tensor]
    open_probability: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]

    def cut(self, graph: ChannelGraph) -> nn.Module:
        """The student: the gates absorbed by the layers that read them, the kept channels left."""
        return select(detach(fold(self.network, graph, self.gates)), graph, self.kept)


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
        """Yield the events of choosing, return the choice.

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
        """The choice whose `network` had this state."""
        ...


Result = TypeVar("Result")


def as_progress(
    events: Generator[Event, None, Result], stage: str, before: int = 0
) -> Generator[Progress, None, Result]:
    """Training inside a stage of another name: of its events only the headway is passed on.

    Args:
        events: what the training yields.
        stage: the stage that it is a part of.
        before: steps of that stage that were done when the training began.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if isinstance(event, Progress | EpochFinished):
            yield Progress(stage=stage, step=before + event.step)


def as_sources(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kept channels of a big student as the sources of a student's; `(size, 1)` for every space."""
    return {space: channels[:, None] for space, channels in kept.items()}


@torch.no_grad()
def weighted_mean(networks: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
    """A network whose every number is the weighted mean of the networks' numbers there.

    Whole numbers, such as how many batches a norm has seen, are the largest of them.

    Args:
        networks: of one class and one shape; they are left as they are.
        weights: one for each.
    """
    states = [network.state_dict() for network in networks]
    mean = copy.deepcopy(networks[0])
    for name, into in mean.state_dict().items():
        parts = [state[name] for state in states]
        if into.is_floating_point():
            into.copy_(sum(w * part for w, part in zip(weights, parts, strict=True)))
        else:
            into.copy_(torch.stack(parts).amax(0))
    return mean.eval()
