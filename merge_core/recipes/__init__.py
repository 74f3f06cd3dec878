"""Recipes: the frozen, validated, JSON-serialisable settings of one experiment (no torch).

A recipe with its seed and the device decides every number of a run. There are two kinds: a merge
(`Recipe`) and a comparison of ways to merge (`Comparison`). Presets are values, too: see `PRESETS`
at the end of `merge_core.presets`.
"""

from merge_core.recipes.kinds import Comparison, Recipe, from_json
from merge_core.recipes.parts import PAPER_SCHEDULE, Data, Gates, Training

__all__ = [
    "PAPER_SCHEDULE",
    "Comparison",
    "Data",
    "Gates",
    "Recipe",
    "Training",
    "from_json",
]
