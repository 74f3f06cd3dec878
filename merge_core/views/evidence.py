"""How sure a comparison is: bootstrap intervals, paired differences, sentences without boasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from merge_core.views.runs import score_text
from merge_core.views.scored import STATISTICS, Scored, seeds_text, spreads, with_basis

LEVEL = 0.95
RESAMPLES = 9999
_SEED = 0
FEWEST = 5
"""With fewer repetitions nothing is called clear: all of four agree by chance once in eight."""
FEW = 10
"""With fewer repetitions a bootstrap interval is narrower than it should be."""

METHOD = (
    f"Intervals are {LEVEL:.0%} percentile bootstrap intervals ({RESAMPLES:,} resamples of the "
    f"repetitions, seed {_SEED}), each by itself, not widened for their number"
)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its interval; NaN where one repetition tells nothing of chance."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=4096)
def interval(values: tuple[float, ...], statistic: Literal["mean", "median"] = "mean") -> Interval:
    """The mean or median of some values, with its percentile bootstrap interval.

    Args:
        values: at least one.
        statistic: which.
    """
    # SciPy takes half a second to import, which a page that shows no interval should not wait for.
    from scipy.stats import bootstrap

    of = np.mean if statistic == "mean" else np.median
    value = float(of(values))
    if len(values) < 2:
        return Interval(value=value, low=math.nan, high=math.nan)
    if min(values) == max(values):
        return Interval(value=value, low=value, high=value)
    found = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        of,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(value=value, low=float(found.low), high=float(found.high))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One kind of networks minus another, on the seeds that both have.

    Attributes:
        first, other: their keys.
        title: the other's words.
        seeds, values: of every pair.
        mean: of the values.
        wins: in how many pairs the first is strictly better.
        verdict: "better" or "worse" where the interval is clear of zero and there are enough
            pairs, else "unclear".
    """

    first: str
    other: str
    title: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: Interval
    wins: int
    verdict: Literal["better", "worse", "unclear"]


def difference(scored: Scored, first: str, other: str, split: str) -> Difference | None:
    """The paired difference of two kinds of networks; None where they share no seed."""
    if not scored.pairs(first, other):
        return None
    mine, theirs = scored.scores(first, split), scored.scores(other, split)
    seeds = tuple(seed for seed in mine if seed in theirs)
    if not seeds:
        return None
    values = tuple(mine[seed] - theirs[seed] for seed in seeds)
    mean = interval(values)
    sign = 1 if scored.metric == "accuracy" else -1
    clear = len(seeds) >= FEWEST and (mean.low > 0 or mean.high < 0)
    return Difference(
        first=first,
        other=other,
        title=scored.titles[other],
        seeds=seeds,
        values=values,
        mean=mean,
        wins=sum(sign * value > 0 for value in values),
        verdict="unclear" if not clear else "better" if sign * mean.value > 0 else "worse",
    )


def differences(scored: Scored, first: str, split: str) -> list[Difference]:
    """A kind minus every other one that shares seeds with it, in order."""
    found = (
        difference(scored, first, other, split) for other in scored.strategies if other != first
    )
    return [each for each in found if each is not None]


def difference_text(value: float, metric: str) -> str:
    """A difference of scores: accuracy in points, a loss as it is."""
    if math.isnan(value):
        return "?"
    text = f"{100 * value:+.1f}" if metric == "accuracy" else f"{value:+.4f}"
    return text.replace("-", "−")


