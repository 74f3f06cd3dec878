"""Keep the channels that best reconstruct the mean of the teachers, layer by layer."""

from collections.abc import Generator, Sequence

from torch import Tensor, nn

from merge_core.activations import observe_readers
from merge_core.channels import ChannelGraph, concatenate, trace
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting, as_sources
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
    moments = observe_readers(teachers, graph, setting.batches())
    seen = {at: power(each) for at, each in moments.items()}
    big = concatenate(teachers, graph)
    big_graph = trace(big, setting.example)
    kept: dict[str, Tensor] = {}
    for space in reversed(graph.free):
        needed = importances(big, big_graph, space.name, kept)
        readers = [(seen[space.name, name], weight) for name, weight in needed.items()]
        kept[space.name] = chosen(readers, space.size)
    network = cut(big, big_graph, kept, seen).eval()
    return Merged(network=network, learned=kept, sources=as_sources(kept))
