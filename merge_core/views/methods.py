"""A comparison's methods: what each leads to, at what cost, and in which words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from merge_core.catalogue import METHOD_BY_KEY, METHODS, Card
from merge_core.recipes import Comparison
from merge_core.store import RunReader
from merge_core.views.runs import flops_text

STATES = {"merged": "after the merge", "repaired": "repaired", "fine_tuned": "fine-tuned"}
"""Keys of the networks that a method leads to, in order, and their words."""
SPLITS = {"heldout": "held-out", "test": "test", "train": "train"}
ALONE = 0.95
"""The mean weight of a teacher from which on an average is hardly more than that teacher."""
_WEIGHING = (
    "fixed_weights",
    "learned_network_weights",
    "learned_layer_weights",
    "learned_weights_and_bias",
)
"""The methods that may give one teacher all the weight."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a comparison has found so far.

    Attributes:
        metric: what the scores are, "accuracy" or "loss".
        teachers: one row per teacher: label, train, heldout, test, flops.
        methods: one row per method and state, best method first (by held-out), its states in
            order: method (key), title, size, state, train, heldout, test, seconds (to make this
            network out of the teachers), flops (forward, of one example), best (whether it is the
            method's best state by held-out), alone (the label of the teacher that has almost all
            the weight, if there is one, else empty).
        failed: the sentence of every method that failed, by key.
    """

    metric: str
    teachers: pd.DataFrame
    methods: pd.DataFrame
    failed: dict[str, str]

    @property
    def ensemble(self) -> pd.Series | None:
        """The row of the output ensemble; None where it was not asked for."""
        found = self.methods[self.methods["method"] == "output_ensemble"]
        return None if found.empty else found.iloc[0]

    @property
    def best(self) -> pd.Series | None:
        """The merge to one teacher's size that is best on held-out; None before there is one."""
        methods = self.methods
        merged = (methods["size"] == "one network") & (methods["alone"] == "")
        found = methods[methods["best"] & merged]
        return None if found.empty else found.iloc[0]

    @property
    def alone(self) -> dict[str, str]:
        """Title of each method that chose one teacher → that teacher's label."""
        chose = self.methods[self.methods["alone"] != ""]
        return dict(zip(chose["title"], chose["alone"], strict=True))


def outcomes(reader: RunReader) -> Outcomes:
    """Read the scores and costs of a comparison's teachers and of the methods that are over."""
    comparison = reader.comparison
    metric = comparison.metric
    over = {row["stage"]: row["facts"] for row in reader.stages() if row["finished"] is not None}
    rows = [
        row
        for key, facts in over.items()
        if key in METHOD_BY_KEY and "error" not in facts
        for row in _rows(METHOD_BY_KEY[key], facts, comparison)
    ]
    columns = ["method", "title", "size", "state", *SPLITS, "seconds", "flops", "best", "alone"]
    methods = pd.DataFrame(rows, columns=columns)
    return Outcomes(
        metric=metric,
        teachers=_teachers(comparison, over.get("teachers")),
        methods=_sorted(methods, metric),
        failed={key: facts["error"] for key, facts in over.items() if "error" in facts},
    )


def _rows(card: Card, facts: Mapping[str, Any], comparison: Comparison) -> list[dict[str, Any]]:
    rows, metric = [], comparison.metric
    for state in (state for state in STATES if state in facts["after"]):
        scores = facts["after"][state]
        rows.append(
            {
                "method": card.key,
                "title": card.title,
                "size": card.size,
                "state": state,
                **{split: scores[split][metric] for split in SPLITS},
                "seconds": _seconds(facts, state),
                "flops": facts["flops"],
                "best": state == facts["best"],
                "alone": _alone(card, facts, comparison.teachers),
            }
        )
    return rows


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


def _teachers(comparison: Comparison, facts: Mapping[str, Any] | None) -> pd.DataFrame:
    scores = facts["scores"] if facts else ()
    rows = [
        {"label": label, **{split: each[split][comparison.metric] for split in SPLITS}}
        for label, each in zip(comparison.teachers, scores, strict=False)
    ]
    frame = pd.DataFrame(rows, columns=["label", *SPLITS])
    return frame.assign(flops=facts["flops"] if facts else math.nan)


