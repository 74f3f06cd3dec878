"""The λ lab: one recipe under many λ schedules, as a landscape over two numbers (no torch).

A lab is a grid of schedules of one family. Its file of JSON lines in `NETWELD_HOME/labs` says first
what the lab is, then has a line for every schedule and seed that is finished. So a lab that was
stopped goes on where it was, and more seeds add to it.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from merge_core import linefile, places
from merge_core.errors import RecipeError
from merge_core.recipes import Recipe
from merge_core.schedules import (
    PAPER_SCHEDULE,
    Cosine,
    Curve,
    Exponential,
    GrowthLaw,
    Linear,
    Schedule,
)

Cell = tuple[int, int]
"""A schedule of a lab: which value of its first and of its second number."""

MOST_PER_AXIS = 32
_DIGITS = 3
_LAST = 0.9
"""The progress at which the last tenth of the gate stage begins; see `merge_core.gates`."""
SURE = 0.1
"""A gate is decided where P[open] is at most this, or at least 1 − this."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One of the two numbers of a family.

    Attributes:
        field: what a schedule calls it.
        title: what people call it.
        low, high: the ends of a usual grid.
        paper: the paper's value; a usual grid has it.
    """

    field: str
    title: str
    low: float
    high: float
    paper: float

    def values(self, count: int) -> tuple[float, ...]:
        """So many values on a log scale, the paper's among them where there are two or more."""
        if count == 1:
            return (rounded(self.paper),)
        values = np.geomspace(self.low, self.high, count)
        nearest = values[np.abs(np.log(values / self.paper)).argmin()]
        return tuple(rounded(value) for value in values * (self.paper / nearest))


def rounded(value: float) -> float:
    """To the digits that schedules have here."""
    return float(f"{value:.{_DIGITS}g}")


_START = Axis(field="start", title="λ₀", low=1e-3, high=3.1623, paper=PAPER_SCHEDULE.start)
_GROWTH = Axis(field="growth", title="g", low=1.5811e-3, high=5.0, paper=PAPER_SCHEDULE.growth)
_END = Axis(field="end", title="λ at the end", low=0.145, high=458.5, paper=PAPER_SCHEDULE.at(1))

