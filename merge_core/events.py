"""What a running merge tells the outside: plain values, NumPy arrays, no torch.

Training and strategies yield events, the worker writes them to the store, views read them back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class StagePlanned:
    """A stage that this run will go through, announced once before the first stage starts.

    Attributes:
        stage: its key, one of `merge_core.stages`.
        epochs: epochs of training; 0 for a stage that only transforms or evaluates.
        steps: optimizer steps of training; 0 likewise.
        flops: training FLOPs counted for the whole stage (forward and backward, all steps).
    """

    stage: str
    epochs: int
    steps: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """A stage begins, or continues after a resume from `epoch` (0 when fresh)."""

    stage: str
    epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Optimizer steps done so far in the stage; several a second, only for bars and time left."""

    stage: str
    step: int


@dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """One epoch of training is over.

    Attributes:
        epoch: epochs done, from 1.
        step: optimizer steps done in this stage.
        metrics: e.g. `{"train_loss": ..., "train_accuracy": ..., "heldout_loss": ...,
            "heldout_accuracy": ..., "learning_rate": ..., "lambda": ..., "penalty": ...}`.
        open_probabilities: in the gate stage, P[gate > 0] per channel of every space,
            `{space: (channels,) float32}`; empty elsewhere.
        checkpoint: builds the state from which the stage can go on after this epoch; called only
            when the worker wants to write one, as it copies every tensor.
    """

    stage: str
    epoch: int
    step: int
    metrics: Mapping[str, float]
    open_probabilities: Arrays = field(default_factory=dict)
    checkpoint: Callable[[], Arrays]


@dataclass(frozen=True, kw_only=True)
class ChannelsKept:
    """The cut's choice: for each space, which channels of the big student survive.

    Attributes:
        space: name of the channel space.
        kept: indices into the big student's space, in the student's order; `(size,)` int64.
            Channel i of teacher t (0 for A, 1 for B) is index `t * size + i`.
        open_probability: P[gate > 0] of every channel of the big student at the cut,
            `(teachers * size,)` float32.
        gate: the deterministic gate value of every channel, `(teachers * size,)` float32.
        teachers: how many teachers were concatenated.
    """

    space: str
    kept: np.ndarray
    open_probability: np.ndarray
    gate: np.ndarray
    teachers: int


@dataclass(frozen=True, kw_only=True)
class StageFinished:
    """A stage is over: the network it leaves has been evaluated.

    Attributes:
        scores: `{split: {"loss": ..., "accuracy": ...}}` for the splits train, heldout, test;
            accuracy only for classification. Evaluated deterministically.
        seconds: wall time of the stage in this process.
        arrays: the stage's network (and whatever else it needs to be rebuilt), stored as one
            safetensors artifact named after the stage; empty for stages that leave no network of
            their own (the ensemble).
        facts: small JSON facts worth keeping, e.g. the worst law error, the largest difference
            between the big student and the teachers' mean; under "learned" what the network
            answers (`merge_core.learned.Learned`).
    """

    stage: str
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    arrays: Arrays = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudentReturned:
    """The merge is over: the stage whose network is the result, chosen by held-out score."""

    stage: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resume:
    """What an interrupted run already has, handed to the strategy that goes on with it.

    Attributes:
        finished: the `StageFinished` events of the stages that are over, arrays loaded, by stage.
        kept: the `ChannelsKept` events seen so far.
        stage: the stage that was cut off with a checkpoint, or None.
        checkpoint: its last checkpoint.
    """

    finished: Mapping[str, StageFinished] = field(default_factory=dict)
    kept: tuple[ChannelsKept, ...] = ()
    stage: str | None = None
    checkpoint: Arrays = field(default_factory=dict)


Event = (
    StagePlanned
    | StageStarted
    | Progress
    | EpochFinished
    | ChannelsKept
    | StageFinished
    | StudentReturned
)
