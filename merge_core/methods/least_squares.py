"""Keep the channels that best reconstruct the mean of the teachers, layer by layer."""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor, nn

from merge_core.activations import observe_readers
from merge_core.channels import ChannelGraph, concatenate, trace
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting, Surroundings, as_sources
from merge_core.reconstruction import chosen, cut, importances, power


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """From the last space to the first, greedily keep what the kept readers need, then refit them.

    The output layers need the mean of the teachers; every layer before needs what the channels
    kept after it need. Nothing is trained: the big student only holds the weights until the cut.
    `learned` holds the kept channels of the big student, by space.
    """
    yield from ()
    big = concatenate(teachers, graph)
    return reduced(big, trace(big, setting.example), teachers, graph, setting)


def reduced(
    big: nn.Module,
    big_graph: ChannelGraph,
    teachers: Sequence[nn.Module],
    graph: ChannelGraph,
    setting: Surroundings,
    ridge: float | None = None,
) -> Merged:
    """The same from a big student that exists; what its output layers give is what is needed.

    Args:
        big, big_graph: the big student and its channel graph.
        teachers, graph: what it was made of.
        setting: data and draws.
        ridge: where the readers' biases are fitted afterwards, so that means need not be explained:
            of the mean variance of the channels, to choose such as need no large weights.
    """
    moments = observe_readers(teachers, graph, setting.batches())
    seen = {at: power(each) for at, each in moments.items()}
    if ridge is not None:
        seen = {at: _ridged(each.covariance, ridge) for at, each in moments.items()}
    kept: dict[str, Tensor] = {}
    for space in reversed(graph.free):
        needed = importances(big, big_graph, space.name, kept)
        readers = [(seen[space.name, name], weight) for name, weight in needed.items()]
        kept[space.name] = chosen(readers, space.size)
    network = cut(big, big_graph, kept, seen).eval()
    return Merged(network=network, learned=kept, sources=as_sources(kept))


def _ridged(products: Tensor, ridge: float) -> Tensor:
    level = ridge * products.diagonal().mean()
    return products + level * torch.eye(len(products), dtype=products.dtype)
