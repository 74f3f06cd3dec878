"""A small made-up run for tests: its events, as a strategy would yield them."""

from collections.abc import Iterator

import numpy as np

from merge_core.events import (
    ChannelsKept,
    EpochFinished,
    Event,
    Progress,
    Resume,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.presets import find_preset
from merge_core.recipes import Recipe

SPACE = 8
PLAN = {
    "teacher_a": 4,
    "teacher_b": 4,
    "ensemble": 0,
    "big": 0,
    "gates": 6,
    "cut": 0,
    "fine_tune": 3,
}
"""Stage → epochs. Every epoch has 10 steps and costs 1000 FLOPs."""


def recipe() -> Recipe:
    """A recipe whose settings do not matter."""
    return find_preset("textures", "quick").recipe


def metrics_at(stage: str, state: float, epoch: int) -> dict[str, float]:
    """What an epoch reports; depends on all the epochs before it through `state`."""
    return {
        "train_loss": 1.0 / epoch,
        "heldout_accuracy": float(np.sin(state)),
        "lambda": float(len(stage)),
    }


def made_up(resume: Resume | None = None) -> Iterator[Event]:
    """The events of a run, or of the rest of one.

    The numbers of a stage follow a chaotic recurrence, so that resuming from a wrong state or
    skipping an epoch changes all that come after.
    """
    resume = resume or Resume()
    for stage, epochs in PLAN.items():
        yield StagePlanned(stage=stage, epochs=epochs, steps=10 * epochs, flops=1000.0 * epochs)
    for stage, epochs in PLAN.items():
        if stage in resume.finished:
            continue
        done, state = 0, 0.1 * len(stage)
        if resume.stage == stage:
            done = int(resume.checkpoint["epoch"])
            state = float(resume.checkpoint["state"])
        yield StageStarted(stage=stage, epoch=done)
        for epoch in range(done + 1, epochs + 1):
            yield Progress(stage=stage, step=10 * epoch - 5)
            state = 3.9 * state * (1 - state)
            now = {"epoch": np.array(epoch), "state": np.array(state)}
            yield EpochFinished(
                stage=stage,
                epoch=epoch,
                step=10 * epoch,
                metrics=metrics_at(stage, state, epoch),
                open_probabilities={"hidden": np.full(2 * SPACE, state, np.float32)}
                if stage == "gates"
                else {},
                checkpoint=lambda now=now: now,
            )
        if stage == "cut":
            yield kept()
        yield finished(stage, state)
    yield StudentReturned(stage="fine_tune", facts={"first_layer": {"weight": "w", "bias": None}})


def kept() -> ChannelsKept:
    """The even channels of teacher A and the odd ones of teacher B."""
    return ChannelsKept(
        space="hidden",
        kept=np.array([0, 2, 4, 6, 9, 11, 13, 15]),
        open_probability=np.linspace(0, 1, 2 * SPACE, dtype=np.float32),
        gate=np.linspace(1, 0, 2 * SPACE, dtype=np.float32),
        teachers=2,
    )


def finished(stage: str, state: float) -> StageFinished:
    """The end of a stage."""
    scores = {
        split: {"loss": 1 - state, "accuracy": state} for split in ("train", "heldout", "test")
    }
    arrays = {} if stage == "ensemble" else {"w": np.full((2, 3), state, np.float32)}
    facts = {"parameters": 6 * len(stage), "mean_error": 1e-7}
    return StageFinished(stage=stage, scores=scores, seconds=0.5, arrays=arrays, facts=facts)
