"""The measurements of `netweld bench graph`, on a network that takes no time."""

import re

import pytest
import torch

from merge_core import bench_graph
from merge_core.models.small import DigitsCNN


def numbers(line: str) -> list[float]:
    """All numbers of a line."""
    return [float(number) for number in re.findall(r"[-+]?[0-9.]*[0-9]", line)]


def test_every_measurement_is_a_line_with_its_ratio() -> None:
    model, example = DigitsCNN(), torch.randn(4, 1, 8, 8)
    seconds, ratio, forward, *_ = numbers(bench_graph.tracing(model, example, 5))
    assert seconds >= 0
    assert ratio > 1 > forward
    assert len(numbers(bench_graph.operations(model, example, 1))) == 4
    plain, gates, _ = numbers(bench_graph.gated_step(model, example, 1))
    assert plain > 0
    assert gates > 0


def test_the_peak_counts_what_is_held_at_once() -> None:
    with bench_graph.profile(profile_memory=True) as recorded:
        kept = torch.ones(1000, dtype=torch.float64)
        for _ in range(3):
            torch.ones(500, dtype=torch.float64).clone()
    assert 8000 + 8000 <= bench_graph._highest(recorded) < 8000 + 12000
    assert len(kept) == 1000


def test_medians_leave_the_first_turn_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 0.0, 5.0, 0.0, 2.0])
    monkeypatch.setattr(bench_graph.time, "perf_counter", lambda: next(clock))
    turns: list[None] = []
    assert bench_graph.medians(3, lambda: turns.append(None)) == [2.0]
    assert len(turns) == 4


def test_short_jobs_take_more_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 0.0, 5.0, 0.0, 2.0])
    monkeypatch.setattr(bench_graph.time, "perf_counter", lambda: next(clock))
    assert bench_graph.medians(1, lambda: None, at_least=7.5) == [2.0]
