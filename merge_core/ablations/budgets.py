"""Changes of a merge without gates that keep its budget, and the teachers that changes share."""

import dataclasses
from collections.abc import Callable

from merge_core.recipes import Refit
from merge_core.refits.strategy import RefitRun
from merge_core.tables import Block
from merge_core.tables.ours import taught


def same(recipe: Refit) -> Refit:
    """The preset as it is."""
    return recipe


def teachers(count: int) -> Callable[[Refit], Refit]:
    """So many teachers, trained for as many epochs together."""

    def change(recipe: Refit) -> Refit:
        epochs = recipe.teachers * recipe.teacher.epochs // count
        return dataclasses.replace(recipe, teachers=count, teacher=recipe.teacher.over(epochs))

    return change


def tuning(factor: float) -> Callable[[Refit], Refit]:
    """Fine-tuning at another learning rate."""

    def change(recipe: Refit) -> Refit:
        rate = factor * recipe.fine_tune.learning_rate
        return dataclasses.replace(
            recipe, fine_tune=dataclasses.replace(recipe.fine_tune, learning_rate=rate)
        )

    return change


def shorter_teachers(recipe: Refit) -> Refit:
    """Half of the teachers' epochs go to fine-tuning."""
    half = recipe.teacher.epochs // 2
    more = recipe.teachers * (recipe.teacher.epochs - half) // max(1, recipe.mixes)
    return dataclasses.replace(
        recipe,
        teacher=recipe.teacher.over(half),
        fine_tune=recipe.fine_tune.over(recipe.fine_tune.epochs + more),
    )


class Teachers:
    """The repetitions of a block with their teachers; changes that leave those alone share them."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self._taught: dict[tuple[int, int], list[RefitRun]] = {}

    def of(self, recipe: Refit) -> list[RefitRun]:
        """A run of the recipe for each repetition, its teachers trained."""
        key = (recipe.teachers, recipe.teacher.epochs)
        if key not in self._taught:
            self._taught[key] = taught(self.block, recipe)
        runs = []
        for it, other in zip(self.block.all, self._taught[key], strict=True):
            run = RefitRun(
                dataclasses.replace(recipe, seed=it.recipe.seed), it.device, it.data, None
            )
            run.teachers = other.teachers
            runs.append(run)
        return runs
