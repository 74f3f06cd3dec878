"""What was asked of a run and answered, as marks on a time axis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SIGNS = {
    "pause": "‖",
    "step": "1",
    "go": "▶",
    "stop": "■",
    "cut": "✂",
    "lambda": "λ",
    "rate": "η",
    "seed": "s",
}
"""A sign for each verb of a command or kind of change."""
_REFUSED = "✗"
_CHANGES = ("lambda", "rate", "cut", "seed")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The commands that took effect at one place of a time axis.

    Attributes:
        place: on the axis.
        signs: of the commands, each once, with spaces.
        words: what was done.
        changes: whether numbers change there.
    """

    place: float
    signs: str
    words: str
    changes: bool


def moments(placed: Iterable[tuple[float, Mapping[str, Any]]]) -> list[Moment]:
    """The moments with commands, in order of place.

    Args:
        placed: where each stands, with a row of `merge_core.views.steering.marker_frame`.
    """
    found: dict[float, list[Mapping[str, Any]]] = {}
    for place, row in placed:
        found.setdefault(place, []).append(row)
    made = []
    for place, rows in sorted(found.items()):
        signs = [_REFUSED if row["refused"] else SIGNS[row["verb"]] for row in rows]
        words = [f"refused: {row['words']}" if row["refused"] else row["words"] for row in rows]
        made.append(
            Moment(
                place=place,
                signs=" ".join(dict.fromkeys(signs)),
                words="; ".join(words),
                changes=any(row["verb"] in _CHANGES and not row["refused"] for row in rows),
            )
        )
    return made
