"""How long work in worker processes looks in a terminal, and where it waits for its turn."""

import signal
from collections.abc import Iterable
from pathlib import Path

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from merge_core.carriers import store_of
from merge_core.cli.tables import console
from merge_core.crew import Headway
from merge_core.errors import NetweldError
from merge_core.store import key_of
from merge_core.views import queued
from merge_core.views.runs import duration


def show_work(headways: Iterable[Headway], file: Path, title: str, thing: str) -> None:
    """Let some work go on to its end, showing how far it is; Ctrl-C stops it, also while it waits.

    Args:
        headways: the work.
        file: what it writes.
        title: what it makes.
        thing: what it is of, with its article, as in "The table".

    Raises:
        NetweldError: it was stopped, or failed.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    told, said = 0, False
    # Whoever stops it from the dashboard does so with a signal.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bar:
            task = bar.add_task(title, total=1.0, left="")
            for headway in headways:
                if headway.waits:
                    place = queued.place(store_of(file), key_of(file))
                    if place is not None:
                        bar.update(task, description=place.words)
                        if not console.is_terminal and not said:
                            typer.echo(f"{place.words}.", err=True)
                            said = True
                    continue
                left = "" if headway.left is None else f"{duration(headway.left)} left"
                bar.update(task, description=title, completed=headway.fraction, left=left)
                if not console.is_terminal and headway.fraction >= (told + 1) / 10:
                    told = int(headway.fraction * 10)
                    typer.echo(f"{headway.fraction:.0%} done, {left}", err=True)
    except KeyboardInterrupt:
        raise NetweldError(
            f"{thing} was stopped; the same command goes on with what is missing."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)