def finding(scored: Scored, first: str, split: str) -> str:
    """What is clear of one strategy against the others and what is not, in sentences."""
    found = [each for each in differences(scored, first, split) if scored.rivals(each.other)]
    mine = list(scored.scores(first, split).values())
    if not mine:
        return f"**{begun(scored.titles[first])}** is not finished yet."
    parts = [
        f"**{begun(scored.titles[first])}** has a mean {_split(split)} {scored.metric} of "
        f"**{score_text(math.fsum(mine) / len(mine), scored.metric)}** {scored.rule} "
        f"(n = {len(mine)})."
    ]
    for verdict, words in (("better", "clearly better than"), ("worse", "clearly worse than")):
        if some := [_against(each, scored) for each in found if each.verdict == verdict]:
            parts.append(f"It is **{words}** {_listed(some)}.")
    short = [each for each in found if len(each.seeds) < FEWEST]
    if short:
        parts.append(
            f"Nothing is clear against {_all_or_listed(short, found)}: {FEWEST} common repetitions "
            f"are the least, {min(len(each.seeds) for each in short)} are there."
        )
    unclear = [each for each in found if each.verdict == "unclear" and each not in short]
    if unclear:
        parts.append(f"There is **no clear difference** to {_all_or_listed(unclear, found)}.")
    return " ".join(parts)


def caution(scored: Scored, split: str) -> str:
    """How far the sentences of `finding` carry."""
    parts = [f"{METHOD}; figures in brackets are their ends."]
    counts = [len(scored.of(key)) for key in scored.strategies]
    if counts and min(counts) < FEW:
        parts.append(f"With fewer than {FEW} repetitions they are narrower than they should be.")
    if split == "heldout":
        parts.append("The held-out split has chosen, so its scores flatter who chooses most.")
    if cost := scored.unequal():
        parts.append(cost)
    return " ".join(parts)


def begun(title: str) -> str:
    """A title at the beginning of a sentence."""
    return title[:1].upper() + title[1:]


def _split(split: str) -> str:
    return "held-out" if split == "heldout" else split


def _against(each: Difference, scored: Scored) -> str:
    unit = " points" if scored.metric == "accuracy" else ""
    mean = each.mean
    value, low, high = (
        difference_text(number, scored.metric) for number in (mean.value, mean.low, mean.high)
    )
    return f"{each.title} ({value}{unit}, {low} to {high})"


def _all_or_listed(some: Sequence[Difference], every: Sequence[Difference]) -> str:
    if len(some) == len(every) > 1:
        return "any of the others"
    return _listed([each.title for each in some])


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def summary_frame(scored: Scored, split: str) -> pd.DataFrame:
    """A line for each strategy: spread, intervals, the paper's figures, the budget.

    Columns: Strategy, n, the five `STATISTICS`, "mean from", "mean to", "median from", "median
    to", the five of the paper where it published any, Epochs, GFLOP.
    """
    published = bool(scored.published(split))
    rows = []
    for each in spreads(scored, split):
        mean, median = interval(each.scores), interval(each.scores, "median")
        row = {"Strategy": each.title, "n": each.summary.n}
        row |= {name: getattr(each.summary, name) for name in STATISTICS}
        row |= {"mean from": mean.low, "mean to": mean.high}
        row |= {"median from": median.low, "median to": median.high}
        if published:
            theirs = each.published
            row |= {
                f"paper {name}": math.nan if theirs is None else getattr(theirs, name)
                for name in STATISTICS
            }
        rows.append(row | {"Epochs": each.epochs, "GFLOP": each.flops / 1e9})
    return pd.DataFrame(rows)


def summary_file(scored: Scored, split: str) -> pd.DataFrame:
    """`summary_frame` with all that it rests on: further columns seeds, split, those of `Basis`."""
    frame = summary_frame(scored, split)
    seeds = [seeds_text(each.seeds) for each in spreads(scored, split)]
    return with_basis(frame.assign(seeds=seeds, split=split), scored, scored.strategies)


def difference_frame(scored: Scored, first: str, split: str) -> pd.DataFrame:
    """A line for each other strategy: the paired difference to the first.

    Columns: Strategy, Pairs, Difference, from, to, Better in, Verdict.
    """
    return pd.DataFrame(
        [
            {
                "Strategy": each.title,
                "Pairs": len(each.seeds),
                "Difference": each.mean.value,
                "from": each.mean.low,
                "to": each.mean.high,
                "Better in": each.wins,
                "Verdict": each.verdict,
            }
            for each in differences(scored, first, split)
        ]
    )
