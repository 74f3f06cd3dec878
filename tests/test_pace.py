"""How often a page is drawn again, by how many look on."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pages.pace import DRAWING, SHARE, shared_by


@given(here=st.integers(1, 500), every=st.floats(0.25, 4.0))
def test_no_crowd_costs_more_than_its_share(here: int, every: float) -> None:
    seconds = shared_by(here, every)
    assert here * DRAWING / seconds <= SHARE
    assert math.log2(seconds / every).is_integer()
    if seconds > every:
        assert here * DRAWING / (seconds / 2) > SHARE


def test_few_see_it_twice_a_second() -> None:
    assert [shared_by(here, 0.5) for here in (1, 5, 8, 30)] == [0.5, 0.5, 0.5, 2.0]