AXES: dict[str, tuple[Axis, Axis]] = {
    "growth": (_START, _GROWTH),
    "linear": (_START, _END),
    "exponential": (_START, _END),
    "cosine": (_START, _END),
}
"""The families that a lab can be of, and their two numbers."""
_BETWEEN: dict[str, type[Linear | Exponential | Cosine]] = {
    "linear": Linear,
    "exponential": Exponential,
    "cosine": Cosine,
}


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A recipe and a grid of λ schedules.

    Attributes:
        recipe: everything but the schedule, which is the paper's here and does not count; seed 0.
        family: a key of `AXES`.
        first, second: the values of the family's two numbers.

    Raises:
        RecipeError: there is no such family, or an axis has no values, too many or bad ones.
    """

    recipe: Recipe
    family: str = "growth"
    first: tuple[float, ...]
    second: tuple[float, ...]

    def __post_init__(self) -> None:
        gates = replace(self.recipe.gates, schedule=PAPER_SCHEDULE)
        object.__setattr__(self, "recipe", replace(self.recipe, seed=0, gates=gates))
        require_family(self.family)
        for values in (self.first, self.second):
            if not 1 <= len(values) <= MOST_PER_AXIS or len(set(values)) < len(values):
                raise RecipeError(
                    f"A lab got {len(values)} values on one axis, {len(set(values))} of them "
                    f"different, but 1 to {MOST_PER_AXIS} different ones are expected; "
                    f"choose for example --grid 8x8."
                )
        self.schedule((0, 0))

    @classmethod
    def usual(cls, recipe: Recipe, family: str, shape: tuple[int, int]) -> "Lab":
        """The lab of a recipe with so many values around the paper's on each axis."""
        axes = require_family(family)
        for count in shape:
            if not 1 <= count <= MOST_PER_AXIS:
                raise RecipeError(
                    f"A lab got a grid of {shape[0]}x{shape[1]}, but each side has 1 to "
                    f"{MOST_PER_AXIS} values; choose for example 8x8."
                )
        first, second = (axis.values(n) for axis, n in zip(axes, shape, strict=True))
        return cls(recipe=recipe, family=family, first=first, second=second)

    @property
    def shape(self) -> tuple[int, int]:
        """How many values each number has."""
        return len(self.first), len(self.second)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The two numbers."""
        return AXES[self.family]

    @property
    def paper(self) -> Cell | None:
        """The paper's own schedule, or its ends in another family; None where it is not there."""
        wanted = [rounded(axis.paper) for axis in self.axes]
        if wanted[0] not in self.first or wanted[1] not in self.second:
            return None
        return self.first.index(wanted[0]), self.second.index(wanted[1])

    def numbers(self, cell: Cell) -> tuple[float, float]:
        """The two numbers of a schedule."""
        return self.first[cell[0]], self.second[cell[1]]

    def curve(self, cell: Cell) -> Curve:
        """The λ schedule of a cell, of which λ at any moment is known."""
        first, second = self.numbers(cell)
        if self.family == "growth":
            return GrowthLaw(start=first, growth=second, epochs=PAPER_SCHEDULE.epochs)
        return _BETWEEN[self.family](start=first, end=second)

    def schedule(self, cell: Cell) -> Schedule:
        """The λ schedule of a cell."""
        curve = self.curve(cell)
        assert isinstance(curve, Schedule)
        return curve

    def recipe_of(self, cell: Cell, seed: int) -> Recipe:
        """The recipe of a full run of a cell."""
        gates = replace(self.recipe.gates, schedule=self.schedule(cell))
        return replace(self.recipe, seed=seed, gates=gates)

    def levels(self) -> list[list[Cell]]:
        """All cells: those of a coarse grid, then those between, finer and finer."""
        stride = 1
        while 2 * stride < max(self.shape):
            stride *= 2
        seen: set[Cell] = set()
        levels = []
        while stride:
            places = [range(0, size, stride) for size in self.shape]
            level = [(i, j) for i in places[0] for j in places[1] if (i, j) not in seen]
            seen.update(level)
            levels.append(level)
            stride //= 2
        return levels


