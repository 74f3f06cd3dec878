"""How far a run is and how long it will take, from its planned FLOPs (no torch)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENOUGH = 0.01
"""The share of a run's FLOPs that a session must have done before its speed says anything."""


@dataclass(frozen=True, kw_only=True)
class Headway:
    """How far a run is.

    Attributes:
        fraction: FLOPs done over FLOPs planned, 0 to 1; 0 before anything is planned.
        elapsed: seconds that worker processes have spent on the run, all sessions together, pauses
            left out.
        left: seconds to go at the speed of the running session, once it goes on where it is paused;
            None when it is not running or has not done enough to tell.
    """

    fraction: float
    elapsed: float
    left: float | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How far images are read from files, before a run has its first stage.

    Attributes:
        done: images that are read.
        of: how many there are.
        left: seconds to go at the speed so far; None when it is too early to tell.
    """

    done: int
    of: int
    left: float | None


def flops_done(stages: Sequence[Mapping[str, Any]], current: str | None, step: int) -> float:
    """FLOPs of the finished stages and of the steps done in the current one."""
    done = 0.0
    for stage in stages:
        if stage["finished"] is not None:
            done += stage["flops"]
        elif stage["stage"] == current and stage["steps"]:
            done += stage["flops"] * min(step / stage["steps"], 1.0)
    return done


def headway(
    stages: Sequence[Mapping[str, Any]],
    status: Mapping[str, Any],
    sessions: Sequence[Mapping[str, Any]],
) -> Headway:
    """How far a run was when its worker last gave a sign of life.

    All times are of the worker, whose clock is steady; that of whoever looks may be set.

    Args:
        stages: what `merge_core.store.RunReader.plan` returns.
        status, sessions: what its methods of these names return.
    """
    planned = sum(stage["flops"] for stage in stages)
    done = flops_done(stages, status["stage"], status["step"])
    fraction = done / planned if planned else 0.0
    if status["state"] == "finished":
        fraction = 1.0
    running = status["state"] in ("running", "paused")
    elapsed = 0.0
    for session in sessions:
        until = session["ended"] or status["heartbeat"]
        elapsed += max(until - session["started"] - session["paused"], 0.0)
    left = None
    if running and sessions and sessions[-1]["working"] is not None:
        session = sessions[-1]
        here = done - session["flops_before"]
        if planned and here >= ENOUGH * planned:
            spent = max(status["heartbeat"] - session["working"] - session["paused"], 0.0)
            left = (planned - done) * spent / here
    return Headway(fraction=fraction, elapsed=elapsed, left=left)
