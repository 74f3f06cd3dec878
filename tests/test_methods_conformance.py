"""One suite over the whole catalogue: every method keeps what its card promises."""

import copy
import dataclasses
import inspect
import pkgutil
from collections.abc import Sequence

import pytest
import torch
from small import small
from torch import nn

from merge_core import methods
from merge_core.catalogue import METHOD_BY_KEY, METHODS, Card
from merge_core.channels import ChannelGraph, permute, trace
from merge_core.data import augmentation, load
from merge_core.devices import generator
from merge_core.methods import Merged, Setting, implementation
from merge_core.models import build
from merge_core.recipes import Training
from merge_core.repair import repaired
from merge_core.training import Job, fit, state_arrays

NOT_METHODS = {"base", "simplex", "selection"}
every_method = pytest.mark.parametrize("card", METHODS, ids=lambda card: card.key)
every_network = pytest.mark.parametrize("name", ["digits", "sine"])


class Situation:
    """A trained little network, its graph, and what a method may look at."""

    def __init__(self, name: str, directory, count: int = 2) -> None:
        recipe = small(name, **{"gating.epochs": "1"})
        data = load(recipe.data, recipe.seed, directory)
        self.setting = Setting(
            recipe=recipe,
            data=data,
            augment=augmentation("none"),
            draws=lambda purpose: generator(recipe.seed, purpose),
            teachers=count,
            examples=200,
        )
        self.teachers = [self._trained(recipe.model, seed) for seed in range(count)]
        self.graph = trace(self.teachers[0], self.setting.example)

    def _trained(self, model: str, seed: int) -> nn.Module:
        """A little training gives norms statistics and channels something to tell them apart by."""
        network = build(model, seed)
        data = self.setting.data
        job = Job(
            stage="teacher_a",
            network=network,
            training=Training(epochs=2, batch_size=50, learning_rate=0.02),
            train=data.train,
            heldout=data.heldout,
            augment=self.setting.augment,
            draws=generator(seed, "train"),
            dropout_seed=0,
        )
        for _ in fit(job):
            pass
        return network.eval()

    def merged(self, card: Card, teachers: Sequence[nn.Module]) -> Merged:
        return finished(card.key, teachers, self.graph, self.setting)

    @torch.no_grad()
    def outputs(self, network: nn.Module) -> torch.Tensor:
        return network.eval()(self.setting.data.test.inputs)


