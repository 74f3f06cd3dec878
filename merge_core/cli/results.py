"""What the commands print of one run: stages, methods, settings, provenance."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import typer

from merge_core.cli.comparing import show_scores
from merge_core.cli.tables import console, new_table, number, time_of, took
from merge_core.recipes import Comparison, Recipe, as_text
from merge_core.steering import words
from merge_core.store import RunReader
from merge_core.views.channels import share_frame
from merge_core.views.runs import flops_text, stage_frame, stage_title, verdict


def show_result(reader: RunReader) -> None:
    """What a run has come to: the table of its stages or, of a comparison, of its methods."""
    if isinstance(reader.recipe, Comparison):
        show_scores(reader)
    else:
        _show_stages(reader)


def _show_stages(reader: RunReader) -> None:
    """The stage table of a run and, when it has finished, the verdict."""
    recipe = reader.recipe
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
    typer.echo(f"Device {reader.place}, {_made_with(facts)}started {time_of(facts['created'])}.")
    show_result(reader)
    _show_provenance(reader)
    _show_forks(reader)
    _show_sessions(reader)
    if isinstance(reader.recipe, Recipe) and reader.recipe.steering:
        typer.echo("Changed while the gates learned, and part of the recipe:")
        for steer in reader.recipe.steering:
            typer.echo(f"  {words(steer)}")
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


def _show_forks(reader: RunReader) -> None:
    branch = reader.branch()
    if branch is not None:
        typer.echo(f"It goes on from {branch.point}, of {branch.parent}.")
    points = reader.fork_points()
    epochs = [str(point.epoch) for point in points if point.epoch is not None]
    ends = [point.stage for point in points if point.epoch is None]
    if epochs:
        typer.echo(f"It can be forked with --epoch {', '.join(epochs)}.")
    if ends and isinstance(reader.recipe, Recipe):
        typer.echo(f"It can be forked with --after {', '.join(ends)}.")


def _show_sessions(reader: RunReader) -> None:
    for session in reader.sessions():
        origin = f", from {session['resumed_from']}" if session["resumed_from"] else ""
        end = f" to {time_of(session['ended'])}" if session["ended"] else ""
        typer.echo(f"Process {session['pid']}: {time_of(session['started'])}{end}{origin}.")
    for answer in reader.answers():
        stage = stage_title(answer.stage) if answer.stage else "before the first stage"
        words = f"refused: {answer.words}" if answer.refused else f"{answer.words}."
        typer.echo(f"Command {answer.command}, {stage}, step {answer.step}: {words}")


def _settings(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of every setting of a recipe."""
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        key, part = f"{prefix}{field.name}", getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _settings(part, f"{key}.")
        elif key == "steering":
            continue  # a command of its own, no setting
        else:
            yield key, as_text(part)
