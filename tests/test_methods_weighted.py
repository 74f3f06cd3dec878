"""Averages with weights, ensembles, selection with a refit: each does what it is meant to do."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small import small
from test_channels import randomised
from test_methods_conformance import finished
from test_recipes import comparison
from torch import Tensor, nn

from merge_core.activations import observe, observe_readers
from merge_core.channels import ChannelGraph, concatenate, select, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.data import Dataset, Split, augmentation
from merge_core.devices import generator
from merge_core.methods import Setting
from merge_core.methods.base import weighted_mean
from merge_core.methods.fixed_weights import simplex
from merge_core.methods.simplex import AveragedNetwork
from merge_core.reconstruction import chosen, cut, importances, mixing, power
from merge_core.similarity import unit_norms
from merge_core.training import evaluate


def network(seed: int) -> nn.Module:
    """Convolution, batch norm, a flatten and two linear layers."""
    torch.manual_seed(seed)
    return randomised(
        nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(20, 7), nn.ReLU(), nn.Linear(7, 4),
        ),
        seed,
    ).eval()  # fmt: skip


@pytest.fixture
def teachers() -> list[nn.Module]:
    return [network(seed) for seed in (1, 2)]


@pytest.fixture
def setting(teachers: list[nn.Module]) -> Setting:
    """The first teacher is always right, so it should get the weight."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 1, 6, 6, generator=draws)
    with torch.no_grad():
        split = Split(inputs, teachers[0](inputs).argmax(1))
    return Setting(
        recipe=small("digits", **{"gating.epochs": "4", "gating.batch_size": "50"}),
        data=Dataset(split, split, split),
        augment=augmentation("none"),
        draws=lambda purpose: generator(0, purpose),
        teachers=2,
        examples=300,
    )


def graph_of(net: nn.Module) -> ChannelGraph:
    return trace(net, torch.randn(2, 1, 6, 6).to(next(net.parameters())))


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_the_grid_of_weights(count: int) -> None:
    points = list(simplex(count))
    assert 1 < len(points) <= 70
    assert len({tuple(point) for point in points}) == len(points)
    for point in points:
        assert min(point) >= 0
        assert sum(point) == pytest.approx(1)
    for corner in np.eye(count):
        assert corner.tolist() in points


def test_fixed_weights_are_the_best_of_the_grid(
    teachers: list[nn.Module], setting: Setting
) -> None:
    merged = finished("fixed_weights", teachers, graph_of(teachers[0]), setting)
    losses = merged.learned["losses"]
    for point, loss in zip(merged.learned["grid"].tolist(), losses.tolist(), strict=True):
        direct = evaluate(weighted_mean(teachers, point), setting.data.heldout)["loss"]
        assert loss == pytest.approx(direct, rel=1e-6)
    best = int(losses.argmin())
    assert torch.equal(merged.learned["weights"], merged.learned["grid"][best])
    assert evaluate(merged.network, setting.data.heldout)["loss"] == pytest.approx(
        float(losses[best]), rel=1e-6
    )


def test_given_weights_are_taken_as_they_are(teachers: list[nn.Module], setting: Setting) -> None:
    given = comparison(weights=(0.75, 0.25))
    merged = finished(
        "fixed_weights",
        teachers,
        graph_of(teachers[0]),
        dataclasses.replace(setting, recipe=given),
    )
    assert merged.learned["weights"].tolist() == [0.75, 0.25]
    inputs = setting.data.test.inputs
    expected = weighted_mean(teachers, [0.75, 0.25])
    torch.testing.assert_close(merged.network(inputs), expected(inputs))


