"""An average whose weights are learned: one for each teacher."""

from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import nn

from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting
from merge_core.methods.simplex import learn

KEY = "learned_network_weights"


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """One weight per teacher, none negative, with sum 1; `learned["weights"]`, `(teachers,)`."""
    groups = dict.fromkeys(teachers[0].state_dict(), 0)
    averaged, merged = yield from learn(teachers, groups, setting, KEY)
    weights = torch.softmax(averaged.logits.detach()[0], 0)
    return replace(merged, learned={"weights": weights}, shares=weights.tolist())
