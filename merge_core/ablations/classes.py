"""What each part of the preset `ours` is good for where classes are told apart, e.g. `textures`."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from merge_core.ablations.budgets import Teachers, same, shorter_teachers, teachers, tuning
from merge_core.presets.ours import ours
from merge_core.recipes import Refit
from merge_core.refits.selecting import selected
from merge_core.refits.strategy import RefitRun
from merge_core.tables import Block
from merge_core.tables.ours import tuned


def _mixes(count: int) -> Callable[[Refit], Refit]:
    """So many mixed examples for each; 0 fine-tunes on the examples and their classes."""

    def change(recipe: Refit) -> Refit:
        epochs = recipe.tuning_passes // max(1, count)
        return dataclasses.replace(recipe, mixes=count, fine_tune=recipe.fine_tune.over(epochs))

    return change


def _other_labels(recipe: Refit) -> Refit:
    return dataclasses.replace(recipe, labels=0.0 if recipe.labels else 0.5)


def _from_selected(recipe: Refit) -> Refit:
    return dataclasses.replace(recipe, start="selected")


@dataclass(frozen=True, kw_only=True)
class Change:
    """The preset with one thing changed.

    Attributes:
        title: the words in the table.
        of: the recipe, from the preset's.
        untrained: the student starts from an untrained network.
    """

    title: str
    of: Callable[[Refit], Refit] = same
    untrained: bool = False


CHANGES = (
    Change(title="`ours`: teachers imitated on mixed examples, from random channels of theirs"),
    Change(title="2 teachers", of=teachers(2)),
    Change(title="3 teachers", of=teachers(3)),
    Change(title="4 teachers", of=teachers(4)),
    Change(title="teachers half as long, imitation longer", of=shorter_teachers),
    Change(title="from the channels that least squares selects", of=_from_selected),
    Change(title="from an untrained network", untrained=True),
    Change(title="one mixed example for each, seen more often", of=_mixes(1)),
    Change(title="on the examples and their classes, not on mixed ones", of=_mixes(0)),
    Change(title="classes as half of the targets; where they are, without", of=_other_labels),
    Change(title="at half the rate", of=tuning(0.5)),
)
"""The preset first, then what is changed."""


def changes(usual: Refit) -> list[Change]:
    """The preset as it is, and what changes it; another budget has other teachers."""
    first, *others = CHANGES
    return [first, *(each for each in others if each.untrained or each.of(usual) != usual)]


class Trained:
    """The repetitions of every change; what several changes share is made once."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.recipe = ours(block.recipe, block.epochs.long)
        self._teachers = Teachers(block)
        self._selected: dict[tuple[int, int], list[nn.Module]] = {}

    def scores(self, change: Change) -> list[float]:
        """Held-out accuracy of the better of the selected and the fine-tuned student, by seed."""
        recipe = change.of(self.recipe)
        runs = self._teachers.of(recipe)
        firsts = self._firsts(recipe, runs)
        ends = tuned(self.block, runs, "tuned", self._starts(change, runs, firsts))
        return [
            max(it.heldout(first), it.heldout(end))
            for it, first, end in zip(self.block.all, firsts, ends, strict=True)
        ]

    def _firsts(self, recipe: Refit, runs: Sequence[RefitRun]) -> list[nn.Module]:
        """The selected students, their norm statistics measured afresh where that is better."""
        key = (recipe.teachers, recipe.teacher.epochs)
        if key not in self._selected:
            self._selected[key] = [
                self.block.with_norms(
                    it,
                    selected(run.teachers, self.block.graph, run.setting).student,
                    recipe.fine_tune.batch_size,
                )
                for it, run in zip(self.block.all, runs, strict=True)
            ]
        return self._selected[key]

    def _starts(
        self, change: Change, runs: Sequence[RefitRun], firsts: Sequence[nn.Module]
    ) -> Sequence[nn.Module]:
        if change.untrained:
            return [run.fresh("untrained") for run in runs]
        if runs[0].recipe.start == "random":
            return [run.from_random(self.block.graph) for run in runs]
        return firsts
