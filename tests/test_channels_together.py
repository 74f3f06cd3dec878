"""The operations together: cuts and orders, three teachers with norms, ties, other labels."""

import copy

import pytest
import torch
from test_channels import NETWORKS, Residual, randomised
from test_channels_networks import GOOD
from torch import Tensor, nn
from torch.nn import functional as F

from merge_core.channels import check, concatenate, detach, permute, select, trace
from merge_core.channels.check import outputs, relative_error
from merge_core.errors import GraphError
from merge_core.gates import gate, gates_of, most_open_half

EVERY = NETWORKS | GOOD


def teachers(name: str, number: int) -> tuple[list[nn.Module], Tensor]:
    """Networks of one architecture with weights of their own, in float64 and without dropout."""
    factory, shape = EVERY[name]
    torch.manual_seed(0)
    models = [randomised(factory().double(), seed) for seed in range(number)]
    for module in (module for model in models for module in model.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if len(shape) == 2:
        return models, torch.randint(0, 9, shape)
    return models, torch.randn(shape, dtype=torch.float64)


def same(one: nn.Module, other: nn.Module) -> None:
    """Both hold the very same tensors."""
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_selection_commutes_with_permutation(name: str) -> None:
    """To order and cut is to cut what the order puts there; to cut and order orders the cut."""
    models, example = teachers(name, 2)
    big = concatenate(models, trace(models[0], example))
    graph = trace(big, example)
    draws = torch.Generator().manual_seed(3)
    orders = {s.name: torch.randperm(s.size, generator=draws) for s in graph.free}
    kept = {s.name: torch.randperm(s.size, generator=draws)[: s.size // 2] for s in graph.free}
    ordered = permute(big, graph, orders)
    assert trace(ordered, example) == graph
    moved = {space: order[kept[space]] for space, order in orders.items()}
    same(select(ordered, graph, kept), select(big, graph, moved))
    cut = select(big, graph, kept)
    turned = {space: index.flip(0) for space, index in kept.items()}
    backwards = {space: torch.arange(len(index)).flip(0) for space, index in kept.items()}
    once = permute(cut, trace(cut, example), backwards)
    same(once, select(big, graph, turned))
    for training in (False, True):
        expected = outputs(cut, example, training)
        assert relative_error(outputs(once, example, training), expected) < 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_three_teachers_by_convex_weights_in_both_modes(name: str) -> None:
    models, example = teachers(name, 3)
    shares = [0.5, 0.3, 0.2]
    graph = trace(models[0], example)
    big = concatenate(models, graph, shares)
    for training in (False, True):
        each = [outputs(model, example, training) for model in models]
        assert relative_error(each[1], each[0]) > 1e-3  # teachers that differ
        mean = [
            sum((share * part for share, part in zip(shares, parts, strict=True)), torch.zeros(()))
            for parts in zip(*each, strict=True)
        ]
        assert relative_error(outputs(big, example, training), mean) < 1e-12
    sides = {space.name: space.size for space in graph.free}
    chosen = concatenate(models, graph, [0.0, 1.0, 0.0])
    second = {name: torch.arange(size, 2 * size) for name, size in sides.items()}
    back = select(chosen, trace(chosen, example), second)
    for training in (False, True):
        expected = outputs(models[1], example, training)
        assert relative_error(outputs(back, example, training), expected) < 1e-12


def norms_of(model: nn.Module) -> dict[str, nn.BatchNorm1d | nn.BatchNorm2d]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    }


@pytest.mark.parametrize("name", ["perceptron", "vgg", "residual", "zero padding"])
def test_a_step_in_training_leaves_the_statistics_of_the_teachers_own_step(name: str) -> None:
    """The norm at unit t·size + i of the big student has seen what teacher t's saw at unit i."""
    models, example = teachers(name, 3)
    graph = trace(models[0], example)
    big = concatenate(models, graph)
    wide = trace(big, example)
    before = {key: value.clone() for key, value in big.named_buffers()}
    for model in (*models, big):
        model.train()(example)
    mine = norms_of(big)
    assert mine
    sizes = torch.tensor([space.size for space in graph.spaces])
    for layer, norm in mine.items():
        narrow, whole = (found.axes[f"{layer}.running_mean"][0] for found in (graph, wide))
        assert narrow is not None
        assert whole is not None
        units = list(zip(whole.space.tolist(), whole.unit.tolist(), strict=True))
        for number, model in enumerate(models):
            unit = narrow.unit + number * sizes[narrow.space]
            own = zip(narrow.space.tolist(), unit.tolist(), strict=True)
            at = [units.index(each) for each in own]
            for statistic in ("running_mean", "running_var"):
                found = getattr(norm, statistic)
                meant = getattr(norms_of(model)[layer], statistic)
                torch.testing.assert_close(found[at], meant, rtol=1e-12, atol=1e-12)
                assert not torch.equal(found, before[f"{layer}.{statistic}"])
        assert norm.num_batches_tracked == 1


class Twice(nn.Module):
    """One weight under two linear layers with biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.embed(x))
        return self.head(x + F.gelu(self.other(F.relu(self.one(x)))))


class Autoencoder(nn.Module):
    """The decoder's weight is the encoder's, transposed."""

    def __init__(self, bare: bool = False) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.bare = bare
        self.encode = nn.Linear(5 if bare else 6, 4)
        self.bias = nn.Parameter(torch.randn(5 if bare else 6))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.bare else F.relu(self.embed(x))
        x = F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)
        return x if self.bare else self.head(F.relu(x))


@pytest.mark.parametrize("kind", [Twice, Autoencoder])
def test_tied_weights_inside_keep_the_laws_and_stay_tied(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    one, other = (randomised(kind().double(), seed) for seed in (0, 1))
    example = torch.randn(4, 5, dtype=torch.float64)
    graph = trace(one, example)
    assert check(one, graph, example).worst < 1e-12
    big = concatenate([one, other], graph)
    wide = trace(big, example)
    assert check(big, wide, example).worst < 1e-12
    draws = torch.Generator().manual_seed(1)
    half = {s.name: torch.randperm(s.size, generator=draws)[: s.size // 2] for s in wide.free}
    student = select(big, wide, half)
    assert check(student, trace(student, example), example).worst < 1e-12
    own = [name for name, _ in one.named_parameters()]
    for made in (big, student):
        assert [name for name, _ in made.named_parameters()] == own  # a tie is told once


def test_an_autoencoder_tied_from_input_to_output_is_refused() -> None:
    """The mean is taken in the weights that write the output; here they read the input, too."""
    model = randomised(Autoencoder(bare=True).double())
    example = torch.randn(4, 5, dtype=torch.float64)
    graph = trace(model, example)
    with pytest.raises(GraphError, match="a weight tied between input and output"):
        concatenate([model, model], graph)


def test_other_labels_with_norms_go_all_the_way() -> None:
    """Traced, gated and cut to half with heads side by side; every law at every stage."""
    torch.manual_seed(0)
    models: list[nn.Module] = []
    for seed, labels in enumerate((5, 2)):
        model = Residual()
        model.head = nn.Linear(8, labels)
        models.append(randomised(model.double(), seed))
    example = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    big = concatenate(models, trace(models[0], example), heads="concatenate")
    for training in (False, True):
        each = [outputs(model, example, training)[0] for model in models]
        assert relative_error(outputs(big, example, training), [torch.cat(each, 1)]) < 1e-12
    graph = trace(big, example)
    assert graph.space("output").size == 7
    assert check(big, graph, example).worst < 1e-12

    draws = torch.Generator().manual_seed(0)
    gated = gate(big, graph, start=0.0, spread=1.0, draws=draws)
    gates = gates_of(gated)
    kept = {name: most_open_half(logits, 2) for name, logits in gates.spaces().items()}
    with torch.no_grad():
        for name, logits in gates.spaces().items():
            logits.fill_(-20.0)[kept[name]] = 20.0  # shut, but for those that stay
    assert [(s.name, s.size) for s in trace(gated, example).free] == [
        (s.name, s.size) for s in graph.free
    ]
    student = detach(select(gated, graph, kept))
    expected = outputs(gated, example, training=False)
    assert relative_error(outputs(student, example, training=False), expected) < 1e-12
    assert relative_error(expected, outputs(big, example, training=False)) > 1e-3
    cut = trace(student, example)
    assert [s.size for s in cut.free] == [s.size // 2 for s in graph.free]
    assert check(student, cut, example).worst < 1e-12
    fresh = copy.deepcopy(models[0])
    fresh.add_module("head", nn.Linear(8, 7).double())
    fresh.load_state_dict(student.state_dict())
    assert relative_error(outputs(fresh, example, False), outputs(student, example, False)) < 1e-12
