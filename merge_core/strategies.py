"""The order of stages: teachers → big student → gates → cut → fine-tune, and the two controls.

`merge` is a generator of events; it writes nothing and asks nobody. Every stage draws from
generators of its own, so a stage that is over can be taken from its stored weights, and the rest
gives the same numbers as if the run had never stopped.
"""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph, check, concatenate, flops, trace
from merge_core.data import Dataset, Split, augmentation, load
from merge_core.description import LAW_TOLERANCE
from merge_core.devices import derived_seed, generator
from merge_core.errors import DivergedError, GraphError
from merge_core.events import (
    Arrays,
    ChannelsKept,
    Event,
    Resume,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.inspection import describe
from merge_core.methods import LEARNED_GATES, RANDOM_HALF, Choice, Setting
from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.models import build
from merge_core.recipes import Recipe, Training
from merge_core.repair import has_norm_statistics, norms_reestimated
from merge_core.stages import RETURNABLE
from merge_core.training import (
    Job,
    evaluate,
    fit,
    load_arrays,
    state_arrays,
    steps_per_epoch,
    to_array,
)

_STEP_FLOPS = 3  # a training step costs a forward pass and about two for the backward pass


def merge(
    recipe: Recipe, device: str, *, data_dir: Path, resume: Resume | None = None
) -> Iterator[Event]:
    """Train two teachers, merge them into one network, and judge it.

    Args:
        recipe: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        data_dir: where downloaded data sets lie.
        resume: what an interrupted run of the same recipe and device already has.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet, in
        the order of `merge_core.stages`; last a `StudentReturned`.

    Raises:
        NetweldError: the data, the network or the training cannot be used; see its message.
    """
    yield from _Run(recipe, device, load(recipe.data, recipe.seed, data_dir), resume).events()


@dataclass
class _Timer:
    """Seconds since it was made."""

    start: float

    @classmethod
    def now(cls) -> "_Timer":
        return cls(time.perf_counter())

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


class _Run:
    """One merge on its way: the data, the networks so far, and what a resume brought along."""

    def __init__(self, recipe: Recipe, device: str, data: Dataset, resume: Resume | None) -> None:
        self.recipe = recipe
        self.device = device
        self.data = data.to(device)
        self.augment = augmentation(recipe.data.augment)
        self.resume = resume or Resume()
        self.scores: dict[str, Mapping[str, Mapping[str, float]]] = {}
        self.trace_seconds = 0.0
        self.setting = Setting(
            recipe=recipe, data=self.data, augment=self.augment, draws=self.draws, teachers=2
        )

    def draws(self, purpose: str) -> torch.Generator:
        return generator(self.recipe.seed, purpose, self.device)

    @property
    def example(self) -> Tensor:
        return self.data.heldout.inputs[:4]

    def events(self) -> Generator[Event, None, None]:
        recipe = self.recipe
        fresh = {
            stage: build(
                recipe.model, derived_seed(recipe.seed, f"init/{stage}"), recipe.data.shape
            ).to(self.device)
            for stage in ("teacher_a", "teacher_b")
        }
        timer = _Timer.now()
        graph = trace(fresh["teacher_a"], self.example)
        self.trace_seconds = timer.seconds
        yield from self.plan(fresh["teacher_a"], graph)

        facts = {"first_layer": first_layer(fresh["teacher_a"], graph)}
        a = yield from self.trained("teacher_a", fresh["teacher_a"], recipe.teacher, facts)
        b = yield from self.trained("teacher_b", fresh["teacher_b"], recipe.teacher)
        ensemble = MeanOfOutputs([a, b])
        yield from self.judged("ensemble", ensemble, stored=False)
        big = yield from self.concatenated(a, b, graph, ensemble)
        big_graph = trace(big, self.example)
        choice = yield from self.chosen(big, big_graph)
        yield from self.cut(choice, big_graph)
        yield from self.controls(a, b, graph, big_graph)
        yield StudentReturned(stage=self.best(RETURNABLE), facts=facts)

    def plan(self, network: nn.Module, graph: ChannelGraph) -> Iterator[StagePlanned]:
        recipe = self.recipe
        forward = sum(flops(network, self.example).values())
        big = concatenate([network, network], graph)
        forward_big = sum(flops(big, self.example).values())
        trained = {
            "teacher_a": (recipe.teacher, forward),
            "teacher_b": (recipe.teacher, forward),
            "ensemble": None,
            "big": None,
            "gates": (recipe.gating, forward_big),
            "cut": None,
            "norms": None,
            "fine_tune": (recipe.fine_tune, forward),
            "random_half": (recipe.fine_tune.over(recipe.extra_epochs), forward),
            "trained_on": (recipe.teacher.over(recipe.extra_epochs), forward),
        }
        if not has_norm_statistics(network):
            del trained["norms"]
        if recipe.fine_tune.epochs == 0:
            del trained["fine_tune"]
        for stage, job in trained.items():
            epochs, cost, per_epoch = 0, 0.0, 0
            examples = len(self.examples(stage))
            if job is not None:
                training, cost = job
                epochs = training.epochs
                per_epoch = steps_per_epoch(examples, training.batch_size)
            yield StagePlanned(
                stage=stage,
                epochs=epochs,
                steps=epochs * per_epoch,
                flops=_STEP_FLOPS * cost * epochs * examples,
            )

    def examples(self, stage: str) -> Split:
        """What a stage trains on: the training split, of which each teacher may have one half."""
        if self.recipe.data.halves == "disjoint" and stage in ("teacher_a", "teacher_b"):
            return self.data.halves[stage == "teacher_b"]
        return self.data.train

    def over(self, stage: str) -> StageFinished | None:
        """The stage as the resume has it, if it is over."""
        return self.resume.finished.get(stage)

    def checkpoint(self, stage: str) -> Arrays | None:
        return self.resume.checkpoint if self.resume.stage == stage else None

    def started(self, stage: str) -> StageStarted:
        checkpoint = self.checkpoint(stage)
        return StageStarted(
            stage=stage, epoch=0 if checkpoint is None else int(checkpoint["epoch"])
        )

    def finished(
        self,
        stage: str,
        network: nn.Module,
        timer: _Timer,
        arrays: Arrays,
        facts: Mapping[str, Any] | None = None,
    ) -> StageFinished:
        """Evaluate the stage's network on every split."""
        scores = {
            "train": evaluate(network, self.data.train),
            "heldout": evaluate(network, self.data.heldout),
            "test": evaluate(network, self.data.test),
        }
        if not all(torch.isfinite(torch.tensor(s["loss"])) for s in scores.values()):
            raise DivergedError(
                f"The network after stage {stage!r} has a loss that is not finite; "
                f"lower the learning rate of the stage before it and start again."
            )
        self.scores[stage] = scores
        return StageFinished(
            stage=stage, scores=scores, seconds=timer.seconds, arrays=arrays, facts=facts or {}
        )

    def judged(
        self, stage: str, network: nn.Module, *, stored: bool = True
    ) -> Generator[Event, None, None]:
        """A stage without training: only its network's scores."""
        if done := self.over(stage):
            self.scores[stage] = done.scores
            return
        timer = _Timer.now()
        yield self.started(stage)
        yield self.finished(stage, network, timer, state_arrays(network) if stored else {})

    def trained(
        self,
        stage: str,
        network: nn.Module,
        training: Training,
        facts: Mapping[str, Any] | None = None,
    ) -> Generator[Event, None, nn.Module]:
        """A stage of ordinary training; returns its network in eval mode."""
        if done := self.over(stage):
            self.scores[stage] = done.scores
            return load_arrays(network, done.arrays).eval()
        timer = _Timer.now()
        yield self.started(stage)
        job = Job(
            stage=stage,
            network=network,
            training=training,
            train=self.examples(stage),
            heldout=self.data.heldout,
            augment=self.augment,
            draws=self.draws(f"train/{stage}"),
            dropout_seed=derived_seed(self.recipe.seed, f"dropout/{stage}"),
        )
        yield from fit(job, self.checkpoint(stage))
        yield self.finished(stage, network, timer, state_arrays(network), facts)
        return network.eval()

    def concatenated(
        self, a: nn.Module, b: nn.Module, graph: ChannelGraph, ensemble: nn.Module
    ) -> Generator[Event, None, nn.Module]:
        big = concatenate([a, b], graph)
        if done := self.over("big"):
            self.scores["big"] = done.scores
            return big
        timer = _Timer.now()
        yield self.started("big")
        errors = check(a, graph, self.example)
        if not errors.worst <= LAW_TOLERANCE:
            raise GraphError(
                f"The channel graph of {self.recipe.model!r} breaks its laws by {errors.worst:.1e} "
                f"(at most {LAW_TOLERANCE:.0e} is expected), so this network cannot be merged; "
                f"please report it."
            )
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
            self.scores["gates"] = done.scores
            return LEARNED_GATES.restore(big, graph, self.setting, done.arrays)
        timer = _Timer.now()
        yield self.started("gates")
        choice = yield from LEARNED_GATES.choose(big, graph, self.setting, self.checkpoint("gates"))
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
            student = yield from self.normed(student)
        if self.recipe.fine_tune.epochs:
            yield from self.trained("fine_tune", copy.deepcopy(student), self.recipe.fine_tune)

    def normed(self, student: nn.Module) -> Generator[Event, None, nn.Module]:
        """Norm statistics re-estimated; returns the better of both by held-out score."""
        fresh = norms_reestimated(
            student,
            self.data.train,
            self.recipe.gating.batch_size,
            self.augment,
            self.draws("norms"),
        )
        yield from self.judged("norms", fresh)
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

    def best(self, stages: tuple[str, ...]) -> str:
        """The stage with the best held-out score; the earlier one on a tie."""
        there = [stage for stage in stages if stage in self.scores]
        metric = self.recipe.metric
        best = there[0]
        for stage in there[1:]:
            if self.recipe.better(
                self.scores[stage]["heldout"][metric], self.scores[best]["heldout"][metric]
            ):
                best = stage
        return best


def first_layer(network: nn.Module, graph: ChannelGraph) -> dict[str, str | None]:
    """Where the first layer's filters are: names of its weight, its bias and its channel space."""
    space = graph.free[0]
    layer = space.writers[0]
    names = dict(network.named_parameters())
    bias = f"{layer}.bias"
    return {
        "weight": f"{layer}.weight",
        "bias": bias if bias in names else None,
        "space": space.name,
    }


@torch.no_grad()
def mean_error(big: nn.Module, ensemble: nn.Module, data: Dataset) -> float:
    """Largest difference between the fresh big student and the teachers' mean, relative to it."""
    big.eval()
    ensemble.eval()
    inputs = data.heldout.inputs[:256]
    expected = ensemble(inputs)
    return float((big(inputs) - expected).abs().max() / expected.abs().max())
