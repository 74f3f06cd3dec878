"""What the commands print: runs, stages, settings, provenance."""

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from merge_core.store import RunReader, RunSummary
from merge_core.views.channels import share_frame
from merge_core.views.runs import (
    STATE_WORDS,
    duration,
    flops_text,
    stage_frame,
    stage_title,
    verdict,
)

WIDE = 160
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


def _time(seconds: float) -> str:
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
            "" if run.sample else _time(run.created),
        )
    console.print(table)


def show_result(reader: RunReader) -> None:
    """The stage table of a run and, when it has finished, the verdict."""
    recipe = reader.merge
    stages = stage_frame(reader)
    heads = (f"Held-out {recipe.metric}", f"Test {recipe.metric}", "Epochs", "Work", "Time")
    table = new_table("Stage", *heads, numbers=heads)
    for row in stages.to_dict("records"):
        table.add_row(
            f"{row['title']} ★ returned" if row["returned"] else row["title"],
            _or_nothing(row["heldout"]),
            _or_nothing(row["test"]),
            str(row["epochs"] or ""),
            flops_text(row["flops"]) if row["flops"] else "",
            "" if math.isnan(row["seconds"]) else took(row["seconds"]),
        )
    if len(stages):
        console.print(table)
    words = verdict(recipe, stages)
    if words is not None:
        typer.echo(words.sentence)
        typer.echo(words.caution)


def _or_nothing(value: float) -> str:
    return "" if math.isnan(value) else number(value)


def show_run(reader: RunReader) -> None:
    """Everything that a terminal can show of a run."""
    facts, status = reader.facts(), reader.status()
    headway = reader.headway()
    state = "a finished sample" if reader.sample else f"{status['state']}, {headway.fraction:.0%}"
    typer.echo(f"Run {reader.name}: {state}. {status['message']}".rstrip())
    typer.echo(f"Device {reader.device}, {_made_with(facts)}started {_time(facts['created'])}.")
    show_result(reader)
    _show_provenance(reader)
    _show_sessions(reader)
    typer.echo("Settings, as --set takes them:")
    for key, value in _settings(reader.recipe):
        typer.echo(f"  {key}={value}")


def _made_with(facts: dict[str, Any]) -> str:
    versions = "".join(f"{what} {number}, " for what, number in facts.get("versions", {}).items())
    threads = facts.get("threads")
    count = f"{threads} thread{'s' if threads > 1 else ''}, " if threads else ""
    return count + versions


def _show_provenance(reader: RunReader) -> None:
    shares = share_frame(reader)
    if shares.empty:
        return
    numbers = ("Kept", "From teacher A", "From teacher B")
    table = new_table("Channel space", *numbers, numbers=numbers)
    for row in shares.to_dict("records"):
        table.add_row(*(str(row[key]) for key in ("space", "size", "from_a", "from_b")))
    console.print(table)


def _show_sessions(reader: RunReader) -> None:
    for session in reader.sessions():
        origin = f", from {session['resumed_from']}" if session["resumed_from"] else ""
        end = f" to {_time(session['ended'])}" if session["ended"] else ""
        typer.echo(f"Process {session['pid']}: {_time(session['started'])}{end}{origin}.")
    for row in reader.acknowledgements():
        stage = stage_title(row["stage"]) if row["stage"] else "before the first stage"
        typer.echo(f"Command {row['command']} took effect: {stage}, step {row['step']}.")


def _settings(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of every setting of a recipe."""
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        key, part = f"{prefix}{field.name}", getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _settings(part, f"{key}.")
        elif isinstance(part, tuple):
            yield key, ",".join(str(item) for item in part)
        else:
            yield key, str(part)
