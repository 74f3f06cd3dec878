"""The recipes that netweld knows by name (no torch)."""

import difflib
from collections.abc import Sequence

from merge_core.errors import RecipeError
from merge_core.presets.ours import preset_ours
from merge_core.presets.paper import PAPER
from merge_core.presets.preset import Kind, Preset
from merge_core.presets.quick import QUICK
from merge_core.presets.tied import LAYERS, TIED
from merge_core.recipes import Experiment, Recipe, Refit

__all__ = [
    "LAYERS",
    "OURS",
    "PRESETS",
    "TIED",
    "Preset",
    "find_preset",
    "merge_names",
    "preset_of",
    "recipe_names",
]

PRESETS: tuple[Preset[Recipe], ...] = (*QUICK, *PAPER)
"""The presets of merges; `TIED` are those of other trainings."""

_COST = {"sine-mlp": 2.0, "patch-cnn": 2.99, "digits-cnn": 3.0, "lenet": 3.0, "cifar-vgg11": 3.9}
"""An epoch of a model's big student in epochs of the model."""

_REFERENCE = {"sine": "paper"}
"""The preset whose budget `ours` has, where it is not `quick`."""

OURS: tuple[Preset[Refit], ...] = tuple(
    preset_ours(preset, _COST.get(preset.recipe.model, 4.0))
    for preset in PRESETS
    if preset.recipe.preset == _REFERENCE.get(preset.recipe.name, "quick")
)
"""The presets `ours` of merges."""

_ALL: tuple[Preset[Experiment], ...] = (*PRESETS, *OURS, *TIED)


def merge_names() -> list[str]:
    """The names of the recipes that merge, each once, in the order of the presets."""
    return _names(PRESETS)


def recipe_names() -> list[str]:
    """The names of all recipes, each once, in the order of the presets."""
    return _names(_ALL)


def find_preset(name: str, preset: str) -> Preset[Recipe]:
    """The preset of a recipe that merges.

    Raises:
        RecipeError: no recipe of that name merges, or it has no such preset.
    """
    return _found(PRESETS, name, preset)


def preset_of(name: str, preset: str) -> Preset[Experiment]:
    """The preset of a recipe of any kind.

    Raises:
        RecipeError: no recipe of that name, or it has no such preset.
    """
    return _found(_ALL, name, preset)


def _names(presets: Sequence[Preset[Experiment]]) -> list[str]:
    return list(dict.fromkeys(preset.recipe.name for preset in presets))


def _found(presets: Sequence[Preset[Kind]], name: str, wanted: str) -> Preset[Kind]:
    names = _names(presets)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
        raise RecipeError(f"There is no recipe {name!r}; {hint}")
    there = [preset for preset in presets if preset.recipe.name == name]
    for found in there:
        if found.recipe.preset == wanted:
            return found
    raise RecipeError(
        f"The recipe {name!r} has no preset {wanted!r}; "
        f"choose {' or '.join(p.recipe.preset for p in there)}."
    )