def _sorted(methods: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The methods by the held-out score of their best network, each with its states in order."""
    if methods.empty:
        return methods
    best = methods[methods["best"]].set_index("method")["heldout"]
    order = best.sort_values(ascending=metric == "loss", kind="stable").index
    rank = {key: place for place, key in enumerate(order)}
    return methods.sort_values(
        "method", key=lambda keys: keys.map(rank), kind="stable", ignore_index=True
    )


def method_table(found: Outcomes) -> pd.DataFrame:
    """One row per network: every number of the charts, in the words of a page."""
    heads = {split: f"{words.capitalize()} {found.metric}" for split, words in SPLITS.items()}
    teachers = pd.DataFrame(
        {
            "Network": [f"Teacher {label}" for label in found.teachers["label"]],
            "State": "as it is",
            **{head: found.teachers[split] for split, head in heads.items()},
            "Seconds to make": math.nan,
            "MFLOP of a prediction": found.teachers["flops"] / 1e6,
        }
    )
    methods = pd.DataFrame(
        {
            "Network": found.methods["title"],
            "State": found.methods["state"].map(STATES),
            **{head: found.methods[split] for split, head in heads.items()},
            "Seconds to make": found.methods["seconds"],
            "MFLOP of a prediction": found.methods["flops"] / 1e6,
        }
    )
    return pd.DataFrame([*teachers.to_dict("records"), *methods.to_dict("records")])


def score_text(value: float, metric: str) -> str:
    """A score as text: accuracy with three digits, a loss with four."""
    return f"{value:.3f}" if metric == "accuracy" else f"{value:.4f}"


def findings(found: Outcomes) -> str:
    """What the comparison says, in sentences; empty before a method is over."""
    best, metric = found.best, found.metric
    if found.methods.empty or found.teachers.empty:
        return ""
    teachers = found.teachers.sort_values("heldout", ascending=metric == "loss", kind="stable")
    teacher, parts = teachers.iloc[0], []
    if best is not None:
        parts.append(
            f"Of the merges to one teacher's size, **{best['title']}** ({STATES[best['state']]}) "
            f"is best on held-out examples; its test {metric} is "
            f"**{score_text(best['test'], metric)}**."
        )
    other = f"The better teacher ({teacher['label']})"
    if len(teachers) > 2:
        other = f"The best teacher ({teacher['label']})"
    parts.append(f"{other} has {score_text(teacher['test'], metric)}")
    if found.ensemble is None:
        parts[-1] += "."
    else:
        times = round(found.ensemble["flops"] / teacher["flops"])
        parts[-1] += (
            f", the ensemble of the teachers' outputs "
            f"{score_text(found.ensemble['test'], metric)} at {times} times the work for every "
            f"prediction."
        )
    if chose := [f"{title} ({label})" for title, label in found.alone.items()]:
        parts.append(f"These hardly merged, they chose one teacher: {', '.join(chose)}.")
    return " ".join(parts)


def networks_text(comparison: Comparison) -> str:
    """Which networks are compared, and on what."""
    names = ", ".join(f"**{label}**" for label in comparison.teachers)
    return (
        f"Teachers: {names}; {len(comparison.teachers)} networks of the architecture "
        f"{comparison.model}, judged on {comparison.data.name}."
    )


def conditions(reader: RunReader) -> str:
    """What a comparison's numbers rest on, in one line: beside every chart of it."""
    comparison, facts = reader.comparison, reader.facts()
    threads = facts.get("threads")
    where = reader.device
    if threads:
        where += f" with {threads} thread{'' if threads == 1 else 's'}"
    tuned, trained = comparison.fine_tune.epochs, comparison.gating.epochs
    unsure = (
        ""
        if comparison.of
        else " The teachers come from files and may have learned from the held-out examples, so "
        "the held-out scores may flatter."
    )
    return (
        f"Seed {comparison.seed}, {where}; one run (n = 1), so other seeds may "
        f"tell otherwise. Statistics are measured on {comparison.examples:,} training examples; "
        f"methods that train get "
        f"{_epochs(trained)}, fine-tuning {_epochs(tuned)}, the same for all. The held-out split "
        f"chooses: the order of the methods, the weights that are searched, and whether "
        f"fine-tuning starts from the merged or from the repaired network. Test never chooses; it "
        f"only reports.{unsure}"
    )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def flops_words(found: Outcomes, size: str) -> str:
    """The heading of all methods whose networks are of one size."""
    flops = found.methods.loc[found.methods["size"] == size, "flops"].iloc[0]
    words = {"one network": "One network of a teacher's size", "all networks": "All teachers kept"}
    return f"{words[size]}: {flops_text(flops)} for a prediction"


def about(card: Card, facts: Mapping[str, Any]) -> list[str]:
    """A method in paragraphs: what it does, its source, what it needed, and what it learned."""
    needs = {
        "weights": "It looks at the weights alone.",
        "activations": "It looks at activations on training examples.",
        "training": "It trains.",
    }[card.needs]
    lines = [card.about, f"{needs} Source: {card.source}."]
    weights = facts.get("learned", {}).get("weights")
    if isinstance(weights, list) and weights and not isinstance(weights[0], list):
        numbers = ", ".join(f"{weight:.3f}" for weight in weights)
        lines.append(f"Here it weighed the teachers {numbers}.")
    return lines


def offered(teachers: int) -> dict[str, str]:
    """The methods that take so many teachers, with their words in a form."""
    return {
        card.key: card.title + (" ⏳" if card.needs == "training" else "")
        for card in METHODS
        if not 0 < card.teachers < teachers
    }


def quick(keys: Mapping[str, str]) -> list[str]:
    """Those methods that train nothing, so that they take seconds."""
    return [key for key in keys if METHOD_BY_KEY[key].needs != "training"]
