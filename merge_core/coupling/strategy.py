"""The order of stages of trainings that tie networks together.

`couple` and `average` are generators of events, as `merge_core.strategies.merge` is.
"""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from torch import nn

from merge_core.channels import ChannelGraph, flops
from merge_core.coupling.averaging import Dealing, Meetings, mean_of
from merge_core.coupling.lockstep import in_lockstep, parts, within
from merge_core.coupling.pulling import PulledTogether, share_layers, shared_parameters
from merge_core.data import Split, load
from merge_core.errors import RecipeError
from merge_core.events import Event, Resume, StageFinished, StudentReturned
from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.proof import proved
from merge_core.recipes import Averaging, Coupling, Training
from merge_core.repair import has_norm_statistics
from merge_core.stages import RETURNABLE_AVERAGE
from merge_core.staging import Kind, Stages, Timer, first_layer
from merge_core.training import Course, load_arrays, state_arrays, steps_per_epoch


def couple(
    recipe: Coupling, device: str, *, data_dir: Path, resume: Resume | None = None
) -> Iterator[Event]:
    """Train two teachers together, average them, and judge both ways of having one network.

    Args:
        recipe: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        data_dir: where downloaded data sets lie.
        resume: what an interrupted run of the same recipe and device already has.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet; last
        a `StudentReturned`.

    Raises:
        NetweldError: the data, the network or the training cannot be used; see its message.
    """
    data = load(recipe.data, recipe.seed, data_dir)
    yield from _Coupling(recipe, device, data, resume).events()


def average(
    recipe: Averaging, device: str, *, data_dir: Path, resume: Resume | None = None
) -> Iterator[Event]:
    """Train workers on parts of the data that are averaged regularly, and judge the average.

    Arguments, events and errors as of `couple`.
    """
    data = load(recipe.data, recipe.seed, data_dir)
    yield from _Averaging(recipe, device, data, resume).events()


class _Tied(Stages[Kind]):
    """What both have in common: the average, judged, and judged again with its own statistics."""

    def averaged(self, mean: nn.Module, training: Training) -> Generator[Event, None, None]:
        yield from self.judged("average", mean)
        if has_norm_statistics(mean):
            yield from self.normed("average_norms", mean, training.batch_size)

    def average_stages(self, network: nn.Module) -> tuple[str, ...]:
        return RETURNABLE_AVERAGE if has_norm_statistics(network) else RETURNABLE_AVERAGE[:1]

    def stored(self, stage: str, networks: Sequence[nn.Module]) -> bool:
        """Whether a stage is over; its networks are then as it left them, in eval mode."""
        if done := self.over(stage):
            for number, network in enumerate(networks):
                load_arrays(network, within(done.arrays, f"{number}|")).eval()
        return done is not None

    def all_trained(self, stage: str, networks: Sequence[nn.Module], timer: Timer) -> StageFinished:
        """The end of a stage that trains several networks, which are judged one by one later."""
        arrays = {
            f"{number}|{name}": array
            for number, network in enumerate(networks)
            for name, array in state_arrays(network.eval()).items()
        }
        return StageFinished(stage=stage, scores={}, seconds=timer.seconds, arrays=arrays)


