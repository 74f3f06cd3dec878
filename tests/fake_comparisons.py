"""Plausible comparisons written through the real writer, without any network: for looking only."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from merge_core import compared
from merge_core.catalogue import METHOD_BY_KEY
from merge_core.events import Arrays, Event, StageFinished, StagePlanned, StageStarted
from merge_core.store import Store

FEATURES = 24
POINTS = [0.0, 0.25, 0.5, 0.75, 1.0]
FAILED = "The method met a matrix that cannot be inverted; leave it out."
DEAD = 2
"""The first channels of every space of A are dead, so many."""


def make(
    store: Store,
    run: str,
    sizes: Mapping[str, int],
    *,
    methods: Sequence[str] = (),
    stop: str = "",
    seed: int = 0,
) -> str:
    """Write a comparison of a merge run's teachers.

    Args:
        store: where the run is.
        run: a merge run whose teachers are stored.
        sizes: its channel spaces; the first one has pictures.
        methods: keys of the catalogue; the last of several fails.
        stop: the stage in which the comparison stands still; it is finished by default.
        seed: of everything made up.
    """
    with store.open(run) as reader:
        comparison, inputs = compared.of_run(reader, methods, fine_tune=1)
    name = store.create(comparison, "cpu", inputs)
    with store.writer(name) as writer:
        for event in events(sizes, np.random.default_rng(seed), methods):
            if isinstance(event, StageStarted) and event.stage == stop:
                writer.write(event)
                return name
            writer.write(event)
        writer.finish("finished")
    return name


def events(
    sizes: Mapping[str, int], random: np.random.Generator, methods: Sequence[str] = ()
) -> Iterator[Event]:
    """The events of a whole comparison."""
    for stage in ("teachers", "alignment", "barrier", *methods):
        yield StagePlanned(stage=stage, epochs=0, steps=1, flops=1e6)
    yield StageStarted(stage="teachers")
    scores = {split: {"loss": 0.3, "accuracy": 0.9} for split in ("train", "heldout", "test")}
    chance = [{"error": 0.01, "minus": []}] * 2
    facts = {"scores": [scores, scores], "chance": chance, "flops": 1e6}
    yield StageFinished(stage="teachers", scores={}, seconds=0.1, facts=facts)
    yield StageStarted(stage="alignment")
    facts = {
        "spaces": [{"name": name, "size": size} for name, size in sizes.items()],
        "objective": [10.0, 14.0, 15.0, 15.0],
        "examples": 500,
        "first_layer": {"space": next(iter(sizes))},
    }
    arrays = alignment(sizes, random)
    yield StageFinished(stage="alignment", scores={}, seconds=0.2, arrays=arrays, facts=facts)
    yield StageStarted(stage="barrier")
    yield StageFinished(stage="barrier", scores={}, seconds=0.3, facts=barrier())
    for number, key in enumerate(methods):
        yield StageStarted(stage=key)
        fails = 0 < number == len(methods) - 1
        facts = {"error": FAILED, "size": "one network"} if fails else method(key, number)
        yield StageFinished(stage=key, scores={}, seconds=1.0, facts=facts)


def method(key: str, number: int) -> dict:
    """What a method leads to: each is a little better than the one before, on test a little worse.

    Fixed weights take the first teacher alone.
    """
    size = METHOD_BY_KEY[key].size
    states = ("merged",) if size == "all networks" else ("merged", "repaired", "fine_tuned")
    better = 0.01 * number
    after = {
        state: {
            split: {"accuracy": 0.5 + step + sign * better, "loss": 1.0 - step - sign * better}
            for split, sign in (("train", 1), ("heldout", 1), ("test", -1))
        }
        for state, step in zip(states, (0.0, 0.2, 0.1), strict=False)
    }
    minus = {state: scores["test"]["accuracy"] - 0.9 for state, scores in after.items()}
    return {
        "after": after,
        "chance": {
            state: {"error": 0.02, "minus": [[gain, 0.015]] * 2} for state, gain in minus.items()
        },
        "best": "repaired" if "repaired" in after else "merged",
        "seconds": {"merge": 1.0, "repair": 2.0, "fine_tune": 4.0},
        "flops": 2e6 if size == "all networks" else 1e6,
        "training_flops": {"merge": 0.0},
        "fine_tuned_from": "repaired",
        "size": size,
        "learned": {"weights": [1.0, 0.0]} if key == "fixed_weights" else {},
    }


def alignment(sizes: Mapping[str, int], random: np.random.Generator) -> Arrays:
    """Channels as random directions; those of B are a noisy shuffle of those of A."""
    arrays: dict[str, np.ndarray] = {}
    for space, size in sizes.items():
        a = random.normal(size=(size, FEATURES)).astype(np.float32)
        order = random.permutation(size)
        b = np.empty_like(a)
        b[order] = a + 0.5 * random.normal(size=a.shape)
        for measure in ("correlation", "incoming_cosine", "outgoing_cosine"):
            arrays[f"{space}|{measure}"] = _cosine(a, b)
            arrays[f"{space}|{measure}_aa"] = _cosine(a, a)
        arrays[f"{space}|correlation_bb"] = _cosine(b, b)
        for kind in ("correlation", "correlation_aa"):
            arrays[f"{space}|{kind}"][:DEAD] = 0
        for measure in ("incoming_l2", "outgoing_l2"):
            arrays[f"{space}|{measure}"] = _distance(a, b)
            arrays[f"{space}|{measure}_aa"] = _distance(a, a)
        arrays[f"{space}|dead_a"] = np.arange(size) < DEAD
        arrays[f"{space}|dead_b"] = np.zeros(size, bool)
        for side in ("incoming", "outgoing"):
            arrays[f"{space}|{side}_zero_a"] = np.zeros(size, bool)
            arrays[f"{space}|{side}_zero_b"] = np.zeros(size, bool)
        arrays[f"{space}|outgoing_zero_b"][-1] = True
        arrays[f"{space}|outgoing_cosine"][:, -1] = 0
        arrays[f"{space}|match_activations"] = order
        weights = order.copy()
        weights[[0, 1]] = weights[[1, 0]]
        arrays[f"{space}|match_weights"] = weights
    count = len(sizes)
    cka = 1 - 0.1 * np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    first = next(iter(sizes.values()))
    pictures = random.normal(size=(2, first, 3, 5, 5)).astype(np.float32)
    return arrays | {
        "cka": (0.9 * cka).astype(np.float32),
        "cka_aa": cka.astype(np.float32),
        "first|a": pictures[0],
        "first|b": pictures[1],
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return (a @ b.T / norms).astype(np.float16)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(squared.clip(0)).astype(np.float16)


def barrier() -> dict:
    """A line that sags as it is, less when matched, and hardly when repaired."""
    sag = {"naive": 0.5, "matched": 0.2, "repaired": 0.05}
    middle = 1 - np.abs(2 * np.array(POINTS) - 1)

    def scores(line: str) -> dict[str, list[float]]:
        low = sag[line] * middle
        return {"loss": (0.3 + low).tolist(), "accuracy": (0.9 - low).tolist()}

    splits = ("train", "test")
    return {
        "points": POINTS,
        "curves": {line: {split: scores(line) for split in splits} for line in sag},
        "barrier": {
            line: {split: {"loss": low, "accuracy": low} for split in splits}
            for line, low in sag.items()
        },
        "examples": {"train": 500, "test": 400},
    }
