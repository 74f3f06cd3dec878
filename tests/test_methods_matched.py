"""What matching, mixing and zipping make of trained teachers, beyond what every method promises."""

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from test_methods_conformance import Situation, finished, moved
from test_recipes import comparison
from torch import nn

from merge_core.catalogue import METHODS
from merge_core.channels import flops, permute
from merge_core.errors import RecipeError
from merge_core.matching import match_weights, merge_many, mix
from merge_core.methods import Merged
from merge_core.methods.base import weighted_mean
from merge_core.recipes import MethodSettings
from merge_core.repair import repaired
from merge_core.training import state_arrays

KEYS = ("weight_matching", "activation_matching", "soft_top_k", "transport", "zip")


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Situation:
    return Situation("digits", tmp_path_factory.mktemp("digits"), count=3)


def made(
    key: str, here: Situation, count: int = 2, told: Mapping[str, object] | None = None
) -> Merged:
    setting = here.setting
    if told:
        setting = dataclasses.replace(setting, recipe=comparison(**told))
    return finished(key, here.teachers[:count], here.graph, setting)


def loss(network: nn.Module, here: Situation) -> float:
    test = here.setting.data.test
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network(test.inputs), test.targets))


@pytest.mark.parametrize("key", KEYS)
def test_sources_name_channels_of_the_teachers(key: str, here: Situation) -> None:
    merged = made(key, here)
    assert merged.sources is not None
    assert set(merged.sources) == {space.name for space in here.graph.free}
    for space in here.graph.free:
        channels = merged.sources[space.name]
        assert channels.dtype == torch.int64
        assert channels.shape == (space.size, 2)
        assert 0 <= int(channels.min()) <= int(channels.max()) < 2 * space.size
        if key in ("weight_matching", "activation_matching", "zip"):
            assert sorted(channels.flatten().tolist()) == list(range(2 * space.size))
        if key != "zip":
            assert channels[:, 0].tolist() == list(range(space.size))


@pytest.mark.parametrize("key", KEYS)
def test_repair_takes_what_a_method_gives(key: str, here: Situation) -> None:
    merged = made(key, here)
    inputs = here.setting.data.train.inputs
    fixed = repaired(
        merged.network, here.teachers[:2], here.graph, inputs, 100, sources=merged.sources
    )
    assert loss(fixed, here) < loss(merged.network, here)


def test_weight_matching_is_the_mean_of_matched_teachers(here: Situation) -> None:
    merged = made("weight_matching", here)
    a, b = here.teachers[:2]
    draws = here.setting.draws("weight_matching")
    orders = match_weights(a, b, here.graph, draws).orders
    expected = weighted_mean([a, permute(b, here.graph, orders)], [0.5, 0.5])
    for key, tensor in expected.state_dict().items():
        torch.testing.assert_close(merged.network.state_dict()[key], tensor)
    assert bool((merged.learned["objective"].diff() >= 0).all())


def test_three_teachers_are_matched_together(here: Situation) -> None:
    merged = made("weight_matching", here, 3)
    draws = here.setting.draws("weight_matching")
    many = merge_many(here.teachers, here.graph, draws)
    moved = [permute(t, here.graph, o) for t, o in zip(here.teachers, many.orders, strict=True)]
    for key, tensor in weighted_mean(moved, [1 / 3] * 3).state_dict().items():
        torch.testing.assert_close(merged.network.state_dict()[key], tensor)


def test_the_more_is_mixed_the_more_the_first_teacher_remains(here: Situation) -> None:
    """What the cards warn of: once all channels of B are one, only A tells channels apart."""
    a, b = here.teachers[:2]
    flat = {s.name: torch.full((s.size, s.size), 1 / s.size) for s in here.graph.free}
    blurred = weighted_mean([a, mix(b, here.graph, flat)], [0.5, 0.5])
    inputs = here.setting.data.train.inputs
    fixed = repaired(blurred, [a, b], here.graph, inputs, 100)
    answers, ours, theirs = (here.outputs(net).argmax(1) for net in (fixed, a, b))
    assert float((answers == ours).double().mean()) > float((answers == theirs).double().mean())


def test_every_setting_of_a_method_is_on_its_card() -> None:
    keys = [knob.key for card in METHODS for knob in card.knobs]
    assert sorted(keys) == sorted(field.name for field in dataclasses.fields(MethodSettings))


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("soft_top_k", {"top_k": 1}),
        ("soft_top_k", {"temperature": 2.0}),
        ("transport", {"entropy": 1.0}),
        ("zip", {"up_to": 1}),
    ],
)
def test_a_method_does_what_it_is_told(key: str, told: dict[str, object], here: Situation) -> None:
    usual, other = made(key, here).network, made(key, here, told=told).network
    inputs = here.setting.data.test.inputs
    with torch.no_grad():
        assert not torch.allclose(usual(inputs), other(inputs), rtol=1e-3, atol=1e-3)


def test_one_similar_channel_weighs_all_at_any_temperature(here: Situation) -> None:
    sharp, soft = (
        made("soft_top_k", here, told={"top_k": 1, "temperature": t}) for t in (0.05, 5.0)
    )
    theirs = state_arrays(soft.network)
    assert all((theirs[name] == each).all() for name, each in state_arrays(sharp.network).items())


def test_zipping_every_space_is_zipping_all(here: Situation) -> None:
    whole, counted = made("zip", here), made("zip", here, told={"up_to": len(here.graph.free)})
    theirs = state_arrays(counted.network)
    assert all((theirs[name] == each).all() for name, each in state_arrays(whole.network).items())


def test_a_part_zipped_with_a_permuted_copy_gives_back_the_function_and_costs_more(
    here: Situation,
) -> None:
    first = here.teachers[0]
    teachers = [first, moved(first, here.graph, 3)]
    example = here.setting.example
    costs = [sum(flops(first, example).values())]
    for up_to in range(len(here.graph.free) - 1, 0, -1):
        setting = dataclasses.replace(here.setting, recipe=comparison(up_to=up_to))
        merged = finished("zip", teachers, here.graph, setting)
        torch.testing.assert_close(
            here.outputs(merged.network), here.outputs(first), rtol=1e-3, atol=1e-4
        )
        costs.append(sum(flops(merged.network, example).values()))
    assert costs == sorted(set(costs))


def test_more_zips_than_spaces_are_one_sentence(here: Situation) -> None:
    count = len(here.graph.free)
    with pytest.raises(RecipeError, match=f"up_to=9, but the network has {count} channel spaces"):
        made("zip", here, told={"up_to": 9})
