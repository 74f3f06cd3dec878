"""Re-estimated batch-norm statistics, and REPAIR, against what is computed directly."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from merge_core.activations import observe
from merge_core.barrier import between
from merge_core.channels import trace
from merge_core.data import Split, augmentation
from merge_core.devices import generator
from merge_core.matching import match_zips, zipped
from merge_core.repair import has_norm_statistics, norms_reestimated, repaired
from merge_core.training import state_arrays
from merge_core.written import Layer, measured, steps


@pytest.fixture
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.ReLU())
    net[1].get_buffer("running_mean").fill_(7.0)
    return net


@pytest.mark.parametrize("batch_size", [60, 20])
def test_statistics_are_the_mean_of_the_batches(network: nn.Sequential, batch_size: int) -> None:
    inputs = torch.randn(60, 1, 6, 6, generator=generator(0, "inputs"))
    split = Split(inputs, torch.zeros(60, dtype=torch.int64))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fresh = norms_reestimated(
        network, split, batch_size, augmentation("none"), generator(0, "draws")
    )
    convolution = network[0]
    with torch.no_grad():
        seen = [convolution(part).transpose(0, 1).flatten(1) for part in inputs.split(batch_size)]
    torch.testing.assert_close(
        fresh[1].get_buffer("running_mean"), torch.stack([s.mean(1) for s in seen]).mean(0)
    )
    torch.testing.assert_close(
        fresh[1].get_buffer("running_var"), torch.stack([s.var(1) for s in seen]).mean(0)
    )
    assert fresh[1].momentum == 0.3
    assert not fresh.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(fresh.get_parameter("0.weight"), network.get_parameter("0.weight"))


def test_networks_without_statistics_are_told_apart(network: nn.Sequential) -> None:
    assert has_norm_statistics(network)
    assert not has_norm_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


class Plain(nn.Module):
    """Convolutions and linear layers without norms; two layers without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3, groups=2, bias=False)
        self.third, self.hidden = nn.Conv2d(6, 5, 1), nn.Linear(20, 7, bias=False)
        self.last, self.head = nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x).relu()).relu()).relu()
        x = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.head(self.last(self.hidden(x).relu()).relu())


CORRECTED = ("first", "second", "third", "hidden", "last")


def teachers(make: Callable[[], nn.Module] = Plain, count: int = 2) -> list[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make().eval() for _ in range(count)]


def images(number: int = 120, channels: int = 2) -> Tensor:
    return torch.randn(number, channels, 8, 8, generator=generator(0, "images"))


