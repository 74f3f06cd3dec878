"""Networks tied together while they train: what each tie does, against plain loops."""

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_core.channels import permute, trace
from merge_core.coupling import average, couple
from merge_core.coupling.averaging import Dealing, Meetings, dealt, reorder
from merge_core.coupling.lockstep import in_lockstep
from merge_core.coupling.pulling import PulledTogether, layers_of, share_layers, shared_parameters
from merge_core.data import Split, augmentation, load
from merge_core.devices import derived_seed, generator
from merge_core.errors import DivergedError, RecipeError
from merge_core.events import (
    EpochFinished,
    Event,
    Resume,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.models import build
from merge_core.presets import LAYERS, find_preset, preset_of
from merge_core.recipes import Averaging, Coupling, Pull, Recipe, Training
from merge_core.strategies import merge
from merge_core.training import Course, Job, fit, load_arrays, rate_at

SMALL = {"data.train": "210", "data.heldout": "60", "data.test": "60"}
SINE = find_preset("sine", "quick").recipe.changed(SMALL)
TRAINING = Training(epochs=2, batch_size=32, learning_rate=0.05, weight_decay=1e-3)


def coupled(name: str = "digits", **settings: str) -> Coupling:
    made = preset_of("digits-coupled", "quick").recipe.changed(SMALL | {"teacher.epochs": "2"})
    if name == "sine":
        made = dataclasses.replace(made, data=SINE.data, model=SINE.model)
        made = made.changed({"teacher.learning_rate": "0.02"})
    assert isinstance(made, Coupling)
    return made.changed(settings)


def averaged(name: str = "digits", **settings: str) -> Averaging:
    made = preset_of("digits-averaged", "quick").recipe.changed(SMALL | {"training.epochs": "2"})
    if name == "sine":
        made = dataclasses.replace(made, data=SINE.data, model=SINE.model)
        made = made.changed({"training.learning_rate": "0.02"})
    assert isinstance(made, Averaging)
    return made.changed(settings)


def events_of(recipe: Coupling | Averaging, directory: Path, resume: Resume | None = None):
    run: Any = couple if isinstance(recipe, Coupling) else average
    return run(recipe, "cpu", data_dir=directory, resume=resume)


def finished(events: Iterable[Event]) -> dict[str, StageFinished]:
    return {event.stage: event for event in events if isinstance(event, StageFinished)}


def up_to(events: Iterable[Event], stage: str) -> dict[str, StageFinished]:
    """The stages that are over once this one is."""
    over: dict[str, StageFinished] = {}
    for event in events:
        if isinstance(event, StageFinished):
            over[event.stage] = event
            if event.stage == stage:
                break
    return over


def assert_same(one: StageFinished, other: StageFinished) -> None:
    assert one.scores == other.scores
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)
        )


def points(n: int = 96) -> Split:
    draws = generator(n, "points")
    inputs = torch.randn(n, 6, generator=draws)
    return Split(inputs, inputs[:, :3].argmax(1))


def job(net: nn.Module, number: int, training: Training = TRAINING) -> Job:
    return Job(
        stage=f"network {number}",
        network=net,
        training=training,
        train=points(),
        heldout=points(40),
        augment=augmentation("none"),
        draws=generator(number, "order"),
        dropout_seed=derived_seed(number, "dropout"),
    )


def together(teachers: Sequence[nn.Module], pull: Pull, training: Training = TRAINING) -> None:
    a, b = teachers
    courses = [
        Course(job(a, 0, training)),
        Course(job(b, 1, training), foreign=shared_parameters(a, b)),
    ]
    list(in_lockstep("coupled", courses, PulledTogether(a, b, pull, points(40)), None))


def assert_close(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6, msg=name)


# Coupled teachers


@pytest.mark.parametrize("halves", ["shared", "disjoint"])
def test_strength_0_gives_the_teachers_of_a_merge(halves: str, tmp_path: Path) -> None:
    recipe = coupled(**{"start": "own", "pull.strength": "0", "data.halves": halves})
    apart = find_preset("digits", "quick").recipe
    apart = dataclasses.replace(apart, data=recipe.data, teacher=recipe.teacher)
    ours = up_to(couple(recipe, "cpu", data_dir=tmp_path), "teacher_b")
    theirs = up_to(merge(apart, "cpu", data_dir=tmp_path), "teacher_b")
    for stage in ("teacher_a", "teacher_b"):
        assert_same(ours[stage], theirs[stage])


