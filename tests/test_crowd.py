"""How the outcome of a crowd is told; the crowd itself is `netweld bench crowd`."""

from merge_core.bench_crowd import Outcome


def test_an_outcome_names_the_late_answers_and_what_was_lost():
    outcome = Outcome(
        watchers=30,
        runs=12,
        answers=[0.1] * 95 + [9.0] * 5,
        errors=["x"],
        commands=36,
        lost=2,
        slower=0.125,
        core=0.084,
        seconds=60.0,
    )
    text = "\n".join(outcome.lines())
    assert "95 % within 0.10 s" in text
    assert "| errors | 1 | 0 |" in text
    assert "2 of 36" in text
    assert "| +12 % | +25 % |" in text
    assert "8.4 % of a core" in text
