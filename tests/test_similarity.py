"""Similarities: laws under permutation and scale, NumPy and direct formulas as oracles."""

import itertools

import numpy as np
import pytest
import torch
from test_activations import NETWORKS, situation
from torch import Tensor, nn

from merge_core.activations import Moments, observe, reads
from merge_core.channels import permute, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.errors import DataError
from merge_core.similarity import correlation, dead, incoming, layer_cka, outgoing


def moments_of(rows: np.ndarray, size: int) -> Moments:
    mean, covariance = rows.mean(1), np.cov(rows, bias=True)
    return Moments(rows.shape[1], torch.from_numpy(mean), torch.from_numpy(covariance), size)


def test_correlation_is_numpys() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 40)) * np.arange(1, 7)[:, None]
    moments, expected = moments_of(rows, 3), np.asarray(np.corrcoef(rows))
    for a, b in itertools.product(range(2), repeat=2):
        part = expected[moments.of(a), moments.of(b)]
        np.testing.assert_allclose(correlation(moments, a, b), part, rtol=1e-10, atol=1e-12)


def test_dead_and_constant_channels_are_like_no_other() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        network[0].get_parameter("bias")[0] = -1e6  # behind the ReLU always 0
        network[0].get_parameter("weight")[1] = 0
        network[0].get_parameter("bias")[1] = 1234.567  # always the same
        network[0].get_parameter("weight")[2] *= 1e-9  # small, but alive
        network[0].get_parameter("bias")[2] = 0
        network[0].get_parameter("bias")[3] = 1
    inputs = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    moments = observe([network, network], trace(network, inputs), inputs.split(16))["0"]
    for t in range(2):
        assert dead(moments, t).tolist() == [True, True, False, False]
    found = correlation(moments, 0, 1)
    assert found.isfinite().all()
    assert (found[:2] == 0).all()
    assert (found[:, :2] == 0).all()
    torch.testing.assert_close(found[2:].diagonal(2), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_copy_is_recognised(name: str) -> None:
    """With every space matched, a unit and its copy have cosine 1 and distance 0 both ways."""
    (network, _), graph, inputs, draws = situation(name)
    orders = {s.name: torch.randperm(s.size, generator=draws) for s in graph.free}
    copy = permute(network, graph, orders)
    matched = {name: torch.argsort(order) for name, order in orders.items()}
    one, two = named_tensors(network), named_tensors(copy)
    moments = observe([network, copy], graph, [inputs])
    for space, order in matched.items():
        alive = ~dead(moments[space], 0)
        mine = correlation(moments[space], 0, 1)[torch.arange(len(order)), order]
        torch.testing.assert_close(mine[alive], torch.ones_like(mine[alive]))
        for measure in (incoming, outgoing):
            cosine = measure(graph, one, two, space, "cosine", matched)
            distance = measure(graph, one, two, space, "l2", matched)
            assert cosine.shape == distance.shape == (len(order), len(order))
            own = torch.arange(len(order)), order
            torch.testing.assert_close(cosine[own], torch.ones_like(cosine[own]))
            assert distance[own].max() < 1e-6
            itself = measure(graph, one, one, space, "cosine", {})
            torch.testing.assert_close(cosine[:, order], itself)


def test_weights_are_compared_as_written_down() -> None:
    """Two layers by hand: rows with their bias come in, columns go out."""
    draws = torch.Generator().manual_seed(0)
    a, b = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
        for _ in range(2)
    )
    graph = trace(a, torch.randn(2, 3))
    order = torch.randperm(4, generator=draws)
    one, two = named_tensors(a), named_tensors(b)
    rows = [
        torch.cat([t["2.weight"][:, o], t["2.bias"][:, None]], 1).detach().double().numpy()
        for t, o in ((one, torch.arange(4)), (two, order))
    ]
    expected = np.linalg.norm(rows[0][:, None] - rows[1][None], axis=2)
    found = incoming(graph, one, two, "2", "l2", {"0": order})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    unit = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
    found = incoming(graph, one, two, "2", "cosine", {"0": order})
    np.testing.assert_allclose(found, unit[0] @ unit[1].T, rtol=1e-6)
    columns = [t["4.weight"].detach().double().numpy().T for t in (one, two)]
    expected = np.linalg.norm(columns[0][:, None] - columns[1][None], axis=2)
    np.testing.assert_allclose(outgoing(graph, one, two, "2", "l2", {}), expected, rtol=1e-6)


