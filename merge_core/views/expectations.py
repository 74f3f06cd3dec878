"""What a λ schedule is expected to do to the gates, and what to be warned of."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from merge_core.dynamics import CLOSING, NO_DRIFT, Drift, Expected, expected, fitted_drift
from merge_core.recipes import Gates
from merge_core.schedules import Schedule
from merge_core.store import RunReader

UNKNOWN = "any space"
"""The space of networks of which no run is known."""
_STEPS_PER_EPOCH = 50
"""Where no run tells; without drift they hardly matter."""
_NEAR_HALF = 0.55
_SOON = 0.1
"""A part of the stage too short for the error to tell gates apart."""
_MUCH = 0.2
"""So much of the closing should not be left to the last tenth."""
_NAMED = 2
"""Spaces that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What finished gates of the same networks tell about those to come.

    Attributes:
        drifts: what the error does to each space's gates.
        steps_per_epoch: optimizer steps.
        run: name of the run that they were fitted to, empty where there is none.
    """

    drifts: Mapping[str, Drift]
    steps_per_epoch: float
    run: str = ""


NOTHING_KNOWN = Known(drifts={UNKNOWN: NO_DRIFT}, steps_per_epoch=_STEPS_PER_EPOCH)


def known_from(reader: RunReader) -> Known:
    """What a merge's gates tell; `NOTHING_KNOWN` where they have not learned to the end.

    Raises:
        StoreError: the run is no merge.
    """
    gates = reader.merge.gates
    rows = reader.openness()
    planned = {row["stage"]: row for row in reader.stages()}.get("gates")
    if not rows or planned is None or planned["finished"] is None:
        return NOTHING_KNOWN
    epochs = rows[-1]["epoch"]
    per_epoch = planned["steps"] / planned["epochs"]
    steps = round(epochs * per_epoch)
    used = [row["value"] for row in reader.metrics("gates") if row["name"] == "lambda"]
    ends = np.linspace(0, steps, epochs + 1)[1:] - 1
    weights = np.exp(np.interp(np.arange(steps), ends, np.log(used)))
    opened: dict[str, list[np.ndarray]] = {}
    for row in rows:
        opened.setdefault(row["space"], []).append(row["probabilities"])
    return Known(
        drifts={space: fitted_drift(gates, weights, each) for space, each in opened.items()},
        steps_per_epoch=per_epoch,
        run=reader.name,
    )


@dataclass(frozen=True, kw_only=True)
class Past:
    """A gate stage that is under way: what cannot be changed any more.

    Attributes:
        weights: λ as used, one for each epoch that is over, `(epochs,)`.
        means: mean P[open] after each, by space, `(epochs,)` each.
        opened: P[open] of every channel now, by space, `(channels,)` each.
    """

    weights: np.ndarray
    means: Mapping[str, np.ndarray]
    opened: Mapping[str, np.ndarray]


def expect(
    gates: Gates, epochs: int, known: Known, schedule: Schedule, past: Past | None = None
) -> Expected:
    """The gates under a schedule, from the start of the stage or from where it stands.

    Args:
        gates: settings of the gates; their own schedule does not count.
        epochs: of the gate stage.
        known: what other runs tell.
        schedule: λ over the whole stage, of which the part that is to come counts.
        past: what is over; by default nothing.
    """
    under = dataclasses.replace(gates, schedule=schedule)
    steps = max(round(epochs * known.steps_per_epoch), 1)
    if past is None or len(past.weights) == 0:
        return expected(under, steps, known.drifts)
    drifts = {space: known.drifts.get(space, NO_DRIFT) for space in past.opened}
    begin = round(len(past.weights) * known.steps_per_epoch)
    return expected(under, steps, drifts, begin=min(begin, steps - 1), opened=past.opened)


def warnings(found: Expected, epochs: int) -> list[str]:
    """What is likely to go wrong, each as a sentence; none where all seems well.

    Args:
        found: from the start of the stage.
        epochs: of the gate stage.
    """
    means, progress = found.means(), found.progress
    spaces = range(len(found.spaces))
    late = means[np.searchsorted(progress, 1 - CLOSING)]
    fallen = means < _NEAR_HALF
    when = [progress[fallen[:, i].argmax()] if fallen[:, i].any() else 1.0 for i in spaces]
    begins = progress[0] < _SOON  # otherwise the stage is under way, perhaps with closed gates
    still = [i for i in spaces if means[-1, i] > _NEAR_HALF]
    rest = [
        i
        for i in spaces
        if i not in still and begins and late[i] - 0.5 > _MUCH * (means[0, i] - 0.5)
    ]
    early = [i for i in spaces if begins and when[i] <= _SOON]
    sentences = []
    if still:
        sentences.append(
            f"At this rate {_shares(found, still, means[-1])} will still be open at the cut, which "
            f"keeps half: it will remove channels that the network uses. Raise λ or give the gates "
            f"more epochs."
        )
    if rest:
        sentences.append(
            f"At this rate {_shares(found, rest, late)} will still be open when the last tenth of "
            f"the stage begins. It shifts all gates of a space alike until half are closed, which "
            f"teaches nothing about which half. Raise λ earlier."
        )
    if early:
        latest = max(when[i] for i in early) * epochs
        names = _some([found.spaces[i] for i in early])
        sentences.append(
            f"λ is so large at the start that the gates of {names} fall to half together within "
            f"{latest:.1f} of {epochs} epochs, before the error has told them apart. Start with a "
            f"smaller λ."
        )
    return sentences


def _shares(found: Expected, which: list[int], means: np.ndarray) -> str:
    """As in "80 % of the gates of conv1 and 70 % of those of conv2"."""
    return _some([f"{100 * means[i]:.0f} % of the gates of {found.spaces[i]}" for i in which])


def _some(parts: list[str]) -> str:
    """The first parts by name, the others by number."""
    more = len(parts) - _NAMED
    named = [*parts[:_NAMED], *([f"{more} more" if more > 1 else parts[-1]] if more > 0 else [])]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
