"""Watching a run from a terminal until it ends; the run itself goes on without us."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from merge_core import launch, queue
from merge_core.cli.results import show_result
from merge_core.cli.tables import console, number, took
from merge_core.errors import StoreError
from merge_core.store import RunReader, Store, folder_of, held, kind_of
from merge_core.views import queued
from merge_core.views.queued import Place
from merge_core.views.runs import ALIVE, duration, reading_text, stage_title

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 60.0
"""How long `netweld stop` waits: a worker may have to finish a step or to import torch first."""


def follow(
    store: Store,
    name: str,
    show: Callable[[RunReader], None] = show_result,
) -> int:
    """Show a run's progress until it ends, then its result; Ctrl-C stops the run.

    Args:
        store: where the run is.
        name: the run.
        show: prints the result.

    Returns:
        0 when the run finished, 1 otherwise.
    """
    with store.open(name) as reader:
        _watch(store, reader)
        if reader.status()["state"] == "finished":
            show(reader)
            return 0
        _say_how_it_ended(reader)
        return 1


def say_begun(name: str, started: Collection[str]) -> None:
    """Say that a run is there, and whether it has begun."""
    how = "has started" if name in started else "waits for its turn"
    typer.echo(f"Run {name} {how}.")


def wait_for_end(store: Store, name: str) -> int:
    """Wait until something that was asked to stop has ended; returns 0 when it has.

    Args:
        store: where it is.
        name: of a run; or what a table, a lab or a search is known by.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    if kind_of(name) != "run":
        what = f"{kind_of(name).capitalize()} {name.rpartition('/')[2]}"
        while held(folder_of(store.home, name)):
            if time.monotonic() > deadline:
                typer.echo(f"{what} was asked to stop but has not answered yet.", err=True)
                return 1
            time.sleep(LOOK_SECONDS)
        typer.echo(f"{what} has stopped; what is finished stays, and the rest can follow.")
        return 0
    with store.open(name) as reader:
        while (state := reader.status()["state"]) in ALIVE:
            if time.monotonic() > deadline:
                typer.echo(f"Run {name} was asked to stop but has not answered yet.", err=True)
                return 1
            time.sleep(LOOK_SECONDS)
        if state == "finished":
            typer.echo(f"Run {name} finished before it could be stopped.")
        else:
            _say_how_it_ended(reader)
    return 0


def _watch(store: Store, reader: RunReader) -> None:
    """Show where the run waits and how far it is, until its worker ends."""
    terminal = console.is_terminal
    told: set[str] = set()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[score]}"),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("Starting", total=1.0, score="", left="")
        ended = stopping = False
        while not ended:
            try:
                queue.dispatch(store)
                ended = queue.ended(store, reader.name)
                place = queued.place(store, reader.name)
                if terminal:
                    _move(bar, task, reader, place)
                else:
                    _tell(reader, told, place)
                if stopping:
                    bar.update(task, description="Stopping", left="")
                if not ended:
                    time.sleep(LOOK_SECONDS)
            except KeyboardInterrupt:
                if stopping:
                    continue
                with suppress(StoreError):  # it has ended at this moment
                    launch.stop(store, reader.name)
                    stopping = True
                    typer.echo("Stopping the run; it can be resumed later.", err=True)


def _move(bar: Progress, task: TaskID, reader: RunReader, place: Place | None) -> None:
    """Bring the bar up to date."""
    if place is not None:
        bar.update(task, description=place.words)
        return
    reading = reader.reading()
    if reading is not None:
        bar.update(task, description=reading_text(reading), completed=reading.done / reading.of)
        return
    headway = reader.headway()
    left = "" if headway.left is None else f"{duration(headway.left)} left"
    if reader.status()["state"] == "paused":
        left = "paused"
    bar.update(task, completed=headway.fraction, left=left)
    stage = reader.status()["stage"]
    if stage is not None:
        bar.update(task, description=stage_title(stage))
        metric = reader.recipe.metric
        score = reader.latest(stage, f"heldout_{metric}")
        if score is not None:
            bar.update(task, score=f"held-out {metric} {number(score)}")


def _tell(reader: RunReader, told: set[str], place: Place | None) -> None:
    """Where no bar can be drawn: a line when the run waits, and one for each finished stage."""
    if place is not None:
        if "queue" not in told:
            told.add("queue")
            typer.echo(f"{place.words}.")
        return
    reading = reader.reading()
    if reading is not None and "reading" not in told:
        told.add("reading")
        typer.echo(f"{reading_text(reading)}.")
    metric = reader.recipe.metric
    for row in reader.stages():
        stage = row["stage"]
        if row["finished"] is not None and stage not in told:
            told.add(stage)
            score = reader.score(stage, "heldout", metric)
            words = "" if score is None else f": held-out {metric} {number(score)}"
            typer.echo(f"{stage_title(stage)}{words}, {took(row['seconds'])}")


def _say_how_it_ended(reader: RunReader) -> None:
    status = reader.status()
    state, where = status["state"], ""
    if state in ("running", "paused"):
        typer.echo(f"Run {reader.name} is being worked on by another process.", err=True)
        return
    if status["stage"] is not None:
        where = f" in stage {stage_title(status['stage'])!r} at step {status['step']}"
    typer.echo(f"Run {reader.name} is {state}{where}. {status['message']}".rstrip(), err=True)
    if state not in ("stopped", "failed"):  # it ended without a word to the store
        typer.echo(f"Its worker's last words are in {reader.directory / 'worker.log'}.", err=True)
    then = "Once that is mended, go on" if state == "failed" else "Go on"
    typer.echo(f"{then} with `netweld resume {reader.name}`.", err=True)