def test_in_lockstep_dropout_draws_what_it_would_draw_alone() -> None:
    apart, tied = [network(0), network(1)], [network(0), network(1)]
    for number, net in enumerate(apart):
        list(fit(job(net, number)))
    together(tied, Pull(strength=(0.0,)))
    for one, other in zip(apart, tied, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("law", ["constant", "growing"])
def test_the_pull_is_the_added_term_with_the_other_teacher_fixed(law: Any) -> None:
    """An oracle written out: autograd of the loss and the term, momentum and decay by hand."""
    pull = Pull(strength=(0.4, 0.0, 0.1), law=law)
    start = [network(0).eval(), network(1).eval()]
    for net in start:
        net[2] = nn.Identity()
    ours, theirs = copy.deepcopy(start), start
    together(ours, pull)

    data, weights = points(), [0.4, 0.4, 0.0, 0.0, 0.1, 0.1]
    draws = [generator(number, "order") for number in (0, 1)]
    speed = [[torch.zeros_like(p) for p in net.parameters()] for net in theirs]
    steps = 2 * 3
    for epoch in range(2):
        orders = [torch.randperm(96, generator=each) for each in draws]
        for index in range(3):
            step = epoch * 3 + index
            share = (step + 1) / steps if law == "growing" else 1.0
            moves = []
            for me, other in ((0, 1), (1, 0)):
                batch = orders[me][32 * index : 32 * (index + 1)]
                loss = functional.cross_entropy(theirs[me](data.inputs[batch]), data.targets[batch])
                for w, p, q in zip(
                    weights, theirs[me].parameters(), theirs[other].parameters(), strict=True
                ):
                    loss = loss + share * w * ((p - q.detach()) ** 2).sum()
                moves.append(torch.autograd.grad(loss, list(theirs[me].parameters())))
            with torch.no_grad():
                for net, gradients, velocity in zip(theirs, moves, speed, strict=True):
                    for p, g, v in zip(net.parameters(), gradients, velocity, strict=True):
                        v.mul_(0.9).add_(g + 1e-3 * p)
                        p.sub_(rate_at(TRAINING, step, steps) * v)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def test_a_stronger_pull_brings_the_teachers_nearer(tmp_path: Path) -> None:
    distances = []
    for strength in ("0", "0.3", "3"):
        settings = {"start": "own", "pull.strength": strength, "teacher.momentum": "0"}
        recipe = coupled("sine", **settings)
        epochs = [
            event
            for event in couple(recipe, "cpu", data_dir=tmp_path)
            if isinstance(event, EpochFinished) and event.stage == "coupled"
        ]
        distances.append(epochs[-1].metrics["distance"])
        assert (epochs[-1].metrics["pull"] > 0) == (strength != "0")
    assert distances[0] > 1.05 * distances[1] > 1.05**2 * distances[2] > 0


def test_shared_layers_are_the_same_and_heads_are_not(tmp_path: Path) -> None:
    recipe = coupled(**{"start": "own", "pull.heads_from": "features.2.0"})
    over = up_to(couple(recipe, "cpu", data_dir=tmp_path), "average")
    a, b, mean = (over[stage].arrays for stage in ("teacher_a", "teacher_b", "average"))
    below = [name for name in a if name.startswith("features.0.")]
    assert len(below) == 6  # a weight, a norm's scale, shift, statistics and count
    for name in a:
        same = np.array_equal(a[name], b[name])
        assert same == (name in below or name.endswith("num_batches_tracked")), name
        if same and a[name].dtype == np.float32:
            np.testing.assert_array_equal(mean[name], a[name])


def test_shared_layers_are_the_limit_of_an_infinite_pull() -> None:
    """Teachers whose lower layers are brought to their mean after every step, by hand."""
    plain = dataclasses.replace(TRAINING, weight_decay=0.01)
    ours = [network(0), network(1)]
    theirs = copy.deepcopy(ours)
    for p, q in zip(theirs[0][0].parameters(), theirs[1][0].parameters(), strict=True):
        q.data.copy_(p)
    share_layers(ours[0], ours[1], "3")
    together(ours, Pull(strength=(0.0,)), plain)

    class Projected(PulledTogether):
        @torch.no_grad()
        def after_move(self, step: int, steps: int) -> None:
            for p, q in zip(theirs[0][0].parameters(), theirs[1][0].parameters(), strict=True):
                p.copy_((p + q) / 2)
                q.copy_(p)

    courses = [Course(job(net, number, plain)) for number, net in enumerate(theirs)]
    tie = Projected(theirs[0], theirs[1], Pull(strength=(0.0,)), points(40))
    list(in_lockstep("coupled", courses, tie, None))
    assert ours[0][0] is ours[1][0]
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("model", LAYERS)
def test_the_layers_that_a_page_offers_are_the_network_s(model: str) -> None:
    assert tuple(layers_of(build(model, 0))) == LAYERS[model]


def test_a_norm_belongs_to_the_layer_before_it() -> None:
    assert layers_of(build("digits-cnn", 0)) == {
        "features.0.0": ["features.0.0", "features.0.1"],
        "features.2.0": ["features.2.0", "features.2.1"],
        "classifier": ["classifier"],
    }


@pytest.mark.parametrize("strength", ["0.1,0.2", "0.1,0.2,0.3,0.4"])
def test_strengths_that_do_not_fit_the_layers_are_refused(strength: str, tmp_path: Path) -> None:
    recipe = coupled(**{"pull.strength": strength})
    words = rf"pull.strength='{strength}', .* 3 layers \(features.0.0, features.2.0, classifier\)"
    with pytest.raises(RecipeError, match=words):
        next(couple(recipe, "cpu", data_dir=tmp_path))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("features.2.1", "did you mean 'features.2.0'"),
        ("features.0.0", "a layer after the network's first one"),
        ("zzz", "choose one of features.2.0, classifier"),
    ],
)
def test_layers_that_cannot_be_shared_are_refused(layer: str, words: str, tmp_path: Path) -> None:
    recipe = coupled(**{"pull.heads_from": layer})
    with pytest.raises(RecipeError, match=words):
        list(couple(recipe, "cpu", data_dir=tmp_path))


