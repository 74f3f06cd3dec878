"""The order of stages: teachers → big student → gates → cut → fine-tune, and the two controls.

`merge` is a generator of events; it writes nothing and asks nobody. Every stage draws from
generators of its own, so a stage that is over can be taken from its stored weights, and the rest
gives the same numbers as if the run had never stopped (see `merge_core.staging`).
"""

import copy
import dataclasses
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import torch
from torch import nn

from merge_core.channels import ChannelGraph, concatenate, flops, trace
from merge_core.data import Dataset, Split, load
from merge_core.events import (
    ChannelsKept,
    Event,
    Resume,
    StagePlanned,
    StudentReturned,
)
from merge_core.inspection import describe
from merge_core.methods import LEARNED_GATES, RANDOM_HALF, Choice, Setting
from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.proof import require_laws
from merge_core.recipes import Recipe, Training
from merge_core.repair import has_norm_statistics
from merge_core.stages import RETURNABLE
from merge_core.staging import Stages, Timer, first_layer
from merge_core.steering import Steering, seed_in
from merge_core.training import (
    state_arrays,
    to_array,
)


def merge(
    recipe: Recipe,
    device: str,
    *,
    data_dir: Path,
    resume: Resume | None = None,
    steering: Callable[[], Steering] | None = None,
) -> Iterator[Event]:
    """Train two teachers, merge them into one network, and judge it.

    Args:
        recipe: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        data_dir: where downloaded data sets lie.
        resume: what an interrupted run of the same recipe and device already has.
        steering: gives the recipe's steering with all that was added to it since; asked before
            every epoch of the gate stage.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet, in
        the order of `merge_core.stages`; last a `StudentReturned`. Where the gate stage was cut
        short, it and the controls, which get as many epochs, are planned once more.

    Raises:
        NetweldError: the data, the network or the training cannot be used; see its message.
    """
    data = load(recipe.data, recipe.seed, data_dir)
    steering = steering or (lambda: recipe.steering)
    yield from _Run(recipe, device, data, resume, steering).events()


