"""How it is told what looking costs; the measurement itself is `netweld bench watched`."""

import pytest

from merge_core.bench_watched import Outcome, Turn


def turns(speeds: list[float], looking: float) -> list[Turn]:
    return [Turn(speed=speed, looking=looking) for speed in speeds]


@pytest.mark.parametrize(("middle", "said"), [(8.0, "80 %"), (7.9, "79 %")])
def test_the_median_of_neighbouring_turns_decides(middle: float, said: str):
    """Each turn is compared with its neighbour, however the machine's speed drifts."""
    outcome = Outcome(
        unwatched=turns([2.0, 10.0, 100.0], 0.0),
        watched=turns([1.0, middle, 99.0], 0.25),
        model="patch-cnn",
        threads=2,
    )
    assert outcome.fraction == middle / 10
    *table, last = outcome.lines()
    assert f"| 1.0, {middle:.1f}, 99.0 | 0.25 cores |" in table[3]
    assert f"has {said} of its unwatched speed" in last
    assert ("reaches the goal" in last) is (outcome.fraction >= 0.8)
    assert ("misses the goal" in last) is (outcome.fraction < 0.8)
