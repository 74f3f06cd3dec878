"""A worker of a λ lab: trains some schedules of one seed at once and says how they fared.

    python -P -m merge_core.lab_cells JSON

prints JSON lines: `{"planned": FLOPs}` once, `{"done": FLOPs}` since the last such line, and the
fields of a `Row` for each schedule that is finished. `merge_core.lab_work` starts it.

All schedules of a seed start from the same teachers, which are trained once here, see the same
examples in the same order and have gates with the same noise; each gives the numbers that a full
run gives, to rounding.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import nn

from merge_core.channels import concatenate
from merge_core.ensembles import group_size
from merge_core.errors import NetweldError
from merge_core.gates import gates_of
from merge_core.lab import SURE, Cell, Lab, Row, lab_from
from merge_core.methods import LEARNED_GATES, Setting
from merge_core.methods.learned_gates import choice_of
from merge_core.precision import settled
from merge_core.tables import Block
from merge_core.training import Job, evaluate

_REPORT_SECONDS = 0.5
_PLACES = 4
"""Decimals of a mean P[open] that is written down."""


class SeedOfLab:
    """One seed of a lab: its data, its teachers, its big student.

    Args:
        lab: what it is of.
        seed: decides every random draw.
        device: "cpu", "cuda" or "mps".
        data_dir: where data sets lie.
        report: told how many FLOPs were done.
    """

    def __init__(
        self,
        lab: Lab,
        seed: int,
        *,
        device: str,
        data_dir: Path,
        report: Callable[[float], None] = lambda flops: None,
    ) -> None:
        self.lab = lab
        numbers = settled(lab.recipe.precision, device)  # as in a full run of a cell
        recipe = dataclasses.replace(lab.recipe, precision=numbers)
        self.block = Block(
            recipe, [seed], "epochs", device=device, data_dir=data_dir, report=report
        )
        (self.it,) = self.block.all
        self.cost_of_teachers = self.block.flops(2 * recipe.teacher.epochs)
        self.cost_of_cell = self.block.flops(recipe.fine_tune.epochs, recipe.gating.epochs)
        self._big: nn.Module | None = None

    @property
    def big(self) -> nn.Module:
        """The big student of the two teachers, which are trained when it is first asked for."""
        if self._big is None:
            stages = ("teacher_a", "teacher_b")
            (a,), (b,) = self.block.networks(stages, self.block.recipe.teacher)
            self._big = concatenate([a, b], self.block.graph)
        return self._big

    def setting(self, cell: Cell) -> Setting:
        """The situation of the gate stage under a cell's schedule."""
        recipe = self.lab.recipe_of(cell, self.it.recipe.seed)
        return dataclasses.replace(self.it.setting, recipe=recipe)

    def job(self, cell: Cell) -> Job:
        """The gate stage under a cell's schedule."""
        return LEARNED_GATES.job(self.big, self.block.big_graph, self.setting(cell))

    def rows(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """Train the gates of some cells at once, cut, and fine-tune at once."""
        block, it, recipe = self.block, self.it, self.block.recipe
        jobs = [self.job(cell) for cell in cells]
        means: list[dict[str, list[float]]] = [{} for _ in cells]

        def watch(numbers: Sequence[int]) -> None:
            for number in numbers:
                opened = gates_of(jobs[number].network).open_probabilities()
                for space, p in opened.items():
                    means[number].setdefault(space, []).append(round(float(p.mean()), _PLACES))

        gated = block.train(jobs, block.cost_big, watch)
        cuts, students, undecided = [], [], []
        for cell, network in zip(cells, gated, strict=True):
            choice = choice_of(network, block.big_graph, self.setting(cell))
            every = torch.cat([p.flatten() for p in choice.open_probability.values()])
            undecided.append(float(((every > SURE) & (every < 1 - SURE)).double().mean()))
            cut = choice.cut(block.big_graph).eval()
            cuts.append(self._scores(cut))
            students.append(block.with_norms(it, cut, recipe.gating.batch_size))
        tuned = block.train(
            [it.job("fine_tune", student, recipe.fine_tune) for student in students], block.cost
        )
        for cell, cut, network, open_share, mine in zip(
            cells, cuts, tuned, undecided, means, strict=True
        ):
            heldout, test = self._scores(network)
            yield Row(
                cell=cell,
                seed=it.recipe.seed,
                cut_heldout=cut[0],
                cut_test=cut[1],
                tuned_heldout=heldout,
                tuned_test=test,
                undecided=round(open_share, _PLACES),
                means={space: tuple(each) for space, each in mine.items()},
            )

    def _scores(self, network: nn.Module) -> tuple[float, float]:
        """On the held-out and on the test split."""
        test = evaluate(network, self.it.data.test)[self.block.recipe.metric]
        return self.it.heldout(network), test


def _say(values: dict) -> None:
    print(json.dumps(values), flush=True)


def main(text: str) -> None:
    """Work on the seeds and cells that the JSON text asks for."""
    asked = json.loads(text)
    lab = lab_from(asked["lab"])
    done, told = 0.0, time.monotonic()

    def report(flops: float) -> None:
        nonlocal done, told
        done += flops
        if time.monotonic() - told > _REPORT_SECONDS:
            _say({"done": done})
            done, told = 0.0, time.monotonic()

    todo: list[tuple[int, Cell]] = [(seed, (i, j)) for seed, (i, j) in asked["todo"]]
    seeds = {
        seed: SeedOfLab(
            lab, seed, device=asked["device"], data_dir=Path(asked["data"]), report=report
        )
        for seed in dict.fromkeys(seed for seed, _ in todo)
    }
    planned = sum(each.cost_of_teachers for each in seeds.values())
    _say({"planned": planned + sum(seeds[seed].cost_of_cell for seed, _ in todo)})
    for seed, mine in groupby(todo, key=lambda each: each[0]):
        cells = [cell for _, cell in mine]
        size = group_size(seeds[seed].job(cells[0]))
        for start in range(0, len(cells), size):
            for row in seeds[seed].rows(cells[start : start + size]):
                _say(dataclasses.asdict(row))
    _say({"done": done})


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
