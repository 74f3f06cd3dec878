"""What each part of the preset `ours` is good for where numbers are fitted: on `sine`.

All repetitions of a change train together; teachers are trained once for all changes that leave
them alone. What is changed keeps the budget: fewer teachers train longer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from merge_core.ablations.budgets import Teachers, same, shorter_teachers, teachers, tuning
from merge_core.channels import ChannelGraph, concatenate, select, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.errors import DivergedError
from merge_core.methods.least_squares import reduced
from merge_core.presets.ours import ours
from merge_core.recipes import Refit
from merge_core.refits.outputs import output_fitted
from merge_core.refits.selecting import RIDGE, refitted, selected
from merge_core.refits.strategy import RefitRun
from merge_core.similarity import unit_norms
from merge_core.tables import Block
from merge_core.tables.ours import tuned

Rule = Literal["targets", "teachers", "weights", "random"]
"""What channels are chosen for: what they tell of the targets, or of the teachers' mean; or the
largest weights in × out; or by lot."""
Way = Literal["selected", "tuned", "refitted"]
"""The networks on the way, of which the best on held-out is taken."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """The preset with one thing changed.

    Attributes:
        title: the words in the table.
        of: the recipe, from the preset's.
        rule: what channels are chosen for.
        ridge: of choosing and of the first fit of the output layer.
        ways: the networks of which the best on held-out is taken.
    """

    title: str
    of: Callable[[Refit], Refit] = same
    rule: Rule = "targets"
    ridge: float = RIDGE
    ways: tuple[Way, ...] = ("selected", "tuned", "refitted")


CHANGES = (
    Change(title="`ours`: 4 teachers, channels for the targets, rate × 0.3, refitted"),
    Change(title="3 teachers", of=teachers(3)),
    Change(title="2 teachers", of=teachers(2)),
    Change(title="teachers half as long, fine-tuning longer", of=shorter_teachers),
    Change(title="channels for the teachers' mean", rule="teachers"),
    Change(title="channels with the largest weights", rule="weights"),
    Change(title="random channels", rule="random"),
    Change(title="regularisation 100 times as strong", ridge=100 * RIDGE),
    Change(title="regularisation a hundredth", ridge=RIDGE / 100),
    Change(title="fine-tuned at the teachers' rate", of=tuning(1 / 0.3)),
    Change(title="fine-tuned at a tenth of the rate", of=tuning(0.1)),
    Change(title="output not refitted at the end", ways=("selected", "tuned")),
    Change(title="not fine-tuned at all", ways=("selected",)),
)
"""The preset first, then what is changed."""


@torch.no_grad()
def student(run: RefitRun, graph: ChannelGraph, rule: Rule, ridge: float) -> nn.Module:
    """The student of a run's teachers before it is fine-tuned, its output fitted to the targets."""
    setting, some = run.setting, run.data.train.part(slice(run.recipe.examples))
    if rule == "random":
        return selected(run.teachers, graph, setting, random=True).student
    big = concatenate(run.teachers, graph)
    big_graph = trace(big, setting.example)
    if rule == "weights":
        # The output is refitted anyway, so only the order of the channels counts.
        (space,) = graph.free
        norms = unit_norms(big_graph, named_tensors(big), space.name)
        kept = torch.stack(norms).prod(0).topk(space.size).indices.sort().values
        made = select(big, big_graph, {space.name: kept})
    else:
        if rule == "targets":
            big = output_fitted(big, some, ridge)
        made = reduced(big, big_graph, run.teachers, graph, setting, ridge).network
    return output_fitted(made, some, ridge)


class Trained:
    """The repetitions of every change; what several changes share is trained once."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.recipe = ours(block.recipe, block.epochs.long)
        self._teachers = Teachers(block)
        self._ways: dict[object, list[dict[Way, float]]] = {}

    def scores(self, change: Change) -> list[float]:
        """The held-out loss of the best way, in every repetition."""
        recipe = change.of(self.recipe)
        key = (recipe, change.rule, change.ridge)
        if key not in self._ways:
            self._ways[key] = self._made(recipe, change)
        return [min(each.get(way, math.inf) for way in change.ways) for each in self._ways[key]]

    def _made(self, recipe: Refit, change: Change) -> list[dict[Way, float]]:
        runs = self._teachers.of(recipe)
        graph, train = self.block.graph, runs[0].data.train
        assert train.targets.dtype != torch.int64, "only numbers are fitted in closed form"
        firsts = [student(run, graph, change.rule, change.ridge) for run in runs]
        found: list[dict[Way, float]] = []
        for it, run, first, end in zip(
            self.block.all, runs, firsts, self._tuned(runs, firsts), strict=True
        ):
            losses: dict[Way, float] = {"selected": it.heldout(first)}
            if end is not None:
                losses["tuned"] = it.heldout(end)
                losses["refitted"] = it.heldout(refitted(end, run.data.train)[0])
            found.append(losses)
        return found

    def _tuned(
        self, runs: Sequence[RefitRun], firsts: Sequence[nn.Module]
    ) -> list[nn.Module] | list[nn.Module | None]:
        """The fine-tuned students; None where the loss of one did not stay finite."""
        try:
            return tuned(self.block, runs, "tuned", firsts)
        except DivergedError:
            return [self._alone(run, first) for run, first in zip(runs, firsts, strict=True)]

    def _alone(self, run: RefitRun, first: nn.Module) -> nn.Module | None:
        try:
            return tuned(self.block, [run], "tuned", [first])[0]
        except DivergedError:
            return None
