"""`netweld compare` and `netweld barrier`: what they are asked, and what they print."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from merge_core import compared
from merge_core.catalogue import METHOD_BY_KEY
from merge_core.cli.tables import console, new_table, number, took
from merge_core.errors import RecipeError, StoreError
from merge_core.recipes import Comparison
from merge_core.store import RunReader, Store
from merge_core.views.methods import chance_text
from merge_core.views.outcomes import Outcomes, outcomes
from merge_core.views.runs import flops_text

STATES = {"merged": "merged", "repaired": "repaired", "fine_tuned": "fine-tuned"}
"""Keys of the networks that a method leads to, and their words."""
LINES = {"naive": "as they are", "matched": "matched", "repaired": "repaired"}
SPLITS = {"heldout": "Held-out", "test": "Test"}


def asked(
    store: Store,
    run: str | None,
    files: list[Path],
    model: str | None,
    data: str | None,
    methods: str,
    *,
    fine_tune: int,
    examples: int,
    settings: Mapping[str, str],
) -> tuple[Comparison, list[Path]]:
    """The comparison that a person means, and the files of its teachers.

    Raises:
        NetweldError: what was given does not go together, does not exist or does not fit.
    """
    if (run is None) != bool(files):
        raise RecipeError(
            "Give either a run, whose teachers are compared, or checkpoints with --teacher FILE, "
            "twice or more."
        )
    if run is None:
        if model is None or data is None:
            raise RecipeError(
                "Checkpoints do not say what they are; give their --model and the --data that "
                "they are judged on."
            )
        keys = _methods(methods, len(files))
        return compared.of_files(
            files,
            keys,
            model=model,
            data=data,
            fine_tune=fine_tune,
            examples=examples,
            settings=settings,
        ), files
    if model is not None or data is not None:
        raise RecipeError(
            "A run has its own model and data; give --model and --data only with --teacher."
        )
    with store.open(store.find(run)) as reader:
        recipe = reader.recipe
        count = len(recipe.teachers if isinstance(recipe, Comparison) else compared.TEACHERS)
        keys = _methods(methods, count)
        return compared.of_run(
            reader, keys, fine_tune=fine_tune, examples=examples, settings=settings
        )


def _methods(text: str, teachers: int) -> tuple[str, ...]:
    """The keys that a person means."""
    if text == "all":
        return compared.fitting(teachers)
    return () if text == "none" else tuple(key.strip() for key in text.split(",") if key.strip())


def show_scores(reader: RunReader) -> None:
    """The table of teachers and methods, and the sentence of every method that failed."""
    comparison, found = reader.comparison, outcomes(reader)
    over = {row["stage"]: row["facts"] for row in reader.stages() if row["finished"] is not None}
    tuned = comparison.fine_tune.epochs
    words = {key: word for key, word in STATES.items() if tuned or key != "fine_tuned"}
    if tuned:
        words["fine_tuned"] = f"after {tuned} epoch{'s' if tuned > 1 else ''}"
    heads = [f"{split}\n{word}" for split in SPLITS.values() for word in words.values()]
    than = "Best minus\nbest teacher"
    numbers = [*heads, than, "Seconds", "Test-time\nwork", "Training\nwork"]
    table = new_table(f"{found.metric.capitalize()} of", *numbers, numbers=numbers)
    for cells in _rows(found, over, list(words)):
        table.add_row(*cells)
    if table.rows:
        console.print(table)
        for sentence in (chance_text(found, comparison.data.test), _unsure(comparison)):
            if sentence:
                typer.echo(sentence)
    for key, sentence in found.failed.items():
        typer.echo(f"{METHOD_BY_KEY[key].title} failed: {sentence}")


def _unsure(comparison: Comparison) -> str:
    if comparison.of:
        return ""
    return (
        "The teachers come from files and may have learned from the held-out examples; only the "
        "test scores are sure to be of examples that nothing has seen."
    )


def _rows(
    found: Outcomes, over: Mapping[str, Mapping[str, Any]], states: list[str]
) -> Iterator[list[str]]:
    blank = [""] * (len(states) - 1)
    for teacher in found.teachers:
        heldout, test = number(teacher.scores["heldout"]), number(teacher.scores["test"])
        cells = [heldout, *blank, f"{test}{_give_or_take(teacher.error)}", *blank]
        yield [f"Teacher {teacher.label}", *cells, "", "", flops_text(teacher.flops), ""]
    by_key = {method.card.key: method for method in found.methods}
    methods = [by_key[key] for key in over if key in by_key]
    methods.sort(key=lambda each: each.size == "one network")  # what costs more, first
    for method in methods:
        after = {network.state: network for network in method.networks}
        facts, chance = over[method.card.key], method.best.chance
        yield [
            method.title,
            *(number(after[key].scores["heldout"]) if key in after else "" for key in states),
            *(
                f"{number(after[key].scores['test'])}{_give_or_take(after[key].chance.error)}"
                if key in after
                else ""
                for key in states
            ),
            ""
            if math.isnan(chance.gain)
            else f"{chance.gain:+.3g}{_give_or_take(chance.gain_error)}".replace("-", "−"),
            took(sum(facts["seconds"].values())),
            flops_text(method.flops),
            flops_text(sum(facts["training_flops"].values())),
        ]


def _give_or_take(error: float) -> str:
    return "" if math.isnan(error) else f" ± {error:.2g}"


def show_barrier(reader: RunReader) -> None:
    """The scores along the line between the first two teachers, and the barrier as one number.

    Raises:
        StoreError: the run has not got there.
    """
    first, second = reader.comparison.teachers[:2]
    facts = {row["stage"]: row["facts"] for row in reader.stages()}.get("barrier")
    if not facts:
        raise StoreError(
            f"Run {reader.name} is {reader.status()['state']} and has no barrier yet; let it "
            f"finish first."
        )
    for split in ("train", "test"):
        console.print(_line(facts, split, f"Share of\n{second}"))
    typer.echo(
        f"Measured on {facts['examples']['train']:,} training and {facts['examples']['test']:,} "
        f"test examples, from teacher {first} to teacher {second}. The barrier is how much worse "
        f"the line gets than the straight line between its ends."
    )


def _line(facts: Mapping[str, Any], split: str, share: str) -> Table:
    metrics = list(facts["curves"]["naive"][split])
    columns = {
        f"{split.capitalize()} {metric}\n{word}": (kind, metric)
        for metric in metrics
        for kind, word in LINES.items()
    }
    table = new_table(share, *columns, numbers=[share, *columns])
    for index, point in enumerate(facts["points"]):
        values = (facts["curves"][kind][split][metric] for kind, metric in columns.values())
        table.add_row(f"{point:.1f}", *(number(each[index]) for each in values))
    table.add_section()
    heights = (facts["barrier"][kind][split][metric] for kind, metric in columns.values())
    table.add_row("Barrier", *map(number, heights))
    return table
