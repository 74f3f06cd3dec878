"""Networks that are compared over repetitions, in a table or in stored runs: spread, cost, way."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import pandas as pd

from merge_core.repetitions import STRATEGIES, Row, Summary, summary

STATISTICS = ("min", "max", "median", "mean", "std")
SPLITS = {"test": "test (only reports)", "heldout": "held-out (chooses)"}
TITLES = {strategy.key: strategy.title for strategy in STRATEGIES}


@dataclass(frozen=True, kw_only=True)
class Way:
    """The scores on the way through the stages of a merge.

    Attributes:
        key: decides the colour.
        title: of the merge.
        scores: a row for each seed, a column for each stage (its words), in order; NaN where a
            repetition has none.
        apart: columns that are no step of the way: teachers and controls.
    """

    key: str
    title: str
    scores: pd.DataFrame
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the numbers of one kind of networks rest on beside seeds and split, for files.

    Attributes:
        budget: what its training was given.
        device: where that was; empty where it was not written down.
        torch: the version of PyTorch, likewise.
    """

    budget: str
    device: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class Scored(ABC):
    """What is compared: scores of some kinds of networks, each over repetitions with seeds.

    Attributes:
        rows: a row for each repetition of each kind, by seed; `Row.strategy` is the kind's key.
    """

    rows: tuple[Row, ...]

    @property
    @abstractmethod
    def metric(self) -> str:
        """What the scores are: "accuracy" or "loss"."""

    @property
    @abstractmethod
    def titles(self) -> Mapping[str, str]:
        """Key of every kind → its words, in order."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """What all have the same of, as in "at equal training FLOPs"."""

    @abstractmethod
    def conditions(self, split: str) -> str:
        """What every figure rests on: n, seeds, budget, split and device, in one line."""

    @abstractmethod
    def basis(self, key: str) -> Basis:
        """What the numbers of a kind rest on."""

    @abstractmethod
    def ways(self, split: str) -> list[Way]:
        """The scores after each stage."""

    @abstractmethod
    def repetition(self, row: Row) -> str:
        """The words for the repetition that a row is of."""

    @abstractmethod
    def named(self, key: str) -> Sequence[tuple[str, ...]]:
        """What people have called the classes that a kind tells apart, as often as they said it."""

    def class_names(self, key: str) -> tuple[str, ...]:
        """The names of the classes that a kind tells apart; numbers where nobody has said."""
        count = max((len(row.classes) for row in self.of(key)), default=0)
        numbers = tuple(f"class {number}" for number in range(count))
        return next((names for names in self.named(key) if len(names) == count), numbers)

    def pairs(self, first: str, other: str) -> bool:
        """Whether equal seeds of two kinds mean the same examples."""
        return True

    def rivals(self, key: str) -> bool:
        """Whether a kind is compared in sentences; stages on the way of another are not."""
        return True

    def published(self, split: str) -> Mapping[str, Summary]:
        """Key → what the paper published."""
        return {}

    def unequal(self) -> str:
        """What the budget leaves unequal, in a sentence; empty where nothing is worth telling."""
        return ""

    @property
    def seeds(self) -> list[int]:
        """The repetitions of which at least one kind is finished."""
        return sorted({row.seed for row in self.rows})

    @property
    def strategies(self) -> list[str]:
        """The keys of the kinds that it has, in order."""
        there = {row.strategy for row in self.rows}
        return [key for key in self.titles if key in there]

    def of(self, strategy: str) -> list[Row]:
        """The rows of one kind, by seed."""
        return [row for row in self.rows if row.strategy == strategy]

    def scores(self, strategy: str, split: str) -> dict[int, float]:
        """Seed → score on "test" or "heldout"."""
        return {row.seed: getattr(row, split) for row in self.of(strategy)}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The scores of one kind of networks on one split.

    Attributes:
        key, title: of the kind.
        seeds, scores: one for each repetition.
        summary: of the scores.
        published: what the paper published; None where it did not.
        epochs, flops: of all training that went into one repetition.
    """

    key: str
    title: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    summary: Summary
    published: Summary | None
    epochs: int
    flops: float


def spreads(scored: Scored, split: str) -> list[Spread]:
    """The spread of every kind, in order."""
    theirs = scored.published(split)
    found = []
    for key in scored.strategies:
        rows, scores = scored.of(key), scored.scores(key, split)
        found.append(
            Spread(
                key=key,
                title=scored.titles[key],
                seeds=tuple(scores),
                scores=tuple(scores.values()),
                summary=summary(scores.values()),
                published=theirs.get(key),
                epochs=rows[0].epochs,
                flops=rows[0].flops,
            )
        )
    return found


def score_frame(scored: Scored) -> pd.DataFrame:
    """One row for each kind in each repetition.

    Columns: seed, strategy (key), title, heldout, test, epochs, flops, and those of `Basis`.
    """
    columns = ["seed", "strategy", "title", "heldout", "test", "epochs", "flops"]
    rows = [
        (row.seed, key, scored.titles[key], row.heldout, row.test, row.epochs, row.flops)
        for key in scored.strategies
        for row in scored.of(key)
    ]
    return with_basis(pd.DataFrame(rows, columns=columns), scored, [row[1] for row in rows])


def with_basis(frame: pd.DataFrame, scored: Scored, keys: Sequence[str]) -> pd.DataFrame:
    """A frame for a file, with the columns of `Basis`.

    Args:
        frame: some numbers.
        scored: where they come from.
        keys: the kind that each row is of.
    """
    found = {key: asdict(scored.basis(key)) for key in set(keys)}
    return frame.assign(
        **{each.name: [found[key][each.name] for key in keys] for each in fields(Basis)}
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds in words: "0 to 49", "0, 2 and 5"."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    words = [str(seed) for seed in seeds]
    if len(words) > 8:
        words = [*words[:6], "…", words[-1]]
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)
