"""The ways to choose which half of a big student's channels to keep, one file each."""

from merge_core.methods.base import Choice, Method, Setting
from merge_core.methods.learned_gates import LEARNED_GATES
from merge_core.methods.random_half import RANDOM_HALF

METHODS: tuple[Method, ...] = (LEARNED_GATES, RANDOM_HALF)
"""Every method; the conformance suite runs over this tuple."""

__all__ = ["LEARNED_GATES", "METHODS", "RANDOM_HALF", "Choice", "Method", "Setting"]
