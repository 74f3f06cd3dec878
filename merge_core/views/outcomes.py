"""A comparison's teachers and methods: their scores and costs, as they were stored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from merge_core.catalogue import METHOD_BY_KEY, Card
from merge_core.recipes import Comparison, MethodSettings, as_text
from merge_core.store import RunReader

STATES = {"merged": "after the merge", "repaired": "repaired", "fine_tuned": "fine-tuned"}
"""Keys of the networks that a method leads to, in order, and their words."""
SPLITS = {"heldout": "held-out", "test": "test", "train": "train"}
ALONE = 0.95
"""The mean weight of a teacher from which on an average is hardly more than that teacher."""
ENSEMBLE = "output_ensemble"
"""The method that all others are measured by: it merges nothing and costs all teachers."""
_WEIGHING = (
    "fixed_weights",
    "learned_network_weights",
    "learned_layer_weights",
    "learned_weights_and_bias",
)
"""The methods that may give one teacher all the weight."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """How far a test score may be off because the test examples are a sample of all examples.

    It tells nothing of other teachers or other seeds. NaN where a comparison of an earlier version
    did not keep it.

    Attributes:
        error: standard error of the test score.
        gain: test score minus that of the best teacher on held-out.
        gain_error: standard error of the gain, from the differences example by example.
    """

    error: float
    gain: float
    gain_error: float


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher as it is.

    Attributes:
        label: its name in the comparison, e.g. "A".
        scores: split → score.
        flops: of a forward pass of one example.
        error: standard error of its test score, as in `Chance`.
    """

    label: str
    scores: Mapping[str, float]
    flops: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a method leads to.

    Attributes:
        state: a key of `STATES`.
        scores: split → score.
        seconds: to make this network out of the teachers, without steps that it does not rest on.
        chance: how sure its test score is.
    """

    state: str
    scores: Mapping[str, float]
    seconds: float
    chance: Chance


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one method leads to.

    Attributes:
        card: the method.
        title: its words, with the settings that it was given.
        networks: its networks, in the order of `STATES`.
        best: the one that is best on held-out.
        flops: of a forward pass of one example, in each of them.
        size: what that is like: "one network", "a wider network" or "all networks".
        alone: the label of the teacher that has almost all the weight; empty where none has.
    """

    card: Card
    title: str
    networks: tuple[Network, ...]
    best: Network
    flops: float
    size: str
    alone: str


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a comparison has found so far.

    Attributes:
        metric: what the scores are, "accuracy" or "loss".
        teachers: in the comparison's order; empty until they are judged.
        methods: those that are over and did not fail, the best on held-out first.
        failed: the sentence of every method that failed, by key.
    """

    metric: str
    teachers: tuple[Teacher, ...]
    methods: tuple[Outcome, ...]
    failed: Mapping[str, str]

    def worth(self, score: float) -> float:
        """A score as a number of which more is better."""
        return score if self.metric == "accuracy" else -score

    @property
    def best_teacher(self) -> Teacher:
        """The teacher that is best on held-out; there must be one."""
        return best_of(self.teachers, self.metric)

    @property
    def ensemble(self) -> Outcome | None:
        """The output ensemble; None where it was not asked for or is not over."""
        return next((each for each in self.methods if each.card.key == ENSEMBLE), None)

    @property
    def best(self) -> Outcome | None:
        """The merge to one teacher's size that is best on held-out; None before there is one."""
        merges = (each for each in self.methods if each.size == "one network")
        return next((each for each in merges if not each.alone), None)


def best_of(teachers: Sequence[Teacher], metric: str) -> Teacher:
    """The teacher that is best on held-out, the first of several."""
    sign = 1 if metric == "accuracy" else -1
    return max(teachers, key=lambda teacher: sign * teacher.scores["heldout"])


def outcomes(reader: RunReader) -> Outcomes:
    """Read the scores and costs of a comparison's teachers and of the methods that are over."""
    comparison = reader.comparison
    over = {row["stage"]: row["facts"] for row in reader.stages() if row["finished"] is not None}
    teachers = _teachers(over["teachers"], comparison) if "teachers" in over else ()
    best = teachers.index(best_of(teachers, comparison.metric)) if teachers else 0
    methods = [
        _outcome(METHOD_BY_KEY[key], facts, comparison, best)
        for key, facts in over.items()
        if key in METHOD_BY_KEY and "error" not in facts
    ]
    sign = -1 if comparison.metric == "accuracy" else 1
    methods.sort(key=lambda each: sign * each.best.scores["heldout"])
    return Outcomes(
        metric=comparison.metric,
        teachers=teachers,
        methods=tuple(methods),
        failed={key: facts["error"] for key, facts in over.items() if "error" in facts},
    )


