"""A worker of a table: works on a share of the repetitions and says what it has done.

    python -P -m merge_core.tables JSON

prints JSON lines: `{"planned": FLOPs}` and `{"session": …}` (the fields of a `Session`) once,
`{"done": FLOPs}` since the last such line, the fields of a `Row` for each strategy of a repetition
that is finished, and `{"failed": …}` (the fields of a `Failure`) for what cannot be.
`merge_core.tabled` starts it.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from merge_core.errors import DivergedError, NetweldError
from merge_core.particulars import session
from merge_core.recipes import Recipe
from merge_core.recipes import from_json as recipe_from_json
from merge_core.repetitions import Failure
from merge_core.tables import Block, planned, rows

AT_ONCE = 25
"""Repetitions that go through a strategy together, where their networks train as one batched
network; their rows are written together, too. Elsewhere each goes alone, and is kept if the table
is stopped."""
_REPORT_SECONDS = 0.5


class _Reports:
    """FLOPs told to whoever started this process, a few times a second."""

    def __init__(self) -> None:
        self.flops, self.last = 0.0, time.monotonic()

    def __call__(self, flops: float) -> None:
        self.flops += flops
        if time.monotonic() - self.last > _REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Tell what is not told yet."""
        _say({"done": self.flops})
        self.flops, self.last = 0.0, time.monotonic()


def _say(values: dict) -> None:
    print(json.dumps(values), flush=True)


def _carry_out(
    unit: str, seeds: Sequence[int], block: Block, make: Callable[[Sequence[int]], Block]
) -> None:
    """Say the rows of a unit; of a repetition whose loss does not stay finite, that."""
    try:
        for row in rows(block, unit):
            _say(dataclasses.asdict(row))
    except DivergedError as error:
        if len(seeds) == 1:
            failure = Failure(seed=seeds[0], unit=unit, message=str(error))
            _say({"failed": dataclasses.asdict(failure)})
            return
        for seed in seeds:  # one of them ended the training of all
            _carry_out(unit, [seed], make([seed]), make)


def main(text: str) -> None:
    """Work on the repetitions that the JSON text asks for."""
    asked = json.loads(text)
    recipe = recipe_from_json(json.dumps(asked["recipe"]))
    assert isinstance(recipe, Recipe), "only merges have tables"
    todo = {unit: seeds for unit, seeds in asked["units"].items() if seeds}
    report = _Reports()

    def block(seeds: Sequence[int]) -> Block:
        return Block(
            recipe,
            seeds,
            asked["budget"],
            device=asked["device"],
            data_dir=Path(asked["data"]),
            report=report,
        )

    seeds = sorted({seed for missing in todo.values() for seed in missing})
    if not seeds:
        return
    first = block(seeds[:1])
    _say({"planned": sum(planned(first, unit) * len(missing) for unit, missing in todo.items())})
    names = first.all[0].data.class_names
    _say({"session": dataclasses.asdict(session(first.recipe, asked["device"], names))})
    size = AT_ONCE if first.batched else 1
    for start in range(0, len(seeds), size):
        some = seeds[start : start + size]
        made = first if some == seeds[:1] else block(some)
        for unit, missing in todo.items():
            mine = [seed for seed in some if seed in missing]
            if mine:
                _carry_out(unit, mine, made if mine == some else block(mine), block)
            report.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