def test_the_averaged_network_is_the_average(teachers: list[nn.Module], setting: Setting) -> None:
    averaged = AveragedNetwork(teachers, dict.fromkeys(teachers[0].state_dict(), 0), bias=False)
    with torch.no_grad():
        averaged.logits.copy_(torch.tensor([[0.0, 1.0]]))
    share = float(torch.sigmoid(torch.tensor(1.0)))
    expected = weighted_mean(teachers, [1 - share, share])
    inputs = setting.data.test.inputs
    averaged.train()  # changes nothing
    with torch.no_grad():
        torch.testing.assert_close(averaged(inputs), expected(inputs), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(averaged.finished()(inputs), expected(inputs))
    assert [name for name, _ in averaged.named_parameters()] == ["logits"]


def test_gradients_of_the_weights_through_norm_statistics() -> None:
    """Against differences, in float64, with a bias and weights per layer."""
    teachers = [network(seed).double() for seed in (1, 2)]
    layers: dict[str, int] = {}
    groups = {
        name: layers.setdefault(name.rpartition(".")[0], len(layers))
        for name in teachers[0].state_dict()
    }
    averaged = AveragedNetwork(teachers, groups, bias=True).double()
    inputs = torch.randn(6, 1, 6, 6, dtype=torch.float64)
    assert averaged.shift is not None

    def loss() -> Tensor:
        return averaged(inputs).square().mean()

    loss().backward()
    for parameter in (averaged.logits, averaged.shift):
        assert parameter.grad is not None
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for place in range(len(flat)):
            at, values = float(flat[place]), []
            for step in (1e-5, -1e-5):
                flat[place] = at + step
                values.append(float(loss().detach()))
            flat[place] = at
            difference = (values[0] - values[1]) / 2e-5
            assert float(grad[place]) == pytest.approx(difference, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("key", ["learned_network_weights", "learned_weights_and_bias"])
def test_learned_weights_find_the_teacher_that_is_right(
    key: str, teachers: list[nn.Module], setting: Setting
) -> None:
    merged = finished(key, teachers, graph_of(teachers[0]), setting)
    weights = merged.learned["weights"]
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[0]) > 0.8
    plain = evaluate(weighted_mean(teachers, [0.5, 0.5]), setting.data.train)["loss"]
    assert evaluate(merged.network, setting.data.train)["loss"] < plain
    assert merged.training_flops > 0
    bias = float(merged.learned.get("bias", torch.zeros(())))
    assert (bias != 0) == (key == "learned_weights_and_bias")
    mean = weighted_mean(teachers, weights.tolist())
    for name, value in merged.network.named_parameters():
        torch.testing.assert_close(value, mean.get_parameter(name) + bias, rtol=1e-4, atol=1e-6)
    for name, value in merged.network.named_buffers():
        torch.testing.assert_close(value, mean.get_buffer(name))


def test_every_layer_has_weights_of_its_own(teachers: list[nn.Module], setting: Setting) -> None:
    """Teachers that are each right in one half: the layers' weights can tell, one number cannot."""
    right, wrong = teachers
    mixed = [copy.deepcopy(right), copy.deepcopy(right)]
    for layer, net in (("0", mixed[0]), ("7", mixed[1])):
        net.get_submodule(layer).load_state_dict(wrong.get_submodule(layer).state_dict())
    graph = graph_of(right)
    layered = finished("learned_layer_weights", mixed, graph, setting)
    whole = finished("learned_network_weights", mixed, graph, setting)
    assert set(layered.learned) == {"0", "1", "5", "7"}
    for weights in layered.learned.values():
        assert float(weights.sum()) == pytest.approx(1)
    assert float(layered.learned["0"][1]) > 0.6
    assert float(layered.learned["7"][0]) > 0.6
    losses = [evaluate(m.network, setting.data.train)["loss"] for m in (layered, whole)]
    assert losses[0] < losses[1]


def test_weighted_ensemble_has_the_least_loss_on_a_fine_grid(
    teachers: list[nn.Module], setting: Setting
) -> None:
    """The second teacher is right about half of the examples, so that both are wanted."""
    train = setting.data.train
    with torch.no_grad():
        train.targets[::2] = teachers[1](train.inputs[::2]).argmax(1)
        outputs = torch.stack([net(train.inputs) for net in teachers])
    merged = finished("weighted_ensemble", teachers, graph_of(teachers[0]), setting)
    found = evaluate(merged.network, train)["loss"]
    for share in np.linspace(0, 1, 101):
        other = share * outputs[0] + (1 - share) * outputs[1]
        assert found <= float(nn.functional.cross_entropy(other, train.targets)) + 1e-6
    assert 0 < float(merged.learned["weights"][0]) < 1
    assert float(merged.learned["weights"].sum()) == pytest.approx(1)


# -- selection and refit ----------------------------------------------------------------------


def rows(count: int, samples: int, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return draws.normal(size=(count, count)) @ draws.normal(size=(count, samples)) + 1


def test_mixing_is_numpys_least_squares() -> None:
    x, kept = rows(6, 50), [0, 2, 5]
    found = mixing(torch.from_numpy(x @ x.T / 50), torch.tensor(kept))
    expected = np.linalg.lstsq(x[kept].T, x.T, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[kept], torch.eye(3, dtype=torch.float64))


def test_greedy_choice_is_greedy() -> None:
    """Each step by brute force: the error of both readers after a fresh fit."""
    draws = np.random.default_rng(1)
    seen = [(rows(7, 60, seed), draws.normal(size=(4, 7))) for seed in (2, 3)]
    products = [
        (torch.from_numpy(x @ x.T / 60), torch.from_numpy(weight.T @ weight)) for x, weight in seen
    ]

    def error(kept: list[int]) -> float:
        total = 0.0
        for x, weight in seen:
            fit = np.linalg.lstsq(x[kept].T, x.T, rcond=None)[0].T
            total += np.square(weight @ (x - fit @ x[kept])).sum() / 60
        return total

    expected: list[int] = []
    for _ in range(4):
        rest = [i for i in range(7) if i not in expected]
        expected.append(min(rest, key=lambda i: error([*expected, i])))
        assert chosen(products, len(expected)).tolist() == sorted(expected)


def test_a_channel_and_its_double_are_not_both_kept() -> None:
    x = rows(5, 40)
    both = torch.from_numpy(np.concatenate([x, 3 * x[::-1]]))
    weight = torch.eye(10, dtype=torch.float64)
    kept = chosen([(both @ both.T / 40, weight)], 5)
    assert sorted(min(i, 9 - i) for i in kept.tolist()) == [0, 1, 2, 3, 4]


def test_dead_channels_are_chosen_last_and_harm_nothing() -> None:
    x = torch.from_numpy(rows(4, 40))
    x[1] = 0
    kept = chosen([(x @ x.T / 40, torch.eye(4, dtype=torch.float64))], 4)
    assert kept.tolist() == [0, 1, 2, 3]
    assert 1 not in chosen([(x @ x.T / 40, torch.eye(4, dtype=torch.float64))], 3).tolist()
    assert mixing(x @ x.T / 40, torch.tensor([1, 2])).isfinite().all()
    assert mixing(torch.zeros(3, 3, dtype=torch.float64), torch.tensor([0, 1])).isfinite().all()


def test_importance_is_the_error_of_the_reader() -> None:
    """For a linear layer: (x − x̂)ᵀ G (x − x̂) is the squared difference of what it computes."""
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = trace(net.double(), torch.randn(2, 3, dtype=torch.float64))
    difference = torch.randn(6, dtype=torch.float64)
    weight = net[2].get_parameter("weight").detach()
    for kept, part in (({}, weight), ({"2": torch.tensor([1, 4])}, weight[[1, 4]])):
        (found,) = importances(net, graph, "0", kept).values()
        expected = (part @ difference).square().sum()
        torch.testing.assert_close(difference @ found @ difference, expected)


def test_a_cut_of_redundant_channels_keeps_the_function() -> None:
    """Teacher B's channels are scaled copies of A's, so A's channels can stand for both."""
    first = network(1).double()
    second = copy.deepcopy(first)
    with torch.no_grad():  # ReLU, pooling and the norm's scale pass a positive factor on
        for name in ("1.weight", "1.bias"):
            second.get_parameter(name).mul_(2)
        second.get_parameter("5.weight").div_(2)
    graph = graph_of(first)
    big = concatenate([first, second], graph)
    inputs = torch.randn(60, 1, 6, 6, dtype=torch.float64)
    seen = {
        at: power(moments)
        for at, moments in observe_readers([first, second], graph, [inputs]).items()
    }
    kept = {space.name: torch.arange(space.size) for space in graph.free}
    student = cut(big, trace(big, inputs[:2]), kept, seen)
    with torch.no_grad():
        torch.testing.assert_close(student(inputs), first(inputs), rtol=1e-4, atol=1e-5)
        halved = select(big, trace(big, inputs[:2]), kept)
        assert (halved(inputs) - first(inputs)).abs().max() > 1e-2


def test_least_squares_reconstructs_better_than_the_largest_channels(setting: Setting) -> None:
    """On what it is made for, the mean of the teachers' outputs, on examples it has not seen."""
    draws = torch.Generator().manual_seed(5)
    fresh = torch.randn(200, 1, 6, 6, generator=draws)
    errors: dict[str, list[float]] = {"least_squares": [], "channel_norms": [], "random_half": []}
    for seeds in itertools.pairwise(range(1, 7)):
        teachers = [network(seed) for seed in seeds]
        graph = graph_of(teachers[0])
        with torch.no_grad():
            mean = torch.stack([net(fresh) for net in teachers]).mean(0)
            for key, found in errors.items():
                student = finished(key, teachers, graph, setting).network
                found.append(float((student(fresh) - mean).square().mean()))
    means = {key: np.mean(found) for key, found in errors.items()}
    assert means["least_squares"] < means["channel_norms"] < means["random_half"]


def test_the_largest_channels_are_kept(teachers: list[nn.Module], setting: Setting) -> None:
    with torch.no_grad():
        teachers[1].get_parameter("5.weight")[3] *= 100
        teachers[1].get_parameter("5.weight")[4] *= 1e-4
        teachers[1].get_parameter("5.bias")[4] *= 1e-4
        teachers[0].get_parameter("0.weight")[2] *= 1000
    graph = graph_of(teachers[0])
    merged = finished("channel_norms", teachers, graph, setting)
    assert {space: len(kept) for space, kept in merged.learned.items()} == {"0": 5, "5": 7}
    assert 7 + 3 in merged.learned["5"].tolist()
    assert 7 + 4 not in merged.learned["5"].tolist()
    assert 2 in merged.learned["0"].tolist()


def test_norms_in_and_out_by_hand() -> None:
    net = network(1)
    into, out = unit_norms(graph_of(net), named_tensors(net), "5")
    weight, bias = net.get_parameter("5.weight"), net.get_parameter("5.bias")
    expected = torch.cat([weight, bias[:, None]], 1).detach().norm(dim=1)
    torch.testing.assert_close(into.float(), expected)
    torch.testing.assert_close(out.float(), net.get_parameter("7.weight").detach().norm(dim=0))


def test_readers_of_a_stream_are_observed_one_by_one() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.two(self.one(x).relu()))

    net = randomised(Stream().double())
    inputs = torch.randn(20, 3, dtype=torch.float64)
    graph = trace(net, inputs)
    found = observe_readers([net], graph, inputs.split(6))
    assert set(found) == {("stem", "one.weight"), ("stem", "head.weight"), ("one", "two.weight")}
    with torch.no_grad():
        early = net.get_submodule("stem")(inputs)
        inner = net.get_submodule("one")(early).relu()
        late = early + net.get_submodule("two")(inner)
    for weight, values in (("one.weight", early), ("head.weight", late)):
        torch.testing.assert_close(
            found["stem", weight].covariance, torch.cov(values.T, correction=0)
        )
    first = observe([net], graph, [inputs])["stem"]
    torch.testing.assert_close(first.covariance, found["stem", "one.weight"].covariance)
