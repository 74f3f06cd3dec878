"""The recipes that netweld knows by name (no torch)."""

import difflib
from dataclasses import dataclass, replace

from merge_core.errors import RecipeError
from merge_core.recipes import Data, Gates, Recipe, Training


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe with the words a page shows beside its name."""

    recipe: Recipe
    title: str
    story: str


_TEXTURES = Data(name="textures", train=6000, heldout=1500, test=3000, noise=0.35, augment="none")
_PHOTOS = Data(
    name="photos", train=6000, heldout=1500, test=3000, augment="flips and quarter turns"
)
_PATCHES = Training(epochs=12, batch_size=128, learning_rate=0.1, weight_decay=0.003)

PRESETS: tuple[Preset, ...] = (
    Preset(
        recipe=Recipe(
            name="textures",
            preset="quick",
            data=_TEXTURES,
            model="patch-cnn",
            teacher=_PATCHES.over(12),
            gates=Gates(start=1.0, learning_rate=0.5),
            gating=_PATCHES.over(8),
            fine_tune=replace(_PATCHES, epochs=6, learning_rate=0.05),
        ),
        title="Textures",
        story="Generated gratings and crossed gratings under noise, 12 classes.",
    ),
    Preset(
        recipe=Recipe(
            name="photos",
            preset="quick",
            data=_PHOTOS,
            model="patch-cnn",
            teacher=_PATCHES.over(12),
            gates=Gates(start=1.0, learning_rate=0.5),
            gating=_PATCHES.over(8),
            fine_tune=replace(_PATCHES, epochs=6, learning_rate=0.05),
        ),
        title="Photographs",
        story="From which of 12 regions of two photographs does a patch come?",
    ),
    Preset(
        recipe=Recipe(
            name="digits",
            preset="quick",
            data=Data(name="digits", augment="none"),
            model="digits-cnn",
            teacher=Training(epochs=20, batch_size=64, learning_rate=0.1),
            gates=Gates(start=1.0, learning_rate=2.0),
            gating=Training(epochs=10, batch_size=64, learning_rate=0.1),
            fine_tune=Training(epochs=10, batch_size=64, learning_rate=0.05),
        ),
        title="Digits",
        story="Scikit-learn's 1,797 handwritten digits, 8×8 pixels.",
    ),
    Preset(
        recipe=Recipe(
            name="sine",
            preset="quick",
            data=Data(name="sine", train=10_000, heldout=2_000, test=10_000, noise=0.2),
            model="sine-mlp",
            teacher=Training(
                epochs=200, batch_size=128, learning_rate=0.02, rate="steps", milestones=(167,)
            ),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=100, batch_size=128, learning_rate=0.02, rate="constant"),
            fine_tune=Training(
                epochs=100, batch_size=128, learning_rate=0.02, rate="steps", milestones=(67,)
            ),
        ),
        title="Sine",
        story="Five sine waves with noise, fitted by one hidden layer: the paper's first problem.",
    ),
    Preset(
        recipe=Recipe(
            name="sine",
            preset="paper",
            data=Data(name="sine", train=10_000, heldout=2_000, test=10_000, noise=0.2),
            model="sine-mlp",
            teacher=Training(
                epochs=300, batch_size=32, learning_rate=0.01, rate="steps", milestones=(250,)
            ),
            gates=Gates(start=1.0, learning_rate=0.1, pull=234.75),
            gating=Training(epochs=150, batch_size=32, learning_rate=0.01, rate="constant"),
            fine_tune=Training(
                epochs=150, batch_size=32, learning_rate=0.01, rate="steps", milestones=(100,)
            ),
        ),
        title="Sine, as in the paper",
        story="The paper's own settings: 900 epochs in all.",
    ),
    Preset(
        recipe=Recipe(
            name="mnist-lenet",
            preset="quick",
            data=Data(name="mnist", train=10_000, heldout=2_000, test=10_000),
            model="lenet",
            teacher=Training(epochs=4, batch_size=64, learning_rate=0.05),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=64, learning_rate=0.05),
            fine_tune=Training(epochs=2, batch_size=64, learning_rate=0.02),
        ),
        title="MNIST, LeNet",
        story="Handwritten digits, 28×28 pixels; needs the data set on disk or a network.",
    ),
)


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