@torch.no_grad()
def written(network: nn.Module, layers: Sequence[str], inputs: Tensor) -> dict[str, Tensor]:
    """Mean and deviation of every channel that a layer writes, by hooks; `(2, channels)`."""
    found: dict[str, Tensor] = {}
    handles = []
    for name in layers:

        def keep(module: nn.Module, given: object, out: Tensor, name: str = name) -> None:
            rows = out.double().movedim(1, 0).flatten(1)
            found[name] = torch.stack([rows.mean(1), rows.std(1, correction=0)])

        handles.append(network.get_submodule(name).register_forward_hook(keep))
    network(inputs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("batch_size", [120, 50])
def test_repair_gives_every_channel_the_teachers_mean_and_deviation(batch_size: int) -> None:
    a, b = teachers()
    inputs = images()
    merged = between(a, b, 0.5)
    before = state_arrays(merged)
    graph = trace(a, inputs[:2])
    fixed = repaired(merged, [a, b], graph, inputs, batch_size)
    assert type(fixed) is Plain
    assert {k: v.shape for k, v in fixed.state_dict().items()} == {
        k: v.shape for k, v in merged.state_dict().items()
    }
    assert all((before[k] == v).all() for k, v in state_arrays(merged).items())
    seen, old, *ends = (written(net, CORRECTED, inputs) for net in (fixed, merged, a, b))
    for name in CORRECTED:
        mean, deviation = (ends[0][name] + ends[1][name]) / 2
        # A group of a grouped convolution is one unit, but each of its channels is corrected.
        torch.testing.assert_close(seen[name][1], deviation, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(old[name][1], deviation, rtol=1e-2)
        if name in ("second", "hidden"):  # no bias: the means stay where scaling puts them
            assert not torch.allclose(seen[name][0], mean, rtol=1e-2)
        else:
            torch.testing.assert_close(seen[name][0], mean, rtol=1e-4, atol=1e-5)
    assert torch.equal(fixed.get_parameter("head.weight"), merged.get_parameter("head.weight"))


@pytest.mark.parametrize("up_to", [1, 3])
def test_repair_of_a_wider_network_gives_each_channel_its_own_teacher_s_figures(up_to: int) -> None:
    """Zipped in part: pairs get their mean, channels that stand side by side what was theirs."""
    nets = teachers()
    inputs = images()
    graph = trace(nets[0], inputs[:2])
    names = [space.name for space in graph.free]
    pairs = match_zips(observe(nets, graph, [inputs]))
    apart = {name: torch.arange(2 * graph.space(name).size)[:, None] for name in names[up_to:]}
    merged = zipped(nets[0], nets[1], graph, pairs, names[up_to - 1]).eval()
    sources = {name: pairs[name] for name in names[:up_to]} | apart
    fixed = repaired(merged, nets, graph, inputs, 60, sources=sources)
    seen, old, *ends = (written(net, CORRECTED, inputs) for net in (fixed, merged, *nets))
    for name in CORRECTED:
        space = "first" if name == "second" else name  # the groups of the second are units of it
        both = torch.cat([end[name] for end in ends], 1).view(2, 2 * graph.space(space).size, -1)
        expected = both[:, sources[space]].mean(2).flatten(1)
        torch.testing.assert_close(seen[name][1], expected[1], rtol=1e-4, atol=1e-5)
        if name not in ("second", "hidden"):  # which have no bias to shift the means with
            torch.testing.assert_close(seen[name][0], expected[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(old["last"][1], seen["last"][1], rtol=1e-2)


def test_repair_of_a_teacher_by_itself_changes_nothing() -> None:
    (a,) = teachers(count=1)
    inputs = images()
    fixed = repaired(a, [a, a], trace(a, inputs[:2]), inputs, 50)
    torch.testing.assert_close(fixed(inputs), a(inputs), rtol=1e-4, atol=1e-5)


def test_repair_takes_shares_and_sources() -> None:
    a, b = teachers()
    inputs = images()
    graph = trace(a, inputs[:2])
    merged = between(a, b, 0.25)
    ends = [written(net, ["third", "last"], inputs) for net in (a, b)]
    fixed = repaired(merged, [a, b], graph, inputs, 120, shares=[0.75, 0.25])
    expected = 0.75 * ends[0]["third"] + 0.25 * ends[1]["third"]
    torch.testing.assert_close(
        written(fixed, ["third"], inputs)["third"], expected, rtol=1e-4, atol=1e-5
    )
    by_layer = {"third.weight": [0.75, 0.25], "nobody": [1.0, 0.0]}
    named = repaired(merged, [a, b], graph, inputs, 120, shares=by_layer)
    torch.testing.assert_close(
        written(named, ["third"], inputs)["third"], expected, rtol=1e-4, atol=1e-5
    )
    sources = {"third": torch.tensor([[5], [1], [8], [3], [9]])}
    fixed = repaired(merged, [a, b], graph, inputs, 120, sources=sources)
    both = torch.cat([end["third"] for end in ends], 1)
    seen = written(fixed, ["third", "last"], inputs)
    torch.testing.assert_close(seen["third"], both[:, [5, 1, 8, 3, 9]], rtol=1e-4, atol=1e-5)
    mean = (ends[0]["last"] + ends[1]["last"]) / 2
    torch.testing.assert_close(seen["last"], mean, rtol=1e-4, atol=1e-5)


class Half(nn.Module):
    """A norm, then layers without one, then a norm behind one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.normed, self.norm = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.plain, self.after = nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 3)
        self.late, self.head = nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.normed(x)).relu()
        return self.head(self.late(self.after(self.plain(x).relu())).relu().mean((2, 3)))


def test_repair_sets_norms_and_what_has_none_in_one_order() -> None:
    inputs = images()
    found = teachers(Half)
    for network in found:
        network.train()(inputs)
        network.eval()
    a, b = found
    merged = between(a, b, 0.5)
    fixed = repaired(merged, [a, b], trace(a, inputs[:2]), inputs, len(inputs))
    assert not fixed.training
    for name in ("normed", "after"):  # their norms do it, exactly on one batch
        key = f"{name}.weight"
        assert torch.equal(fixed.get_parameter(key), merged.get_parameter(key))
    seen = written(fixed, ["norm", "plain", "late"], inputs)
    for norm in ("norm", "late"):
        expected = torch.stack([torch.zeros(len(seen[norm][0])), torch.ones(len(seen[norm][0]))])
        torch.testing.assert_close(seen[norm], expected.double(), rtol=1e-2, atol=1e-3)
    goal = (written(a, ["plain"], inputs)["plain"] + written(b, ["plain"], inputs)["plain"]) / 2
    torch.testing.assert_close(seen["plain"], goal, rtol=1e-4, atol=1e-5)


def test_a_channel_that_never_varies_is_only_shifted() -> None:
    a, b = teachers()
    with torch.no_grad():
        for network in (a, b):
            network.get_parameter("last.weight")[2] = 0
            network.get_parameter("last.bias")[2] = 4.0
    merged = between(a, b, 0.5)
    with torch.no_grad():
        merged.get_parameter("last.bias")[2] = 1.0
    inputs = images()
    fixed = repaired(merged, [a, b], trace(a, inputs[:2]), inputs, 120)
    assert fixed.get_parameter("last.bias")[2].item() == pytest.approx(4)
    assert all(tensor.isfinite().all() for tensor in fixed.parameters())


def test_hooks_and_modes_are_as_before() -> None:
    a, b = teachers()
    a.train()
    inputs = images(20)
    graph = trace(a, inputs[:2])
    repaired(between(a, b, 0.5), [a, b], graph, inputs, 10)
    assert a.training
    assert not b.training
    assert all(module.training for module in a.modules())


def test_a_network_that_fails_while_it_is_measured_is_as_before() -> None:
    a, b = teachers()
    inputs = images(20)
    graph = trace(a, inputs[:2])
    layers = [step for step in steps(a, graph, inputs[:2]) if isinstance(step, Layer)]
    before = a.eval()(inputs)
    a.train()

    def fail(*_: object) -> None:
        raise RuntimeError("as planned")

    last = a.get_submodule(layers[-1].weight.removesuffix(".weight"))
    failing = last.register_forward_pre_hook(fail)
    for broken in (
        lambda: measured(a, layers, [inputs]),
        lambda: steps(a, graph, inputs[:2]),
        lambda: repaired(b, [b, a], graph, inputs, 10),
    ):
        with pytest.raises(RuntimeError, match="as planned"):
            broken()
        assert torch.overrides._get_current_function_mode_stack() == []
        assert all(module.training for module in a.modules())
    failing.remove()
    assert torch.equal(a.eval()(inputs), before)
