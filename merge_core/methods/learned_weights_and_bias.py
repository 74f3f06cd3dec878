"""An average whose weights are learned, and with them one number that is added everywhere."""

from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import nn

from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting
from merge_core.methods.simplex import learn

KEY = "learned_weights_and_bias"


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """One weight per teacher on the simplex, and one bias for all parameters.

    Norm statistics are averaged with the same weights and without the bias. `learned` holds
    `weights`, `(teachers,)`, and `bias`, a scalar.
    """
    groups = dict.fromkeys(teachers[0].state_dict(), 0)
    averaged, merged = yield from learn(teachers, groups, setting, KEY, bias=True)
    weights = torch.softmax(averaged.logits.detach()[0], 0)
    learned = {"weights": weights, "bias": averaged.bias()}
    return replace(merged, learned=learned, shares=weights.tolist())
