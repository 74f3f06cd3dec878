"""`netweld table`: an experiment repeated with every strategy, beside what the paper published."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from merge_core import launch, tabled
from merge_core.cli.options import DataDirectory, OneDevice, Settings, Workers
from merge_core.cli.settings import pairs
from merge_core.cli.tables import console, new_table
from merge_core.cli.working import show_work
from merge_core.errors import NetweldError, RecipeError, StoreError
from merge_core.presets import find_preset, merge_names
from merge_core.published import PUBLISHED
from merge_core.recipes import Recipe
from merge_core.repetitions import STRATEGIES, Results, Row, Summary, summary
from merge_core.views.compare import (
    Table,
    devices_text,
    failures_text,
    published_text,
    read_table,
)
from merge_core.views.evidence import (
    caution,
    difference_text,
    differences,
    finding,
    interval,
    summary_frame,
)
from merge_core.views.latex import latex_table
from merge_core.views.runs import flops_text
from merge_core.views.scored import STATISTICS, TITLES, score_frame, spreads

BUDGETS = ("epochs", "flops")


def table(
    recipe: Annotated[str, typer.Argument(help=f"A merge, one of {', '.join(merge_names())}.")],
    preset: Annotated[str, typer.Option(help="paper or quick.")] = "paper",
    n: Annotated[int, typer.Option("--n", min=1, help="How many repetitions.")] = 50,
    budget: Annotated[
        str, typer.Option(help="What every strategy has the same of: epochs or flops.")
    ] = "epochs",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first repetition.")] = 0,
    device: OneDevice = "cpu",
    data: DataDirectory = None,
    settings: Settings = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every row to this file.", metavar="FILE")
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", help="Write the table for LaTeX to this file.", metavar="FILE"),
    ] = None,
    first: Annotated[
        str,
        typer.Option("--of", help="The strategy that is compared with each other, pair by pair."),
    ] = "student",
    workers: Workers = 0,
) -> None:
    """Repeat an experiment with every strategy at one budget, and show the spread.

    It waits for its turn as runs do, and can be stopped at any time; the same command goes on, and
    with a larger --n adds to it.
    """
    chosen = find_preset(recipe, preset).recipe
    if budget not in BUDGETS or device not in launch.DEVICES[1:]:
        raise RecipeError(
            f"A table got the budget {budget!r} on the device {device!r}; choose one of "
            f"{' and '.join(BUDGETS)}, and one of {', '.join(launch.DEVICES[1:])}."
        )
    chosen = chosen.changed({"seed": str(seed), **pairs(settings or [])})
    results = Results(chosen, "flops" if budget == "flops" else "epochs")
    if first not in TITLES:
        raise RecipeError(f"There is no strategy {first!r}; choose one of {', '.join(TITLES)}.")
    left = tabled.missing(results.rows(), results.failures(), range(seed, seed + n))
    if any(left.values()):
        work = tabled.carry_out(results, n, device=device, data=data, workers=workers)
        show_work(work, results.path, "Repetitions", "The table")
    rows = [row for row in results.rows() if seed <= row.seed < seed + n]
    shown = replace(read_table(results.path), rows=tuple(rows))
    if not rows:
        raise NetweldError(f"No strategy has a score. {failures_text(shown)}")
    show(rows, chosen, budget)
    for told in filter(None, (failures_text(shown), published_text(shown))):
        console.print(told, soft_wrap=True)
    show_intervals(shown)
    show_differences(shown, first)
    console.print(f"Every row is in {results.path}.", soft_wrap=True)
    if csv is not None:
        _written(score_frame(shown).to_csv(index=False), csv)
        console.print(f"{csv} holds them as CSV.", soft_wrap=True)
    if latex is not None:
        text = latex_table(summary_frame(shown, "test"), shown.conditions("test"))
        _written(text, latex)
        console.print(f"{latex} holds the table for LaTeX.", soft_wrap=True)


def _written(text: str, to: Path) -> None:
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The file {to} cannot be written ({error}); choose another place."
        ) from error


def _figures(each: Summary | None) -> list[str]:
    values = [getattr(each, name) if each else math.nan for name in STATISTICS]
    return ["" if math.isnan(value) else f"{value:.3f}" for value in values]


def show(rows: Sequence[Row], recipe: Recipe, budget: str) -> None:
    """Print the spread of every strategy, with the paper's where it published one."""
    published = PUBLISHED.get(recipe.name)
    theirs = published.rows if published else {}
    paper = [f"paper {name}" for name in STATISTICS] if theirs else []
    made = new_table(
        "Strategy", "n", *STATISTICS, *paper, "Epochs", "FLOPs",
        numbers=["n", *STATISTICS, *paper, "Epochs", "FLOPs"],
    )  # fmt: skip
    for strategy in STRATEGIES:
        mine = [row for row in rows if row.strategy == strategy.key]
        if mine:
            made.add_row(
                strategy.title,
                str(len(mine)),
                *_figures(summary(row.test for row in mine)),
                *(_figures(theirs.get(strategy.key)) if theirs else []),
                str(mine[0].epochs),
                flops_text(mine[0].flops),
            )
    seeds = [row.seed for row in rows]
    rule = "training epochs" if budget == "epochs" else "training FLOPs"
    console.print(f"{recipe.name}, preset {recipe.preset}: test {recipe.metric}, equal {rule}")
    console.print(made)
    console.print(
        f"Seeds {min(seeds)} to {max(seeds)}. The held-out split chooses, the test split only "
        f"reports. FLOPs are of training, forward and backward; both controls start from the "
        f"student's teachers and have its {recipe.extra_epochs} further epochs"
        f"{'' if budget == 'epochs' else ' and what the gates cost more'}.",
        soft_wrap=True,
    )


def show_intervals(table: Table) -> None:
    """Print how sure the mean and the median of every strategy are."""
    heads = ("mean", "from", "to", "median", "from ", "to ")
    made = new_table("Strategy", *heads, numbers=heads)
    for each in spreads(table, "test"):
        found = (interval(each.scores), interval(each.scores, "median"))
        ends = (end for one in found for end in (one.value, one.low, one.high))
        made.add_row(each.title, *("?" if math.isnan(end) else f"{end:.3f}" for end in ends))
    console.print(made)


def show_differences(table: Table, first: str) -> None:
    """Print a strategy minus each other one, pair by pair, and what of it is clear."""
    found = differences(table, first, "test")
    if not found:
        return
    unit = " (points)" if table.metric == "accuracy" else ""
    made = new_table(
        f"{TITLES[first]} − …", "pairs", f"difference{unit}", "from", "to", "better in", "",
        numbers=["pairs", f"difference{unit}", "from", "to", "better in"],
    )  # fmt: skip
    for each in found:
        figures = (each.mean.value, each.mean.low, each.mean.high)
        made.add_row(
            each.title,
            str(len(each.seeds)),
            *(difference_text(figure, table.metric) for figure in figures),
            str(each.wins),
            {"better": "clearly better", "worse": "clearly worse", "unclear": "not clear"}[
                each.verdict
            ],
        )
    console.print(made)
    console.print(finding(table, first, "test").replace("*", ""), soft_wrap=True)
    console.print(caution(table, "test"), soft_wrap=True)
    console.print(f"Computed on {devices_text(table)}.", soft_wrap=True)