class _Coupling(_Tied[Coupling]):
    """Two coupled teachers on their way."""

    def examples(self, stage: str) -> Split:
        """The control sees all; teachers may have one half each."""
        if self.recipe.data.halves == "disjoint" and stage in ("teacher_a", "teacher_b"):
            return self.data.halves[stage == "teacher_b"]
        return self.data.train

    def events(self) -> Iterator[Event]:
        recipe, training = self.recipe, self.recipe.teacher
        a = self.fresh("teacher_a")
        b = self.fresh("teacher_a" if recipe.start == "same" else "teacher_b")
        graph = proved(a, self.example, recipe.model)
        if recipe.pull.heads_from:
            share_layers(a, b, recipe.pull.heads_from)
        tie = PulledTogether(a, b, recipe.pull, self.data.heldout)

        cost = sum(flops(a, self.example).values())
        one = self.planned("teacher_a", training, cost)
        both = one.flops + self.planned("teacher_b", training, cost).flops
        yield dataclasses.replace(one, stage="coupled", steps=self._steps(), flops=both)
        for stage in ("teacher_a", "teacher_b", "ensemble", *self.average_stages(a)):
            yield self.planned(stage)
        yield self.planned("alone", recipe.alone, cost)

        yield from self._trained_together(a, b, tie)
        facts = {"first_layer": first_layer(a, graph)}
        yield from self.judged("teacher_a", a, facts=facts)
        yield from self.judged("teacher_b", b)
        yield from self.judged("ensemble", MeanOfOutputs([a, b]), stored=False)
        yield from self.averaged(mean_of([a, b]), training)
        yield from self.trained("alone", self.fresh("teacher_a"), recipe.alone)
        yield StudentReturned(stage=self.best(RETURNABLE_AVERAGE), facts=facts)

    def _seen(self) -> int:
        """Examples that each teacher sees in an epoch; halves may differ by one."""
        return min(len(self.examples(stage)) for stage in ("teacher_a", "teacher_b"))

    def _steps(self) -> int:
        training = self.recipe.teacher
        return training.epochs * steps_per_epoch(self._seen(), training.batch_size)

    def _trained_together(self, a: nn.Module, b: nn.Module, tie: PulledTogether) -> Iterator[Event]:
        if self.stored("coupled", (a, b)):
            return
        timer = Timer.now()
        yield self.started("coupled")
        checkpoint = self.checkpoint("coupled")
        courses = []
        for stage, network, part in zip(
            ("teacher_a", "teacher_b"), (a, b), parts(checkpoint, 2), strict=True
        ):
            job = self.job(stage, network, self.recipe.teacher)
            foreign = shared_parameters(a, b) if courses else ()
            courses.append(Course(job, part, examples=self._seen(), foreign=foreign))
        yield from in_lockstep("coupled", courses, tie, checkpoint)
        yield self.all_trained("coupled", (a, b), timer)


class _Averaging(_Tied[Averaging]):
    """Workers on their way."""

    def events(self) -> Iterator[Event]:
        recipe, training = self.recipe, self.recipe.training
        if len(self.data.train) < recipe.workers:
            raise RecipeError(
                f"The recipe got workers={recipe.workers}, but there are only "
                f"{len(self.data.train)} training examples; give fewer workers or more examples."
            )
        workers = [self.fresh(self._start(number)) for number in range(recipe.workers)]
        cost = sum(flops(workers[0], self.example).values())
        every = self.planned("workers", training, cost)
        steps = training.epochs * steps_per_epoch(self._part, training.batch_size)
        yield dataclasses.replace(every, steps=steps)
        for stage in self.average_stages(workers[0]):
            yield self.planned(stage)
        alone = every.flops / recipe.workers
        yield dataclasses.replace(every, stage="worker_alone", steps=steps, flops=alone)
        yield self.planned("one_on_all", training, cost)

        graph = proved(workers[0], self.example, self.recipe.model)
        facts = {"first_layer": first_layer(workers[0], graph)}
        if not self.stored("workers", workers):
            timer = Timer.now()
            yield from self._trained_apart("workers", workers, graph)
            yield self.all_trained("workers", workers, timer)
        yield from self.averaged(mean_of(workers), training)
        if not self.over("worker_alone"):
            timer, lone = Timer.now(), self.fresh(self._start(0))
            yield from self._trained_apart("worker_alone", [lone], None)
            yield self.finished("worker_alone", lone, timer, state_arrays(lone))
        yield from self.trained("one_on_all", self.fresh(self._start(0)), training)
        yield StudentReturned(stage=self.best(RETURNABLE_AVERAGE), facts=facts)

    def _start(self, number: int) -> str:
        return f"worker_{number if self.recipe.start == 'own' else 0}"

    @property
    def _part(self) -> int:
        """Examples that each worker sees in an epoch."""
        return len(self.data.train) // self.recipe.workers

    def _trained_apart(
        self, stage: str, networks: Sequence[nn.Module], graph: ChannelGraph | None
    ) -> Iterator[Event]:
        """Workers, each on its parts of the data; with a graph they meet, without they do not."""
        recipe, heldout = self.recipe, self.data.heldout
        yield self.started(stage)
        checkpoint = self.checkpoint(stage)
        courses = []
        for number, (network, part) in enumerate(
            zip(networks, parts(checkpoint, len(networks)), strict=True)
        ):
            job = self.job(f"worker_{number}", network, recipe.training)
            job = dataclasses.replace(job, stage=stage)
            courses.append(Course(job, part, examples=self._part))
        dealing = self.draws("dealing")
        if graph is None:
            tie = Dealing(courses, recipe.workers, heldout, dealing)
        else:
            tie = Meetings(courses, graph, recipe, heldout, dealing, self.draws("matching"))
        yield from in_lockstep(stage, courses, tie, checkpoint)
