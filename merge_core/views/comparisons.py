"""Which comparisons there are of which run, and what to call them."""

from collections.abc import Iterable
from datetime import datetime

from merge_core.recipes import Comparison
from merge_core.store import RunSummary
from merge_core.views.runs import STATE_WORDS


def pickable(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """The runs that stand for networks of their own, in the order given.

    These are all but the comparisons of runs that are here, too.
    """
    every = list(runs)
    others = {run.name for run in every if not isinstance(run.recipe, Comparison)}
    return [
        run
        for run in every
        if not isinstance(run.recipe, Comparison) or run.recipe.of not in others
    ]


def comparisons_of(runs: Iterable[RunSummary], name: str) -> list[RunSummary]:
    """The comparisons of a run's teachers, in the order given; of one of files, itself."""
    return [
        run
        for run in runs
        if isinstance(run.recipe, Comparison) and name in (run.name, run.recipe.of)
    ]


def comparison_label(summary: RunSummary) -> str:
    """A comparison in words: when it was made, how many methods, how many epochs after them."""
    comparison = summary.recipe
    assert isinstance(comparison, Comparison), summary.name
    count, epochs = len(comparison.methods), comparison.fine_tune.epochs
    when = datetime.fromtimestamp(summary.created).strftime("%Y-%m-%d %H:%M")
    return (
        f"{when} · {count} method{'' if count == 1 else 's'} · "
        f"{epochs} epoch{'' if epochs == 1 else 's'} of fine-tuning · {STATE_WORDS[summary.state]}"
    )
