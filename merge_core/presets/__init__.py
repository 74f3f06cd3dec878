"""The recipes that netweld knows by name (no torch)."""

import difflib

from merge_core.errors import RecipeError
from merge_core.presets.paper import PAPER
from merge_core.presets.preset import Preset
from merge_core.presets.quick import QUICK

__all__ = ["PRESETS", "Preset", "find_preset", "recipe_names"]

PRESETS: tuple[Preset, ...] = (*QUICK, *PAPER)


def recipe_names() -> list[str]:
    """The recipes' names, each once, in the order of the presets."""
    return list(dict.fromkeys(preset.recipe.name for preset in PRESETS))


def find_preset(name: str, preset: str) -> Preset:
    """The preset of a recipe.

    Raises:
        RecipeError: no recipe of that name, or it has no such preset.
    """
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
        raise RecipeError(f"There is no recipe {name!r}; {hint}")
    presets = [p for p in PRESETS if p.recipe.name == name]
    for found in presets:
        if found.recipe.preset == preset:
            return found
    raise RecipeError(
        f"The recipe {name!r} has no preset {preset!r}; "
        f"choose {' or '.join(p.recipe.preset for p in presets)}."
    )
