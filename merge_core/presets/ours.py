"""Merges without gates that cost what the merges of the other presets cost, and give more."""

from dataclasses import dataclass, replace

from merge_core.presets.preset import Preset
from merge_core.recipes import Recipe, Refit


@dataclass(frozen=True, kw_only=True)
class _Shares:
    """How a budget is spent.

    What is left is for selecting channels, for what the teachers give and for norm statistics,
    none of which are epochs.

    Attributes:
        teachers: how many there are.
        teacher: the share of each of them.
        fine_tune: the share of fine-tuning.
        examples: how many training examples channels are chosen on.
        distillation: as in the recipe.
        rate: the highest learning rate of fine-tuning, in that of the teachers.
    """

    teachers: int
    teacher: float
    fine_tune: float
    examples: int
    distillation: float
    rate: float


_NUMBERS = _Shares(
    teachers=4, teacher=0.175, fine_tune=0.21, examples=1000, distillation=0.0, rate=0.3
)
_CLASSES = _Shares(
    teachers=3, teacher=0.2, fine_tune=0.37, examples=2000, distillation=1.0, rate=1.0
)


def ours(recipe: Recipe, total: float) -> Refit:
    """The merge without gates that fits the budget of a merge.

    Args:
        recipe: the merge that it is compared with; its data, model and settings of training hold.
        total: the budget: epochs of training one network of ordinary width.
    """
    shares = _NUMBERS if recipe.metric == "loss" else _CLASSES
    tuning = recipe.fine_tune.over(max(1, int(total * shares.fine_tune)))
    return Refit(
        name=recipe.name,
        preset="ours",
        seed=recipe.seed,
        data=recipe.data,
        model=recipe.model,
        teachers=shares.teachers,
        teacher=recipe.teacher.over(max(1, int(total * shares.teacher))),
        examples=shares.examples,
        fine_tune=replace(tuning, learning_rate=shares.rate * recipe.teacher.learning_rate),
        distillation=shares.distillation,
    )


def preset_ours(preset: Preset[Recipe], cost: float) -> Preset[Refit]:
    """The preset `ours` beside another one.

    Args:
        preset: what it is compared with.
        cost: of an epoch of its big student, in epochs of one network.
    """
    recipe = preset.recipe
    total = 2 * recipe.teacher.epochs + recipe.fine_tune.epochs + cost * recipe.gating.epochs
    return Preset(
        recipe=ours(recipe, total),
        title=f"{preset.title.removesuffix(', as in the paper')}, without gates",
        story="More teachers, channels chosen by least squares instead of gates, fine-tuned on "
        f"what the teachers give together, for the work of the preset {recipe.preset}.",
    )