# Averaged workers


def test_dealt_examples_are_disjoint_and_new_every_time() -> None:
    draws = generator(0, "dealing")
    first, second = (dealt(103, 5, draws) for _ in range(2))
    for parts in (first, second):
        assert [len(part) for part in parts] == [20] * 5
        assert len(set(torch.cat(parts).tolist())) == 100
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("workers", [2, 3])
def test_averaging_every_step_is_training_on_large_batches(workers: int, tmp_path: Path) -> None:
    recipe = averaged(
        "sine", **{"workers": str(workers), "every": "1", "training.momentum": "0",
                   "training.batch_size": "16", "training.weight_decay": "0.01"},
    )  # fmt: skip
    mean = up_to(average(recipe, "cpu", data_dir=tmp_path), "average")["average"].arrays

    data, training = load(recipe.data, recipe.seed, tmp_path).train, recipe.training
    seed = derived_seed(recipe.seed, "init/worker_0")
    plain = build(recipe.model, seed, recipe.data.shape)
    dealing = generator(recipe.seed, "dealing")
    seen = len(data) // workers * workers
    per_epoch = -(-seen // (16 * workers))
    for epoch in range(training.epochs):
        order = torch.randperm(len(data), generator=dealing)[:seen]
        for index, batch in enumerate(order.split(16 * workers)):
            loss = functional.mse_loss(plain(data.inputs[batch]), data.targets[batch])
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            rate = rate_at(training, epoch * per_epoch + index, training.epochs * per_epoch)
            with torch.no_grad():
                for p, g in zip(plain.parameters(), gradients, strict=True):
                    p.sub_(rate * (g + 0.01 * p))
    ours = load_arrays(build(recipe.model, 0, recipe.data.shape), mean)
    assert_close(ours, plain)


def meeting(nets: Sequence[nn.Module], recipe: Averaging, example: Tensor) -> Meetings:
    courses = [Course(job(net, number)) for number, net in enumerate(nets)]
    for course in courses:
        course.begin()
        course.backward()
        course.move()
    graph = trace(nets[0], example)
    return Meetings(
        courses, graph, recipe, points(40), generator(0, "dealing"), generator(0, "matching")
    )


def plain_net(seed: int) -> nn.Sequential:
    net = network(seed)
    net[2] = nn.Identity()
    return net


def orders_of(net: nn.Module) -> dict[str, Tensor]:
    graph = trace(net, points().inputs[:4])
    draws = generator(9, "permutation")
    return {space.name: torch.randperm(space.size, generator=draws) for space in graph.free}


@pytest.mark.parametrize("way", ["plain", "matched"])
def test_a_permuted_worker_is_brought_back_by_matching(way: Any) -> None:
    """With its momentum: the workers then go on as one, which the plain average cannot do."""
    a, b = plain_net(0), plain_net(0)
    tie = meeting([a, b], averaged(every="1", average=way), points().inputs[:4])
    first, second = tie._courses
    second.job.network.load_state_dict(a.state_dict())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        momentum = first.optimizer.state[p]["momentum_buffer"]
        second.optimizer.state[q]["momentum_buffer"].copy_(momentum)
    before = copy.deepcopy(a)
    reorder(second, trace(b, points().inputs[:4]), orders_of(b))
    assert not torch.equal(next(a.parameters()), next(b.parameters()))
    tie.after_move(0, 1)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
    momenta = [
        torch.cat([c.optimizer.state[p]["momentum_buffer"].flatten() for p in net.parameters()])
        for c, net in ((first, a), (second, b))
    ]
    same_weights = all(
        torch.allclose(p, q, atol=1e-6)
        for p, q in zip(a.parameters(), before.parameters(), strict=True)
    )
    assert same_weights == torch.equal(*momenta) == (way == "matched")


def test_reordering_a_worker_moves_its_momentum_along() -> None:
    net = plain_net(0)
    (course,) = meeting([net], averaged(), points().inputs[:4])._courses
    velocity = copy.deepcopy(net)
    for into, p in zip(velocity.parameters(), net.parameters(), strict=True):
        into.data.copy_(course.optimizer.state[p]["momentum_buffer"])
    graph, orders = trace(net, points().inputs[:4]), orders_of(net)
    expected, moving = permute(net, graph, orders), permute(velocity, graph, orders)
    reorder(course, graph, orders)
    for p, q, v in zip(net.parameters(), expected.parameters(), moving.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(course.optimizer.state[p]["momentum_buffer"], v)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_workers_move_to_the_average_by_their_share(share: float) -> None:
    nets = [plain_net(seed) for seed in (0, 1, 2)]
    tie = meeting(nets, averaged(every="1", share=str(share)), points().inputs[:4])
    before = [nn.utils.parameters_to_vector(net.parameters()).detach().clone() for net in nets]
    mean = torch.stack(before).mean(0)
    tie.after_move(0, 1)
    for was, net in zip(before, nets, strict=True):
        now = nn.utils.parameters_to_vector(net.parameters())
        torch.testing.assert_close(now, (1 - share) * was + share * mean)
    root = torch.stack([(each - mean).square().sum() for each in before]).mean().sqrt()
    assert tie.observe()["distance"] == pytest.approx(float(root / mean.norm()), rel=1e-5)


def test_a_worker_alone_sees_the_first_worker_s_parts() -> None:
    courses = [Course(job(plain_net(0), 0))]
    tie = Dealing(courses, 4, points(40), generator(3, "dealing"))
    (order,) = tie.orders()
    assert torch.equal(order, dealt(96, 4, generator(3, "dealing"))[0])


# Whole runs

RUNS = {
    "coupled": coupled("digits", start="own"),
    "shared layers": coupled("digits", **{"pull.heads_from": "classifier", "pull.law": "growing"}),
    "coupled sine": coupled("sine"),
    "averaged": averaged("digits", workers="3", every="2", share="0.5"),
    "matched": averaged("digits", start="own", average="matched"),
    "averaged sine": averaged("sine"),
}


@pytest.mark.parametrize("name", RUNS)
def test_stages_are_planned_gone_through_and_resumed_anywhere(name: str, tmp_path: Path) -> None:
    """After every epoch of the tied stage and after every stage, to the same numbers."""
    recipe = RUNS[name]
    events, checkpoints = [], []
    for event in events_of(recipe, tmp_path):
        events.append(event)
        if isinstance(event, EpochFinished):
            checkpoints.append((event, dict(event.checkpoint())))
    planned = [e.stage for e in events if isinstance(e, StagePlanned)]
    assert [e.stage for e in events if isinstance(e, StageStarted)] == planned
    whole = finished(events)
    assert list(whole) == planned
    assert ("average_norms" in planned) == (recipe.data.name == "digits")
    assert planned[0] == ("coupled" if isinstance(recipe, Coupling) else "workers")
    plans = {e.stage: e for e in events if isinstance(e, StagePlanned)}
    for event, _ in checkpoints:
        plan = plans[event.stage]
        assert event.step * plan.epochs == plan.steps * event.epoch
        assert plan.flops > 0
    returned = events[-1]
    assert isinstance(returned, StudentReturned)
    assert returned.stage in ("average", "average_norms")

    done: dict[str, StageFinished] = {}
    for stage in planned:
        halfway = [pair for pair in checkpoints if pair[0].stage == stage and pair[0].epoch == 1]
        for _, arrays in halfway:
            resume = Resume(finished=dict(done), stage=stage, checkpoint=arrays)
            rest = list(events_of(recipe, tmp_path, resume))
            started = next(e for e in rest if isinstance(e, StageStarted))
            assert (started.stage, started.epoch) == (stage, 1)
            for key, event in finished(rest).items():
                assert_same(event, whole[key])
            assert rest[-1] == returned
        done[stage] = whole[stage]
    rest = list(events_of(recipe, tmp_path, Resume(finished=done)))
    assert not finished(rest)
    assert rest[-1] == returned


def test_the_one_on_all_data_takes_the_steps_of_all_workers(tmp_path: Path) -> None:
    recipe = averaged(**{"workers": "4", "data.train": "256", "training.batch_size": "16"})
    plans = {}
    for event in average(recipe, "cpu", data_dir=tmp_path):
        if not isinstance(event, StagePlanned):
            break
        plans[event.stage] = event
    assert plans["one_on_all"].steps == 4 * plans["workers"].steps
    assert plans["worker_alone"].steps == plans["workers"].steps
    assert plans["workers"].flops == plans["one_on_all"].flops
    assert plans["workers"].flops == pytest.approx(4 * plans["worker_alone"].flops)


def test_the_one_alone_takes_the_steps_of_both_teachers(tmp_path: Path) -> None:
    for halves in ("shared", "disjoint"):
        recipe = coupled(**{"data.train": "256", "data.halves": halves})
        plans = {}
        for event in couple(recipe, "cpu", data_dir=tmp_path):
            if not isinstance(event, StagePlanned):
                break
            plans[event.stage] = event
        assert plans["alone"].steps == 2 * plans["coupled"].steps
        assert plans["alone"].flops == plans["coupled"].flops


def test_more_workers_than_examples_are_refused(tmp_path: Path) -> None:
    recipe = averaged(**{"data.train": "10", "workers": "20"})
    with pytest.raises(RecipeError, match="only 10 training examples"):
        list(average(recipe, "cpu", data_dir=tmp_path))


def test_training_that_diverges_names_its_stage(tmp_path: Path) -> None:
    wild = {"learning_rate": "90", "batch_size": "4"}
    workers = averaged("sine", **{f"training.{key}": value for key, value in wild.items()})
    with pytest.raises(DivergedError, match="workers"):
        list(average(workers, "cpu", data_dir=tmp_path))
    settings = {f"teacher.{key}": value for key, value in wild.items()}
    teachers = coupled("sine", **{"pull.strength": "0"}).changed(settings)
    with pytest.raises(DivergedError, match="teacher_a"):
        list(couple(teachers, "cpu", data_dir=tmp_path))


def test_another_kind_of_recipe_is_not_a_merge() -> None:
    assert not isinstance(coupled(), Recipe)
