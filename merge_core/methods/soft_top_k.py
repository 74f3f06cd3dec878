"""Each channel averaged with the few most similar ones of every other teacher."""

from collections.abc import Generator, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import one_hot

from merge_core.activations import Moments, observe
from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.matching import blend, hungarian, likeness, sharpened, soft_top_k
from merge_core.methods.base import Merged, Setting, weighted_mean
from merge_core.recipes import MethodSettings
from merge_core.similarity import dead


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Every other teacher is rebuilt in the first one's order, then all are averaged.

    With the settings `top_k` and `temperature` of a comparison.
    """
    yield from ()
    moments = observe(teachers, graph, setting.batches())
    moved, sources = blend(teachers, graph, moments, partial(_mixture, setting.told))
    network = weighted_mean(moved, [1 / len(moved)] * len(moved))
    return Merged(network=network, sources=sources)


def _mixture(told: MethodSettings, moments: Moments, other: int) -> Tensor:
    """Weights of another teacher's channels (columns) in each of the first one's (rows).

    A dead channel has no similar ones; it gets the partner that an assignment leaves for it.
    """
    alike = likeness(moments, 0, other)
    soft = soft_top_k(sharpened(alike), told.top_k, told.temperature)
    left = dead(moments, 0)
    soft[left] = one_hot(hungarian(alike), moments.size).to(soft)[left]
    return soft
