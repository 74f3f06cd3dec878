"""The order of stages of a merge without gates: teachers → selected → fine-tuned → refitted."""

import copy
from collections.abc import Generator, Iterator
from functools import cached_property
from pathlib import Path

from torch import nn

from merge_core.channels import ChannelGraph, flops
from merge_core.data import Split, load
from merge_core.events import ChannelsKept, Event, Resume, StudentReturned
from merge_core.methods.base import Surroundings
from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.proof import proved
from merge_core.recipes import Refit
from merge_core.refits.outputs import imitated
from merge_core.refits.selecting import Selected, refitted, selected
from merge_core.repair import has_norm_statistics
from merge_core.stages import RETURNABLE_REFIT
from merge_core.staging import Stages, Timer, first_layer
from merge_core.training import is_classification, load_arrays, state_arrays, to_array


def refit(
    recipe: Refit, device: str, *, data_dir: Path, resume: Resume | None = None
) -> Iterator[Event]:
    """Train teachers, merge them into one network without gates, and judge it.

    Args:
        recipe: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        data_dir: where downloaded data sets lie.
        resume: what an interrupted run of the same recipe and device already has.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet, in
        the order of `stages.REFIT_STAGES`; last a `StudentReturned`.

    Raises:
        NetweldError: the data, the network or the training cannot be used; see its message.
    """
    yield from RefitRun(recipe, device, load(recipe.data, recipe.seed, data_dir), resume).events()


class RefitRun(Stages[Refit]):
    """One merge without gates on its way."""

    teachers: tuple[nn.Module, ...] = ()

    @property
    def names(self) -> list[str]:
        """The stages of the teachers."""
        return [f"teacher_{letter}" for letter in "abcd"[: self.recipe.teachers]]

    @property
    def control(self) -> str:
        """The stage that is fine-tuned alike, from what knows less."""
        return "untrained" if self.recipe.start == "random" else "random_half"

    def ignorant(self, graph: ChannelGraph) -> nn.Module:
        """What the control is fine-tuned from."""
        if self.recipe.start == "random":
            return self.fresh(self.control)
        return self.from_random(graph)

    def from_random(self, graph: ChannelGraph) -> nn.Module:
        """A student of random channels of the teachers."""
        return selected(self.teachers, graph, self.setting, random=True).student

    @property
    def setting(self) -> Surroundings:
        """What selecting looks at."""
        return Surroundings(
            data=self.data,
            augment=self.augment,
            draws=self.draws,
            teachers=self.recipe.teachers,
            examples=self.recipe.examples,
        )

    def examples(self, stage: str) -> Split:
        """Students may be fine-tuned on mixed examples as the teachers see them."""
        if self.recipe.mixes and stage in ("tuned", self.control):
            return self._imitation
        return self.data.train

    @cached_property
    def _imitation(self) -> Split:
        assert self.teachers, "they are trained before anybody imitates them"
        recipe, draws = self.recipe, self.draws("mixes")
        return imitated(self.data.train, self.teachers, recipe.mixes, draws, recipe.labels)

    def events(self) -> Generator[Event, None, None]:
        recipe = self.recipe
        fresh = {stage: self.fresh(stage) for stage in self.names}
        graph = proved(fresh["teacher_a"], self.example, recipe.model)
        self._fits = not is_classification(self.data.train)
        yield from self._plan(fresh["teacher_a"])
        facts = {"first_layer": first_layer(fresh["teacher_a"], graph)}
        made = []
        for stage, network in fresh.items():
            made.append(
                (
                    yield from self.trained(
                        stage, network, recipe.teacher, facts if stage == "teacher_a" else None
                    )
                )
            )
        self.teachers = tuple(made)
        yield from self.judged("ensemble", MeanOfOutputs(made), stored=False)
        student = yield from self._selected(graph)
        if has_norm_statistics(student):
            batch = recipe.fine_tune.batch_size
            fresh_norms = yield from self.normed("selected_norms", student, batch)
            if self.best(("selected", "selected_norms")) == "selected_norms":
                student = fresh_norms
        if recipe.fine_tune.epochs:
            start = self.from_random(graph) if recipe.start == "random" else student
            yield from self._tuned(start)
        yield from self.trained(self.control, self.ignorant(graph), recipe.fine_tune)
        longer = recipe.teacher.over(recipe.tuning_passes)
        yield from self.trained("trained_on", copy.deepcopy(self.teachers[0]), longer)
        yield StudentReturned(stage=self.best(RETURNABLE_REFIT), facts=facts)

    def _plan(self, network: nn.Module) -> Iterator[Event]:
        recipe, cost = self.recipe, sum(flops(network, self.example).values())
        tuning = len(self.data.train) * max(1, recipe.mixes)
        for stage in self.names:
            yield self.planned(stage, recipe.teacher, cost)
        yield self.planned("ensemble")
        yield self.planned("selected")
        if has_norm_statistics(network):
            yield self.planned("selected_norms")
        yield self.planned("tuned", recipe.fine_tune, cost, tuning)
        if self._fits:
            yield self.planned("refitted")
        yield self.planned(self.control, recipe.fine_tune, cost, tuning)
        yield self.planned("trained_on", recipe.teacher.over(recipe.tuning_passes), cost)

    def _selected(self, graph: ChannelGraph) -> Generator[Event, None, nn.Module]:
        student = self.fresh("teacher_a")
        if done := self.over("selected"):
            return load_arrays(student, done.arrays).eval()
        timer = Timer.now()
        yield self.started("selected")
        made = selected(self.teachers, graph, self.setting)
        yield from _kept(made, graph, self.recipe.teachers)
        facts = {"selection_flops": made.flops}
        yield self.finished("selected", made.student, timer, state_arrays(made.student), facts)
        return made.student

    def _tuned(self, student: nn.Module) -> Generator[Event, None, None]:
        network = copy.deepcopy(student)
        tuned = yield from self.trained("tuned", network, self.recipe.fine_tune)
        if self._fits:
            last, _ = refitted(tuned, self.data.train)
            yield from self.judged("refitted", last)


def _kept(made: Selected, graph: ChannelGraph, teachers: int) -> Iterator[Event]:
    """Which channels were kept: the others' gates count as closed."""
    for space in graph.free:
        kept = made.kept[space.name]
        is_open = to_array(kept.new_zeros(teachers * space.size).float())
        is_open[to_array(kept)] = 1
        yield ChannelsKept(
            space=space.name,
            kept=to_array(kept),
            open_probability=is_open,
            gate=is_open,
            teachers=teachers,
        )
