"""The ways to make one network out of several, one file each; `merge_core.catalogue` lists them.

Two of them choose which half of a big student's channels to keep, and can be taken up again in the
middle: the choosers, which the strategy of a merge uses stage by stage.
"""

from importlib import import_module
from typing import cast

from merge_core.catalogue import METHOD_BY_KEY
from merge_core.methods.base import Choice, Implementation, Merged, Method, Setting
from merge_core.methods.learned_gates import LEARNED_GATES
from merge_core.methods.random_half import RANDOM_HALF

CHOOSERS: tuple[Method, ...] = (LEARNED_GATES, RANDOM_HALF)
"""Every method that chooses half of a big student's channels."""


def implementation(key: str) -> Implementation:
    """The module of the method with this key of the catalogue; its `merge` does the work."""
    assert key in METHOD_BY_KEY, key
    return cast(Implementation, import_module(f"merge_core.methods.{key}"))


__all__ = [
    "CHOOSERS",
    "LEARNED_GATES",
    "RANDOM_HALF",
    "Choice",
    "Implementation",
    "Merged",
    "Method",
    "Setting",
    "implementation",
]
