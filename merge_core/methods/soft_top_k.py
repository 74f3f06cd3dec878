"""Each channel averaged with the few most similar ones of every other teacher."""

from collections.abc import Generator, Sequence

from torch import Tensor, nn
from torch.nn.functional import one_hot

from merge_core.activations import Moments, observe
from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.matching import blend, hungarian, likeness, sharpened, soft_top_k
from merge_core.methods.base import Merged, Setting, weighted_mean
from merge_core.similarity import dead

CHANNELS = 3
"""How many channels of each other teacher go into one."""

TEMPERATURE = 0.2
"""Of the weights, in units of Fisher's z; higher, and the other teachers blur and fade away."""


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Every other teacher is rebuilt in the first one's order, then all are averaged."""
    yield from ()
    moments = observe(teachers, graph, setting.batches())
    moved, sources = blend(teachers, graph, moments, _mixture)
    network = weighted_mean(moved, [1 / len(moved)] * len(moved))
    return Merged(network=network, sources=sources)


def _mixture(moments: Moments, other: int) -> Tensor:
    """Weights of another teacher's channels (columns) in each of the first one's (rows).

    A dead channel has no similar ones; it gets the partner that an assignment leaves for it.
    """
    alike = likeness(moments, 0, other)
    soft = soft_top_k(sharpened(alike), CHANNELS, TEMPERATURE)
    left = dead(moments, 0)
    soft[left] = one_hot(hungarian(alike), moments.size).to(soft)[left]
    return soft
