"""What each part of the preset `ours` is good for: one thing changed at a time.

    python -P -m merge_core.bench_ours RECIPE PRESET REPETITIONS SEED

Trains the preset and its changes at the budget that a table of the recipe has at equal FLOPs, and
prints a Markdown table of held-out scores. They have chosen the preset, so take seeds that no table
has. Needs torch.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence

import torch

from merge_core import places
from merge_core.ablations import classes, numbers
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.tables import Block
from merge_core.views.evidence import difference_text, interval
from merge_core.views.runs import score_text
from merge_core.views.scored import seeds_text


def line(title: str, scores: Sequence[float], usual: Sequence[float] | None, metric: str) -> str:
    """A row of the table: the spread, and the paired difference to the preset.

    Args:
        title: what is changed.
        scores: of every repetition.
        usual: those of the preset; None in its own row.
        metric: of the scores, "loss" or "accuracy".
    """
    spread = (statistics.fmean(scores), statistics.median(scores), min(scores), max(scores))
    cells = [title, *(score_text(each, metric) for each in spread)]
    if usual is None:
        return f"| {' | '.join(cells)} |  |  |"
    values = tuple(mine - other for mine, other in zip(scores, usual, strict=True))
    mean = interval(values)
    value, low, high = (difference_text(each, metric) for each in (mean.value, mean.low, mean.high))
    worse = sum(each > 0 if metric == "loss" else each < 0 for each in values)
    return f"| {' | '.join(cells)} | {value} ({low} to {high}) | {worse} |"


def measure(recipe: Recipe, repetitions: int, seed: int) -> None:
    """Train everything and print the table."""
    torch.set_num_threads(1)
    seeds, metric = range(seed, seed + repetitions), recipe.metric
    block = Block(recipe, seeds, "flops", device="cpu", data_dir=places.data_directory())
    print(
        f"torch {torch.__version__}, {recipe.name} at the FLOPs of the preset {recipe.preset}, "
        f"held-out {metric}, n = {repetitions}, seeds {seeds_text(seeds)}, cpu",
        flush=True,
    )
    print("| one thing changed | mean | median | min | max | change − ours | worse in |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    usual: list[float] | None = None
    for title, scores in rows(block):
        print(line(title, scores, usual, metric), flush=True)
        usual = usual or scores


def rows(block: Block) -> Iterator[tuple[str, list[float]]]:
    """What is changed, and the scores with it; the preset as it is first."""
    if block.recipe.metric == "loss":
        fitted = numbers.Trained(block)
        for change in numbers.CHANGES:
            yield change.title, fitted.scores(change)
    else:
        told = classes.Trained(block)
        for change in classes.changes(told.recipe):
            yield change.title, told.scores(change)


if __name__ == "__main__":
    measure(find_preset(*sys.argv[1:3]).recipe, int(sys.argv[3]), int(sys.argv[4]))
