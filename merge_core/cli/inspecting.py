"""`netweld inspect`: what the channel graph says of a network."""

from collections.abc import Sequence

import typer

from merge_core import inspected
from merge_core.cli.tables import console, new_table
from merge_core.description import require_lawful
from merge_core.errors import NetweldError
from merge_core.views.network import cost_table, law_sentence, law_table, space_table, spaces_text

FEW = 1
"""So many writers or readers of a space are named; the others are counted."""

_COVERAGE = "| {:15} | {:18} | {:>6} | {:>15} | {:>10} |"


def inspect(model: str, shape: tuple[int, ...] | None, batch: int, full: bool) -> None:
    """Inspect one network and print what was found; in full with all writers and readers.

    Raises:
        NetweldError: there is no such network, its channels cannot be followed, or its graph
            breaks its laws.
    """
    found = inspected.start(model, shape, batch).result()
    typer.echo(f"{found.name}: {spaces_text(found)} Input {_times(found.input)}, batch {batch}.")
    spaces = space_table(found) if full else space_table(found, FEW)
    _print(spaces.to_dict("records"))
    _print(cost_table(found).to_dict("records"))
    _print(law_table(found).to_dict("records"))
    typer.echo(f"{law_sentence(found)} Traced in {found.trace_seconds:.2f} s.")
    require_lawful(found.name, found.worst_law, found.tolerance)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _print(rows: Sequence[dict[str, object]]) -> None:
    """Rows as a table; numbers are aligned to the right."""
    heads = list(rows[0])
    numbers = [head for head in heads if isinstance(rows[0][head], int | float)]
    made = new_table(*heads, numbers=numbers)
    made.columns[0].min_width = max(len(str(row[heads[0]])) for row in rows)  # never cut
    for row in rows:
        made.add_row(*map(_cell, row.values()))
    console.print(made)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def inspect_all(shape: tuple[int, ...] | None, batch: int) -> int:
    """Inspect one network of every torchvision family, a row each as it goes; returns the status.

    The rows are a Markdown table.
    """
    typer.echo(_COVERAGE.format("Family", "Network", "Spaces", "Worst law error", "Trace time"))
    typer.echo("| :-- | :-- | --: | --: | --: |")
    failed = 0
    for family, model in inspected.FAMILIES.items():
        try:
            found = inspected.start(model, shape, batch).result()
            require_lawful(found.name, found.worst_law, found.tolerance)
        except NetweldError as error:
            failed += 1
            typer.echo(f"| {family} | {model} | {error} |")
            continue
        free = sum(space.free for space in found.spaces)
        worst, time = f"{found.worst_law:.0e}", f"{found.trace_seconds:.2f} s"
        typer.echo(_COVERAGE.format(family, model, free, worst, time))
    return 1 if failed else 0