def finished(
    key: str, teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Merged:
    setting = dataclasses.replace(setting, teachers=len(teachers))
    events = implementation(key).merge(teachers, graph, setting)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        assert getattr(event, "stage", key) == key


@pytest.fixture(scope="module")
def situations(tmp_path_factory) -> dict[str, Situation]:
    """Made once: no test changes the teachers, and one test would notice."""
    return {
        name: Situation(name, tmp_path_factory.mktemp(name), count=3) for name in ("digits", "sine")
    }


def moved(network: nn.Module, graph: ChannelGraph, seed: int) -> nn.Module:
    """The same function with the channels of every free space in another order."""
    draws = torch.Generator().manual_seed(seed)
    orders = {space.name: torch.randperm(space.size, generator=draws) for space in graph.free}
    return permute(network, graph, orders)


def precision(card: Card) -> float:
    """How near a function must come back.

    A ridge r costs up to half its root: ½·√1e-7·‖w‖ for least squares, whatever the processor.
    """
    return 1e-3 if card.key == "least_squares" else 1e-4


def counts(card: Card) -> tuple[int, ...]:
    return (2, 3) if card.teachers == 0 or card.teachers > 2 else (2,)


@every_network
@every_method
def test_merging_a_network_with_itself_gives_back_its_function(
    card: Card, name: str, situations: dict[str, Situation]
) -> None:
    if card.gives_back == "neither":
        pytest.skip("the card does not promise it")
    here = situations[name]
    expected = here.outputs(here.teachers[0])
    for count in counts(card):
        merged = here.merged(card, [copy.deepcopy(here.teachers[0]) for _ in range(count)])
        torch.testing.assert_close(
            here.outputs(merged.network), expected, rtol=1e-3, atol=precision(card)
        )


@every_network
@every_method
def test_merging_with_permuted_copies_gives_back_the_function(
    card: Card, name: str, situations: dict[str, Situation]
) -> None:
    if card.gives_back != "permuted copy":
        pytest.skip("the card does not promise it")
    here = situations[name]
    first = here.teachers[0]
    expected = here.outputs(first)
    for count in counts(card):
        others = [moved(first, here.graph, seed) for seed in range(1, count)]
        merged = here.merged(card, [first, *others])
        torch.testing.assert_close(
            here.outputs(merged.network), expected, rtol=1e-3, atol=precision(card)
        )


@every_method
def test_repair_finds_nothing_to_do_where_the_channels_are_a_teacher_s_own(
    card: Card, situations: dict[str, Situation]
) -> None:
    """Sources and shares say truly what went into a channel, so its goal is what it does already.

    Merged with itself, and where every channel comes from one teacher, on a network without norms.
    """
    here = situations["sine"]
    first, second = here.teachers[:2]
    twins = {"itself": first, "permuted copy": moved(first, here.graph, 1), "neither": second}
    for other in (twins[card.gives_back], second):
        teachers = [first, other]
        merged = here.merged(card, teachers)
        sources = merged.sources
        if card.size == "all networks" or sources is None:
            pytest.skip("nothing is repaired")
        single = sources and all(channels.shape[1] == 1 for channels in sources.values())
        if other is second and not single:
            continue
        fixed = repaired(
            merged.network,
            teachers,
            here.graph,
            here.setting.data.train.inputs,
            100,
            sources=sources,
            shares=merged.shares,
        )
        expected = here.outputs(merged.network)
        torch.testing.assert_close(here.outputs(fixed), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("key", ["channel_norms", "least_squares", "random_half"])
def test_a_selection_says_where_its_channels_come_from(
    key: str, situations: dict[str, Situation]
) -> None:
    here = situations["digits"]
    sources = here.merged(METHOD_BY_KEY[key], here.teachers[:2]).sources
    assert sources is not None
    assert {name: tuple(each.shape) for name, each in sources.items()} == {
        space.name: (space.size, 1) for space in here.graph.free
    }


@every_network
@every_method
def test_widths_are_unchanged_and_the_teachers_untouched(
    card: Card, name: str, situations: dict[str, Situation]
) -> None:
    here = situations[name]
    for count in counts(card):
        teachers = here.teachers[:count]
        before = [state_arrays(teacher) for teacher in teachers]
        merged = here.merged(card, teachers)
        for teacher, kept in zip(teachers, before, strict=True):
            assert not teacher.training
            after = state_arrays(teacher)
            assert all((after[key] == value).all() for key, value in kept.items())
            assert not any(module._forward_hooks for module in teacher.modules())
        assert here.outputs(merged.network).isfinite().all()
        shapes = {key: value.shape for key, value in teachers[0].state_dict().items()}
        found = {key: value.shape for key, value in merged.network.state_dict().items()}
        if card.size == "one network":
            assert type(merged.network) is type(teachers[0])
            assert found == shapes
        else:
            numbers = sum(shape.numel() for shape in found.values())
            assert numbers >= count * sum(shape.numel() for shape in shapes.values())


@every_method
def test_same_seed_same_result(card: Card, situations: dict[str, Situation]) -> None:
    here = situations["digits"]
    first, again = (here.merged(card, here.teachers[:2]) for _ in range(2))
    states = [merged.network.state_dict() for merged in (first, again)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert first.learned.keys() == again.learned.keys()
    for key, value in first.learned.items():
        assert torch.equal(value, again.learned[key])


@every_method
def test_every_card_says_what_it_is(card: Card) -> None:
    assert card.key.isidentifier()
    assert card.title
    assert card.source
    assert len(card.about.split()) > 15
    assert card.teachers == 0 or card.teachers >= 2
    assert inspect.isgeneratorfunction(implementation(card.key).merge)


def test_every_card_has_a_module_and_every_module_a_card() -> None:
    modules = {module.name for module in pkgutil.iter_modules(methods.__path__)} - NOT_METHODS
    assert modules == METHOD_BY_KEY.keys()
    assert len(METHOD_BY_KEY) == len(METHODS)