def test_cosine_ignores_scale_and_units_without_weights_are_like_no_other() -> None:
    a = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = trace(a, torch.randn(2, 3))
    tensors = named_tensors(a)
    scaled = {name: tensor * 1e30 for name, tensor in tensors.items()}
    before = incoming(graph, tensors, tensors, "0", "cosine", {})
    torch.testing.assert_close(incoming(graph, tensors, scaled, "0", "cosine", {}), before)
    with torch.no_grad():
        for name in ("0.weight", "0.bias"):
            tensors[name][1] = 0
        tensors["2.weight"][:, 1] = 0
    for measure in (incoming, outgoing):
        found = measure(graph, tensors, tensors, "0", "cosine", {})
        assert (found[1] == 0).all()
        assert (found[:, 1] == 0).all()
        assert found.isfinite().all()


def features(network: nn.Module, graph, inputs: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def receive(name: str, value: Tensor) -> None:
        found[name] = value.movedim(1, 0).reshape(len(inputs), -1).clone()

    with reads(network, graph, [s.name for s in graph.free], receive) as run:
        run(inputs)
    return found


def hsic(left: Tensor, right: Tensor) -> float:
    """Song et al. (2012), equation 5: the unbiased estimator in its textbook form."""
    n = len(left)
    k, m = (x @ x.T for x in (left, right))
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    ones = torch.ones(n, dtype=k.dtype)
    first = torch.trace(k @ m)
    second = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    third = 2 * (ones @ k @ m @ ones) / (n - 2)
    return float((first + second - third) / (n * (n - 3)))


@pytest.mark.parametrize("name", ["perceptron", "lenet", "residual"])
def test_cka_is_the_direct_formula(name: str) -> None:
    (a, b), graph, inputs, _ = situation(name, 20)
    one, two = features(a, graph, inputs), features(b, graph, inputs)
    found = layer_cka(a, b, graph, [inputs])
    for (i, left), (j, right) in itertools.product(
        enumerate(one.values()), enumerate(two.values())
    ):
        expected = hsic(left, right) / (hsic(left, left) * hsic(right, right)) ** 0.5
        assert float(found[i, j]) == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_cka_of_a_network_with_itself_and_with_a_permuted_copy(name: str) -> None:
    (network, _), graph, inputs, draws = situation(name)
    own = layer_cka(network, network, graph, inputs.split(6))
    torch.testing.assert_close(own, own.T)
    torch.testing.assert_close(own.diagonal(), torch.ones(len(own), dtype=torch.float64))
    orders = {s.name: torch.randperm(s.size, generator=draws) for s in graph.free}
    found = layer_cka(network, permute(network, graph, orders), graph, inputs.split(6))
    torch.testing.assert_close(found, own, rtol=1e-7, atol=1e-7)


def test_minibatches_estimate_what_all_examples_give() -> None:
    (a, b), graph, inputs, _ = situation("perceptron", 1200)
    whole = layer_cka(a, b, graph, [inputs])
    parts = layer_cka(a, b, graph, inputs.split(40))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0.02)


def test_cka_of_constant_layers_is_zero_and_small_batches_are_left_out() -> None:
    (a, b), graph, inputs, _ = situation("perceptron")
    expected = layer_cka(a, b, graph, [inputs])
    torch.testing.assert_close(layer_cka(a, b, graph, [inputs, inputs[:3]]), expected)
    with pytest.raises(DataError, match="four examples"):
        layer_cka(a, b, graph, inputs.split(3))
    with torch.no_grad():
        b.get_submodule("4").get_parameter("weight").zero_()
    found = layer_cka(a, b, graph, [inputs])
    assert (found[:, 1] == 0).all()
    torch.testing.assert_close(found[:, 0], expected[:, 0])


def test_cka_of_a_network_that_fails_leaves_nothing_behind() -> None:
    (a, b), graph, inputs, _ = situation("perceptron")
    before = b.eval()(inputs)
    a.train()
    failing = b.get_submodule("6").register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="as planned"):
        layer_cka(a, b, graph, [inputs])
    failing.remove()
    assert torch.overrides._get_current_function_mode_stack() == []
    assert all(module.training for module in a.modules())
    assert not any(module.training for module in b.modules())
    assert torch.equal(b(inputs), before)
    assert b(inputs).requires_grad


def fail(*_: object) -> None:
    raise RuntimeError("as planned")
