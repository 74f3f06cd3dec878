"""Hard-concrete gates: their distribution, their penalty, and that every space reaches half."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from merge_core.channels import (
    concatenate,
    detach,
    fold,
    permute,
    scaled_reads,
    select,
    trace,
)
from merge_core.devices import generator
from merge_core.errors import GraphError
from merge_core.gates import (
    HIGH,
    LOW,
    TEMPERATURE,
    Pull,
    gate,
    gate_value,
    gates_of,
    half_penalty,
    most_open_half,
    open_probability,
    pull_to_half,
    sample,
)
from merge_core.models import build
from merge_core.recipes import PAPER_SCHEDULE, Gates


def hard_concrete_cdf(value: float, logit: float) -> float:
    """P[g ≤ value] for 0 ≤ value < 1, from the paper of Louizos et al. (their equation 24)."""
    stretched = (value - LOW) / (HIGH - LOW)
    x = TEMPERATURE * (math.log(stretched) - math.log(1 - stretched)) - logit
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("value", [0.0, 0.25, 0.7, 0.99])
def test_samples_follow_the_hard_concrete_distribution(logit: float, value: float) -> None:
    n = 40_000
    drawn = sample(torch.full((1,), logit), n, generator(0, "test"))
    expected = hard_concrete_cdf(value, logit)
    spread = math.sqrt(expected * (1 - expected) / n)
    assert float((drawn <= value).float().mean()) == pytest.approx(expected, abs=5 * spread + 1e-4)


@given(st.floats(-6, 6))
def test_open_probability_is_the_mass_above_zero(logit: float) -> None:
    p = open_probability(torch.tensor(logit, dtype=torch.float64))
    assert float(p) == pytest.approx(1 - hard_concrete_cdf(0.0, logit), rel=1e-9)


def test_deterministic_gate_is_the_stretched_sigmoid() -> None:
    logits = torch.tensor([-10.0, 0.0, 1.0, 10.0])
    expected = [0.0, 0.5, 1.2 / (1 + math.exp(-1)) - 0.1, 1.0]
    assert gate_value(logits).tolist() == pytest.approx(expected, abs=1e-6)


def test_penalty_is_the_papers() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 5.0], dtype=torch.float64)
    mean = sum(1 - hard_concrete_cdf(0.0, float(a)) for a in logits) / 4
    assert float(half_penalty(logits)) == pytest.approx((0.5 - mean) ** 2, rel=1e-9)


@given(st.integers(2, 40), st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_weak_pull_is_a_gradient_step_on_the_penalty(width: int, seed: int) -> None:
    logits = torch.randn(width, dtype=torch.float64, generator=generator(seed, "logits")) + 1
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(half_penalty(logits), logits)
    strength = 1e-6
    moved = (
        pull_to_half(logits.detach(), Pull(strength, shift=False)) - logits.detach()
    ) / strength
    torch.testing.assert_close(moved, -width * gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("width", [2, 16, 200, 2048])
@pytest.mark.parametrize("steps", [6, 40, 400, 6000])
@pytest.mark.parametrize("start", [1.0, 3.0])
@pytest.mark.parametrize("learning_rate", [0.1, 2.0])
def test_every_space_reaches_half_at_any_width_and_length(
    width: int, steps: int, start: float, learning_rate: float
) -> None:
    """Even when the error wants every gate open, each to a different degree.

    Its gradient reaches a logit through the gate, so like the penalty's it fades as the gate
    saturates; 0.05 per open gate is far above what runs show.
    """
    gates = Gates(start=start, learning_rate=learning_rate)
    logits = torch.full((width,), start)
    wish = torch.linspace(0, 0.05, width)
    for step in range(steps):
        p = open_probability(logits)
        logits = logits + gates.learning_rate / (1 - 0.9) * wish * p * (1 - p)
        weight = PAPER_SCHEDULE.at(step / steps)
        logits = pull_to_half(logits, Pull.at(weight, gates.pull, step, steps))
    assert float(open_probability(logits).mean()) == pytest.approx(0.5, abs=0.02)


def test_kept_channels_are_the_most_open_half_and_ties_go_to_the_lower_index() -> None:
    assert most_open_half(torch.tensor([0.0, 3.0, -1.0, 2.0]), 2).tolist() == [1, 3]
    assert most_open_half(torch.zeros(6), 2).tolist() == [0, 1, 2]
    assert most_open_half(torch.tensor([5.0, 1.0, 4.0, 3.0, 2.0, 0.0]), 3).tolist() == [0, 2]


class Attentive(nn.Module):
    """A stream read by attention (as one fused function) and by a convolution called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Linear(8, 6)
        self.filters = nn.Parameter(torch.randn(7, 6, 1, generator=generator(0, "filters")))
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = torch.relu(self.mlp(x)).transpose(1, 2)
        x = nn.functional.conv1d(input=x, weight=self.filters)
        return self.head(torch.relu(x).mean(2))


def test_every_gate_learns_whatever_reads_its_space() -> None:
    network, x = Attentive(), torch.randn(4, 3, 5, generator=generator(0, "x"))
    graph = trace(network, x)
    gated = gate(network, graph, start=0.0, spread=0.1, draws=generator(0, "gates"))
    gated.train()(x).square().sum().backward()
    gates = gates_of(gated)
    assert gates.values.grad is not None
    for name, gradient in gates.spaces(gates.values.grad).items():
        assert bool((gradient != 0).any()), name


