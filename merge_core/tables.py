"""The repetitions of a table: every strategy of the paper's Table 1, for many seeds at once.

    python -P -m merge_core.tables JSON

prints JSON lines: `{"planned": FLOPs}` once, `{"done": FLOPs}` since the last such line, and the
fields of a `Row` for each strategy of a repetition that is finished. `merge_core.tabled` starts it.

All strategies get the same epochs (the paper's rule) or the same training FLOPs. The student of a
seed is that of `netweld merge` with this seed, to rounding; two of the three networks of `bo3` are
its teachers, as in the paper. Where the paper drew fresh data for every stage, a repetition has one
training split. The held-out split chooses, the test split only reports.
"""

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from merge_core.channels import ChannelGraph, concatenate, flops, trace
from merge_core.data import Split, load
from merge_core.devices import derived_seed
from merge_core.ensembles import fit_together
from merge_core.errors import NetweldError
from merge_core.methods import LEARNED_GATES, RANDOM_HALF, Setting
from merge_core.methods.base import STEP_COST
from merge_core.methods.learned_gates import choice_of
from merge_core.recipes import Recipe, Training
from merge_core.recipes import from_json as recipe_from_json
from merge_core.repair import has_norm_statistics, norms_reestimated
from merge_core.repetitions import PUBLISHED, Budget, Row
from merge_core.staging import Stages
from merge_core.training import Job, evaluate

AT_ONCE = 25
"""Repetitions that go through a strategy together; their rows are written together, too."""
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """How long each network of a strategy trains.

    Attributes:
        teacher: each of the three of `bo3`.
        long: the one model.
        extra: each control, after its teacher or its teachers.
        big, long_big: the same as `teacher` and `long` at double width.
    """

    teacher: int
    long: int
    extra: int
    big: int
    long_big: int

    @classmethod
    def of(cls, recipe: Recipe, budget: Budget, cost: int, cost_big: int) -> "Epochs":
        """The epochs under a budget, where an example costs so many FLOPs."""
        student = 2 * recipe.teacher.epochs + recipe.extra_epochs
        if budget == "epochs":
            teacher = recipe.teacher.epochs
            return cls(
                teacher=teacher,
                long=student,
                extra=recipe.extra_epochs,
                big=teacher,
                long_big=student,
            )
        more = recipe.gating.epochs * (cost_big / cost - 1)
        return cls(
            teacher=round((student + more) / 3),
            long=round(student + more),
            extra=round(recipe.extra_epochs + more),
            big=round((student + more) * cost / cost_big / 3),
            long_big=round((student + more) * cost / cost_big),
        )


class Repetition(Stages[Recipe]):
    """One seed: its data, its draws, its networks, the same as those of `netweld merge`."""

    def __init__(self, recipe: Recipe, device: str, data_dir: Path) -> None:
        super().__init__(recipe, device, load(recipe.data, recipe.seed, data_dir), None)
        self.setting = Setting(
            recipe=recipe, data=self.data, augment=self.augment, draws=self.draws, teachers=2
        )

    def wide(self, stage: str, graph: ChannelGraph) -> nn.Module:
        """An untrained network of double width."""
        network = self.fresh(stage)
        big = concatenate([network, network], graph)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.recipe.seed, f"init/{stage}"))
            for module in big.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
        return big

    def examples(self, stage: str) -> Split:
        """What a stage trains on; the student's teachers may have one half each."""
        if self.recipe.data.halves == "disjoint" and stage in ("teacher_a", "teacher_b"):
            return self.data.halves[stage == "teacher_b"]
        return self.data.train

    def heldout(self, network: nn.Module) -> float:
        """The score that chooses."""
        return evaluate(network, self.data.heldout)[self.recipe.metric]

    def best_of(self, networks: Sequence[nn.Module]) -> nn.Module:
        """The network with the best held-out score; the first on a tie."""
        best = networks[0]
        for network in networks[1:]:
            if self.recipe.better(self.heldout(network), self.heldout(best)):
                best = network
        return best


