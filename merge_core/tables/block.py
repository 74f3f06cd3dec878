"""Some repetitions of a table that train together, and what all strategies share."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from merge_core import compiling, precision
from merge_core.channels import concatenate, flops, trace
from merge_core.ensembles import fit_together, group_size
from merge_core.methods.base import STEP_COST
from merge_core.particulars import judged
from merge_core.proof import proved
from merge_core.recipes import Recipe, Training
from merge_core.repair import has_norm_statistics, norms_reestimated
from merge_core.repetitions import Budget, Row
from merge_core.tables.repetition import Repetition, Seen
from merge_core.training import Job


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """How long each network of a strategy trains, in passes over the whole training split.

    Attributes:
        taught: the student's two teachers together.
        teacher: each of the three of `bo3`.
        long: the one model; every rival and `ours` have as much in all.
        extra: each control, after its teacher or its teachers.
        big, long_big: the same as `teacher` and `long` at double width.
    """

    taught: int
    teacher: int
    long: int
    extra: int
    big: int
    long_big: int

    @classmethod
    def of(cls, recipe: Recipe, budget: Budget, cost: int, cost_big: int) -> "Epochs":
        """The epochs under a budget, where an example costs so many FLOPs."""
        halves = recipe.data.halves == "disjoint"  # each teacher's epoch is one over a half
        taught = recipe.teacher.epochs if halves else 2 * recipe.teacher.epochs
        wide, more = 1.0, 0.0
        if budget == "flops":
            wide, more = cost / cost_big, recipe.gating.epochs * (cost_big / cost - 1)
        student = taught + recipe.extra_epochs + more
        return cls(
            taught=taught,
            teacher=max(1, round(student / 3)),
            long=round(student),
            extra=round(recipe.extra_epochs + more),
            big=max(1, round(student * wide / 3)),
            long_big=max(1, round(student * wide)),
        )


class Block:
    """Some repetitions on their way through all strategies.

    Args:
        recipe: what is repeated.
        seeds: one for each repetition.
        budget: what all strategies have the same of.
        device: "cpu", "cuda" or "mps".
        data_dir: where data sets lie.
        report: told how many FLOPs were done.

    Attributes:
        all: the repetitions.
        graph, big_graph: the channel graphs of a network and of the big student of two.
        examples: of the training split.
        cost, cost_big: FLOPs of an example in a network, and in one of double width.
        epochs: how long each strategy trains.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[int],
        budget: Budget,
        *,
        device: str,
        data_dir: Path,
        report: Callable[[float], None] = lambda flops: None,
    ) -> None:
        precision.require(recipe.precision, device)
        compiling.require(recipe.code, device)
        numbers = precision.settled(recipe.precision, device, many=True)
        recipe = dataclasses.replace(recipe, precision=numbers)
        self.recipe, self.budget, self.report = recipe, budget, report
        self.all = [
            Repetition(dataclasses.replace(recipe, seed=seed), device, data_dir) for seed in seeds
        ]
        first = self.all[0]
        example = first.example
        network = first.fresh("teacher_a")
        self.graph = proved(network, example, recipe.model)
        big = concatenate([network, network], self.graph)
        self.big_graph = trace(big, example)
        self.examples = len(first.data.train)
        self.cost, self.cost_big = (sum(flops(each, example).values()) for each in (network, big))
        self.epochs = Epochs.of(recipe, budget, self.cost, self.cost_big)

    @property
    def batched(self) -> bool:
        """Whether networks of several repetitions train as one."""
        it = self.all[0]
        job = it.job("teacher_a", it.fresh("teacher_a"), self.recipe.teacher)
        return group_size(job) > 1

    @property
    def shares_teachers(self) -> bool:
        """Whether the student's teachers are networks of `bo3`: as long, on the same examples."""
        same = self.epochs.teacher == self.recipe.teacher.epochs
        return same and self.recipe.data.halves == "shared"

    def flops(self, narrow: float, wide: int = 0) -> float:
        """FLOPs of training one network for so many epochs, and one of double width."""
        return float(STEP_COST * self.examples * (narrow * self.cost + wide * self.cost_big))

    def train(
        self,
        jobs: Sequence[Job],
        cost: int,
        watch: Callable[[Sequence[int]], None] = lambda numbers: None,
    ) -> list[nn.Module]:
        """Train the jobs' networks; they come back in eval mode.

        Args:
            jobs: one stage of every repetition, or several.
            cost: FLOPs of an example in each network.
            watch: told after every epoch which jobs' networks have learned more.
        """
        for event in fit_together(jobs):
            seen = sum(len(jobs[number].train) for number in event.networks)
            self.report(float(STEP_COST * cost * seen))
            event.write_back()
            watch(event.networks)
        return [job.network.eval() for job in jobs]

    def row(
        self,
        it: Repetition,
        strategy: str,
        network: nn.Module,
        narrow: int,
        wide: int = 0,
        more: float = 0.0,
        stages: Sequence[Seen] = (),
        taught: int = 0,
    ) -> Row:
        """A finished strategy.

        Args:
            it: the repetition.
            strategy: its key.
            network: what it made.
            narrow, wide: the epochs that went into it, of networks and of double width.
            more: FLOPs beside its training.
            stages: the networks on the way to it.
            taught: how many of the student's teachers went into it, beside `narrow`.
        """
        found, metric = judged(network, it.data, self.recipe.data), self.recipe.metric
        return Row(
            seed=it.recipe.seed,
            strategy=strategy,
            heldout=found.scores["heldout"][metric],
            test=found.scores["test"][metric],
            epochs=taught * self.recipe.teacher.epochs + narrow + wide,
            flops=self.flops(taught * self.epochs.taught / 2 + narrow, wide) + more,
            classes=found.learned.accuracies("test"),
            heldout_classes=found.learned.accuracies("heldout"),
            curve=found.learned.curve,
            stages=tuple(stages),
        )

    def networks(
        self, stages: Sequence[str], training: Training, *, wide: bool = False
    ) -> list[list[nn.Module]]:
        """For each stage its trained network in every repetition."""
        jobs = [
            it.job(stage, it.wide(stage, self.graph) if wide else it.fresh(stage), training)
            for stage in stages
            for it in self.all
        ]
        made = self.train(jobs, self.cost_big if wide else self.cost)
        n = len(self.all)
        return [made[start : start + n] for start in range(0, len(made), n)]

    def best_of(
        self, strategy: str, stages: Sequence[str], epochs: int, *, wide: bool
    ) -> Iterator[Row]:
        """The best of some networks that train for so many epochs each."""
        made = self.networks(stages, self.recipe.teacher.over(epochs), wide=wide)
        total = len(stages) * epochs
        for it, *candidates in zip(self.all, *made, strict=True):
            yield self.row(it, strategy, it.best_of(candidates), 0 if wide else total, wide * total)

    def tuned(
        self, networks: Sequence[nn.Module], stage: str, training: Training
    ) -> list[nn.Module]:
        """Copies of one network of each repetition, trained on."""
        jobs = [
            it.job(stage, copy.deepcopy(network), training)
            for it, network in zip(self.all, networks, strict=True)
        ]
        return self.train(jobs, self.cost)

    def with_norms(
        self,
        it: Repetition,
        student: nn.Module,
        batch_size: int,
        way: list[Seen] | None = None,
        stage: str = "norms",
    ) -> nn.Module:
        """The network, or itself with norm statistics re-estimated, by held-out score.

        Args:
            it: the repetition.
            student: the network.
            batch_size: of the pass that measures them.
            way: told what the re-estimated network scores, as this stage.
            stage: its key.
        """
        if not has_norm_statistics(student):
            return student
        fresh = norms_reestimated(
            student,
            it.data.train,
            batch_size,
            it.augment,
            it.draws("norms"),
        )
        if way is not None:
            way.append(it.seen(stage, fresh))
        return it.best_of([student, fresh])