def require_family(family: str) -> tuple[Axis, Axis]:
    """The two numbers of a family.

    Raises:
        RecipeError: no lab can be of it.
    """
    if family not in AXES:
        raise RecipeError(
            f"A lab got family={family!r}, but it can be of {', '.join(AXES)}; choose one."
        )
    return AXES[family]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One schedule with one seed.

    Attributes:
        cell: the schedule.
        seed: the recipe with this schedule and this seed gives the same numbers again.
        cut_heldout, cut_test: score after the cut; loss where the recipe fits numbers, accuracy
            where it tells classes apart.
        tuned_heldout, tuned_test: likewise after fine-tuning.
        undecided: share of the gates whose P[open] is between 0.1 and 0.9 at the cut.
        means: space → mean P[open] after each epoch of gates.
    """

    cell: Cell
    seed: int
    cut_heldout: float
    cut_test: float
    tuned_heldout: float
    tuned_test: float
    undecided: float
    means: Mapping[str, tuple[float, ...]]

    def mean_open(self) -> np.ndarray:
        """Mean over the spaces of their mean P[open] after each epoch, `(epochs,)`."""
        return np.array(list(self.means.values())).mean(0)

    @property
    def open_at_cut(self) -> float:
        """Mean P[open] when the network is cut; the method aims at ½."""
        return float(self.mean_open()[-1])

    @property
    def open_before(self) -> float:
        """Mean P[open] when the last tenth of the stage begins, which shifts all gates alike."""
        means = self.mean_open()
        return float(means[max(int(_LAST * len(means)) - 1, 0)])


MEASURES: dict[str, str] = {
    "tuned_heldout": "Score after fine-tuning",
    "cut_heldout": "Score after the cut",
    "open_before": "Open before the last tenth",
    "open_at_cut": "Open at the cut",
    "undecided": "Undecided at the cut",
}
"""What a landscape can show: an attribute of `Row` → the words; scores are held-out ones."""


class LabFile:
    """The file of one lab.

    Args:
        lab: what it is of.
        home: where `labs` is; by default `NETWELD_HOME`.

    Attributes:
        said: the lab as JSON values.
    """

    def __init__(self, lab: Lab, home: Path | None = None) -> None:
        self.lab = lab
        self.said = {**asdict(lab), "recipe": json.loads(lab.recipe.to_json())}
        self._what = json.dumps(self.said, sort_keys=True)
        mark = linefile.mark(self._what)
        size = "x".join(map(str, lab.shape))
        name = f"{lab.recipe.name}-{lab.recipe.preset}-{lab.family}-{size}-{mark}.jsonl"
        self.path = directory(home) / name

    @classmethod
    def at(cls, path: Path) -> "LabFile":
        """The lab in a file.

        Raises:
            StoreError: the file is no lab, or cannot be read.
            RecipeError: this version of netweld cannot read its recipe.
        """
        keys = [field.name for field in fields(Lab)]
        made = cls(lab_from(linefile.opening(path, keys, "a lab")))
        made.path = path
        return made

    def rows(self) -> list[Row]:
        """What is finished, each schedule of a seed once, in the order in which it came."""
        found: dict[tuple[Cell, int], Row] = {}
        for values in linefile.read(self.path):
            if values.keys() == {field.name for field in fields(Row)}:
                row = row_from(values)
                found.setdefault((row.cell, row.seed), row)
        return list(found.values())

    def append(self, rows: Iterable[Row]) -> None:
        """Write finished schedules down.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.append(self.path, self._what, [asdict(row) for row in rows])

    def begin(self) -> None:
        """Write down what the lab is, where nothing is finished yet.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.begin(self.path, self._what)


def lab_from(values: Mapping[str, Any]) -> Lab:
    """A lab as JSON has it."""
    recipe = Recipe.from_json(json.dumps(values["recipe"]))
    return Lab(**{**linefile.frozen(values), "recipe": recipe})


def row_from(values: Mapping[str, Any]) -> Row:
    """A row as JSON has it."""
    return Row(**{**linefile.frozen(values), "means": linefile.frozen(values["means"])})


def directory(home: Path | None = None) -> Path:
    """Where labs lie."""
    return (home or places.home()) / "labs"


def missing(lab: Lab, rows: Sequence[Row], seeds: Sequence[int]) -> list[tuple[int, Cell]]:
    """Seeds and cells that are not finished, in the order in which they are worked on."""
    there = {(row.seed, row.cell) for row in rows}
    return [
        (seed, cell)
        for level in lab.levels()
        for seed in seeds
        for cell in level
        if (seed, cell) not in there
    ]


def landscape(lab: Lab, rows: Iterable[Row], measure: str) -> np.ndarray:
    """A measure of every cell, the mean over its seeds; `lab.shape`, NaN where none is finished."""
    found: dict[Cell, list[float]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(getattr(row, measure))
    values = np.full(lab.shape, np.nan)
    for cell, mine in found.items():
        values[cell] = statistics.fmean(mine)
    return values


def best_cells(lab: Lab, rows: Sequence[Row]) -> list[Cell]:
    """The finished cells, the best held-out score after fine-tuning first."""
    values = landscape(lab, rows, "tuned_heldout")
    sign = -1 if lab.recipe.metric == "accuracy" else 1
    finished = [cell for level in lab.levels() for cell in level if not np.isnan(values[cell])]
    return sorted(finished, key=lambda cell: sign * values[cell])
