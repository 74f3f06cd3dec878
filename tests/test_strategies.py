"""A whole merge: the order of its events, its exactness, and how the result is chosen."""

import itertools

import numpy as np
import pytest
import torch
from small import small

from merge_core.data import load
from merge_core.errors import DivergedError
from merge_core.events import (
    ChannelsKept,
    EpochFinished,
    Resume,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.learned import CURVE_POINTS, Learned, curve_places
from merge_core.models import build
from merge_core.presets import find_preset
from merge_core.stages import RETURNABLE, STAGES
from merge_core.strategies import merge
from merge_core.training import evaluate, load_arrays

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]


@pytest.fixture(scope="module", params=["digits", "sine"])
def finished_merge(request, tmp_path_factory):
    recipe = small(request.param)
    directory = tmp_path_factory.mktemp("data")
    return recipe, list(merge(recipe, "cpu", data_dir=directory)), directory


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_every_planned_stage_starts_and_finishes_in_order(finished_merge) -> None:
    recipe, events, _ = finished_merge
    planned = [e.stage for e in of_kind(events, StagePlanned)]
    without_norms = [s.key for s in STAGES if s.key != "norms" or recipe.name == "digits"]
    assert planned == without_norms
    assert [e.stage for e in of_kind(events, StageStarted)] == planned
    assert [e.stage for e in of_kind(events, StageFinished)] == planned
    assert isinstance(events[-1], StudentReturned)


def test_plans_say_what_is_done(finished_merge) -> None:
    recipe, events, _ = finished_merge
    plans = {e.stage: e for e in of_kind(events, StagePlanned)}
    for stage, plan in plans.items():
        epochs = [e for e in of_kind(events, EpochFinished) if e.stage == stage]
        assert plan.epochs == len(epochs)
        assert plan.steps == (epochs[-1].step if epochs else 0)
        assert (plan.flops > 0) == (plan.epochs > 0)
    assert plans["random_half"].epochs == plans["trained_on"].epochs == recipe.extra_epochs
    cost = {s: plans[s].flops / plans[s].epochs for s in ("gates", "teacher_a")}
    ratio = cost["gates"] / cost["teacher_a"]
    assert 1.9 < ratio < 4.0  # sine's only hidden layer doubles; deep layers cost four times


def test_teachers_may_learn_from_disjoint_halves(tmp_path) -> None:
    """They train on half the examples each; the stages after them on all."""
    plans = {}
    for halves in ("shared", "disjoint"):
        events = merge(small("digits", **{"data.halves": halves}), "cpu", data_dir=tmp_path)
        planned = itertools.takewhile(lambda e: isinstance(e, StagePlanned), events)
        plans[halves] = {e.stage: e for e in planned if isinstance(e, StagePlanned)}
        first = next(e for e in events if isinstance(e, EpochFinished))
        plan = plans[halves]["teacher_a"]
        assert first.step == plan.steps // plan.epochs
    for stage, plan in plans["shared"].items():
        part = 2 if stage in ("teacher_a", "teacher_b") else 1
        assert plans["disjoint"][stage].flops * part == pytest.approx(plan.flops)


def test_the_fresh_big_student_computes_the_teachers_mean(finished_merge) -> None:
    _, events, _ = finished_merge
    stages = {e.stage: e for e in of_kind(events, StageFinished)}
    assert stages["big"].facts["mean_error"] < 1e-5
    assert max(stages["big"].facts["law_errors"].values()) < 1e-5
    for split in ("train", "heldout", "test"):
        assert stages["big"].scores[split]["loss"] == pytest.approx(
            stages["ensemble"].scores[split]["loss"], rel=1e-5
        )


def test_the_result_is_the_best_stage_by_held_out_score(finished_merge) -> None:
    recipe, events, _ = finished_merge
    scores = {e.stage: e.scores["heldout"][recipe.metric] for e in of_kind(events, StageFinished)}
    returned = of_kind(events, StudentReturned)[0].stage
    assert returned in RETURNABLE
    assert not any(recipe.better(scores[s], scores[returned]) for s in RETURNABLE if s in scores)


def test_stored_weights_give_the_reported_scores(finished_merge) -> None:
    recipe, events, directory = finished_merge
    data = load(recipe.data, recipe.seed, directory)
    for event in of_kind(events, StageFinished):
        if event.stage in ("ensemble", "big", "gates"):
            continue
        network = load_arrays(build(recipe.model, 0), event.arrays)
        assert evaluate(network, data.test) == event.scores["test"]


