"""Which half of the channels survives once the gates have learned: a rule of the recipe."""

from typing import assert_never

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph
from merge_core.channels.rebuild import named_tensors
from merge_core.gates import gates_of, most_open_half, open_probability
from merge_core.recipes import Selection
from merge_core.similarity import unit_norms


def kept_by(
    rule: Selection, gated: nn.Module, graph: ChannelGraph, teachers: int
) -> dict[str, Tensor]:
    """The channels of every space that survive; indices, ascending, `{space: (size,)}` int64.

    Args:
        rule: "most open" gates, as in the paper; "largest weights": P[open] × norm of the weights
            that write a channel × norm of those that read it; "same share": the most open gates of
            each teacher, as many of one as of the other.
        gated: the big student whose gates have learned.
        graph: its channel graph.
        teachers: how many it is made of.
    """
    logits = {name: each.detach() for name, each in gates_of(gated).spaces().items()}
    match rule:
        case "most open":
            return {name: most_open_half(each, teachers) for name, each in logits.items()}
        case "largest weights":
            tensors = {name: each.detach() for name, each in named_tensors(gated).items()}
            kept = {}
            for name, each in logits.items():
                into, out = unit_norms(graph, tensors, name)
                kept[name] = most_open_half(open_probability(each) * into * out, teachers)
            return kept
        case "same share":
            return {name: _same_share(each, teachers) for name, each in logits.items()}
        case _:
            assert_never(rule)


def _same_share(logits: Tensor, teachers: int) -> Tensor:
    """The most open channels of every teacher; one more of the first ones where they must."""
    size = len(logits) // teachers
    kept = []
    for teacher, own in enumerate(logits.split(size)):
        count = size // teachers + (teacher < size % teachers)
        order = torch.argsort(own, descending=True, stable=True)[:count]
        kept.append(teacher * size + order.sort().values)
    return torch.cat(kept)
