"""A comparison's teachers and methods: their scores and costs, as they were stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from merge_core.catalogue import METHOD_BY_KEY, Card
from merge_core.recipes import Comparison
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
class Teacher:
    """A teacher as it is.

    Attributes:
        label: its name in the comparison, e.g. "A".
        scores: split → score.
        flops: of a forward pass of one example.
    """

    label: str
    scores: Mapping[str, float]
    flops: float


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a method leads to.

    Attributes:
        state: a key of `STATES`.
        scores: split → score.
        seconds: to make this network out of the teachers, without steps that it does not rest on.
    """

    state: str
    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one method leads to.

    Attributes:
        card: the method.
        networks: its networks, in the order of `STATES`.
        best: the one that is best on held-out.
        flops: of a forward pass of one example, in each of them.
        alone: the label of the teacher that has almost all the weight; empty where none has.
    """

    card: Card
    networks: tuple[Network, ...]
    best: Network
    flops: float
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
        return max(self.teachers, key=lambda teacher: self.worth(teacher.scores["heldout"]))

    @property
    def ensemble(self) -> Outcome | None:
        """The output ensemble; None where it was not asked for or is not over."""
        return next((each for each in self.methods if each.card.key == ENSEMBLE), None)

    @property
    def best(self) -> Outcome | None:
        """The merge to one teacher's size that is best on held-out; None before there is one."""
        merges = (each for each in self.methods if each.card.size == "one network")
        return next((each for each in merges if not each.alone), None)


def outcomes(reader: RunReader) -> Outcomes:
    """Read the scores and costs of a comparison's teachers and of the methods that are over."""
    comparison = reader.comparison
    over = {row["stage"]: row["facts"] for row in reader.stages() if row["finished"] is not None}
    methods = [
        _outcome(METHOD_BY_KEY[key], facts, comparison)
        for key, facts in over.items()
        if key in METHOD_BY_KEY and "error" not in facts
    ]
    sign = -1 if comparison.metric == "accuracy" else 1
    methods.sort(key=lambda each: sign * each.best.scores["heldout"])
    return Outcomes(
        metric=comparison.metric,
        teachers=_teachers(over["teachers"], comparison) if "teachers" in over else (),
        methods=tuple(methods),
        failed={key: facts["error"] for key, facts in over.items() if "error" in facts},
    )


def _teachers(facts: Mapping[str, Any], comparison: Comparison) -> tuple[Teacher, ...]:
    return tuple(
        Teacher(label=label, scores=_scores(scores, comparison), flops=facts["flops"])
        for label, scores in zip(comparison.teachers, facts["scores"], strict=True)
    )


def _outcome(card: Card, facts: Mapping[str, Any], comparison: Comparison) -> Outcome:
    networks = {
        state: Network(
            state=state,
            scores=_scores(facts["after"][state], comparison),
            seconds=_seconds(facts, state),
        )
        for state in STATES
        if state in facts["after"]
    }
    return Outcome(
        card=card,
        networks=tuple(networks.values()),
        best=networks[facts["best"]],
        flops=facts["flops"],
        alone=_alone(card, facts, comparison.teachers),
    )


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
    rows = [
        {
            "Network": f"Teacher {teacher.label}",
            "State": "as it is",
            **{head: teacher.scores[split] for split, head in heads.items()},
            "Seconds to make": None,
            "MFLOP of a prediction": teacher.flops / 1e6,
        }
        for teacher in found.teachers
    ]
    rows += [
        {
            "Network": method.card.title,
            "State": STATES[network.state],
            **{head: network.scores[split] for split, head in heads.items()},
            "Seconds to make": network.seconds,
            "MFLOP of a prediction": method.flops / 1e6,
        }
        for method in found.methods
        for network in method.networks
    ]
    return pd.DataFrame(rows).astype({"Seconds to make": float})
