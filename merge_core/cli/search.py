"""`netweld search`: one λ schedule after the other, each proposed by those before."""

from typing import Annotated

import typer

from merge_core import launch, search_work
from merge_core.cli.options import DataDirectory, Settings
from merge_core.cli.settings import pairs
from merge_core.cli.tables import console, new_table, number
from merge_core.cli.working import show_work
from merge_core.errors import DeviceError
from merge_core.lab import AXES
from merge_core.presets import find_preset, merge_names
from merge_core.recipes import Recipe
from merge_core.search import MOST_TRIALS, Search, SearchFile
from merge_core.store import Store
from merge_core.views.estimates import comparable
from merge_core.views.search import (
    CAUTION,
    SearchNow,
    cost_text,
    failures,
    findings,
    merge_command,
    read_search,
)

BEST = 8
"""Trials that are printed."""


def search(
    what: Annotated[
        str,
        typer.Argument(
            help=f"A merge, one of {', '.join(merge_names())}; or a run, whose recipe is taken.",
            metavar="RECIPE|RUN",
        ),
    ],
    preset: Annotated[
        str, typer.Option(help="Of a recipe: quick, or paper where the paper has one.")
    ] = "quick",
    trials: Annotated[
        int, typer.Option(min=1, max=MOST_TRIALS, help="How many schedules in all.")
    ] = 20,
    minutes: Annotated[
        float, typer.Option(min=0, help="How long the trials may take; 0 for no limit.")
    ] = 0.0,
    family: Annotated[
        str, typer.Option(help=f"The kind of the schedules: {', '.join(AXES)}.")
    ] = "growth",
    seed: Annotated[
        int | None, typer.Option(min=0, help="The recipe's seed; 0, or the run's.")
    ] = None,
    sampler_seed: Annotated[
        int, typer.Option(min=0, help="Another number tries other schedules.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help=f"One of {', '.join(launch.DEVICES)}.", metavar="DEVICE")
    ] = "auto",
    data: DataDirectory = None,
    settings: Settings = None,
) -> None:
    """Search the λ schedule of a recipe with Optuna, and print the best trials.

    The teachers are trained once; every trial is gates, cut and fine-tuning on top of them, and its
    held-out score decides. It waits for its turn as runs do, and can be stopped at any time; the
    same command goes on, and with more --trials adds to it. The page Lab shows the trials as they
    come.
    """
    if device not in launch.DEVICES:
        raise DeviceError(
            f"There is no device {device!r}; choose one of {', '.join(launch.DEVICES)}."
        )
    changed = pairs(settings or []) | ({} if seed is None else {"seed": str(seed)})
    recipe = _recipe(what, preset).changed(changed)
    file = SearchFile(Search(recipe=recipe, family=family, seed=sampler_seed))
    missing = trials - len(file.trials())
    if missing > 0:
        store = Store()
        runs = store.runs()
        text = cost_text(
            file.search,
            trials=missing,
            minutes=minutes,
            device=device,
            measured=comparable(store, runs, recipe),
            run=search_work.teachers_run(store, runs, recipe),
        )
        typer.echo(text.replace("**", ""), err=True)
        asked = search_work.asked_for(file, trials, minutes=minutes, device=device, data=data)
        show_work(search_work.carry_out(file, asked), file.path, "Trials", "The search")
    show(read_search(file.path))
    console.print(f"Every trial is in {file.path}.", soft_wrap=True)


def _recipe(what: str, preset: str) -> Recipe:
    """The recipe that somebody means: of a preset, or of a run."""
    if what in merge_names():
        return find_preset(what, preset).recipe
    store = Store()
    with store.open(store.find(what)) as reader:
        return reader.merge


def show(now: SearchNow) -> None:
    """Print the best trials and what is to be said of the search."""
    metric = now.search.recipe.metric
    sign = -1 if metric == "accuracy" else 1
    heads = [*(axis.title for axis in now.search.axes), "Tuned, held-out", "Tuned, test", "Cut"]
    table = new_table("Trial", *heads, numbers=["Trial", *heads])
    over = [(trial.heldout, trial) for trial in now.trials if trial.heldout is not None]
    for heldout, trial in sorted(over, key=lambda each: (sign * each[0], each[1].number))[:BEST]:
        values = [*(trial.numbers or (None, None)), heldout, trial.test, trial.cut_heldout]
        cells = ["" if value is None else number(value) for value in values]
        table.add_row(f"{trial.number}{' (own)' if trial.number == 0 else ''}", *cells)
    console.print(f"{metric.capitalize()} of the best trials")
    console.print(table)
    console.print(findings(now).replace("**", ""), soft_wrap=True)
    if failed := failures(now.trials):
        console.print(failed, soft_wrap=True)
    console.print(CAUTION, soft_wrap=True)
    if now.best is not None:
        console.print(
            f"A full merge with it: {merge_command(now.search, now.best)}", soft_wrap=True
        )
