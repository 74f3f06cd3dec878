"""Recipes: the frozen, validated, JSON-serialisable settings of one experiment (no torch).

A recipe with its seed and the device decides every number of a run. There are five kinds of
`Experiment`: a merge (`Recipe`), a merge without gates (`Refit`), a comparison of ways to merge
(`Comparison`), teachers that are pulled together while they train (`Coupling`) and workers that
are averaged (`Averaging`). Presets are values, too: see `merge_core.presets`.
"""

from merge_core.recipes.experiment import Experiment, with_article
from merge_core.recipes.kinds import Comparison, Recipe, from_json
from merge_core.recipes.methods import MethodSettings
from merge_core.recipes.parts import Code, Data, Gates, Precision, Selection, Training
from merge_core.recipes.reading import as_text
from merge_core.recipes.refit import Refit
from merge_core.recipes.tied import Averaging, Coupling, Pull
from merge_core.schedules import PAPER_SCHEDULE

__all__ = [
    "PAPER_SCHEDULE",
    "Averaging",
    "Code",
    "Comparison",
    "Coupling",
    "Data",
    "Experiment",
    "Gates",
    "MethodSettings",
    "Precision",
    "Pull",
    "Recipe",
    "Refit",
    "Selection",
    "Training",
    "as_text",
    "from_json",
    "with_article",
]
