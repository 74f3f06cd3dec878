"""A merge without gates: its parts against independent oracles, its runs against its tables."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small
from torch import nn

from merge_core.channels import trace
from merge_core.data import Split
from merge_core.devices import generator
from merge_core.errors import RecipeError
from merge_core.events import ChannelsKept, Resume, StageFinished, StagePlanned, StudentReturned
from merge_core.models.small import SineMLP
from merge_core.presets import OURS, find_preset
from merge_core.presets.ours import ours
from merge_core.recipes import Refit, from_json
from merge_core.refits.outputs import imitated, output_fitted
from merge_core.refits.selecting import counted, selected
from merge_core.refits.strategy import RefitRun, refit
from merge_core.stages import REFIT_STAGES, RETURNABLE_REFIT
from merge_core.tables import Block, rows
from merge_core.training import evaluate, loss_of

NOWHERE = Path("no data is read")


def recipe(name: str = "sine", **settings: str) -> Refit:
    return ours(small(name), 30.0).changed(
        {"teacher.epochs": "2", "fine_tune.epochs": "2", "examples": "200", **settings}
    )


def ran(chosen: Refit, resume: Resume | None = None) -> list:
    return list(refit(chosen, "cpu", data_dir=NOWHERE, resume=resume))


def numbers(n: int = 60, features: int = 5) -> tuple[nn.Module, Split]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, features), nn.Tanh(), nn.Linear(features, 1))
    x = torch.linspace(-2, 2, n).unsqueeze(1)
    return network, Split(x, torch.sin(3 * x))


def test_the_output_layer_is_the_least_squares_solution() -> None:
    network, split = numbers()
    fitted = output_fitted(network, split, 0.0)
    with torch.no_grad():
        hidden = nn.Sequential(*list(network.children())[:2])(split.inputs).double().numpy()
    design = np.hstack([hidden, np.ones((len(hidden), 1))])
    best = np.linalg.lstsq(design, split.targets.double().numpy(), rcond=None)
    residual = float(best[1][0]) / len(split)
    assert evaluate(fitted, split)["loss"] == pytest.approx(residual, rel=1e-3)
    assert evaluate(fitted, split)["loss"] < evaluate(network, split)["loss"]


def test_a_larger_ridge_gives_smaller_weights() -> None:
    network, split = numbers()
    lengths = []
    for ridge in (1e-8, 1e-3, 1.0):
        last = list(output_fitted(network, split, ridge).children())[-1]
        assert isinstance(last, nn.Linear)
        lengths.append(float(last.weight.detach().norm()))
    assert lengths[0] > lengths[1] > lengths[2]


def test_teachers_are_imitated_between_the_examples() -> None:
    torch.manual_seed(1)
    teachers = [nn.Linear(3, 4), nn.Linear(3, 4)]
    split = Split(torch.randn(7, 3), torch.randint(0, 4, (7,)))
    made = imitated(split, teachers, 3, generator(0, "mixes"))
    assert made.inputs.shape == (21, 3)
    low, high = split.inputs.amin(0), split.inputs.amax(0)
    assert bool(((made.inputs >= low) & (made.inputs <= high)).all())
    expected = torch.stack([teacher(made.inputs) for teacher in teachers]).mean(0).softmax(1)
    torch.testing.assert_close(made.targets, expected.detach())
    assert not torch.equal(made.inputs[:7], made.inputs[7:14])
    assert made.stored is split.stored, "mixed examples take no room"
    order = torch.randperm(21, generator=generator(0, "order"))
    for part in (made.part(order), made.to("cpu").part(order), made.part(slice(None)).part(order)):
        assert torch.equal(part.inputs, made.inputs[order])
        assert torch.equal(part.targets, made.targets[order])
    # A mixed example lies on the line between its example and another one.
    direction = made.inputs[:7] - split.inputs
    for number, mine in enumerate(direction):
        others = split.inputs - split.inputs[number]
        cosines = torch.nn.functional.cosine_similarity(others, mine.unsqueeze(0))
        assert float(mine.norm()) < 1e-6 or float(cosines.max()) == pytest.approx(1, abs=1e-4)


def test_a_share_of_what_is_imitated_are_the_classes() -> None:
    """In the shares of the two examples; with the same draws, so on the same mixed examples."""
    torch.manual_seed(1)
    teacher = nn.Linear(3, 4)
    split = Split(torch.randn(7, 3), torch.randint(0, 4, (7,)))
    none, some, only = (
        imitated(split, [teacher], 2, generator(0, "mixes"), share) for share in (0.0, 0.25, 1.0)
    )
    for number, ((first, second), share) in enumerate(zip(only.pairs, only.share, strict=True)):
        expected = torch.zeros(4)
        expected[split.targets[first]] += share
        expected[split.targets[second]] += 1 - share
        torch.testing.assert_close(only.targets[number], expected)
    torch.testing.assert_close(some.targets, 0.75 * none.targets + 0.25 * only.targets)
    assert torch.equal(some.inputs, none.inputs)


def test_what_is_counted_is_what_a_matrix_product_costs() -> None:
    with counted() as counter:
        _ = torch.zeros(5, 7) @ torch.zeros(7, 11)
    assert counter.flops == 2 * 5 * 7 * 11


def test_channels_of_one_teacher_thrice_lose_nothing() -> None:
    """All that three copies know is in one; numbers are even fitted better than by the teacher."""
    (it,) = Block(small("sine"), range(1), "epochs", device="cpu", data_dir=NOWHERE).all
    run = RefitRun(recipe(teachers="3"), "cpu", it.data, None)
    teacher = SineMLP()
    copies = [copy.deepcopy(teacher) for _ in range(3)]
    made = selected(copies, trace(teacher, run.example), run.setting)
    assert type(made.student) is SineMLP
    assert made.student.hidden.weight.shape == teacher.hidden.weight.shape
    assert evaluate(made.student, it.data.train)["loss"] < evaluate(teacher, it.data.train)["loss"]
    assert made.flops > 0


def test_selected_channels_are_better_than_random_ones() -> None:
    """On every seed, before any fine-tuning."""
    some = Block(small("sine"), range(3), "epochs", device="cpu", data_dir=NOWHERE)
    for it in some.all:
        run = RefitRun(recipe(seed=str(it.recipe.seed)), "cpu", it.data, None)
        teachers = [run.fresh(stage).eval() for stage in run.names]
        best = selected(teachers, some.graph, run.setting).student
        random = selected(teachers, some.graph, run.setting, random=True).student
        assert it.heldout(best) < it.heldout(random)


@pytest.mark.parametrize("start", ["selected", "random"])
@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_run_yields_its_stages_in_order(name: str, start: str) -> None:
    chosen = recipe(name, start=start)
    events = ran(chosen)
    plans = [event.stage for event in events if isinstance(event, StagePlanned)]
    over = {event.stage: event for event in events if isinstance(event, StageFinished)}
    order = [stage.key for stage in REFIT_STAGES]
    assert list(over) == plans == sorted(plans, key=order.index)
    (end,) = (event for event in events if isinstance(event, StudentReturned))
    best = max if chosen.metric == "accuracy" else min
    scores = {
        stage: event.scores["heldout"][chosen.metric]
        for stage, event in over.items()
        if stage in RETURNABLE_REFIT
    }
    assert scores[end.stage] == best(scores.values())
    for event in events:
        if isinstance(event, ChannelsKept):
            assert event.gate.sum() == len(event.kept) == len(event.gate) // chosen.teachers


def test_a_resumed_run_gives_the_same_numbers() -> None:
    chosen = recipe("digits")
    events = ran(chosen)
    over = {event.stage: event for event in events if isinstance(event, StageFinished)}
    begun = dict(list(over.items())[: chosen.teachers + 2])  # teachers, ensemble, selected
    again = ran(chosen, Resume(finished=begun))
    rest = {event.stage: event for event in again if isinstance(event, StageFinished)}
    assert not rest.keys() & begun.keys()
    for stage, event in rest.items():
        assert event.scores == over[stage].scores, stage
        assert event.facts["learned"] == over[stage].facts["learned"] != {}


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_the_strategy_of_a_table_is_the_run(name: str) -> None:
    """One procedure: the same recipe and seed give the same scores, to rounding."""
    base = small(name)
    some = Block(base, range(4, 6), "epochs", device="cpu", data_dir=NOWHERE)
    made = [row for row in rows(some, "ours") if row.strategy == "ours"]
    for row in made:
        chosen = replace(ours(base, some.epochs.long), seed=row.seed)
        events = ran(chosen)
        (end,) = (event for event in events if isinstance(event, StudentReturned))
        over = {event.stage: event for event in events if isinstance(event, StageFinished)}
        made_with = RefitRun(chosen, "cpu", some.all[0].data, None)
        score = over[end.stage].scores["heldout"][chosen.metric]
        assert row.heldout == pytest.approx(score, rel=5e-3, abs=0.021)
        apart = (made_with.control, "trained_on")
        assert [stage for stage, _, _ in row.stages] == [key for key in over if key not in apart]


@pytest.mark.parametrize("name", ["sine", "digits", "textures", "mnist-lenet"])
def test_ours_is_never_dearer_than_the_merge_it_replaces(name: str) -> None:
    """Epochs alone; what is left is for selecting, distilling and norms."""
    preset = find_preset(name, "quick").recipe
    for total in (20.0, 54.0, 1050.0):
        made = ours(preset, total)
        spent = made.teachers * made.teacher.epochs + made.tuning_passes
        spent += made.mixes * made.teachers / 3
        assert spent <= 0.99 * total


def test_what_ours_computes_beside_its_epochs_is_counted() -> None:
    """Selecting, and after fine-tuning the last refit, too."""
    base = small("sine").changed({"data.train": "2000", "teacher.epochs": "20"})
    some = Block(base, range(1), "flops", device="cpu", data_dir=NOWHERE)
    made = {row.strategy: row for row in rows(some, "ours")}
    assert made["ours_selected"].flops < made["ours"].flops
    assert some.flops(made["ours"].epochs) < made["ours"].flops


def test_presets_survive_json() -> None:
    assert {preset.recipe.preset for preset in OURS} == {"ours"}
    for preset in OURS:
        assert from_json(preset.recipe.to_json()) == preset.recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teachers", "1"),
        ("teachers", "5"),
        ("teacher.epochs", "0"),
        ("examples", "5"),
        ("mixes", "3"),
        ("labels", "1.5"),
        ("data.halves", "disjoint"),
    ],
)
def test_what_does_not_fit_is_refused(key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=key.replace(".", r"\.")):
        recipe("sine", **{key: value})


def test_targets_with_columns_are_probabilities() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    soft = torch.tensor([[0.25, 0.75]])
    low, high = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert float(loss_of(logits, soft)) == pytest.approx(0.25 * low + 0.75 * high)
