"""A comparison's methods in words: what was found, under which conditions, what each method is."""

import math
from collections.abc import Mapping
from typing import Any

from merge_core.catalogue import METHOD_BY_KEY, METHODS, Card
from merge_core.recipes import Comparison
from merge_core.store import RunReader
from merge_core.views.outcomes import STATES, Outcome, Outcomes
from merge_core.views.runs import flops_text, score_text


def findings(found: Outcomes) -> str:
    """What the comparison says, in sentences; empty before a method is over."""
    if not found.methods or not found.teachers:
        return ""
    best, teacher, metric = found.best, found.best_teacher, found.metric
    parts = []
    if best is not None:
        parts.append(
            f"Of the merges to one teacher's size, **{best.title}** "
            f"({STATES[best.best.state]}) is best on held-out examples; its test {metric} is "
            f"**{score_text(best.best.scores['test'], metric)}**."
        )
    degree = "best" if len(found.teachers) > 2 else "better"
    sentence = (
        f"Teacher {teacher.label}, the {degree} one on held-out examples, has "
        f"{score_text(teacher.scores['test'], metric)}"
    )
    if found.ensemble is not None:
        score = score_text(found.ensemble.best.scores["test"], metric)
        times = round(found.ensemble.flops / teacher.flops)
        sentence += (
            f", the ensemble of the teachers' outputs {score} at {times} times the work for every "
            f"prediction"
        )
    parts.append(f"{sentence}.")
    if chose := [f"{each.title} ({each.alone})" for each in found.methods if each.alone]:
        parts.append(f"These hardly merged, they chose one teacher: {', '.join(chose)}.")
    return " ".join(parts)


def chance_text(found: Outcomes, examples: int) -> str:
    """What the ± of a comparison's table is; empty where none is known."""
    if not found.teachers or math.isnan(found.teachers[0].error):
        return ""
    return (
        f"± is one standard error that comes from testing on {examples:,} examples and not on all "
        f"there could be; differences from teacher {found.best_teacher.label}, the best on "
        f"held-out examples, are taken example by example. Other teachers and other seeds scatter "
        f"more."
    )


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
    where = reader.place
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


def size_words(method: Outcome) -> str:
    """The heading of all methods whose networks are of this one's size."""
    words = {
        "one network": "One network",
        "a wider network": "Merged in part, so wider than a teacher",
        "all networks": "All teachers kept",
    }
    return f"{words[method.size]}: {flops_text(method.flops)} for a prediction"


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
