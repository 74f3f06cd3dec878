"""The commands and their options."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from merge_core import bench, compared, inspected, launch
from merge_core import export as exporting
from merge_core.cli import (
    comparing,
    dashboard,
    inspecting,
    lab,
    queueing,
    results,
    search,
    steering,
    table,
    tables,
)
from merge_core.cli.following import follow, say_begun, wait_for_end
from merge_core.cli.options import DataDirectory, NoWait, RunName, Settings
from merge_core.cli.settings import pairs
from merge_core.errors import DeviceError, GraphError, NetweldError, StoreError
from merge_core.presets import preset_of, recipe_names
from merge_core.recipes import Comparison
from merge_core.store import Store, kind_of

ANY_NAME = "The name of a run, a table, a lab or a search, the beginning of one, or 'latest' run."
USER_ERROR = 2
"""Exit status for what a person can mend: a wrong name, key or value."""

app = typer.Typer(
    name="netweld",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Merge trained neural networks into a better one of the same size, and see how.",
)

app.add_typer(bench.app, name="bench")
app.command(
    "queue", epilog="Examples: netweld queue; netweld queue --clear; netweld queue --running 2"
)(queueing.show)
app.command(epilog="Example: netweld table sine --n 10 --csv sine.csv")(table.table)
app.command(epilog="Example: netweld lab sine --grid 8x8 --seeds 2")(lab.lab)
app.command(epilog="Examples: netweld search sine --trials 30; netweld search latest --minutes 10")(
    search.search
)
app.command(
    epilog="Examples: netweld steer latest pause; "
    "netweld steer latest lambda linear --set start=1 --set end=30 --from 5"
)(steering.steer)
app.command(
    epilog="Examples: netweld fork latest --epoch 4 --set gates.schedule.kind=closing; "
    "netweld fork latest --after gates --set 'gates.selection=largest weights'"
)(steering.fork)
app.command(epilog="Example: netweld undo latest")(steering.undo)

Device = Annotated[str, typer.Option(help=f"One of {', '.join(launch.DEVICES)}.", metavar="DEVICE")]


@app.callback(
    invoke_without_command=True,
    epilog="Example: netweld --port 8600 --no-browser",
)
def netweld(
    context: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the dashboard; 8501 if free.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="Address to listen on; the default is for this machine only.")
    ] = "127.0.0.1",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser window.")
    ] = False,
) -> None:
    """Open the dashboard, or carry out a command."""
    if context.invoked_subcommand is None:
        raise typer.Exit(dashboard.serve(port=port, address=address, browser=not no_browser))


@app.command(
    epilog="Example: netweld merge textures --seed 3 --set gating.epochs=8 --set gates.start=2"
)
def merge(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(recipe_names())}.")],
    preset: Annotated[str, typer.Option(help="quick, or paper where the paper has one.")] = "quick",
    seed: Annotated[
        str, typer.Option(help="Decides every random draw; a whole number.", metavar="N")
    ] = "0",
    device: Device = "auto",
    data: DataDirectory = None,
    settings: Settings = None,
    no_wait: NoWait = False,
) -> None:
    """Train two teachers, merge them into one network, and say whether it was worth it.

    Some recipes tie networks together while they train: coupled teachers, averaged workers.
    """
    chosen = preset_of(recipe, preset).recipe.changed({"seed": seed, **pairs(settings or [])})
    _require_device(device)
    store = Store()
    name, started = launch.begin(store, chosen, device, data, code=Path.cwd())
    say_begun(name, started)
    if no_wait:
        typer.echo(f"Look at it with `netweld show {name}`, or in the dashboard.")
        return
    raise typer.Exit(follow(store, name))


def _require_device(device: str) -> None:
    if device not in launch.DEVICES:
        raise DeviceError(
            f"There is no device {device!r}; choose one of {', '.join(launch.DEVICES)}."
        )


@app.command(
    epilog="Examples: netweld compare latest --methods uniform,weight_matching --fine-tune 1; "
    "netweld compare --teacher a.th --teacher b.th --model cifar-resnet20 --data cifar10"
)
def compare(
    run: Annotated[
        str | None,
        typer.Argument(help="The run whose teachers are compared.", metavar="RUN"),
    ] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="A checkpoint instead; twice or more.", metavar="FILE"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The architecture of the checkpoints; package.module:factory for your own.",
            metavar="MODEL",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The data set that they are judged on.", metavar="NAME"),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Keys of methods, with commas; or all, or none.", metavar="KEYS")
    ] = "all",
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Epochs of training after every method.", metavar="EPOCHS")
    ] = 0,
    examples: Annotated[
        int, typer.Option(help="Training examples that statistics are measured on.", metavar="N")
    ] = compared.EXAMPLES,
    device: Device = "auto",
    directory: Annotated[
        Path | None,
        typer.Option("--data-directory", help="Where data sets lie.", envvar="NETWELD_DATA"),
    ] = None,
    settings: Settings = None,
    no_wait: NoWait = False,
) -> None:
    """Merge the same teachers in every way and compare the results with each other."""
    _require_device(device)
    store = Store()
    recipe, files = comparing.asked(
        store,
        run,
        teachers or [],
        model,
        data,
        methods,
        fine_tune=fine_tune,
        examples=examples,
        settings=pairs(settings or []),
    )
    name, started = launch.begin(store, recipe, device, directory, files, Path.cwd())
    say_begun(name, started)
    if no_wait:
        typer.echo(f"Look at it with `netweld show {name}`, or in the dashboard.")
        return
    raise typer.Exit(follow(store, name))


@app.command(epilog="Example: netweld barrier latest")
def barrier(
    run: RunName,
    examples: Annotated[
        int, typer.Option(help="Examples of each split, at most.", metavar="N")
    ] = compared.EXAMPLES,
    data: DataDirectory = None,
) -> None:
    """Show loss and accuracy on the line between two teachers, before and after matching.

    The run is a comparison, or a merge, whose teachers are then compared without any method.
    """
    store = Store()
    with store.open(store.find(run)) as reader:
        if isinstance(reader.recipe, Comparison):
            comparing.show_barrier(reader)
            return
        recipe, files = compared.of_run(reader, (), examples=examples)
    name, started = launch.begin(store, recipe, "auto", data, files)
    say_begun(name, started)
    raise typer.Exit(follow(store, name, comparing.show_barrier))


@app.command(epilog="Example: netweld runs")
def runs() -> None:
    """List the runs, newest first, and the samples that come with netweld."""
    summaries = Store().runs()
    if all(run.sample for run in summaries):
        typer.echo("There are no runs of your own yet; start one with `netweld merge textures`.")
    if summaries:
        tables.show_runs(summaries)


@app.command(epilog="Example: netweld show latest")
def show(run: RunName) -> None:
    """Show a run: its stages, settings, where its channels come from, and who worked on it."""
    store = Store()
    with store.open(store.find(run)) as reader:
        results.show_run(reader)


@app.command(epilog="Example: netweld resume latest")
def resume(
    run: RunName,
    data: DataDirectory = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Start the worker and return at once.")
    ] = False,
) -> None:
    """Go on with a stopped, failed or lost run from its last checkpoint, to the same numbers."""
    store = Store()
    name = store.find(run)
    started = launch.resume(store, name, data)
    typer.echo(f"Run {name} {'goes on' if name in started else 'waits for its turn'}.")
    if not no_wait:
        raise typer.Exit(follow(store, name))


@app.command(epilog="Examples: netweld stop latest; netweld stop --all")
def stop(
    run: Annotated[str | None, typer.Argument(help=ANY_NAME, metavar="NAME")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Stop every run, table and inspection.")
    ] = False,
) -> None:
    """Stop a run, a table, a lab or a search, or everything that computes; all can go on later."""
    store = Store()
    if (run is None) != every:
        raise StoreError("Give either the name of one run, such as 'latest', or --all.")
    if run is None:
        raise typer.Exit(queueing.stop_all(store))
    name = store.find(run, every=True)
    launch.stop(store, name)
    raise typer.Exit(wait_for_end(store, name))


@app.command(epilog="Example: netweld export latest --to networks")
def export(
    run: RunName,
    to: Annotated[Path, typer.Option(help="Directory to write to.", metavar="DIR")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files of that name.")] = False,
) -> None:
    """Write the merged network as a safetensors file, and a program that loads it."""
    store = Store()
    with store.open(store.find(run)) as reader:
        weights, program = exporting.write(reader, to, overwrite=force)
    typer.echo(f"{weights} holds the network, its recipe and where each channel comes from.")
    typer.echo(f"{program} loads it; try `python {program}`.")


@app.command(epilog="Example: netweld inspect resnet18 --input 3x64x64")
def inspect(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A torchvision classifier, or package.module:factory for a network of your own.",
            metavar="MODEL",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Shape of one example; 3x224x224 for most.", metavar="CxHxW"),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Examples that are traced and checked.")
    ] = inspected.BATCH,
    every: Annotated[
        bool, typer.Option("--all", help="Inspect every torchvision family, a row each.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Name every layer that writes or reads a space.")
    ] = False,
) -> None:
    """Show a network's channel spaces, what merging it costs, and how exact the merge would be."""
    if (model is None) != every:
        raise GraphError("Give either the name of one network, such as 'resnet18', or --all.")
    sizes = inspected.parsed_shape(shape) if shape else None
    if model is None:
        raise typer.Exit(inspecting.inspect_all(sizes, batch))
    inspecting.inspect(model, sizes, batch, full)


@app.command(epilog="Example: netweld delete textures-quick-s0-1a2b --yes")
def delete(
    run: Annotated[str, typer.Argument(help=ANY_NAME, metavar="NAME")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run, a table, a lab or a search and all its files for good."""
    store = Store()
    name = store.find(run, every=True)
    store.require_command(name)  # a sample is refused before anybody is asked
    kind, short = kind_of(name), name.rpartition("/")[2]
    if not yes:
        lost = "networks" if kind == "run" else "results"
        typer.confirm(f"Delete {kind} {short} and its {lost} for good?", abort=True)
    store.delete(name)
    typer.echo(f"{kind.capitalize()} {short} is deleted.")


def main() -> None:
    """Entry point of the `netweld` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ★ shows ? and goes on
    try:
        app()
    except NetweldError as error:
        typer.echo(str(error), err=True)
        sys.exit(USER_ERROR)
