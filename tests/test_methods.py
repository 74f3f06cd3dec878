"""Every way to choose half of a big student's channels keeps the same promises."""

import copy

import pytest
import torch
from small import small

from merge_core.channels import concatenate, detach, scaled_reads, trace
from merge_core.data import augmentation, load
from merge_core.devices import generator
from merge_core.methods import CHOOSERS, Choice, Setting
from merge_core.models import build
from merge_core.training import state_arrays


def situation(name: str, tmp_path, seed: int = 0):
    recipe = small(name, seed=str(seed))
    data = load(recipe.data, recipe.seed, tmp_path)
    teachers = [build(recipe.model, s).eval() for s in (1, 2)]
    example = data.heldout.inputs[:4]
    big = concatenate(teachers, trace(teachers[0], example))
    setting = Setting(
        recipe=recipe,
        data=data,
        augment=augmentation("none"),
        draws=lambda purpose: generator(seed, purpose),
        teachers=2,
    )
    return teachers, big, trace(big, example), setting


def chosen(method, big, graph, setting) -> Choice:
    events = method.choose(copy.deepcopy(big), graph, setting, None)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("method", CHOOSERS, ids=lambda m: m.key)
@pytest.mark.parametrize("name", ["digits", "sine"])
def test_half_of_every_space_is_kept_and_the_student_has_the_teachers_shape(
    method, name: str, tmp_path
) -> None:
    teachers, big, graph, setting = situation(name, tmp_path)
    before = state_arrays(big)
    choice = chosen(method, big, graph, setting)
    assert all((before[k] == v).all() for k, v in state_arrays(big).items())
    assert set(choice.kept) == {space.name for space in graph.free}
    for space in graph.free:
        kept = choice.kept[space.name]
        assert len(kept) == space.size // 2
        assert torch.equal(kept, kept.unique())
        assert 0 <= int(kept.min()) <= int(kept.max()) < space.size
        for values in (choice.gates[space.name], choice.open_probability[space.name]):
            assert values.shape == (space.size,)
            assert (values >= 0).all()
            assert (values <= 1).all()
    student = choice.cut(graph)
    shapes = {k: v.shape for k, v in teachers[0].state_dict().items()}
    assert {k: v.shape for k, v in student.state_dict().items()} == shapes


@pytest.mark.parametrize("method", CHOOSERS, ids=lambda m: m.key)
def test_same_seed_same_choice_and_a_restored_choice_is_the_same(method, tmp_path) -> None:
    _, big, graph, setting = situation("digits", tmp_path)
    first, again = (chosen(method, big, graph, setting) for _ in range(2))
    stored = state_arrays(first.network)
    restored = method.restore(copy.deepcopy(big), graph, setting, stored)
    for other in (again, restored):
        for name, kept in first.kept.items():
            assert torch.equal(kept, other.kept[name])
        expected = state_arrays(first.cut(graph))
        assert all((expected[k] == v).all() for k, v in state_arrays(other.cut(graph)).items())


def test_cutting_closed_channels_changes_nothing(tmp_path) -> None:
    """With the dropped gates at 0 the gated network and the student are one function."""
    _, big, graph, setting = situation("digits", tmp_path)
    choice = chosen(CHOOSERS[0], big, graph, setting)
    gates = {}
    for name, kept in choice.kept.items():
        gates[name] = torch.zeros_like(choice.gates[name])
        gates[name][kept] = choice.gates[name][kept]
    closed = Choice(
        network=choice.network,
        gates=gates,
        open_probability=choice.open_probability,
        kept=choice.kept,
    )
    x = setting.data.heldout.inputs[:16]
    network = detach(copy.deepcopy(choice.network)).eval()
    with torch.no_grad(), scaled_reads(network, graph, gates):
        expected = network(x)
    with torch.no_grad():
        torch.testing.assert_close(closed.cut(graph).eval()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", CHOOSERS, ids=lambda m: m.key)
def test_every_method_names_itself_and_its_source(method) -> None:
    assert method.key.isidentifier()
    assert method.title
    assert method.source
    assert method.choose.__doc__