class Half(nn.Module):
    """A layer that reads the first half of a space, and one that reads each channel twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.first = nn.Linear(4, 3)
        self.pairs = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.embed(x))
        return self.first(x[:, :4]) + self.pairs(torch.stack([x, -x], 2).flatten(1))


def test_scales_reach_parts_and_repetitions_of_a_space() -> None:
    network, x = Half(), torch.randn(4, 5, generator=generator(0, "x"))
    graph = trace(network, x)
    draws = generator(0, "scale")
    scales = {space.name: torch.rand(space.size, generator=draws) for space in graph.free}
    with scaled_reads(network, graph, scales):
        found = network(x)
    written = graph.axes["embed.weight"][0]
    assert written is not None
    places = zip(written.space.tolist(), written.unit.tolist(), strict=True)
    scale = [scales[graph.spaces[number].name][unit] for number, unit in places]
    embedded = torch.relu(network.embed(x)) * torch.stack(scale)
    twice = torch.stack([embedded, -embedded], 2).flatten(1)
    torch.testing.assert_close(found, network.first(embedded[:, :4]) + network.pairs(twice))


def test_scales_per_example_are_those_of_each_example_alone() -> None:
    """Through attention, whose batch is not the first dimension inside, as anywhere else."""
    network, x = Attentive(), torch.randn(4, 3, 5, generator=generator(0, "x"))
    graph = trace(network, x)
    draws = generator(0, "scales")
    scales = {s.name: torch.rand(4, s.size, generator=draws) for s in graph.free}
    with scaled_reads(network, graph, scales):
        together = network(x)
    for i in range(4):
        with scaled_reads(network, graph, {name: s[i] for name, s in scales.items()}):
            torch.testing.assert_close(network(x[i : i + 1]), together[i : i + 1])
    for i, name in enumerate(scales):
        changed = {**scales, name: scales[name].flip(0)}
        with scaled_reads(network, graph, changed):
            assert not torch.equal(network(x), together), (i, name)


@pytest.mark.parametrize("one_for_all", [True, False])
def test_scales_and_their_gradients_are_alike_in_every_layout(one_for_all: bool) -> None:
    """Images as they lie in memory by default, and with their channels last."""
    network = build("digits-cnn", 0).double().train()
    x = torch.randn(6, 1, 8, 8, generator=generator(0, "x"), dtype=torch.float64)
    graph = trace(network, x)
    draws = generator(0, "scales")
    found: list[list[torch.Tensor]] = []
    scales = {
        s.name: torch.rand(1 if one_for_all else 6, s.size, generator=draws, dtype=x.dtype)
        for s in graph.free
    }
    for layout in (torch.contiguous_format, torch.channels_last):
        written: list[torch.Tensor] = []
        mine = {name: scale.clone().requires_grad_() for name, scale in scales.items()}
        probe = copy.deepcopy(network).to(memory_format=layout)
        probe.get_submodule("features.0.0").register_forward_hook(
            lambda module, args, out, written=written: written.append(out)
        )
        with scaled_reads(probe, graph, mine):
            out = probe(x.contiguous(memory_format=layout))
        out.square().sum().backward()
        assert written[0].is_contiguous(memory_format=layout)
        gradients = [each.grad for each in (*mine.values(), *probe.parameters())]
        found.append([out.detach(), *(each for each in gradients if each is not None)])
    assert len(found[0]) > 1 + len(scales)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_gated_network_is_one_of_its_class_and_goes_everywhere() -> None:
    """Copied, saved, traced, permuted, cut and merged again, it computes what it should."""
    x = torch.randn(4, 3, 5, generator=generator(0, "x"))
    plain = Attentive()
    graph = trace(plain, x)
    gated = gate(plain, graph, start=0.0, spread=1.0, draws=generator(0, "gates")).eval()
    assert type(gated) is Attentive
    assert [p.data_ptr() for p in gated.parameters()] != [p.data_ptr() for p in plain.parameters()]
    with scaled_reads(plain, graph, gates_of(gated).deterministic()):
        expected = plain(x)
    torch.testing.assert_close(gated(x), expected)
    assert trace(gated, x) == graph
    fresh = gate(Attentive(), graph, start=3.0, spread=0.0, draws=generator(1, "gates")).eval()
    fresh.load_state_dict(gated.state_dict())
    orders = {s.name: torch.arange(s.size).flip(0) for s in graph.free}
    permuted = permute(gated, graph, orders)
    twice = concatenate([gated, permuted], trace(gated, x))
    for made in (copy.deepcopy(gated), fresh, permuted, twice):
        assert type(made) is Attentive
        torch.testing.assert_close(made(x), expected)
    again = trace(twice, x)
    first = {s.name: torch.arange(s.size // 2) for s in again.free}
    one = concatenate([gated, permuted], graph, [1.0, 0.0])
    torch.testing.assert_close(select(one, again, first)(x), expected)
    torch.testing.assert_close(
        detach(fold(gated, graph, gates_of(gated).deterministic()))(x), expected
    )
    with pytest.raises(GraphError, match="already"):
        gate(gated, graph, start=0.0, spread=0.1, draws=generator(0, "gates"))
    with pytest.raises(GraphError, match="all of them gates, or none"):
        concatenate([gated, plain], graph)


def test_a_gated_network_that_fails_leaves_no_scales_active() -> None:
    x = torch.randn(4, 3, 5, generator=generator(0, "x"))
    plain = Attentive()
    gated = gate(plain, trace(plain, x), start=0.0, spread=1.0, draws=generator(0, "gates")).eval()
    before, bare = gated(x), plain.eval()(x)

    def fail(*_: object) -> None:
        raise RuntimeError("as planned")

    *_, last = (module for module in gated.modules() if isinstance(module, nn.Linear))
    failing = last.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="as planned"):
        gated(x)
    failing.remove()
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.equal(plain(x), bare)
    assert torch.equal(gated(x), before)
