"""How far a run is, and how long it will take."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core.progress import Headway, headway


def at(done: float, before: float, speed: float, paused: float = 0.0, **changes: Any) -> Headway:
    """The headway of a 1000-FLOP stage, `done` so far, of which `before` by an earlier session."""
    stage = {"stage": "gates", "steps": 1000, "flops": 1000.0, "finished": None}
    beat = 50.0 + (done - before) / speed + paused
    status = {"state": "running", "stage": "gates", "step": done, "heartbeat": beat, **changes}
    session = {"started": 40.0, "working": 50.0, "flops_before": before, "ended": None}
    session |= {"paused": paused}
    return headway([stage], status, [session])


@given(
    before=st.integers(0, 900),
    here=st.integers(10, 100),
    speed=st.floats(0.01, 1e6),
    paused=st.floats(0, 1e4),
    state=st.sampled_from(["running", "paused"]),
)
def test_steady_work_ends_when_foretold(
    before: int, here: int, speed: float, paused: float, state: str
):
    """Time that was spent waiting counts neither as work nor for the speed."""
    done = before + here
    found = at(done, before, speed, paused, state=state)
    assert found.fraction == pytest.approx(done / 1000)
    assert found.left == pytest.approx((1000 - done) / speed, rel=1e-4, abs=1e-6)
    assert found.elapsed == pytest.approx(10 + here / speed, abs=1e-6)


def test_nothing_is_foretold_too_early_or_of_a_run_that_stands():
    assert at(509, 500, speed=1.0).left is None
    assert at(600, 500, speed=1.0, state="stopped").left is None
    assert at(600, 500, speed=1.0, state="lost").left is None


def test_run_without_plan_is_at_its_beginning():
    status = {"state": "queued", "stage": None, "step": 0, "heartbeat": None}
    assert headway([], status, []) == Headway(fraction=0.0, elapsed=0.0, left=None)
