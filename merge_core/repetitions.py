"""Tables of repeated experiments as they lie on disk, and what is read from them (no torch).

A table is a file of JSON lines in `NETWELD_HOME/tables`: first what is repeated, then a line for
every strategy of every repetition, written when it is finished. So a table that was stopped goes on
where it was, and a larger one takes over what a smaller one has.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from merge_core import linefile, places
from merge_core.errors import StoreError
from merge_core.recipes import Recipe

Budget = Literal["epochs", "flops"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A way to spend a budget on one network.

    Attributes:
        key: the word in files and on the command line.
        title: the words in a table.
        note: one sentence for people who see it for the first time.
    """

    key: str
    title: str
    note: str


STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        key="student",
        title="student",
        note="Two teachers, merged by learned gates, fine-tuned; the best stage by held-out score.",
    ),
    Strategy(
        key="ours",
        title="ours",
        note="More teachers, merged without gates by least squares, fine-tuned on what they give "
        "together; the best stage by held-out score.",
    ),
    Strategy(
        key="bo3",
        title="bo3",
        note="The best of three networks by held-out score; two of them are the student's teachers "
        "where those train as long.",
    ),
    Strategy(key="one_model", title="one model", note="One network, all epochs."),
    Strategy(
        key="shared_start",
        title="rival: shared start",
        note="One network for half of the epochs, then two branches, averaged; the best of the "
        "average, its branches and their start by held-out score.",
    ),
    Strategy(
        key="weight_average",
        title="rival: weight average",
        note="One network, averaged over the last quarter of its epochs at a constant rate (SWA); "
        "the best of the average and the network before and after that quarter by held-out score.",
    ),
    Strategy(
        key="bo3_big",
        title="bo3 big",
        note="The best of three networks of double width by held-out score.",
    ),
    Strategy(key="long_big", title="long big", note="One network of double width, all epochs."),
    Strategy(
        key="trained_on",
        title="control: teacher A trained on",
        note="The student's first teacher before or after training for the student's extra epochs, "
        "by held-out score.",
    ),
    Strategy(
        key="random_half",
        title="control: random half",
        note="A random half of both teachers' channels, fine-tuned for the student's extra epochs.",
    ),
    Strategy(
        key="ours_random",
        title="control: ours, random start",
        note="As ours, but fine-tuned from what knows less: random channels of the teachers where "
        "ours selects, an untrained network where ours takes random ones.",
    ),
    Strategy(key="teacher", title="teacher A", note="One teacher as the student finds it."),
    Strategy(key="cut", title="cut", note="The student before it is fine-tuned."),
    Strategy(
        key="ours_selected",
        title="ours, selected",
        note="Ours before it is fine-tuned: channels selected, readers refitted, no training.",
    ),
)
"""Every strategy, in the order of a table."""

WAYS = (("teacher", "cut", "student"), ("ours_selected", "ours"))
"""Strategies that are stages of one merge, in their order; the last is the merge."""

UNITS: dict[str, tuple[str, ...]] = {
    "merge": ("teacher", "bo3", "cut", "student", "trained_on", "random_half"),
    "one_model": ("one_model",),
    "ours": ("ours_selected", "ours", "ours_random"),
    "shared_start": ("shared_start",),
    "weight_average": ("weight_average",),
    "bo3_big": ("bo3_big",),
    "long_big": ("long_big",),
}
"""What a worker trains in one go → the strategies that it gives."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy of one repetition.

    Attributes:
        seed: of the repetition; the recipe with this seed gives the same numbers again.
        strategy: its key.
        heldout, test: loss on the held-out and the test split where the recipe fits numbers,
            accuracy where it tells classes apart.
        epochs: epochs of training of all networks that went into it.
        flops: floating-point operations of that training, forward and backward.
        classes: the accuracy on the test examples of each class, None for a class without any;
            empty where numbers are fitted, and where an early version did not keep it.
        heldout_classes: likewise on the held-out examples.
        curve: what the network gives at `curve_places()`, where it is a function of one number.
        stages: the networks on the way to it: key of the stage, its held-out and its test score, in
            order; empty where there is no way, and in tables of early versions.
    """

    seed: int
    strategy: str
    heldout: float
    test: float
    epochs: int
    flops: float
    classes: tuple[float | None, ...] = ()
    heldout_classes: tuple[float | None, ...] = ()
    curve: tuple[float, ...] = ()
    stages: tuple[tuple[str, float, float], ...] = ()

    def accuracies(self, split: str) -> tuple[float | None, ...]:
        """The accuracy of each class on "test" or "heldout"; empty where it was not kept."""
        return self.classes if split == "test" else self.heldout_classes


