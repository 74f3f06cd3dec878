"""How it is told what looking costs; the measurement itself is `netweld bench watched`."""

import pytest

from merge_core.bench_watched import Outcome


@pytest.mark.parametrize(
    ("watched", "said"), [([4.0, 8.0, 9.0], "80 %"), ([4.0, 7.9, 9.0], "79 %")]
)
def test_medians_decide(watched: list[float], said: str):
    outcome = Outcome(unwatched=[2.0, 10.0, 11.0], watched=watched, threads=2)
    assert outcome.fraction == watched[1] / 10
    last = list(outcome.lines())[-1]
    assert f"has {said} of its unwatched speed" in last
    assert ("reaches the goal" in last) is (outcome.fraction >= 0.8)
    assert ("misses the goal" in last) is (outcome.fraction < 0.8)