def test_what_is_learned_is_what_the_stored_networks_answer(finished_merge) -> None:
    recipe, events, directory = finished_merge
    data = load(recipe.data, recipe.seed, directory)
    finished = of_kind(events, StageFinished)
    assert "class_names" not in finished[1].facts
    if recipe.metric == "accuracy":
        assert finished[0].facts["class_names"] == list(data.class_names)
    for event in finished:
        learned = Learned.of(event.facts["learned"])
        assert (len(learned.curve), len(learned.classes)) == (
            (0, 2) if recipe.metric == "accuracy" else (CURVE_POINTS, 0)
        )
        for split, counts in learned.classes.items():
            assert sum(counts.examples) == len(getattr(data, split))
            right = event.scores[split]["accuracy"] * len(getattr(data, split))
            assert sum(counts.right) == pytest.approx(right)
        if event.stage in ("ensemble", "big", "gates"):
            continue
        network = load_arrays(build(recipe.model, 0), event.arrays).eval()
        with torch.no_grad():
            if learned.curve:
                found = network(torch.tensor(curve_places()).unsqueeze(1)).squeeze(1)
                assert learned.curve == pytest.approx(found.tolist(), abs=6e-5)
                continue
            answers = network(data.test.inputs).argmax(1)
        counts = learned.classes["test"]
        for number, (right, examples) in enumerate(zip(counts.right, counts.examples, strict=True)):
            of_class = answers[data.test.targets == number]
            assert (right, examples) == (int((of_class == number).sum()), len(of_class))


def test_half_of_every_space_is_kept(finished_merge) -> None:
    _, events, _ = finished_merge
    for event in of_kind(events, ChannelsKept):
        assert len(event.kept) * 2 == len(event.gate) == len(event.open_probability)
        worst_kept = event.open_probability[event.kept].min()
        dropped = np.delete(event.open_probability, event.kept)
        assert worst_kept >= dropped.max()
    gates = [e for e in of_kind(events, EpochFinished) if e.stage == "gates"]
    for p in gates[-1].open_probabilities.values():
        assert p.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_same_recipe_same_numbers(device: str, tmp_path) -> None:
    recipe = small("digits")
    first, again = (
        {
            e.stage: e.scores
            for e in of_kind(merge(recipe, device, data_dir=tmp_path), StageFinished)
        }
        for _ in range(2)
    )
    if device == "cpu":
        assert first == again
    else:
        for stage, scores in first.items():
            assert again[stage]["test"]["loss"] == pytest.approx(scores["test"]["loss"], rel=1e-3)


def test_a_merge_continues_from_what_is_finished(finished_merge) -> None:
    recipe, events, directory = finished_merge
    finished = of_kind(events, StageFinished)
    for n in (1, 4, 5, len(finished) - 1):
        resume = Resume(finished={e.stage: e for e in finished[:n]})
        rest = list(merge(recipe, "cpu", data_dir=directory, resume=resume))
        assert [e.stage for e in of_kind(rest, StageFinished)] == [e.stage for e in finished[n:]]
        for a, b in zip(of_kind(rest, StageFinished), finished[n:], strict=True):
            assert a.scores == b.scores
            assert a.facts["learned"] == b.facts["learned"]
        assert of_kind(rest, StudentReturned)[0].stage == events[-1].stage


def test_a_diverging_merge_names_the_stage(tmp_path) -> None:
    recipe = small("sine", **{"teacher.learning_rate": "90"})
    with pytest.raises(DivergedError, match="teacher_a"):
        list(merge(recipe, "cpu", data_dir=tmp_path))


def test_fine_tuning_can_be_left_out(tmp_path) -> None:
    recipe = small("sine", **{"fine_tune.epochs": "0"})
    events = list(merge(recipe, "cpu", data_dir=tmp_path))
    assert "fine_tune" not in {e.stage for e in of_kind(events, StageFinished)}
    assert of_kind(events, StudentReturned)[0].stage == "cut"


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2"])
def test_torchvision_teachers_become_an_exact_big_student(model: str, tmp_path) -> None:
    """Trained for an epoch on a few photographs, so that norm statistics have moved."""
    recipe = find_preset("photos", "quick").recipe.changed(
        {
            "model": model,
            "data.train": "16",
            "data.heldout": "8",
            "data.test": "8",
            "teacher.epochs": "1",
            "teacher.batch_size": "8",
        }
    )
    finished = {}
    for event in merge(recipe, "cpu", data_dir=tmp_path):
        if isinstance(event, StageFinished):
            finished[event.stage] = event
            if event.stage == "big":
                break
    assert finished["big"].facts["mean_error"] < 1e-4
    for split, scores in finished["ensemble"].scores.items():
        assert finished["big"].scores[split]["loss"] == pytest.approx(scores["loss"], rel=1e-4)