_SCALARS: tuple[str, ...] = ("seed", "strategy", "heldout", "test", "epochs", "flops")
"""The parts of a row that every row has; they are the columns of its CSV file."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A time in which some rows of a table were computed, on one machine.

    Attributes:
        started: seconds since the epoch.
        device: "cpu", "cuda" or "mps".
        hardware: the name of the processor or the GPU.
        workers: how many processes worked.
        versions: of netweld, Python and the libraries that compute.
        class_names: what people call the classes of the data; empty where nobody has said.
        computing: how networks learned, if not in float32 by eager code: " in bfloat16, compiled".
    """

    started: float
    device: str
    hardware: str
    workers: int
    versions: Mapping[str, str]
    class_names: tuple[str, ...] = ()
    computing: str = ""

    @property
    def place(self) -> str:
        """Where networks learned, and how."""
        return f"{self.device} ({self.hardware}){self.computing}"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A loss did not stay finite, so some strategies of a repetition have no row.

    Attributes:
        seed: of the repetition.
        unit: what was trained in one go, a key of `UNITS`.
        message: what happened, in a sentence.
    """

    seed: int
    unit: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of one strategy over all repetitions; `std` is that of a sample, NaN of one."""

    n: int
    min: float
    max: float
    median: float
    mean: float
    std: float


def summary(scores: Iterable[float]) -> Summary:
    """What a table shows of some scores; at least one."""
    values = list(scores)
    return Summary(
        n=len(values),
        min=min(values),
        max=max(values),
        median=statistics.median(values),
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else math.nan,
    )


class Results:
    """The file of one table.

    Args:
        recipe: what is repeated; its seed is the first repetition's.
        budget: what all strategies have the same of.
        home: where `tables` is; by default `NETWELD_HOME`.
    """

    def __init__(self, recipe: Recipe, budget: Budget, home: Path | None = None) -> None:
        self.recipe = recipe
        self.budget: Budget = budget
        self._what = json.dumps(
            {"recipe": json.loads(replace(recipe, seed=0).to_json()), "budget": budget},
            sort_keys=True,
        )
        mark = linefile.mark(self._what)
        name = f"{recipe.name}-{recipe.preset}-{budget}-{mark}.jsonl"
        self.path = (home or places.home()) / "tables" / name

    @classmethod
    def at(cls, path: Path) -> "Results":
        """The table in a file; its recipe has seed 0.

        Raises:
            StoreError: the file is no table, or cannot be read.
            RecipeError: this version of netweld cannot read what it repeats.
        """
        first = linefile.opening(path, ("recipe", "budget"), "a table")
        if first["budget"] not in get_args(Budget):
            raise StoreError(
                f"The table {path} has the budget {first['budget']!r}, but one of "
                f"{', '.join(get_args(Budget))} was expected; delete it or put it elsewhere."
            )
        made = cls(Recipe.from_json(json.dumps(first["recipe"])), first["budget"])
        made.path = path
        return made

    def rows(self) -> list[Row]:
        """What is finished, each strategy of a seed once, by seed.

        A line that was cut off when the computer went down is passed over.
        """
        found: dict[tuple[int, str], Row] = {}
        for values in linefile.read(self.path):
            if set(_SCALARS) <= values.keys() <= {field.name for field in fields(Row)}:
                values["stages"] = [tuple(each) for each in values.get("stages", ())]
                row = Row(**linefile.frozen(values))
                found.setdefault((row.seed, row.strategy), row)
        return sorted(found.values(), key=lambda row: row.seed)

    def sessions(self) -> list[Session]:
        """When and where its rows were computed, the oldest first; early versions did not say."""
        told = (
            values["session"] for values in linefile.read(self.path) if values.keys() == {"session"}
        )
        return [Session(**linefile.frozen(values)) for values in told]

    def failures(self) -> list[Failure]:
        """What cannot be finished, because the same seed would fail again."""
        told = (
            values["failed"] for values in linefile.read(self.path) if values.keys() == {"failed"}
        )
        return [Failure(**values) for values in told]

    def append(self, rows: Iterable[Row]) -> None:
        """Write finished strategies down.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.append(self.path, self._what, [_shortened(row) for row in rows])

    def fail(self, failure: Failure) -> None:
        """Write down what cannot be finished.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.append(self.path, self._what, [{"failed": asdict(failure)}])

    def begin(self, session: Session) -> None:
        """Write down where the rows that follow are computed.

        Raises:
            StoreError: the file cannot be written.
        """
        linefile.append(self.path, self._what, [{"session": asdict(session)}])


def _shortened(row: Row) -> dict[str, Any]:
    """A row without what it does not have."""
    return {key: value for key, value in asdict(row).items() if key in _SCALARS or value}
