"""Channels paired within and across two teachers, and each pair made one.

Source: Stoica et al. (2024), "ZipIt! Merging models from different tasks without training",
sections 4.1 and, for a part of the network, 4.3.
"""

from collections.abc import Generator, Sequence

import torch
from torch import Tensor, nn

from merge_core.activations import observe
from merge_core.channels import ChannelGraph
from merge_core.errors import RecipeError
from merge_core.events import Event
from merge_core.matching import match_zips, zipped
from merge_core.methods.base import Merged, Setting


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Both teachers zipped in every space; `sources` are the pairs.

    With the setting `up_to` of a comparison only the first so many spaces in order of execution are
    zipped. From there on both teachers go on side by side, and the mean of their outputs is taken:
    ZipIt keeps the output of each, as its teachers have different classes. The network is then
    wider than a teacher, and costs more.

    RecipeError if there are fewer spaces.
    """
    yield from ()
    first, second = teachers
    names = [space.name for space in graph.free]
    count = setting.told.up_to or len(names)
    if count > len(names):
        raise RecipeError(
            f"The recipe got up_to={count}, but the network has {len(names)} channel spaces "
            f"({', '.join(names)}); give 1 to {len(names)}, or 0 for all."
        )
    pairs = match_zips(observe(teachers, graph, setting.batches()))
    network = zipped(first, second, graph, pairs, names[count - 1]).eval()
    sources = {name: pairs[name] for name in names[:count]}
    return Merged(network=network, sources=sources | _apart(graph, names[count:]))


def _apart(graph: ChannelGraph, names: Sequence[str]) -> dict[str, Tensor]:
    """Sources of spaces in which the channels of both teachers stand side by side."""
    return {name: torch.arange(2 * graph.space(name).size)[:, None] for name in names}
