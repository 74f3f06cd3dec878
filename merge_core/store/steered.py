"""How a run was steered and where it can be forked, as a reader gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def kept_name(stage: str, epoch: int) -> str:
    """The name of the artifact with the state after an epoch, where that is kept for forks."""
    return f"{stage}@{epoch}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker made of a command.

    Attributes:
        command: the command's id.
        verb: "pause", "step", "go", "stop", "cut", "lambda", "rate".
        arguments: what came with it.
        stage: the stage in which it takes effect; None before the first.
        epoch: of a command that changes numbers, the first epoch of the gate stage that it holds
            for; else None.
        step: the step of `stage` at which it takes effect.
        refused: whether nothing was done.
        words: what was done, or the sentence that says why not.
        time: when it was answered, in seconds since 1970.
    """

    command: int
    verb: str
    arguments: Mapping[str, Any]
    stage: str | None
    epoch: int | None
    step: int
    refused: bool
    words: str
    time: float


@dataclass(frozen=True, kw_only=True)
class ForkPoint:
    """A moment from which a run can be forked.

    Attributes:
        stage: a stage's key.
        epoch: how many of its epochs are done; None for its end, with its scores.
    """

    stage: str
    epoch: int | None = None

    def __str__(self) -> str:
        return (
            f"the end of {self.stage}"
            if self.epoch is None
            else f"{self.stage}, epoch {self.epoch}"
        )


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A fork and where it left its parent.

    Attributes:
        run: the fork.
        parent: the run that it was forked from; it may have been deleted since.
        point: where it branched off.
    """

    run: str
    parent: str
    point: ForkPoint
