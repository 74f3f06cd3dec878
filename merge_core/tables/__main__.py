"""A worker of a table: works on a share of the repetitions and says what it has done.

    python -P -m merge_core.tables JSON

prints JSON lines: `{"planned": FLOPs}` and `{"session": …}` (the fields of a `Session`) once,
`{"done": FLOPs}` since the last such line, and the fields of a `Row` for each strategy of a
repetition that is finished. `merge_core.tabled` starts it.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from merge_core.errors import NetweldError
from merge_core.particulars import session
from merge_core.recipes import Recipe
from merge_core.recipes import from_json as recipe_from_json
from merge_core.tables import Block, planned, rows

AT_ONCE = 25
"""Repetitions that go through a strategy together; their rows are written together, too."""
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

    for unit, seeds in todo.items():
        for start in range(0, len(seeds), AT_ONCE):
            some = block(seeds[start : start + AT_ONCE])
            if unit == next(iter(todo)) and start == 0:
                each = sum(planned(some, u) * len(s) for u, s in todo.items())
                _say({"planned": each / len(some.all)})
                names = some.all[0].data.class_names
                _say({"session": dataclasses.asdict(session(asked["device"], names))})
            for row in rows(some, unit):
                _say(dataclasses.asdict(row))
            report.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except NetweldError as error:
        sys.exit(str(error))
