"""Streaming moments against NumPy on what plain hooks capture, and what they leave behind."""

import copy
import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from test_channels import Residual, randomised
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from merge_core.activations import Moments, observe, reads
from merge_core.channels import ChannelGraph, permute, trace
from merge_core.errors import DataError, DivergedError, GraphError
from merge_core.models.small import LeNet


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh(),
        nn.Linear(6, 3),
    )  # fmt: skip


def vit() -> nn.Module:
    return VisionTransformer(16, 8, 2, 4, 16, 24, num_classes=7)


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 3, groups=3), nn.ReLU(), nn.Conv2d(9, 2, 1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (3, 4, 4)),
    "lenet": (LeNet, (1, 28, 28)),
    "residual": (Residual, (3, 6, 6)),
    "vit": (vit, (3, 16, 16)),
    "grouped": (grouped, (3, 4, 4)),
}


def situation(
    name: str, examples: int = 12
) -> tuple[list[nn.Module], ChannelGraph, Tensor, torch.Generator]:
    """Two networks, their graph and inputs, in float64."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    networks = [randomised(make().double(), seed) for seed in (1, 2)]
    draws = torch.Generator().manual_seed(3)
    inputs = torch.randn(examples, *shape, generator=draws, dtype=torch.float64)
    return networks, trace(networks[0], inputs[:2]), inputs, draws


def captured(network: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """What a layer is given in eval mode, by a plain hook."""
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    with torch.no_grad():
        copy.deepcopy(network.eval())(inputs)
    handle.remove()
    return seen[0]


# How the input of the first reader of a space becomes (units, samples).
FIRST_READS: dict[str, dict[str, tuple[str, Callable[[Tensor], Tensor]]]] = {
    "perceptron": {"1": ("4", lambda x: x.T), "4": ("6", lambda x: x.T)},
    "lenet": {
        "features.0": ("features.3", lambda x: x.transpose(0, 1).flatten(1)),
        "features.3": ("classifier.0", lambda x: x.view(-1, 16, 25).transpose(0, 1).flatten(1)),
        "classifier.0": ("classifier.2", lambda x: x.T),
        "classifier.2": ("classifier.4", lambda x: x.T),
    },
    "residual": {
        "stem": ("blocks.0.conv1", lambda x: x.transpose(0, 1).flatten(1)),
        "blocks.1.conv1": ("blocks.1.conv2", lambda x: x.transpose(0, 1).flatten(1)),
        "blocks.1.conv2": ("blocks.2.conv1", lambda x: x.transpose(0, 1).flatten(1)),
    },
    "vit": {
        "encoder.layers.encoder_layer_1.mlp.0": (
            "encoder.layers.encoder_layer_1.mlp.3",
            lambda x: x.flatten(0, 1).T,
        ),
    },
    "grouped": {
        "0": ("4", lambda x: x.unflatten(1, (3, 3)).transpose(0, 1).flatten(1)),
    },
}


@pytest.mark.parametrize(
    ("name", "space"), [(name, space) for name, of in FIRST_READS.items() for space in of]
)
def test_moments_are_numpys(name: str, space: str) -> None:
    networks, graph, inputs, _ = situation(name)
    layer, samples_of = FIRST_READS[name][space]
    found = observe(networks, graph, inputs.split(5))[space]
    rows = np.concatenate([samples_of(captured(n, layer, inputs)).numpy() for n in networks])
    assert found.count == rows.shape[1]
    assert found.size * 2 == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(rows, bias=True), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_free_space_is_observed_and_a_permuted_copy_has_permuted_moments(name: str) -> None:
    (network, _), graph, inputs, draws = situation(name)
    orders = {s.name: torch.randperm(s.size, generator=draws) for s in graph.free}
    found = observe([network, permute(network, graph, orders)], graph, inputs.split(5))
    assert set(found) == set(orders)
    for space, order in orders.items():
        moments, own = found[space], found[space].between(0, 0)
        torch.testing.assert_close(moments.between(0, 1), own[:, order], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            moments.between(1, 1), own[order][:, order], rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(moments.mean[moments.of(1)], moments.mean[: len(order)][order])
        assert (moments.variance(0) > 0).any()


def test_heads_are_compared_channel_by_channel() -> None:
    """What attention's last projection reads, computed by hand."""
    networks, graph, inputs, _ = situation("vit")
    space = next(
        s.name
        for s in graph.free
        if "encoder.layers.encoder_layer_0.self_attention.out_proj" in s.readers
    )
    rows = []
    for network in networks:
        attention = network.get_submodule("encoder.layers.encoder_layer_0.self_attention")
        assert isinstance(attention, nn.MultiheadAttention)
        x = captured(network, "encoder.layers.encoder_layer_0.self_attention", inputs)
        with torch.no_grad():
            q, k, v = (
                part.unflatten(-1, (4, 4)).transpose(1, 2)
                for part in (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
            )
            heads = (q @ k.mT / 2).softmax(-1) @ v
        rows.append(heads.transpose(0, 1).flatten(1).numpy())
    found = observe(networks, graph, inputs.split(5))[space]
    np.testing.assert_allclose(
        found.covariance, np.cov(np.concatenate(rows), bias=True), rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_observing_changes_nothing(name: str) -> None:
    (network, other), graph, inputs, _ = situation(name)
    with torch.no_grad():
        expected = network.eval()(inputs)
    network.train()
    next(network.children()).eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    observe([network, other], graph, inputs.split(5))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    outputs = []
    with reads(network, graph, [graph.free[0].name], lambda _name, _value: None) as run:
        handle = network.register_forward_hook(lambda _m, _a, out: outputs.append(out))
        run(inputs)
        handle.remove()
    torch.testing.assert_close(outputs[0], expected)


def test_the_order_of_batches_and_their_sizes_do_not_matter() -> None:
    networks, graph, inputs, _ = situation("residual", 30)
    one = observe(networks, graph, [inputs])
    many = observe(networks, graph, reversed(inputs.split(7)))
    for space, moments in one.items():
        torch.testing.assert_close(many[space].covariance, moments.covariance)
        torch.testing.assert_close(many[space].mean, moments.mean)
        assert many[space].count == moments.count


def test_a_mean_far_from_zero_costs_no_precision() -> None:
    """Float32 values around 10,000 with deviation 1; batches that drift, too."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network[0].get_parameter("bias").fill_(10_000)
    batches = [torch.randn(64, 2, generator=draws) + step for step in range(20)]
    graph = trace(network, batches[0])
    found = observe([network], graph, batches)["0"]
    with torch.no_grad():
        rows = network[0](torch.cat(batches)).T.double().numpy()
    np.testing.assert_allclose(found.covariance, np.cov(rows, bias=True), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean, rows.mean(1), rtol=1e-7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_float32_in_every_memory_layout(layout: torch.memory_format) -> None:
    networks, graph, inputs, _ = situation("residual")
    expected = observe(networks, graph, [inputs])
    networks = [network.float().to(memory_format=layout) for network in networks]
    found = observe(networks, graph, inputs.float().contiguous(memory_format=layout).split(5))
    for space, moments in expected.items():
        assert found[space].covariance.dtype == torch.float64
        torch.testing.assert_close(
            found[space].covariance, moments.covariance, rtol=1e-4, atol=1e-5
        )


def test_nothing_is_left_behind_after_an_error() -> None:
    networks, graph, inputs, _ = situation("perceptron")
    networks[0].train()
    layer = networks[0].get_submodule("6")

    def fail_later(_module: nn.Module, args: tuple[Tensor]) -> None:
        if len(args[0]) == 3:
            raise RuntimeError("as planned")

    handle = layer.register_forward_pre_hook(fail_later)
    with pytest.raises(RuntimeError, match="as planned"):
        observe(networks, graph, [inputs, inputs[:3]])
    handle.remove()
    assert all(module.training for module in networks[0].modules())
    assert torch.overrides._get_current_function_mode_stack() == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in networks[0].modules())
    assert networks[0](inputs).requires_grad


class Overwriting(nn.Module):
    """Changes in place what its second layer was given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        return self.third(x.mul_(7) + y)


def test_values_are_taken_when_they_are_read() -> None:
    network = randomised(Overwriting().double())
    inputs = torch.randn(8, 2, dtype=torch.float64)
    found = observe([network], trace(network, inputs), [inputs])["first"]
    with torch.no_grad():
        rows = network.get_submodule("first")(inputs).T.numpy()
    np.testing.assert_allclose(found.covariance, np.cov(rows, bias=True), rtol=1e-10)


def test_each_space_is_taken_once_in_a_pass_and_functions_need_no_module() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.step = nn.Linear(2, 3), nn.Linear(3, 3)
            self.weight = nn.Parameter(torch.randn(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for _ in range(3):
                x = x + self.step(x).relu()
            return x @ self.weight.T

    network = randomised(Functional().double())
    inputs = torch.randn(8, 2, dtype=torch.float64)
    graph = trace(network, inputs)
    seen: list[tuple[str, tuple[int, ...]]] = []
    with reads(
        network, graph, ["first"], lambda name, value: seen.append((name, tuple(value.shape)))
    ) as run:
        run(inputs)
        run(inputs[:5])
    assert seen == [("first", (3, 8, 1)), ("first", (3, 5, 1))]


def test_memory_does_not_grow_with_the_batches() -> None:
    """No tensor is kept from batch to batch, however many there are."""
    networks, graph, inputs, _ = situation("residual")
    alive: list[int] = []

    def batches(count: int) -> Iterator[Tensor]:
        for _ in range(count):
            alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
            yield inputs

    observe(networks, graph, batches(12))
    assert len(alive) == 12
    assert alive[-1] == alive[2]


def test_refusals() -> None:
    networks, graph, inputs, _ = situation("perceptron")
    with pytest.raises(GraphError, match="no channel space 'nowhere'"):
        observe(networks, graph, [inputs], ["nowhere"])
    with pytest.raises(DataError, match="at least one batch"):
        observe(networks, graph, [])
    with pytest.raises(GraphError, match=r"has no .*weight. with"):
        observe([nn.Linear(48, 3).double()], graph, [inputs])
    with torch.no_grad():
        networks[1].get_submodule("4").get_parameter("bias")[2] = float("nan")
    with pytest.raises(DivergedError, match="Network 2 computes values in '4'"):
        observe(networks, graph, [inputs])


def test_some_spaces_only() -> None:
    networks, graph, inputs, _ = situation("perceptron")
    found = observe(networks, graph, [inputs], ["4"])
    assert list(found) == ["4"]
    torch.testing.assert_close(
        found["4"].covariance, observe(networks, graph, [inputs])["4"].covariance
    )


def test_blocks_of_three_networks() -> None:
    """The block (2, 0) is the transposed block (0, 2), and each pair alone gives the same block."""
    (first, second), graph, inputs, _ = situation("perceptron")
    third = randomised(perceptron().double(), 5)
    moments: Moments = observe([first, second, third], graph, [inputs])["4"]
    assert moments.networks == 3
    torch.testing.assert_close(moments.between(2, 0), moments.between(0, 2).T)
    pair = observe([first, third], graph, [inputs])["4"]
    torch.testing.assert_close(pair.between(0, 1), moments.between(0, 2))
