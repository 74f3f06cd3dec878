"""The measurements of `netweld bench align`, on networks that take no time."""

import re
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from merge_core import bench_align
from merge_core.channels import trace
from merge_core.models.small import DigitsCNN


@pytest.mark.parametrize(("observed", "missed"), [(1.2, ""), (1.3, "  missed")])
def test_observing_is_held_against_the_forward_passes(
    observed: float, missed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def medians(_repeats: int, *jobs: Callable[[], object]) -> list[float]:
        for job in jobs:
            job()
        return [observed * 8e-3, 8e-3]

    monkeypatch.setattr(bench_align, "medians", medians)
    networks = [DigitsCNN().eval() for _ in range(2)]
    line = bench_align.activations(networks, torch.randn(8, 1, 8, 8), 4, 1)
    assert re.findall(r"\d+\.\d+", line) == [f"{observed * 1e3:.1f}", f"{observed:.2f}", "1000.0"]
    assert line.endswith(f"µs{missed}")


def test_matching_weights_is_a_line_with_its_objective() -> None:
    a, b = (DigitsCNN().eval() for _ in range(2))
    graph = trace(a, torch.randn(2, 1, 8, 8))
    line, seconds = bench_align.weights(a, b, graph, 1, 60.0)
    shown, start, end = (float(number) for number in re.findall(r"-?\d+\.\d+", line))
    assert shown == pytest.approx(seconds, abs=0.01)
    assert end >= start
    assert "2 spaces" in line
    assert not line.endswith("missed")
    assert bench_align.weights(a, b, graph, 1, 0.0)[0].endswith("missed")


def test_the_public_implementation_works_on_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (DigitsCNN().eval() for _ in range(2))
    inner = sum(float(one.detach().square().sum()) for one in a.parameters())

    class Descent:
        """Stands for the package's: it changes its second network in place."""

        def __init__(self, first: nn.Module, second: nn.Module, example: torch.Tensor) -> None:
            self.first, self.second = first, second
            assert second is not b

        def rebasin(self) -> None:
            self.second.load_state_dict(self.first.state_dict())

    monkeypatch.setitem(
        sys.modules, "rebasin", SimpleNamespace(PermutationCoordinateDescent=Descent)
    )
    line = bench_align.public(a, b, torch.randn(2, 1, 8, 8), 1e-9)
    assert line.endswith(f"to {inner:.1f}")
    assert not torch.equal(a.classifier.weight, b.classifier.weight)
