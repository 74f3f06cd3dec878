"""Recipes that run in seconds, for tests that need a whole merge."""

from merge_core.presets import find_preset
from merge_core.recipes import Recipe

_SETTINGS = {
    "digits": {
        "data.train": "300",
        "data.heldout": "100",
        "data.test": "100",
        "teacher.epochs": "3",
        "gating.epochs": "2",
        "fine_tune.epochs": "2",
    },
    "sine": {
        "data.train": "400",
        "data.heldout": "100",
        "data.test": "100",
        "teacher.epochs": "3",
        "gating.epochs": "2",
        "fine_tune.epochs": "2",
    },
}


def small(name: str, **settings: str) -> Recipe:
    """The quick preset of `digits` or `sine`, made small; settings as dotted keys."""
    return find_preset(name, "quick").recipe.changed(_SETTINGS[name] | settings)
