"""`netweld queue`, and how `netweld stop --all` leaves no process behind."""

from typing import Annotated

import typer

from merge_core import processes, queue
from merge_core.cli.tables import console, new_table
from merge_core.store import Limits, Store, Turns, kind_of
from merge_core.views.queued import queue_frame

PATIENCE_SECONDS = 30.0
"""How long processes may take over their end: a worker may have to finish a step."""


def show(
    clear: Annotated[
        bool, typer.Option("--clear", help="Take out all that waits; it can go on later.")
    ] = False,
    running: Annotated[
        int | None,
        typer.Option(min=0, help="Turns at once for each user; 0 for no limit.", metavar="N"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes in all for each user; 0 for no limit.", metavar="N"),
    ] = None,
) -> None:
    """Show who has a turn on this machine and who waits; start what may start."""
    store = Store()
    turns = Turns(store.home)
    if running is not None or minutes is not None:
        now = turns.limits()
        turns.allow(
            Limits(
                running=(now.running if running is None else running) or None,
                minutes=(now.minutes if minutes is None else minutes) or None,
            )
        )
    if clear:
        taken = queue.withdraw(store)
        typer.echo(f"Taken out of the queue: {len(taken)}.")
    queue.dispatch(store)
    frame = queue_frame(store)
    if frame.empty:
        typer.echo("Nobody waits, and nothing runs.")
        return
    table = new_table(*frame.columns)
    for row in frame.to_dict("records"):
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


def stop_all(store: Store) -> int:
    """End everything that computes for a home directory; returns the exit status.

    Runs and tables keep what they have and can go on; nothing that waits begins.
    """
    waited = [name for name in queue.withdraw(store) if kind_of(name) == "run"]
    asked, killed = processes.end(store, PATIENCE_SECONDS)
    typer.echo(f"{asked} processes were stopped, and {len(waited)} runs that waited.")
    if killed:
        typer.echo(f"{killed} processes did not answer and were killed.", err=True)
    left = processes.computing(store)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        typer.echo(f"These processes could not be ended: {pids}.", err=True)
        return 1
    typer.echo("No process is left; go on with a run by `netweld resume`.")
    return 0
