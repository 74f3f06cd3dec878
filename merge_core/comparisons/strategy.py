"""The stages of a comparison: teachers → alignment → barrier → every method by itself.

`compare` is a generator of events, as `merge_core.strategies.merge` is. Headway is counted in
examples that went forward through one network, so that training, judging and measuring add up.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merge_core import checkpoints
from merge_core.barrier import POINTS, lines
from merge_core.catalogue import METHOD_BY_KEY, Card
from merge_core.channels import flops, trace
from merge_core.comparisons.alignment import PASSES, align
from merge_core.comparisons.judging import Scores, judged
from merge_core.data import Dataset, Split, augmentation, load
from merge_core.devices import derived_seed, generator
from merge_core.errors import NetweldError
from merge_core.events import (
    Arrays,
    EpochFinished,
    Event,
    Progress,
    Resume,
    StageFinished,
    StagePlanned,
    StageStarted,
)
from merge_core.methods import Merged, Setting, implementation
from merge_core.methods.base import STEP_COST
from merge_core.models import build
from merge_core.recipes import Comparison
from merge_core.repair import repaired
from merge_core.training import Job, fit, state_arrays, steps_per_epoch

_FEW = 256  # numbers that a method has learned are kept as facts up to so many


def compare(
    comparison: Comparison,
    device: str,
    *,
    inputs: Sequence[Path],
    data_dir: Path,
    pulse: Callable[[Progress], None],
    resume: Resume | None = None,
) -> Iterator[Event]:
    """Judge the teachers, align them, and merge them in every way that was asked for.

    Args:
        comparison: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        inputs: the checkpoint of every teacher.
        data_dir: where downloaded data sets lie.
        pulse: called with the headway where no event can be yielded; may raise to stop.
        resume: what an interrupted run of the same comparison and device already has.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet.

    Raises:
        NetweldError: the data or the teachers cannot be used; see its message. A method that fails
            does not end the comparison: its sentence is the fact "error" of its stage.
    """
    data = load(comparison.data, comparison.seed, data_dir)
    teachers = []
    for label, path in zip(comparison.teachers, inputs, strict=True):
        network = build(comparison.model, 0, comparison.data.shape)
        checkpoints.load_into(network, checkpoints.read(path), f"teacher {label!r}")
        teachers.append(network.to(device).eval())
    yield from _Run(comparison, device, data, teachers, pulse, resume or Resume()).events()


class _Run:
    """One comparison on its way."""

    def __init__(
        self,
        comparison: Comparison,
        device: str,
        data: Dataset,
        teachers: list[nn.Module],
        pulse: Callable[[Progress], None],
        resume: Resume,
    ) -> None:
        self.comparison = comparison
        self.device = device
        self.data = data.to(device)
        self.teachers = teachers
        self.resume = resume
        self.report = pulse
        train = self.data.train
        few = Split(train.inputs[: comparison.examples], train.targets[: comparison.examples])
        self.seen = Dataset(few, self.data.heldout, self.data.test)
        self.setting = Setting(
            recipe=comparison,
            data=self.data,
            augment=augmentation(comparison.data.augment),
            draws=self.draws,
            teachers=len(teachers),
            examples=comparison.examples,
            pulse=self.pulse,
        )
        self.graph = trace(teachers[0], self.setting.example)
        self.forward = sum(flops(teachers[0], self.setting.example).values())
        self.stage = ""
        self.done = 0

    def draws(self, purpose: str) -> torch.Generator:
        return generator(self.comparison.seed, purpose, self.device)

    def advance(self, examples: int) -> None:
        """So many more examples went forward through a network."""
        self.done += examples
        self.report(Progress(stage=self.stage, step=self.done))

    def pulse(self) -> None:
        """A sign of life from inside a method."""
        self.report(Progress(stage=self.stage, step=self.done))

    def events(self) -> Iterator[Event]:
        yield from self.plan()
        yield from self.judged_teachers()
        arrays = yield from self.aligned()
        yield from self.barrier(arrays)
        for key in self.comparison.methods:
            yield from self.tried(METHOD_BY_KEY[key])

    def plan(self) -> Iterator[StagePlanned]:
        count = len(self.teachers)
        once = sum(len(s) for s in (self.seen.train, self.seen.heldout, self.seen.test))
        few = len(self.seen.train)
        lines = len(self.line_splits()) * len(POINTS) * 3 * few
        work = {"teachers": count * once, "alignment": PASSES * few, "barrier": lines}
        for key in self.comparison.methods:
            work[key] = self.work_of(METHOD_BY_KEY[key], once)
        for stage, examples in work.items():
            epochs = self.comparison.fine_tune.epochs if stage in METHOD_BY_KEY else 0
            yield StagePlanned(
                stage=stage, epochs=epochs, steps=examples, flops=float(examples * self.forward)
            )

    def work_of(self, card: Card, once: int) -> int:
        """Examples forward through one network that a method will take, more or less."""
        count, train = len(self.teachers), len(self.data.train)
        if card.size == "all networks":
            return count * once
        work = 2 * once + len(self.seen.train)
        if card.needs == "activations":
            work += count * len(self.seen.train)
        if card.needs == "training":
            work += STEP_COST * count * self.comparison.gating.epochs * train
        fine_tune = self.comparison.fine_tune.epochs
        if fine_tune:
            work += once + fine_tune * (STEP_COST * train + len(self.data.heldout))
        return work

    def begin(self, stage: str) -> StageStarted:
        self.stage, self.done = stage, 0
        return StageStarted(stage=stage)

    def judged_teachers(self) -> Iterator[Event]:
        if "teachers" in self.resume.finished:
            return
        start = time.perf_counter()
        yield self.begin("teachers")
        scores = [judged(teacher, self.seen, self.advance) for teacher in self.teachers]
        facts = {"scores": scores, "flops": self.forward}
        yield StageFinished(
            stage="teachers", scores={}, seconds=time.perf_counter() - start, facts=facts
        )

    def aligned(self) -> Generator[Event, None, Arrays]:
        """Similarities and matchings of the first two teachers; returns their arrays."""
        if done := self.resume.finished.get("alignment"):
            return done.arrays
        start = time.perf_counter()
        yield self.begin("alignment")
        shape = self.comparison.data.shape
        draws = self.draws("alignment")
        arrays, facts = align(*self.teachers[:2], self.graph, self.batches, shape, draws)
        facts["examples"] = len(self.seen.train)
        yield StageFinished(
            stage="alignment",
            scores={},
            seconds=time.perf_counter() - start,
            arrays=arrays,
            facts=facts,
        )
        return arrays

    def batches(self, networks: int) -> Iterator[Tensor]:
        """The examples that statistics are measured on, on their way through so many networks."""
        for inputs in self.setting.batches():
            yield inputs
            self.advance(networks * len(inputs))

    def line_splits(self) -> dict[str, Split]:
        few = len(self.seen.train)
        test = self.seen.test
        return {"train": self.seen.train, "test": Split(test.inputs[:few], test.targets[:few])}

    def barrier(self, alignment: Arrays) -> Iterator[Event]:
        """Loss and accuracy between the first two teachers, as they are and matched by weights."""
        if "barrier" in self.resume.finished:
            return
        start = time.perf_counter()
        yield self.begin("barrier")
        orders = {
            space.name: torch.from_numpy(np.array(alignment[f"{space.name}|match_weights"]))
            for space in self.graph.free
        }
        splits = self.line_splits()
        found = lines(*self.teachers[:2], self.graph, orders, splits, self.seen.train.inputs)
        facts = {
            "points": list(POINTS),
            "curves": {kind: line.scores for kind, line in found.items()},
            "barrier": {kind: line.barrier for kind, line in found.items()},
            "examples": {name: len(split) for name, split in splits.items()},
        }
        yield StageFinished(
            stage="barrier", scores={}, seconds=time.perf_counter() - start, facts=facts
        )

    def tried(self, card: Card) -> Iterator[Event]:
        """One method from the teachers to its best network, or the sentence why it cannot."""
        if card.key in self.resume.finished:
            return
        start = time.perf_counter()
        yield self.begin(card.key)
        try:
            yield from self.method(card, start)
        except NetweldError as error:
            yield StageFinished(
                stage=card.key,
                scores={},
                seconds=time.perf_counter() - start,
                facts={"error": str(error), "size": card.size},
            )

    def method(self, card: Card, start: float) -> Generator[Event, None, None]:
        merged = yield from self.merged(card)
        seconds = {"merge": time.perf_counter() - start}
        networks = {"merged": merged.network}
        after = {"merged": judged(merged.network, self.seen, self.advance)}
        facts: dict[str, Any] = {}
        cost = 0.0
        if card.size == "one network":
            begun = time.perf_counter()
            networks["repaired"] = self.repaired(merged)
            seconds["repair"] = time.perf_counter() - begun
            after["repaired"] = judged(networks["repaired"], self.seen, self.advance)
            if self.comparison.fine_tune.epochs:
                begun = time.perf_counter()
                origin = self.best(after)
                network = copy.deepcopy(networks[origin])
                yield from self.fine_tuned(network)
                seconds["fine_tune"] = time.perf_counter() - begun
                networks["fine_tuned"] = network
                after["fine_tuned"] = judged(network, self.seen, self.advance)
                facts["fine_tuned_from"] = origin
                epochs = self.comparison.fine_tune.epochs
                cost = STEP_COST * self.forward * epochs * len(self.data.train)
        best = self.best(after)
        yield StageFinished(
            stage=card.key,
            scores=after["merged"],
            seconds=time.perf_counter() - start,
            arrays=state_arrays(networks[best]),
            facts={
                "after": after,
                "best": best,
                "seconds": seconds,
                "flops": self.forward * (len(self.teachers) if "repaired" not in after else 1),
                "training_flops": {"merge": merged.training_flops, "fine_tune": cost},
                "size": card.size,
                "learned": _few(merged.learned),
                **facts,
            },
        )

    def merged(self, card: Card) -> Generator[Event, None, Merged]:
        """What the method makes; the steps of its training are counted as examples."""
        per_step = STEP_COST * len(self.teachers) * self.comparison.gating.batch_size
        events = implementation(card.key).merge(self.teachers, self.graph, self.setting)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, Progress | EpochFinished):
                self.done = event.step * per_step
                yield Progress(stage=self.stage, step=self.done)

    def repaired(self, merged: Merged) -> nn.Module:
        """The network with the statistics of its channels put right."""
        self.advance(len(self.seen.train))
        return repaired(
            merged.network,
            self.teachers,
            self.graph,
            self.seen.train.inputs,
            self.comparison.fine_tune.batch_size,
            sources=merged.sources,
        )

    def fine_tuned(self, network: nn.Module) -> Iterator[Event]:
        """Train the network in place; the draws are the same for every method."""
        training = self.comparison.fine_tune
        job = Job(
            stage=self.stage,
            network=network,
            training=training,
            train=self.data.train,
            heldout=self.data.heldout,
            augment=self.setting.augment,
            draws=self.draws("fine_tune"),
            dropout_seed=derived_seed(self.comparison.seed, "dropout/fine_tune"),
        )
        before, per_epoch = self.done, steps_per_epoch(len(self.data.train), training.batch_size)
        for event in fit(job):
            epochs = event.step / per_epoch
            examples = STEP_COST * len(self.data.train) + len(self.data.heldout)
            self.done = before + int(epochs * examples)
            yield Progress(stage=self.stage, step=self.done)

    def best(self, after: Mapping[str, Scores]) -> str:
        """Which of the networks is best on the held-out split; the earlier one on a tie."""
        metric = self.comparison.metric
        scores = {name: each["heldout"][metric] for name, each in after.items()}
        best = next(iter(scores))
        for name in scores:
            if self.comparison.better(scores[name], scores[best]):
                best = name
        return best


def _few(learned: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a method has learned, where it is few numbers."""
    return {name: value.tolist() for name, value in learned.items() if value.numel() <= _FEW}
