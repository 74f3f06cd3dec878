"""The merge without gates, `netweld merge NAME --preset ours`, at the budget of a table."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

from torch import nn

from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.presets.ours import ours
from merge_core.recipes import Refit
from merge_core.refits.selecting import refitted, selected
from merge_core.refits.strategy import RefitRun
from merge_core.repair import has_norm_statistics
from merge_core.repetitions import Row
from merge_core.tables.block import Block
from merge_core.training import is_classification


class Ours:
    """The merge of `merge_core.refits`, and as its control the same from what knows less.

    Beside the epochs, the FLOPs of its rows count selecting and refitting, what the teachers give
    on mixed examples, and the pass that re-estimates norm statistics.
    """

    def _recipe(self, block: Block) -> Refit:
        return ours(block.recipe, block.epochs.long)

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        recipe = self._recipe(block)
        narrow = recipe.teachers * recipe.teacher.epochs + 2 * recipe.tuning_passes
        return block.flops(narrow)

    def rows(self, block: Block) -> Iterator[Row]:
        """Before and after fine-tuning, and the control."""
        recipe = self._recipe(block)
        spent = recipe.teachers * recipe.teacher.epochs
        runs = taught(block, recipe)
        made = [selected(run.teachers, block.graph, run.setting) for run in runs]
        firsts, ways = [], []
        for it, run, one in zip(block.all, runs, made, strict=True):
            way = [it.seen(*each) for each in zip(run.names, run.teachers, strict=True)]
            way.append(it.seen("ensemble", MeanOfOutputs(run.teachers)))
            way.append(it.seen("selected", one.student))
            batch = recipe.fine_tune.batch_size
            first = block.with_norms(it, one.student, batch, way, "selected_norms")
            ways.append(way)
            yield block.row(it, "ours_selected", first, spent, more=one.flops)
            firsts.append(first)
        starts = firsts
        if recipe.start == "random":
            starts = [run.from_random(block.graph) for run in runs]
        ignorant = [run.ignorant(block.graph) for run in runs]
        for strategy, stage, networks in (
            ("ours", "tuned", starts),
            ("ours_random", runs[0].control, ignorant),
        ):
            ends = tuned(block, runs, stage, networks)
            for it, one, first, end, way in zip(block.all, made, firsts, ends, ways, strict=True):
                candidates = [first, end] if strategy == "ours" else [end]
                way = [*way, it.seen("tuned", end)] if strategy == "ours" else []
                more = one.flops + self._beside(block, recipe, first)
                if not is_classification(it.data.train):
                    last, refitting = refitted(end, it.data.train)
                    candidates.append(last)
                    way += [it.seen("refitted", last)] if way else []
                    more += refitting
                network = it.best_of(candidates)
                epochs = spent + recipe.tuning_passes
                yield block.row(it, strategy, network, epochs, more=more, stages=way)

    def _beside(self, block: Block, recipe: Refit, student: nn.Module) -> float:
        """FLOPs of what the teachers give on mixed examples, and of norm statistics."""
        passes = recipe.teachers * recipe.mixes
        passes += has_norm_statistics(student)
        return float(passes * block.cost * block.examples)


def taught(block: Block, recipe: Refit) -> list[RefitRun]:
    """A run for each repetition of a block, with its trained teachers."""
    runs = [
        RefitRun(dataclasses.replace(recipe, seed=it.recipe.seed), it.device, it.data, None)
        for it in block.all
    ]
    jobs = [run.job(stage, run.fresh(stage), recipe.teacher) for run in runs for stage in run.names]
    made = block.train(jobs, block.cost)
    for number, run in enumerate(runs):
        start = number * recipe.teachers
        run.teachers = tuple(made[start : start + recipe.teachers])
    return runs


def tuned(
    block: Block, runs: Sequence[RefitRun], stage: str, networks: Sequence[nn.Module]
) -> list[nn.Module]:
    """Copies of the networks, fine-tuned as a stage of their runs."""
    jobs = [
        run.job(stage, copy.deepcopy(network), run.recipe.fine_tune)
        for run, network in zip(runs, networks, strict=True)
    ]
    return block.train(jobs, block.cost)