def _teachers(facts: Mapping[str, Any], comparison: Comparison) -> tuple[Teacher, ...]:
    errors = [each["error"] for each in facts.get("chance", ())]
    return tuple(
        Teacher(
            label=label,
            scores=_scores(scores, comparison),
            flops=facts["flops"],
            error=errors[number] if errors else math.nan,
        )
        for number, (label, scores) in enumerate(
            zip(comparison.teachers, facts["scores"], strict=True)
        )
    )


def _outcome(card: Card, facts: Mapping[str, Any], comparison: Comparison, best: int) -> Outcome:
    networks = {
        state: Network(
            state=state,
            scores=_scores(facts["after"][state], comparison),
            seconds=_seconds(facts, state),
            chance=_chance(facts, state, best),
        )
        for state in STATES
        if state in facts["after"]
    }
    return Outcome(
        card=card,
        title=card.title + _given(card, comparison),
        networks=tuple(networks.values()),
        best=networks[facts["best"]],
        flops=facts["flops"],
        size=facts["size"],
        alone=_alone(card, facts, comparison.teachers),
    )


def _given(card: Card, comparison: Comparison) -> str:
    """The settings of a method that are not as usual, in brackets after its title."""
    usual, texts = MethodSettings(), []
    for knob in card.knobs:
        value = getattr(comparison, knob.key)
        if value != getattr(usual, knob.key):
            texts.append(f"{knob.key}={as_text(value)}")
    return f" ({', '.join(texts)})" if texts else ""


def _chance(facts: Mapping[str, Any], state: str, best: int) -> Chance:
    """Of a state's network, against the teacher with that number."""
    told = facts.get("chance", {}).get(state)
    if not told or not told["minus"]:
        error = told["error"] if told else math.nan
        return Chance(error=error, gain=math.nan, gain_error=math.nan)
    gain, gain_error = told["minus"][best]
    return Chance(error=told["error"], gain=gain, gain_error=gain_error)


def _scores(stored: Mapping[str, Mapping[str, float]], comparison: Comparison) -> dict[str, float]:
    return {split: stored[split][comparison.metric] for split in SPLITS}


def _alone(card: Card, facts: Mapping[str, Any], teachers: Sequence[str]) -> str:
    """The label of the teacher that an average consists of; empty where there are several."""
    if card.key not in _WEIGHING:
        return ""
    learned = facts["learned"]
    lists = [learned["weights"]] if "weights" in learned else learned.values()
    rows = [row for row in lists if isinstance(row, list) and len(row) == len(teachers)]
    if not rows:
        return ""
    means = [sum(weights) / len(rows) for weights in zip(*rows, strict=True)]
    most = max(means)
    return teachers[means.index(most)] if most >= ALONE else ""


def _seconds(facts: Mapping[str, Any], state: str) -> float:
    """The time from the teachers to this network, without steps that it does not rest on."""
    took = facts["seconds"]
    repaired = state == "repaired" or facts.get("fine_tuned_from") == "repaired"
    return (
        took["merge"]
        + (took["repair"] if state != "merged" and repaired else 0.0)
        + (took["fine_tune"] if state == "fine_tuned" else 0.0)
    )


def outcome_table(found: Outcomes) -> pd.DataFrame:
    """One row per network: every number of the charts, in the words of a page."""
    heads = {split: f"{words.capitalize()} {found.metric}" for split, words in SPLITS.items()}
    gain = f"Test, minus teacher {found.best_teacher.label}" if found.teachers else "Test, minus"
    rows = [
        {
            "Network": f"Teacher {teacher.label}",
            "State": "as it is",
            **{head: teacher.scores[split] for split, head in heads.items()},
            "± test": teacher.error,
            gain: None,
            "± of it": None,
            "Seconds to make": None,
            "MFLOP of a prediction": teacher.flops / 1e6,
        }
        for teacher in found.teachers
    ]
    rows += [
        {
            "Network": method.title,
            "State": STATES[network.state],
            **{head: network.scores[split] for split, head in heads.items()},
            "± test": network.chance.error,
            gain: network.chance.gain,
            "± of it": network.chance.gain_error,
            "Seconds to make": network.seconds,
            "MFLOP of a prediction": method.flops / 1e6,
        }
        for method in found.methods
        for network in method.networks
    ]
    empty = (gain, "± of it", "Seconds to make")  # of teachers
    return pd.DataFrame(rows).astype(dict.fromkeys(empty, float))
