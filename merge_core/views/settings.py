"""A recipe from the few settings that a page offers."""

import dataclasses

from merge_core.recipes import Recipe
from merge_core.schedules import Schedule


def with_settings(
    recipe: Recipe,
    *,
    seed: int,
    model: str,
    epochs: tuple[int, int, int],
    schedule: Schedule,
) -> Recipe:
    """A copy of a preset's recipe with a page's settings.

    Args:
        recipe: a preset's recipe.
        seed: decides every random draw.
        model: an architecture that fits the recipe's data.
        epochs: of each teacher, of the gates, of fine-tuning; the learning rate's milestones move
            in proportion.
        schedule: λ over the gate stage.

    Raises:
        RecipeError: a value that does not fit.
    """
    return dataclasses.replace(
        recipe,
        seed=seed,
        model=model,
        teacher=recipe.teacher.over(epochs[0]),
        gating=recipe.gating.over(epochs[1]),
        fine_tune=recipe.fine_tune.over(epochs[2]),
        gates=dataclasses.replace(recipe.gates, schedule=schedule),
    )
