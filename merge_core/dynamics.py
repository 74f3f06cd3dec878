"""What the gates will do under a λ schedule, before any run: a model of a few milliseconds.

The penalty's part is that of `merge_core.gates`, step by step where the pull changes fast and in
longer strides where it does not. In place of the error's gradient there is a drift: a gate gains
`d · 4p(1 − p)` in logit over the stage, where d has a mean and a spread of its own in each space,
exponentially distributed (a few channels matter much, most matter little), and where the last
factor says that a saturated gate hardly feels the error. These two numbers, in units of
learning rate × steps, fitted to one run (`fitted_drift`), foretell how the same networks fare under
other schedules. Without drift the gates close as if the error left them alone, in truth they close
later; a space's width plays no part, because the pull has none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from merge_core.recipes import Gates
from merge_core.schedules import Closing

TEMPERATURE = 2 / 3
LOW, HIGH = -0.1, 1.1
"""The hard-concrete gate: its temperature, and what it is stretched to before it is clipped."""
OPEN_SHIFT = TEMPERATURE * math.log(-LOW / HIGH)
"""P[gate > 0] is a sigmoid of the logit less this."""
CLOSING = 0.1
"""The last part of the stage, in which the pull grows without bound and acts on all alike."""
LONGEST_MOVE = 2.0
"""Of a logit, in one step of the penalty."""
_GATES = 32
"""Gates that stand for those of a space."""
_BEFORE, _LAST = 150, 50
"""Strides before the closing part and in it."""
_RANKS = (np.arange(_GATES) + 0.5) / _GATES
_NORMAL = np.array([NormalDist().inv_cdf(rank) for rank in _RANKS])
_MATTERS = -np.log(1 - _RANKS)
_MATTERS = (_MATTERS - _MATTERS.mean()) / _MATTERS.std()
_TRIED = np.concatenate([[0.0], np.geomspace(0.5, 2000, 22)])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1/(1 + exp(−logits)), which never overflows; same shape."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


@dataclass(frozen=True)
class Drift:
    """What the error does to the logits of a space's gates.

    Attributes:
        mean: logits that a gate gains where P[open] = ½, per unit of learning rate × steps.
        spread: standard deviation of it over the gates.
    """

    mean: float
    spread: float


NO_DRIFT = Drift(0.0, 0.0)


@dataclass(frozen=True)
class Expected:
    """The gates at some moments of the stage.

    Attributes:
        spaces: names of the spaces.
        progress: the moments, each the end of a stride, `(moments,)`; the last is 1, the cut.
        weights: λ in each stride, `(moments,)`.
        opened: P[open] of the gates that stand for each space's, `(moments, spaces, gates)`.
    """

    spaces: tuple[str, ...]
    progress: np.ndarray
    weights: np.ndarray
    opened: np.ndarray

    def means(self) -> np.ndarray:
        """Mean P[open], `(moments, spaces)`."""
        return self.opened.mean(2)


def expected(
    gates: Gates,
    steps: int,
    drifts: Mapping[str, Drift],
    *,
    begin: int = 0,
    opened: Mapping[str, np.ndarray] | None = None,
) -> Expected:
    """The gates of a stage from its start, or from a later step, to the cut.

    Args:
        gates: settings of the gates, λ schedule included.
        steps: of the whole stage.
        drifts: name of each space → its drift; `NO_DRIFT` neglects the error.
        begin: steps that are done already.
        opened: with `begin`: P[open] of every channel then, `(channels,)` for each space.
    """
    means = np.array([[drift.mean] for drift in drifts.values()])
    spreads = np.array([[drift.spread] for drift in drifts.values()])
    drift = (means + spreads * _MATTERS) * gates.learning_rate * steps
    if opened is None:
        logits = np.tile(_starts(gates), (len(drifts), 1))
    else:
        ranked = [np.quantile(opened[space], _RANKS) for space in drifts]
        logits = _logit(np.array(ranked))
    edges = _edges(begin, steps)
    weights, found = _run(gates, steps, edges, logits, drift)
    return Expected(tuple(drifts), edges[1:] / steps, weights, found)


def fitted_drift(gates: Gates, weights: np.ndarray, opened: Sequence[np.ndarray]) -> Drift:
    """The drift with which the model comes nearest to a run.

    Args:
        gates: settings of that run's gates.
        weights: λ as used in each step of the stage, `(steps,)`.
        opened: P[open] of every channel of one space, `(channels,)` after each epoch.
    """
    steps = len(weights)
    edges = _edges(0, steps)
    mean, spread = (each.ravel() for each in np.meshgrid(_TRIED, _TRIED))
    drift = mean[:, None] + spread[:, None] * _MATTERS
    logits = np.tile(_starts(gates), (len(drift), 1))
    _, model = _run(gates, steps, edges, logits, drift, weights)
    ends = np.arange(1, len(opened) + 1) * steps // len(opened)
    model = model[np.searchsorted(edges[1:], ends)]
    means = np.array([p.mean() for p in opened])[:, None]
    spreads = np.array([p.std() for p in opened])[:, None]
    apart = (model.mean(2) - means) ** 2 + (model.std(2) - spreads) ** 2 / 4
    best, unit = int(apart.mean(0).argmin()), gates.learning_rate * steps
    return Drift(float(mean[best] / unit), float(spread[best] / unit))


def _starts(gates: Gates) -> np.ndarray:
    """The first logits, `(gates,)`; how they are spread has nothing to do with who matters."""
    return gates.start + gates.spread * _NORMAL[np.arange(_GATES) * 13 % _GATES]


def _logit(opened: np.ndarray) -> np.ndarray:
    """The logits of gates that are open with these probabilities; same shape."""
    opened = np.clip(opened, 1e-7, 1 - 1e-7)
    return np.log(opened / (1 - opened)) + OPEN_SHIFT


def _edges(begin: int, steps: int) -> np.ndarray:
    """Steps at which strides begin and end: equal ones, ever shorter in the closing part."""
    last = CLOSING * steps
    before = np.arange(0, steps - last, max(math.ceil((steps - last) / _BEFORE), 1))
    closing = steps - np.geomspace(last, min(last, 1), _LAST)
    edges = np.unique(np.concatenate([before, closing, [steps]]).round().astype(int))
    return np.concatenate([[begin], edges[edges > begin]])


def _run(
    gates: Gates,
    steps: int,
    edges: np.ndarray,
    logits: np.ndarray,
    drift: np.ndarray,
    used: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """λ in each stride and P[open] after it.

    Args:
        gates: their settings.
        steps: of the whole stage.
        edges: where strides begin and end.
        logits: of the gates of each space at the start, `(spaces, gates)`.
        drift: of each in logits over the stage, where P[open] = ½; same shape.
        used: λ as used in each step, instead of that of the schedule.
    """
    schedule = gates.schedule
    controlled = isinstance(schedule, Closing) and used is None
    if not isinstance(schedule, Closing) and used is None:
        used = schedule.over(steps)
    left = (steps - np.arange(steps)) / steps
    force = gates.pull / steps * np.maximum(1, CLOSING / left)
    cumulated = np.concatenate([[0.0], np.cumsum(force if used is None else force * used)])
    weights, found = np.empty(len(edges) - 1), np.empty((len(edges) - 1, *logits.shape))
    for i, (start, end) in enumerate(pairwise(edges.tolist())):
        p = sigmoid(logits - OPEN_SHIFT)
        logits = logits + drift * (end - start) / steps * 4 * p * (1 - p)
        p = sigmoid(logits - OPEN_SHIFT)
        strength = float(cumulated[end] - cumulated[start])
        if controlled:
            assert isinstance(schedule, Closing)
            weights[i] = schedule.weight(start / steps, float(p.mean()))
            strength *= weights[i]
        else:
            weights[i] = strength / force[start:end].sum()
        logits = _pulled(logits, p, strength, shift=bool(left[start] <= CLOSING))
        found[i] = sigmoid(logits - OPEN_SHIFT)
    return weights, found


def _pulled(logits: np.ndarray, p: np.ndarray, strength: float, *, shift: bool) -> np.ndarray:
    """The logits after a stride of the penalty, as `merge_core.gates.pull_to_half` has it."""
    slope = p * (1 - p)
    direction = np.full_like(slope, 0.25) if shift else slope
    excess = p.mean(1, keepdims=True) - 0.5
    along = (slope * direction).mean(1, keepdims=True)
    length = 2 * strength * excess / (1 + 2 * strength * along)
    longest = LONGEST_MOVE / np.maximum(direction.max(1, keepdims=True), 1e-12)
    return logits - np.clip(length, -longest, longest) * direction
