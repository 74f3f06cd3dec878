"""A recipe with the words that a page shows beside it."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from merge_core.recipes import Experiment

Kind = TypeVar("Kind", bound=Experiment, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Preset(Generic[Kind]):
    """A recipe of some kind with the words a page shows beside its name."""

    recipe: Kind
    title: str
    story: str
