"""The channel graph: what must be permuted, concatenated, gated and cut together."""

from merge_core.channels.check import LawErrors, check
from merge_core.channels.concatenation import concatenate
from merge_core.channels.flops import flops
from merge_core.channels.graph import Axis, ChannelGraph, Obstacle, Read, Space, widths
from merge_core.channels.operations import fold, permute, select
from merge_core.channels.reads import scaled_reads
from merge_core.channels.scales import Scales, detach, scales_of
from merge_core.channels.trace import trace

__all__ = [
    "Axis",
    "ChannelGraph",
    "LawErrors",
    "Obstacle",
    "Read",
    "Scales",
    "Space",
    "check",
    "concatenate",
    "detach",
    "flops",
    "fold",
    "permute",
    "scaled_reads",
    "scales_of",
    "select",
    "trace",
    "widths",
]
