"""How the commands print: tables, numbers, times; and the list of runs."""

import sys
from collections.abc import Iterable
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from merge_core.store import RunSummary
from merge_core.views.runs import (
    STATE_WORDS,
    duration,
)

WIDE = 200
"""Columns where the output is not a terminal, so that no name in a file or a pipe is cut."""

console = Console(
    width=None if sys.stdout.isatty() else WIDE, markup=False, highlight=False, emoji=False
)


def number(value: float) -> str:
    """A score or loss with four significant digits."""
    return f"{value:.4g}"


def took(seconds: float) -> str:
    """The time of a stage; those of small recipes take less than a second."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def new_table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table; the columns named in `numbers` are aligned to the right."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    return table


def time_of(seconds: float) -> str:
    """A moment as people write it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def show_runs(summaries: Iterable[RunSummary]) -> None:
    """A table of runs."""
    table = new_table("Run", "State", "Done", "Test score", "Started", numbers=["Done"])
    for run in summaries:
        score = "" if run.score is None else f"{run.recipe.metric} {number(run.score)}"
        table.add_row(
            run.name,
            "sample" if run.sample else STATE_WORDS[run.state],
            f"{run.fraction:.0%}",
            score,
            "" if run.sample else time_of(run.created),
        )
    console.print(table)
