"""`netweld bench`: measurements of netweld itself, one command per file.

What a measurement needs is imported when its command runs, so that `netweld --help` stays fast.
"""

from typing import Annotated

import typer

app = typer.Typer(help="Measure netweld itself on this machine.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure netweld itself on this machine."""


@app.command(epilog="Example: netweld bench pages --repeats 3")
def pages(
    repeats: Annotated[
        int, typer.Option(min=1, help="How often everything is measured; medians are shown.")
    ] = 5,
) -> None:
    """How fast the dashboard's pages appear in a real Chromium, with the runs that are here."""
    from merge_core import bench_pages

    typer.echo(bench_pages.table(bench_pages.measure(repeats)))
