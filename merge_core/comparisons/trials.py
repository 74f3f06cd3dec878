"""One method by itself: its network judged after the merge, after repair and after fine-tuning."""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from merge_core.catalogue import Card
from merge_core.channels import flops
from merge_core.comparisons.situation import Scores, Situation
from merge_core.data import augmentation
from merge_core.devices import derived_seed
from merge_core.errors import NetweldError
from merge_core.events import EpochFinished, Event, Progress, StageFinished
from merge_core.methods import Merged, implementation
from merge_core.methods.base import STEP_COST
from merge_core.repair import has_norm_statistics, norms_reestimated, repaired
from merge_core.training import Job, fit, state_arrays, steps_per_epoch

_FEW = 256  # numbers; what a method has learned is kept as a fact up to so many


def work_of(card: Card, here: Situation) -> int:
    """Examples forward through one network that a trial will take, more or less."""
    count, train = len(here.teachers), len(here.data.train)
    if card.size == "all networks" and card.needs == "weights":
        return count * here.judging
    work = 2 * here.judging + len(here.seen.train)
    if card.needs == "activations":
        work += count * len(here.seen.train)
    if card.needs == "training":
        work += STEP_COST * count * here.comparison.gating.epochs * train
    if fine_tune := here.comparison.fine_tune.epochs:
        work += here.judging + fine_tune * _epoch_of(here)
    return work


def tried(card: Card, here: Situation) -> Iterator[Event]:
    """The stage of one method; a method that fails leaves its sentence as the fact "error"."""
    start = time.perf_counter()
    yield here.begin(card.key)
    try:
        trial = _Trial(card, here)
        yield from trial.events()
        yield trial.finished(time.perf_counter() - start)
    except NetweldError as error:
        yield StageFinished(
            stage=card.key,
            scores={},
            seconds=time.perf_counter() - start,
            facts={"error": str(error), "size": card.size},
        )


class _Trial:
    """The networks that a method leads to, with their scores and their costs."""

    def __init__(self, card: Card, here: Situation) -> None:
        self.card = card
        self.here = here
        self.forward = here.forward
        self.size: str = card.size
        self.networks: dict[str, nn.Module] = {}
        self.after: dict[str, Scores] = {}
        self.chance: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.training_flops: dict[str, float] = {}
        self.facts: dict[str, Any] = {}

    def events(self) -> Iterator[Event]:
        start, here = time.perf_counter(), self.here
        merged = yield from self._merged()
        self._add("merged", "merge", merged.network, start)
        self.training_flops["merge"] = merged.training_flops
        self.facts["learned"] = _few(merged.learned)
        if self.card.size == "all networks":
            self.forward *= len(here.teachers)
            return  # nothing was merged, so there is nothing to repair
        self.forward = sum(flops(merged.network, here.setting.example).values())
        if self.forward > here.forward:
            self.size = "a wider network"
        start = time.perf_counter()
        fixed = self._repaired(merged)
        if fixed is not None:
            self._add("repaired", "repair", fixed, start)
        if here.comparison.fine_tune.epochs:
            start = time.perf_counter()
            origin = here.best(self.after)
            network = copy.deepcopy(self.networks[origin])
            yield from self._fine_tuned(network)
            self._add("fine_tuned", "fine_tune", network, start)
            self.facts["fine_tuned_from"] = origin

    def _add(self, state: str, step: str, network: nn.Module, start: float) -> None:
        """The network as a step has left it, judged."""
        self.seconds[step] = time.perf_counter() - start
        self.networks[state] = network
        self.after[state], each = self.here.judged(network)
        self.chance[state] = self.here.chance(each)

    def finished(self, seconds: float) -> StageFinished:
        """The scores of the stage are those without repair; its network is the best of all."""
        best = self.here.best(self.after)
        return StageFinished(
            stage=self.card.key,
            scores=self.after["merged"],
            seconds=seconds,
            arrays=state_arrays(self.networks[best]),
            facts={
                "after": self.after,
                "chance": self.chance,
                "best": best,
                "seconds": self.seconds,
                "flops": self.forward,
                "training_flops": self.training_flops,
                "size": self.size,
                **self.facts,
            },
        )

    def _merged(self) -> Generator[Event, None, Merged]:
        """What the method makes; the steps of its training are counted as examples."""
        here = self.here
        per_step = STEP_COST * len(here.teachers) * here.comparison.gating.batch_size
        events = implementation(self.card.key).merge(here.teachers, here.graph, here.setting)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, Progress | EpochFinished):
                here.done = event.step * per_step
                yield Progress(stage=here.stage, step=here.done)

    def _repaired(self, merged: Merged) -> nn.Module | None:
        """The network with its channels put right; None where there is nothing to put right.

        What a trained network's channels should be only its norms can tell.
        """
        here = self.here
        train, batch_size = here.seen.train, here.comparison.fine_tune.batch_size
        here.advance(len(train))
        network = merged.network
        if merged.sources is not None:
            return repaired(
                network,
                here.teachers,
                here.graph,
                train.inputs,
                batch_size,
                sources=merged.sources,
                shares=merged.shares,
            )
        if not has_norm_statistics(network):
            return None
        same = augmentation("none")
        return norms_reestimated(network, train, batch_size, same, here.draws("repair"))

    def _fine_tuned(self, network: nn.Module) -> Iterator[Event]:
        """Train the network in place; the draws are the same for every method."""
        here = self.here
        training = here.comparison.fine_tune
        job = Job(
            stage=here.stage,
            network=network,
            training=training,
            train=here.data.train,
            heldout=here.data.heldout,
            augment=here.setting.augment,
            draws=here.draws("fine_tune"),
            dropout_seed=derived_seed(here.comparison.seed, "dropout/fine_tune"),
            precision=here.comparison.precision,
            code=here.comparison.code,
        )
        before, per_epoch = here.done, steps_per_epoch(len(here.data.train), training.batch_size)
        for event in fit(job):
            here.done = before + int(event.step / per_epoch * _epoch_of(here))
            yield Progress(stage=here.stage, step=here.done)
        examples = training.epochs * len(here.data.train)
        self.training_flops["fine_tune"] = float(STEP_COST * self.forward * examples)


def _epoch_of(here: Situation) -> int:
    """Examples forward in an epoch of fine-tuning."""
    return STEP_COST * len(here.data.train) + len(here.data.heldout)


def _few(learned: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a method has learned, where it is few numbers."""
    return {name: value.tolist() for name, value in learned.items() if value.numel() <= _FEW}
