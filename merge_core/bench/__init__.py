"""`netweld bench`: measurements of netweld itself, one command per file.

What a measurement needs is imported when its command runs, so that `netweld --help` stays fast.
"""

import subprocess
import sys
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


@app.command(epilog="Example: netweld bench graph resnet50 --repeats 3")
def graph(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Torchvision classifiers; by default one of every family."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often everything is measured; medians are shown.")
    ] = 3,
) -> None:
    """How fast networks are traced, concatenated and cut, and what gates add to a step."""
    from merge_core import inspected, processes

    for model in models or []:
        inspected.check_name(model)
    command = [sys.executable, "-P", "-m", "merge_core.bench_graph", str(repeats), *(models or [])]
    raise typer.Exit(subprocess.run(command, env=processes.environment(), check=False).returncode)


@app.command(epilog="Example: netweld bench align --repeats 3")
def align(
    repeats: Annotated[
        int, typer.Option(min=1, help="How often everything is measured; medians are shown.")
    ] = 1,
) -> None:
    """How fast channels are observed, and networks matched."""
    from merge_core import processes

    command = [sys.executable, "-P", "-m", "merge_core.bench_align", str(repeats)]
    raise typer.Exit(subprocess.run(command, env=processes.environment(), check=False).returncode)


@app.command(epilog="Example: netweld bench table --repeats 5")
def table(
    networks: Annotated[
        int, typer.Option("--n", min=2, help="Repetitions that train at once.")
    ] = 50,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often everything is measured; medians are shown.")
    ] = 3,
) -> None:
    """How fast the sine row of the paper's Table 1 is, against a plain PyTorch loop."""
    from merge_core import processes

    command = [sys.executable, "-P", "-m", "merge_core.bench_table", str(networks), str(repeats)]
    raise typer.Exit(subprocess.run(command, env=processes.environment(), check=False).returncode)


@app.command(epilog="Example: netweld bench ours textures --n 5")
def ours(
    recipe: Annotated[str, typer.Argument(help="What is merged.")] = "sine",
    repetitions: Annotated[
        int, typer.Option("--n", min=2, help="Repetitions of each change.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first repetition.")] = 100,
) -> None:
    """What each part of the preset `ours` is good for: one thing changed at a time."""
    from merge_core import processes
    from merge_core.presets import find_preset

    preset = "paper" if recipe == "sine" else "quick"
    find_preset(recipe, preset)
    command = [
        sys.executable,
        *("-P", "-m", "merge_core.bench_ours"),
        *(recipe, preset, str(repetitions), str(seed)),
    ]
    raise typer.Exit(subprocess.run(command, env=processes.environment(), check=False).returncode)


@app.command(epilog="Example: netweld bench train --repeats 3")
def train(
    images: Annotated[
        int, typer.Option(min=0, help="Images of an epoch; 0 for what suits the device.")
    ] = 0,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often everything is measured; medians are shown.")
    ] = 5,
    device: Annotated[str, typer.Option(help="Where to train: auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """How fast ResNet20 and a gated big student learn, against the plain way with a DataLoader."""
    from merge_core import processes

    command = [
        sys.executable,
        *("-P", "-m", "merge_core.bench_train"),
        *(str(images), str(repeats), device),
    ]
    raise typer.Exit(subprocess.run(command, env=processes.environment(), check=False).returncode)


@app.command(epilog="Example: netweld bench survival --kills 20")
def survival(
    kills: Annotated[
        int, typer.Option(min=1, help="How often a worker is killed, and a file damaged.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="Decides the moments.")] = 0,
) -> None:
    """What runs survive: killed workers and dashboards, damaged files, a full disk."""
    from merge_core import bench_survival

    typer.echo("| what | survived | note |\n| --- | --- | --- |")
    for count in bench_survival.measure(kills, seed):
        typer.echo(bench_survival.line(count))


@app.command(epilog="Example: netweld bench crowd --watchers 30 --merges 12")
def crowd(
    watchers: Annotated[int, typer.Option(min=1, help="Browsers that look on.")] = 30,
    merges: Annotated[int, typer.Option(min=1, help="Merges that are started and steered.")] = 12,
) -> None:
    """A workshop on this machine: errors, lost commands, answers of the server, fair shares."""
    from merge_core import bench_crowd

    outcome = bench_crowd.measure(watchers, merges)
    for line in outcome.lines():
        typer.echo(line)
    for error in outcome.errors[:5]:
        typer.echo(f"Error: {error}", err=True)


@app.command(epilog="Example: netweld bench watched --model cifar-resnet20")
def watched(
    repeats: Annotated[
        int, typer.Option(min=1, help="Turns of some seconds unwatched, and as many watched.")
    ] = 5,
    model: Annotated[
        str, typer.Option(help="The network that learns: small ones take one core, others all.")
    ] = "patch-cnn",
) -> None:
    """What looking costs: a merge's speed while the dashboard is open on it, and while not."""
    from merge_core import bench_watched

    for line in bench_watched.measure(repeats, model).lines():
        typer.echo(line)
