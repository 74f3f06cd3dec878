"""How the outcome of a crowd is told; the crowd itself is `netweld bench crowd`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core.bench_crowd import Outcome, Shares


def test_an_outcome_names_the_late_answers_and_what_was_lost():
    outcome = Outcome(
        watchers=30,
        runs=12,
        answers=[0.1] * 95 + [9.0] * 5,
        errors=["x"],
        commands=36,
        lost=2,
        slower=0.125,
        less=0.06,
        core=0.084,
        seconds=60.0,
    )
    text = "\n".join(outcome.lines())
    assert "95 % within 0.10 s" in text
    assert "| errors | 1 | 0 |" in text
    assert "2 of 36" in text
    assert "| +12 % | +25 % |" in text
    assert "under an equal share | -6 % |" in text
    assert "8.4 % of a core" in text


@given(spans=st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=1))
def test_shares_are_even_where_all_have_the_same_and_add_up(spans: list[tuple[float, float]]):
    even, uneven = Shares(), Shares()
    first = second = 0.0
    for shares in (even, uneven):
        shares.look({1: 0.0, 2: 0.0})
    for one, other in spans:
        first, second = first + one, second + other
        even.look({1: first, 2: first})
        uneven.look({1: first, 2: second})
    assert even.less() == pytest.approx(0)
    assert sum(uneven.had.values()) == pytest.approx(sum(uneven.fair.values()))
    half = (first + second) / 2
    assert uneven.less() == pytest.approx(1 - min(first, second) / half)


def test_who_comes_or_goes_between_two_looks_is_not_judged_by_them():
    shares = Shares()
    for taken in ({1: 0.0}, {1: 1.0, 2: 0.1}, {1: 2.0, 2: 1.1}, {2: 3.0}, {2: 4.0}):
        shares.look(taken)
    assert shares.had == pytest.approx({1: 1.0, 2: 2.0})
    assert shares.less() == pytest.approx(0)
