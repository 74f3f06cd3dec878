"""The laws of the channel graph on small networks of every common shape."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from merge_core.channels import (
    check,
    concatenate,
    flops,
    fold,
    permute,
    scaled_reads,
    select,
    trace,
    widths,
)
from merge_core.errors import GraphError


class Functional(nn.Module):
    """A LeNet written with functional calls and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3) / 6)
        self.bias = nn.Parameter(torch.randn(6))
        self.hidden = nn.Linear(6 * 9, 7)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.relu_(F.conv2d(x, self.weight, self.bias, padding=1))
        x = F.adaptive_avg_pool2d(x, 3)
        x = self.hidden(x.view(x.size(0), -1)).relu()
        return F.linear(x, self.last.weight, self.last.bias)


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        out += self.shortcut(x)
        return F.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4, 4, 1), Block(4, 8, 2), Block(8, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh(),
        nn.Linear(6, 3),
    )  # fmt: skip


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 2), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(20, 8), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(8, 4),
    )  # fmt: skip


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1),
        nn.BatchNorm2d(4), nn.PReLU(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


NETWORKS = {
    "perceptron": (perceptron, (4, 3, 4, 4)),
    "lenet": (lenet, (4, 3, 12, 12)),
    "functional": (Functional, (4, 1, 14, 14)),
    "vgg": (vgg, (4, 3, 8, 8)),
    "residual": (Residual, (4, 3, 8, 8)),
}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights as after training: no norm statistic, bias or scale at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator).to(tensor)
            tensor.data.mul_(0.5 + noise).add_(0.2 * noise)
    return model


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    factory, shape = NETWORKS[name]
    torch.manual_seed(0)
    return randomised(factory().to(dtype)), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_laws(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, example = build(name, dtype)
    assert check(model, trace(model, example), example).worst < tolerance


def test_residual_stream_is_one_space() -> None:
    model, example = build("residual")
    graph = trace(model, example)
    stem = graph.space("stem")
    assert stem.writers == ("stem", "blocks.0.conv2")
    assert stem.readers == ("blocks.0.conv1", "blocks.1.conv1", "blocks.1.shortcut.0")
    assert widths(graph) == {
        "input": 3, "stem": 4, "blocks.0.conv1": 4, "blocks.1.conv1": 8, "blocks.1.conv2": 8,
        "blocks.2.conv1": 8, "output": 5,
    }  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_big_student_has_the_same_spaces_twice_as_wide(name: str) -> None:
    model, example = build(name)
    graph = trace(model, example)
    big = trace(concatenate([model] * 2, graph), example)
    assert [(s.name, s.size) for s in big.free] == [(s.name, 2 * s.size) for s in graph.free]


@pytest.mark.parametrize("name", NETWORKS)
def test_trace_leaves_the_model_alone(name: str) -> None:
    model, example = build(name)
    before = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    model.train()
    first, second = trace(model, example), trace(model.eval(), example)
    assert first == second
    assert not model.training
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("per_example", [False, True])
def test_gates_cut_and_fold_agree(name: str, per_example: bool) -> None:
    """Closed gates, folded gates and the cut are one function."""
    model, example = build(name)
    graph = trace(model, example)
    big = concatenate([model, randomised(copy.deepcopy(model), 1)], graph).eval()
    graph = trace(big, example)
    generator = torch.Generator().manual_seed(2)
    kept = {s.name: torch.randperm(s.size, generator=generator)[: s.size // 2] for s in graph.free}
    gates = {s.name: torch.zeros(s.size, dtype=example.dtype) for s in graph.free}
    for space, index in kept.items():
        gates[space][index] = 1
    shaped = {k: g.expand(len(example), -1) if per_example else g for k, g in gates.items()}
    with scaled_reads(big, graph, shaped):
        gated = big(example)
    torch.testing.assert_close(fold(big, graph, gates)(example), gated)
    student = select(big, graph, kept)
    torch.testing.assert_close(student(example), gated)
    assert [tuple(p.shape) for p in student.parameters()] == [
        tuple(p.shape) for p in model.parameters()
    ]
    torch.testing.assert_close(big(example), concatenate([big], graph)(example))


def test_scales_receive_gradients() -> None:
    model, example = build("residual")
    graph = trace(model, example)
    for shape in ((), (len(example),)):
        scales = {
            s.name: torch.ones(*shape, s.size, dtype=example.dtype, requires_grad=True)
            for s in graph.free
        }
        with scaled_reads(model, graph, scales):
            model(example).square().sum().backward()
        assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in scales.values())


def test_results_can_be_saved_and_merged_again() -> None:
    model, example = build("residual")
    graph = trace(model, example)
    big = concatenate([model, randomised(copy.deepcopy(model), 1)], graph)
    twin = concatenate([model, model], graph)
    twin.load_state_dict(big.state_dict())
    torch.testing.assert_close(twin.eval()(example), big.eval()(example))
    both = concatenate([big, twin], trace(big, example)).eval()
    torch.testing.assert_close(both(example), big(example))
    torch.testing.assert_close(copy.deepcopy(both)(example), both(example))


def test_convex_weights() -> None:
    model, example = build("functional")
    other = randomised(copy.deepcopy(model), 3)
    big = concatenate([model, other, model], trace(model, example), [0.5, 0.25, 0.25])
    torch.testing.assert_close(big(example), 0.75 * model(example) + 0.25 * other(example))


def test_flops_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4))
    assert flops(model, torch.zeros(5, 3, 4, 4)) == {"0": 2 * 27 * 6 * 4, "3": 2 * 24 * 4}


def test_refusals_say_what_to_do() -> None:
    model, example = build("vgg")
    graph = trace(model, example)
    with pytest.raises(GraphError, match="no channel space 'nowhere'"):
        select(model, graph, {"nowhere": torch.arange(2)})
    with pytest.raises(GraphError, match="different indices from 0 to 5"):
        select(model, graph, {"0": torch.tensor([0, 6])})
    with pytest.raises(GraphError, match="not one of its 6 units"):
        permute(model, graph, {"0": torch.tensor([0, 0, 1, 2, 3, 4])})
    narrow = select(model, graph, {"0": torch.arange(5)})
    with pytest.raises(GraphError, match=r"'0.weight' is \(6, 3, 3, 3\) in teacher 1"):
        concatenate([model, narrow], graph)
