"""The stages of a comparison: teachers → alignment → barrier → every method by itself.

`compare` is a generator of events, as `merge_core.strategies.merge` is.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from merge_core import checkpoints
from merge_core.barrier import POINTS, lines
from merge_core.catalogue import METHOD_BY_KEY
from merge_core.comparisons.alignment import PASSES, align
from merge_core.comparisons.situation import Situation
from merge_core.comparisons.trials import tried, work_of
from merge_core.data import Split, load
from merge_core.events import Arrays, Event, Progress, Resume, StageFinished, StagePlanned
from merge_core.models import build
from merge_core.recipes import Comparison

_LINES = 3  # naive, matched, repaired


def compare(
    comparison: Comparison,
    device: str,
    *,
    inputs: Sequence[Path],
    data_dir: Path,
    pulse: Callable[[Progress], None],
    resume: Resume | None = None,
) -> Iterator[Event]:
    """Judge the teachers, align them, and merge them in every way that was asked for.

    Args:
        comparison: all settings and the seed.
        device: "cpu", "cuda" or "mps".
        inputs: the checkpoint of every teacher.
        data_dir: where downloaded data sets lie.
        pulse: called with the headway where no event can be yielded; may raise to stop.
        resume: what an interrupted run of the same comparison and device already has. A stage that
            was cut off starts again.

    Yields:
        A `StagePlanned` for every stage, then the events of each stage that is not over yet.

    Raises:
        NetweldError: the data or the teachers cannot be used; see its message. A method that fails
            does not end the comparison: its sentence is the fact "error" of its stage.
    """
    teachers = []
    for label, path in zip(comparison.teachers, inputs, strict=True):
        network = build(comparison.model, 0, comparison.data.shape)
        checkpoints.load_into(network, checkpoints.read(path), f"teacher {label!r}")
        teachers.append(network.to(device).eval())
    data = load(comparison.data, comparison.seed, data_dir).to(device)
    here = Situation(comparison, data, teachers, device, pulse)
    done = (resume or Resume()).finished
    cards = [METHOD_BY_KEY[key] for key in comparison.methods]

    work = {
        "teachers": len(teachers) * here.judging,
        "alignment": PASSES * len(here.seen.train),
        "barrier": _LINES * len(POINTS) * sum(map(len, _on_the_line(here).values())),
    }
    for stage, examples in (work | {card.key: work_of(card, here) for card in cards}).items():
        epochs = 0 if stage in work else comparison.fine_tune.epochs
        flops = float(examples * here.forward)
        yield StagePlanned(stage=stage, epochs=epochs, steps=examples, flops=flops)

    if "teachers" not in done:
        yield from _judged(here)
    elif "test" in done["teachers"].arrays:  # which an earlier version did not keep
        here.own = torch.from_numpy(np.array(done["teachers"].arrays["test"]))
    if "alignment" in done:
        arrays = done["alignment"].arrays
    else:
        arrays = yield from _aligned(here)
    if "barrier" not in done:
        yield from _barrier(here, arrays)
    for card in cards:
        if card.key not in done:
            yield from tried(card, here)


def _judged(here: Situation) -> Iterator[Event]:
    """Every teacher by itself."""
    start = time.perf_counter()
    yield here.begin("teachers")
    scores, own = zip(*map(here.judged, here.teachers), strict=True)
    chance = [here.chance(each) for each in own]
    here.own = torch.stack(own)
    yield StageFinished(
        stage="teachers",
        scores={},
        seconds=time.perf_counter() - start,
        arrays={"test": here.own.numpy()},
        facts={"scores": list(scores), "chance": chance, "flops": here.forward},
    )


def _aligned(here: Situation) -> Generator[Event, None, Arrays]:
    """Similarities and matchings of the first two teachers; returns their arrays."""
    start = time.perf_counter()
    yield here.begin("alignment")
    a, b = here.teachers[:2]
    shape = here.comparison.data.shape
    arrays, facts = align(a, b, here.graph, here.batches, shape, here.draws("alignment"))
    facts["examples"] = len(here.seen.train)
    seconds = time.perf_counter() - start
    yield StageFinished(stage="alignment", scores={}, seconds=seconds, arrays=arrays, facts=facts)
    return arrays


def _barrier(here: Situation, alignment: Arrays) -> Iterator[Event]:
    """Loss and accuracy between the first two teachers, as they are and matched by weights."""
    start = time.perf_counter()
    yield here.begin("barrier")
    orders = {
        space.name: torch.from_numpy(np.array(alignment[f"{space.name}|match_weights"]))
        for space in here.graph.free
    }
    a, b = here.teachers[:2]
    splits, inputs = _on_the_line(here), here.seen.train.inputs
    found = lines(a, b, here.graph, orders, splits, inputs, done=here.advance)
    facts = {
        "points": list(POINTS),
        "curves": {kind: line.scores for kind, line in found.items()},
        "barrier": {kind: line.barrier for kind, line in found.items()},
        "examples": {name: len(split) for name, split in splits.items()},
    }
    yield StageFinished(
        stage="barrier", scores={}, seconds=time.perf_counter() - start, facts=facts
    )


def _on_the_line(here: Situation) -> dict[str, Split]:
    """What the networks between two teachers are evaluated on: so many that it takes no hours."""
    test = here.seen.test
    few = here.comparison.examples
    return {"train": here.seen.train, "test": test.part(slice(few))}
