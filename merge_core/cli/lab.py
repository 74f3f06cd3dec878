"""`netweld lab`: one recipe under many λ schedules at once."""

from typing import Annotated

import typer

from merge_core import lab_work, launch
from merge_core.cli.options import DataDirectory, OneDevice, Settings, Workers
from merge_core.cli.settings import pairs
from merge_core.cli.tables import console, new_table, number
from merge_core.cli.working import show_work
from merge_core.errors import RecipeError
from merge_core.lab import AXES, Lab, LabFile, missing
from merge_core.presets import find_preset, merge_names
from merge_core.views.lab import LabNow, findings, lab_frame, read_lab

BEST = 8
"""Schedules that are printed."""
COLUMNS = (
    "Seeds", "Tuned, held-out", "Tuned, test", "Cut, held-out", "Cut, test", "Open at 90 %",
    "Open at the cut", "Undecided",
)  # fmt: skip
"""The columns of `lab_frame` after the two numbers, in few letters."""


def lab(
    recipe: Annotated[str, typer.Argument(help=f"A merge, one of {', '.join(merge_names())}.")],
    preset: Annotated[str, typer.Option(help="quick, or paper where the paper has one.")] = "quick",
    grid: Annotated[
        str, typer.Option(help="How many values of each of the two numbers.", metavar="NxM")
    ] = "8x8",
    family: Annotated[
        str, typer.Option(help=f"The kind of the schedules: {', '.join(AXES)}.")
    ] = "growth",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds each schedule has.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    device: OneDevice = "cpu",
    data: DataDirectory = None,
    settings: Settings = None,
    workers: Workers = 0,
) -> None:
    """Train one recipe under a grid of λ schedules at once, and print the best of them.

    It waits for its turn as runs do, and can be stopped at any time; the same command goes on, and
    with more --seeds adds to it. The page Lab shows the landscape as it fills in.
    """
    if device not in launch.DEVICES[1:]:
        raise RecipeError(
            f"A lab got the device {device!r}; choose one of {', '.join(launch.DEVICES[1:])}."
        )
    chosen = find_preset(recipe, preset).recipe.changed(pairs(settings or []))
    file = LabFile(Lab.usual(chosen, family, _shape(grid)))
    if missing(file.lab, file.rows(), range(seed, seed + seeds)):
        work = lab_work.carry_out(file, seeds, seed=seed, device=device, data=data, workers=workers)
        show_work(work, file.path, "Schedules", "The lab")
    show(read_lab(file.path))
    console.print(f"Every row is in {file.path}.", soft_wrap=True)


def _shape(grid: str) -> tuple[int, int]:
    """The sizes in a text such as 8x8.

    Raises:
        RecipeError: there are not two of them.
    """
    parts = grid.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise RecipeError(f"A lab got --grid {grid}, but two sizes are expected, such as 8x8.")
    return int(parts[0]), int(parts[1])


def show(now: LabNow) -> None:
    """Print the best schedules and what is to be said of the lab."""
    columns = [*(axis.title for axis in now.lab.axes), *COLUMNS]
    table = new_table(*columns, numbers=columns)
    for line in lab_frame(now).head(BEST).to_numpy(float).tolist():
        table.add_row(*(number(value) for value in line))
    console.print(f"{now.lab.recipe.metric.capitalize()} of the best schedules")
    console.print(table)
    console.print(findings(now).replace("**", ""), soft_wrap=True)
    console.print(
        "Scores are means over seeds. The held-out split chooses, the test split only reports.",
        soft_wrap=True,
    )
