"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

RunName = Annotated[
    str, typer.Argument(help="A run's name, the beginning of one, or 'latest'.", metavar="RUN")
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Where data sets lie and are downloaded to.", envvar="NETWELD_DATA"
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting of the recipe.", metavar="KEY=VALUE"),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Start the run and return at once.")]

OneDevice = Annotated[str, typer.Option(help="Where to compute: cpu, cuda or mps.")]
"""`--device` of work that many processes share: none of them chooses for itself."""

Workers = Annotated[int, typer.Option(min=0, help="How many processes; 0 for one on each core.")]
"""`--workers`."""
