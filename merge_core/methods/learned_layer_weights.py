"""An average whose weights are learned: one for each teacher and layer."""

from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import nn

from merge_core.channels import ChannelGraph
from merge_core.events import Event
from merge_core.methods.base import Merged, Setting
from merge_core.methods.simplex import learn

KEY = "learned_layer_weights"


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """In every layer one weight per teacher, none negative, with sum 1.

    A layer is a module with parameters or buffers of its own. `learned` holds its weights,
    `(teachers,)`, by its name.
    """
    layers: dict[str, int] = {}
    groups = {
        name: layers.setdefault(name.rpartition(".")[0] or name, len(layers))
        for name in teachers[0].state_dict()
    }
    averaged, merged = yield from learn(teachers, groups, setting, KEY)
    weights = torch.softmax(averaged.logits.detach(), 1)
    return replace(
        merged,
        learned={layer: weights[row] for layer, row in layers.items()},
        shares={name: weights[row].tolist() for name, row in groups.items()},
    )
