"""What runs that train networks share: a stage is trained or judged once, whatever interrupts it.

Every stage draws from generators of its own, so a stage that is over can be taken from its stored
weights, and the rest gives the same numbers as if the run had never stopped.
"""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph
from merge_core.data import Dataset, Split, augmentation
from merge_core.devices import derived_seed, generator
from merge_core.errors import DivergedError
from merge_core.events import Arrays, Event, Resume, StageFinished, StagePlanned, StageStarted
from merge_core.models import build
from merge_core.particulars import judged
from merge_core.recipes import Experiment, Training
from merge_core.repair import norms_reestimated
from merge_core.training import Job, evaluate, fit, load_arrays, state_arrays, steps_per_epoch

Kind = TypeVar("Kind", bound=Experiment)

_STEP_FLOPS = 3  # a training step costs a forward pass and about two for the backward pass


@dataclass
class Timer:
    """Seconds since it was made."""

    start: float

    @classmethod
    def now(cls) -> "Timer":
        """One that starts now."""
        return cls(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self.start


class Stages(Generic[Kind]):
    """A run on its way: its data, its scores so far, and what a resume brought along.

    Attributes:
        recipe: all settings and the seed.
        device: where it computes.
        data: the examples, on the device.
        augment: the recipe's augmentation.
        resume: what an interrupted run already has.
        scores: stage → split → metric → value, of the stages that are over.
        seed: what is drawn from now on comes from it; the recipe's, unless a run changes it.
    """

    def __init__(self, recipe: Kind, device: str, data: Dataset, resume: Resume | None) -> None:
        self.recipe = recipe
        self.device = device
        self.data = data.to(device)
        self.augment = augmentation(recipe.data.augment, self.data.train.normalisation)
        self.resume = resume or Resume()
        self.scores: dict[str, Mapping[str, Mapping[str, float]]] = {}
        self.seed = recipe.seed

    def draws(self, purpose: str) -> torch.Generator:
        """The generator for one purpose of the run."""
        return generator(self.seed, purpose, self.device)

    def fresh(self, purpose: str) -> nn.Module:
        """An untrained network of the recipe's architecture."""
        seed = derived_seed(self.recipe.seed, f"init/{purpose}")
        return build(self.recipe.model, seed, self.recipe.data.shape).to(self.device)

    @property
    def example(self) -> Tensor:
        """A few inputs, to trace a network with."""
        return self.data.heldout.part(slice(4)).inputs

    def examples(self, stage: str) -> Split:
        """What a stage trains on: the training split, unless a run says otherwise."""
        return self.data.train

    def job(self, stage: str, network: nn.Module, training: Training) -> Job:
        """The ordinary training of a network as a stage."""
        return Job(
            stage=stage,
            network=network,
            training=training,
            train=self.examples(stage),
            heldout=self.data.heldout,
            augment=self.augment,
            draws=self.draws(f"train/{stage}"),
            dropout_seed=derived_seed(self.seed, f"dropout/{stage}"),
            precision=self.recipe.precision,
            code=self.recipe.code,
        )

    def planned(
        self,
        stage: str,
        training: Training | None = None,
        cost: float = 0,
        examples: int | None = None,
    ) -> StagePlanned:
        """The announcement of a stage.

        Args:
            stage: its key.
            training: how it trains; None where it does not.
            cost: FLOPs of its network for one example.
            examples: how many it sees in an epoch; by default those of `examples`.
        """
        if training is None:
            return StagePlanned(stage=stage, epochs=0, steps=0, flops=0.0)
        if examples is None:
            examples = len(self.examples(stage))
        return StagePlanned(
            stage=stage,
            epochs=training.epochs,
            steps=training.epochs * steps_per_epoch(examples, training.batch_size),
            flops=float(_STEP_FLOPS * cost * training.epochs * examples),
        )

    def over(self, stage: str) -> StageFinished | None:
        """The stage as the resume has it, if it is over."""
        done = self.resume.finished.get(stage)
        if done is not None and done.scores:
            self.scores[stage] = done.scores
        return done

    def checkpoint(self, stage: str) -> Arrays | None:
        """Where the resume goes on inside a stage, if it does."""
        return self.resume.checkpoint if self.resume.stage == stage else None

    def started(self, stage: str) -> StageStarted:
        """The stage begins, or goes on from its checkpoint."""
        checkpoint = self.checkpoint(stage)
        return StageStarted(
            stage=stage, epoch=0 if checkpoint is None else int(checkpoint["epoch"])
        )

    def finished(
        self,
        stage: str,
        network: nn.Module,
        timer: Timer,
        arrays: Arrays,
        facts: Mapping[str, Any] | None = None,
    ) -> StageFinished:
        """Evaluate the stage's network on every split, and keep what it answers as a fact.

        Raises:
            DivergedError: a loss is not finite.
        """
        found = judged(network, self.data, self.recipe.data)
        scores = {"train": evaluate(network, self.data.train), **found.scores}
        if not all(torch.isfinite(torch.tensor(s["loss"])) for s in scores.values()):
            raise DivergedError(
                f"The network after stage {stage!r} has a loss that is not finite; "
                f"lower the learning rate of the stage before it and start again."
            )
        told = {**(facts or {}), "learned": found.learned.to_dict()}
        if not self.scores and self.data.class_names:  # the first stage tells them of the run
            told["class_names"] = list(self.data.class_names)
        self.scores[stage] = scores
        return StageFinished(
            stage=stage, scores=scores, seconds=timer.seconds, arrays=arrays, facts=told
        )

    def judged(
        self,
        stage: str,
        network: nn.Module,
        *,
        stored: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> Generator[Event, None, None]:
        """A stage without training: only its network's scores."""
        if self.over(stage):
            return
        timer = Timer.now()
        yield self.started(stage)
        yield self.finished(stage, network, timer, state_arrays(network) if stored else {}, facts)

    def trained(
        self,
        stage: str,
        network: nn.Module,
        training: Training,
        facts: Mapping[str, Any] | None = None,
    ) -> Generator[Event, None, nn.Module]:
        """A stage of ordinary training; returns its network in eval mode."""
        if done := self.over(stage):
            return load_arrays(network, done.arrays).eval()
        timer = Timer.now()
        yield self.started(stage)
        yield from fit(self.job(stage, network, training), self.checkpoint(stage))
        yield self.finished(stage, network, timer, state_arrays(network), facts)
        return network.eval()

    def normed(
        self, stage: str, network: nn.Module, batch_size: int
    ) -> Generator[Event, None, nn.Module]:
        """A stage that re-estimates norm statistics; returns the network that has them."""
        fresh = norms_reestimated(
            network, self.data.train, batch_size, self.augment, self.draws("norms")
        )
        yield from self.judged(stage, fresh)
        return fresh

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