class _Run(Stages[Recipe]):
    """One merge on its way: the data, the networks so far, and what a resume brought along."""

    def __init__(
        self,
        recipe: Recipe,
        device: str,
        data: Dataset,
        resume: Resume | None,
        steering: Callable[[], Steering],
    ) -> None:
        super().__init__(recipe, device, data, resume)
        self.trace_seconds = 0.0
        self.forward = self.forward_big = 0.0
        self.setting = Setting(
            recipe=recipe,
            data=self.data,
            augment=self.augment,
            draws=self.draws,
            teachers=2,
            steering=steering,
        )

    def events(self) -> Generator[Event, None, None]:
        recipe = self.recipe
        fresh = {stage: self.fresh(stage) for stage in ("teacher_a", "teacher_b")}
        timer = Timer.now()
        graph = trace(fresh["teacher_a"], self.example)
        self.trace_seconds = timer.seconds
        require_laws(fresh["teacher_a"], graph, self.example, recipe.model)
        yield from self.plan(fresh["teacher_a"], graph)

        facts = {"first_layer": first_layer(fresh["teacher_a"], graph)}
        a = yield from self.trained("teacher_a", fresh["teacher_a"], recipe.teacher, facts)
        b = yield from self.trained("teacher_b", fresh["teacher_b"], recipe.teacher)
        ensemble = MeanOfOutputs([a, b])
        yield from self.judged("ensemble", ensemble, stored=False)
        big = yield from self.concatenated(a, b, graph, ensemble)
        big_graph = trace(big, self.example)
        choice = yield from self.chosen(big, big_graph)
        self.seed = seed_in(recipe.seed, self.recipe.steering, self.recipe.gating.epochs + 1)
        yield from self.cut(choice, big_graph)
        yield from self.controls(a, b, graph, big_graph)
        yield StudentReturned(stage=self.best(RETURNABLE), facts=facts)

    def plan(self, network: nn.Module, graph: ChannelGraph) -> Iterator[StagePlanned]:
        recipe = self.recipe
        self.forward = sum(flops(network, self.example).values())
        big = concatenate([network, network], graph)
        self.forward_big = sum(flops(big, self.example).values())
        trained: dict[str, tuple[Training, float] | None] = {
            "teacher_a": (recipe.teacher, self.forward),
            "teacher_b": (recipe.teacher, self.forward),
            **dict.fromkeys(("ensemble", "big", "gates", "cut", "norms")),
            "fine_tune": (recipe.fine_tune, self.forward),
            **self.as_long_as_gates(),
        }
        if not has_norm_statistics(network):
            del trained["norms"]
        if recipe.fine_tune.epochs == 0:
            del trained["fine_tune"]
        for stage, job in trained.items():
            training, cost = job or (None, 0.0)
            yield self.planned(stage, training, cost)

    def as_long_as_gates(self) -> dict[str, tuple[Training, float]]:
        """The stages whose epochs depend on those of the gate stage."""
        recipe = self.recipe
        extra = recipe.extra_epochs
        return {
            "gates": (recipe.gating.over(recipe.gate_epochs), self.forward_big),
            "random_half": (recipe.fine_tune.over(extra), self.forward),
            "trained_on": (recipe.teacher.over(extra), self.forward),
        }

    def examples(self, stage: str) -> Split:
        """What a stage trains on: the training split, of which each teacher may have one half."""
        if self.recipe.data.halves == "disjoint" and stage in ("teacher_a", "teacher_b"):
            return self.data.halves[stage == "teacher_b"]
        return self.data.train

    def concatenated(
        self, a: nn.Module, b: nn.Module, graph: ChannelGraph, ensemble: nn.Module
    ) -> Generator[Event, None, nn.Module]:
        big = concatenate([a, b], graph)
        if self.over("big"):
            return big
        timer = Timer.now()
        yield self.started("big")
        errors = require_laws(a, graph, self.example, self.recipe.model)
        network = describe(
            a,
            graph,
            self.example,
            name=self.recipe.model,
            laws=vars(errors),
            trace_seconds=self.trace_seconds,
        )
        facts = {
            "law_errors": vars(errors),
            "mean_error": mean_error(big, ensemble, self.data),
            "network": network.to_dict(),
        }
        yield self.finished("big", big, timer, {}, facts)
        return big

    def chosen(self, big: nn.Module, graph: ChannelGraph) -> Generator[Event, None, Choice]:
        """The gate stage; returns the choice that its gates stand for."""
        if done := self.over("gates"):
            return LEARNED_GATES.restore(big, graph, self.setting, done.arrays)
        timer = Timer.now()
        yield self.started("gates")
        choice = yield from LEARNED_GATES.choose(big, graph, self.setting, self.checkpoint("gates"))
        planned = self.recipe.gate_epochs
        self.recipe = dataclasses.replace(self.recipe, steering=self.setting.steering())
        if self.recipe.gate_epochs < planned:
            for stage, job in self.as_long_as_gates().items():
                yield self.planned(stage, *job)
        half = {name: float(p.mean()) for name, p in choice.open_probability.items()}
        yield self.finished(
            "gates", choice.network, timer, state_arrays(choice.network), {"mean_open": half}
        )
        return choice

    def cut(self, choice: Choice, graph: ChannelGraph) -> Generator[Event, None, None]:
        """From the gated big student to the best network of the original size."""
        student = choice.cut(graph)
        for space in graph.free:
            yield ChannelsKept(
                space=space.name,
                kept=to_array(choice.kept[space.name]),
                open_probability=to_array(choice.open_probability[space.name]),
                gate=to_array(choice.gates[space.name]),
                teachers=self.setting.teachers,
            )
        yield from self.judged("cut", student)
        if has_norm_statistics(student):
            student = yield from self.with_norms(student)
        if self.recipe.fine_tune.epochs:
            yield from self.trained("fine_tune", copy.deepcopy(student), self.recipe.fine_tune)

    def with_norms(self, student: nn.Module) -> Generator[Event, None, nn.Module]:
        """Norm statistics re-estimated; returns the better of both by held-out score."""
        fresh = yield from self.normed("norms", student, self.recipe.gating.batch_size)
        return fresh if self.best(("cut", "norms")) == "norms" else student

    def controls(
        self, a: nn.Module, b: nn.Module, graph: ChannelGraph, big_graph: ChannelGraph
    ) -> Generator[Event, None, None]:
        """What the merge's extra epochs give without learning what to keep, or without merging."""
        extra = self.recipe.extra_epochs
        choice = yield from RANDOM_HALF.choose(
            concatenate([a, b], graph), big_graph, self.setting, None
        )
        half = choice.cut(big_graph)
        yield from self.trained("random_half", half, self.recipe.fine_tune.over(extra))
        yield from self.trained("trained_on", copy.deepcopy(a), self.recipe.teacher.over(extra))


@torch.no_grad()
def mean_error(big: nn.Module, ensemble: nn.Module, data: Dataset) -> float:
    """Largest difference between the fresh big student and the teachers' mean, relative to it."""
    big.eval()
    ensemble.eval()
    inputs = data.heldout.part(slice(256)).inputs
    expected = ensemble(inputs)
    return float((big(inputs) - expected).abs().max() / expected.abs().max())