class Block:
    """Some repetitions on their way through all strategies.

    Args:
        recipe: what is repeated.
        seeds: one for each repetition.
        budget: what all strategies have the same of.
        device: "cpu", "cuda" or "mps".
        data_dir: where data sets lie.
        report: told how many FLOPs were done.
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
        self.recipe, self.budget, self.report = recipe, budget, report
        self.all = [
            Repetition(dataclasses.replace(recipe, seed=seed), device, data_dir) for seed in seeds
        ]
        first = self.all[0]
        example = first.example
        network = first.fresh("teacher_a")
        self.graph = trace(network, example)
        big = concatenate([network, network], self.graph)
        self.big_graph = trace(big, example)
        self.examples = len(first.data.train)
        self.cost, self.cost_big = (sum(flops(each, example).values()) for each in (network, big))
        self.epochs = Epochs.of(recipe, budget, self.cost, self.cost_big)

    def planned(self, unit: str) -> float:
        """FLOPs of a unit's training, all repetitions together."""
        recipe, epochs = self.recipe, self.epochs
        others = 1 if self.budget == "epochs" else 3  # networks of `bo3` that are no teachers
        teachers = 2 * recipe.teacher.epochs + others * epochs.teacher
        wide = {
            "merge": recipe.gating.epochs,
            "one_model": 0,
            "bo3_big": 3 * epochs.big,
            "long_big": epochs.long_big,
        }
        narrow = {
            "merge": teachers + recipe.fine_tune.epochs + 2 * epochs.extra,
            "one_model": epochs.long,
            "bo3_big": 0,
            "long_big": 0,
        }
        return len(self.all) * self._flops(narrow[unit], wide[unit])

    def _flops(self, narrow: int, wide: int) -> float:
        """FLOPs of training one network for so many epochs, and one of double width."""
        return float(STEP_COST * self.examples * (narrow * self.cost + wide * self.cost_big))

    def rows(self, unit: str) -> Iterator[Row]:
        """Train what a unit of `repetitions.UNITS` needs, and judge it."""
        if unit == "merge":
            yield from self.merged()
        elif unit == "one_model":
            yield from self.long("one_model", self.epochs.long, wide=False)
        elif unit == "long_big":
            yield from self.long("long_big", self.epochs.long_big, wide=True)
        else:
            stages = ("big_a", "big_b", "big_c")
            yield from self.best_of("bo3_big", stages, self.epochs.big, wide=True)

    def train(self, jobs: Sequence[Job], cost: int) -> list[nn.Module]:
        """Train the jobs' networks; they come back in eval mode."""
        for event in fit_together(jobs):
            self.report(float(STEP_COST * cost * self.examples * len(event.networks)))
        return [job.network.eval() for job in jobs]

    def row(
        self, it: Repetition, strategy: str, network: nn.Module, narrow: int, wide: int = 0
    ) -> Row:
        """A finished strategy, with the epochs that went into it."""
        return Row(
            seed=it.recipe.seed,
            strategy=strategy,
            heldout=it.heldout(network),
            test=evaluate(network, it.data.test)[self.recipe.metric],
            epochs=narrow + wide,
            flops=self._flops(narrow, wide),
        )

    def networks(
        self, stages: Sequence[str], training: Training, *, wide: bool
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

    def long(self, strategy: str, epochs: int, *, wide: bool) -> Iterator[Row]:
        """One network, all epochs."""
        training = self.recipe.teacher.over(epochs)
        published = PUBLISHED.get((self.recipe.name, self.recipe.preset))
        if published is not None and published.milestones:
            usual = 2 * self.recipe.teacher.epochs + self.recipe.extra_epochs
            as_published = dataclasses.replace(
                training, epochs=usual, milestones=published.milestones
            )
            training = as_published.over(epochs)
        (made,) = self.networks((strategy,), training, wide=wide)
        for it, network in zip(self.all, made, strict=True):
            yield self.row(it, strategy, network, 0 if wide else epochs, wide * epochs)

    def merged(self) -> Iterator[Row]:
        """The student with its teachers, and the controls that start from them."""
        recipe, epochs = self.recipe, self.epochs
        teacher, extra = recipe.teacher.epochs, epochs.extra
        ones, others = self.networks(("teacher_a", "teacher_b"), recipe.teacher, wide=False)
        pairs = list(zip(self.all, ones, others, strict=True))
        for it, a, _ in pairs:
            yield self.row(it, "teacher", a, teacher)
        if self.budget == "epochs":
            (thirds,) = self.networks(("teacher_c",), recipe.teacher, wide=False)
            for (it, a, b), c in zip(pairs, thirds, strict=True):
                yield self.row(it, "bo3", it.best_of([a, b, c]), 3 * teacher)
        else:
            stages = ("teacher_c", "teacher_d", "teacher_e")
            yield from self.best_of("bo3", stages, epochs.teacher, wide=False)

        bigs = [concatenate([a, b], self.graph) for _, a, b in pairs]
        jobs = [
            LEARNED_GATES.job(big, self.big_graph, it.setting)
            for it, big in zip(self.all, bigs, strict=True)
        ]
        students = []
        for it, gated in zip(self.all, self.train(jobs, self.cost_big), strict=True):
            cut = choice_of(gated, 2).cut(self.big_graph).eval()
            yield self.row(it, "cut", cut, 2 * teacher, recipe.gating.epochs)
            students.append(self.with_norms(it, cut))
        tuned = self.tuned(students, "fine_tune", recipe.fine_tune)
        spent = 2 * teacher + recipe.fine_tune.epochs
        for it, student, fine in zip(self.all, students, tuned, strict=True):
            returned = it.best_of([student, fine])
            yield self.row(it, "student", returned, spent, recipe.gating.epochs)

        halves = []
        for it, big in zip(self.all, bigs, strict=True):
            choice = RANDOM_HALF.restore(big, self.big_graph, it.setting, {})
            halves.append(choice.cut(self.big_graph))
        made = self.tuned(halves, "random_half", recipe.fine_tune.over(extra))
        for it, network in zip(self.all, made, strict=True):
            yield self.row(it, "random_half", network, 2 * teacher + extra)
        made = self.tuned(ones, "trained_on", recipe.teacher.over(extra))
        for it, network in zip(self.all, made, strict=True):
            yield self.row(it, "trained_on", network, teacher + extra)

    def tuned(
        self, networks: Sequence[nn.Module], stage: str, training: Training
    ) -> list[nn.Module]:
        """Copies of one network of each repetition, trained on."""
        jobs = [
            it.job(stage, copy.deepcopy(network), training)
            for it, network in zip(self.all, networks, strict=True)
        ]
        return self.train(jobs, self.cost)

    def with_norms(self, it: Repetition, student: nn.Module) -> nn.Module:
        """The student, or itself with norm statistics re-estimated, by held-out score."""
        if not has_norm_statistics(student):
            return student
        fresh = norms_reestimated(
            student,
            it.data.train,
            self.recipe.gating.batch_size,
            it.augment,
            it.draws("norms"),
        )
        return it.best_of([student, fresh])


class _Reports:
    """FLOPs told to whoever started this process, a few times a second."""

    def __init__(self) -> None:
        self.flops, self.last = 0.0, time.monotonic()

    def __call__(self, flops: float) -> None:
        self.flops += flops
        if time.monotonic() - self.last > _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Tell what is not told yet."""
        _say({"done": self.flops})
        self.flops, self.last = 0.0, time.monotonic()


def _say(values: dict) -> None:
    print(json.dumps(values), flush=True)


def main(text: str) -> None:
    """Work on the repetitions that the JSON text asks for."""
    asked = json.loads(text)
    recipe = recipe_from_json(json.dumps(asked["recipe"]))
    assert isinstance(recipe, Recipe), "only merges have tables"
    todo = {unit: seeds for unit, seeds in asked["units"].items() if seeds}
    report = _Reports()

    def block(seeds: Sequence[int]) -> Block:
        return Block(
            recipe,
            seeds,
            asked["budget"],
            device=asked["device"],
            data_dir=Path(asked["data"]),
            report=report,
        )

    for unit, seeds in todo.items():
        for start in range(0, len(seeds), AT_ONCE):
            some = block(seeds[start : start + AT_ONCE])
            if unit == next(iter(todo)) and start == 0:
                each = sum(some.planned(u) * len(s) for u, s in todo.items())
                _say({"planned": each / len(some.all)})
            for row in some.rows(unit):
                _say(dataclasses.asdict(row))
            report.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
