"""Comparisons: the same teachers, aligned channel by channel, and merged in many ways."""

from merge_core.comparisons.strategy import compare

__all__ = ["compare"]
