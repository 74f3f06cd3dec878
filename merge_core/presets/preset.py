"""A recipe with the words that a page shows beside it."""

from dataclasses import dataclass

from merge_core.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe with the words a page shows beside its name."""

    recipe: Recipe
    title: str
    story: str
