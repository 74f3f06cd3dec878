"""Tables: repetitions are merges, files outlive what stops them, figures add up."""

import copy
import json
import math
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from small import small

from merge_core import tabled
from merge_core.cli import main
from merge_core.ensembles import perceptrons
from merge_core.errors import NetweldError, RecipeError, StoreError
from merge_core.events import StageFinished, StudentReturned
from merge_core.models.small import SineMLP
from merge_core.presets import find_preset
from merge_core.published import PUBLISHED
from merge_core.recipes import Recipe
from merge_core.repetitions import (
    STRATEGIES,
    UNITS,
    Budget,
    Failure,
    Results,
    Row,
    summary,
)
from merge_core.strategies import merge
from merge_core.tables import Block, Epochs, planned, rows

RECORDED = ("teacher_a", "teacher_b", "big", "gates", "cut", "norms", "fine_tune")
SMALL = {"data.train": "200", "data.heldout": "60", "data.test": "60", "gates.pull": "400"}


def recipe(name: str = "sine", **settings: str) -> Recipe:
    sizes = SMALL if name == "sine" else {}
    return small(name, **{"teacher.epochs": "2", **sizes}, **settings)


def block(chosen: Recipe, seeds: range, budget: Budget = "epochs", **more: Any) -> Block:
    return Block(chosen, seeds, budget, device="cpu", data_dir=Path("no data is read"), **more)


def test_a_row_has_what_its_network_answers() -> None:
    """On both splits classes make up the score, each as often as it is there."""
    (it,) = (some := block(recipe("digits"), range(1))).all
    row = some.row(it, "teacher", it.fresh("teacher_a"), 0)
    for split in ("heldout", "test"):
        targets = getattr(it.data, split).targets
        shares = [0.0 if each is None else each for each in row.accuracies(split)]
        counts = [int((targets == number).sum()) for number in range(len(shares))]
        right = sum(share * count for share, count in zip(shares, counts, strict=True))
        assert right == pytest.approx(getattr(row, split) * len(targets), abs=0.01)


def of_merge(chosen: Recipe, tmp_path: Path) -> dict[str, dict[str, float]]:
    """Held-out and test score of every stage of one merge, and of the student it returns."""
    scores = {}
    for event in merge(chosen, "cpu", data_dir=tmp_path):
        if isinstance(event, StageFinished):
            scores[event.stage] = {
                split: event.scores[split][chosen.metric] for split in ("heldout", "test")
            }
        if isinstance(event, StudentReturned):
            scores["student"] = scores[event.stage]
    return scores


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_repetition_is_the_merge_with_its_seed(name: str, tmp_path: Path) -> None:
    """Together with others it gives the numbers that it gives alone, to rounding."""
    chosen = recipe(name)
    made = list(rows(block(chosen, range(4, 6)), "merge"))
    for seed in (4, 5):
        expected = of_merge(replace(chosen, seed=seed), tmp_path)
        mine = {row.strategy: row for row in made if row.seed == seed}
        for strategy, stage in {
            "teacher": "teacher_a",
            "cut": "cut",
            "student": "student",
            "random_half": "random_half",
        }.items():
            for split in ("heldout", "test"):
                found = getattr(mine[strategy], split)
                assert found == pytest.approx(expected[stage][split], rel=2e-3, abs=0.011), strategy
        recorded = {stage: scores for stage, *scores in mine["trained_on"].stages}
        for stage in ("teacher_a", "trained_on"):
            scores = expected[stage]["heldout"], expected[stage]["test"]
            assert recorded[stage] == pytest.approx(scores, rel=2e-3, abs=0.011), stage
        way = [stage for stage in expected if stage in RECORDED]
        assert [stage for stage, _, _ in mine["student"].stages] == way
        for stage, heldout, test in mine["student"].stages:
            scores = expected[stage]["heldout"], expected[stage]["test"]
            assert (heldout, test) == pytest.approx(scores, rel=2e-3, abs=0.011), stage


def test_every_unit_gives_the_strategies_it_promises() -> None:
    some = block(recipe(), range(2))
    assert {key for keys in UNITS.values() for key in keys} == {each.key for each in STRATEGIES}
    for unit, strategies in UNITS.items():
        made = list(rows(some, unit))
        assert sorted((row.seed, row.strategy) for row in made) == sorted(
            (seed, key) for seed in range(2) for key in strategies
        )
        assert all(math.isfinite(row.test) for row in made)


@pytest.mark.parametrize("budget", get_args(Budget))
def test_what_is_planned_is_done(budget: Budget) -> None:
    done: list[float] = []
    some = block(recipe(), range(2), budget, report=done.append)
    for unit in UNITS:
        done.clear()
        list(rows(some, unit))
        assert sum(done) == pytest.approx(planned(some, unit)), unit


def test_all_strategies_of_a_budget_cost_the_same() -> None:
    chosen = find_preset("sine", "paper").recipe
    total = 2 * chosen.teacher.epochs + chosen.extra_epochs
    same = Epochs.of(chosen, "epochs", 10, 20)
    assert total == same.long == same.long_big == 3 * same.teacher == 3 * same.big == 900
    assert same.extra == chosen.extra_epochs == 300
    fair = Epochs.of(chosen, "flops", 10, 20)
    student = 750 * 10 + 150 * 20
    for flops in (fair.long * 10, 3 * fair.teacher * 10, fair.long_big * 20, 3 * fair.big * 20):
        assert flops == pytest.approx(student, rel=0.01)
    assert (600 + fair.extra) * 10 == student


def test_the_best_of_three_gets_the_same_epochs_whatever_the_split() -> None:
    """ImageNet's teachers have 20 of 150 epochs, so they are no third of it."""
    chosen = find_preset("imagenet-resnet18", "paper").recipe
    epochs = Epochs.of(chosen, "epochs", 10, 20)
    assert (epochs.taught, epochs.long, epochs.teacher, epochs.big) == (40, 150, 50, 50)
    equal = recipe(**{"gating.epochs": "1", "fine_tune.epochs": "1"})
    assert block(equal, range(1)).shares_teachers
    assert not block(recipe(**{"gating.epochs": "4"}), range(1)).shares_teachers


@pytest.mark.parametrize("budget", get_args(Budget))
def test_teachers_of_halves_cost_half(budget: Budget) -> None:
    done: list[float] = []
    halves = recipe("digits", **{"data.halves": "disjoint"})
    some = block(halves, range(1), budget, report=done.append)
    assert not some.shares_teachers
    made = {row.strategy: row for row in rows(some, "merge")}
    assert sum(done) == pytest.approx(planned(some, "merge"), rel=0.01)
    per_epoch = 3 * some.examples * some.cost
    assert made["teacher"].flops == pytest.approx(halves.teacher.epochs * per_epoch / 2)
    assert made["teacher"].epochs == halves.teacher.epochs
    extra = made["random_half"].flops - 2 * made["teacher"].flops
    assert extra == pytest.approx(some.epochs.extra * per_epoch)


def test_training_on_is_judged_as_the_student_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more training only hurts, teacher A stays as it was."""
    ruined = {"fine_tune.epochs": "3", "gating.epochs": "1", "teacher.learning_rate": "0.05"}
    some = block(recipe(**ruined), range(1))
    tuned = Block.tuned

    def worse(self, networks, stage, training):
        made = tuned(self, networks, stage, training)
        if stage == "trained_on":
            for network in made:
                for parameter in network.parameters():
                    torch.nn.init.constant_(parameter, 3.0)
        return made

    monkeypatch.setattr(Block, "tuned", worse)
    made = {row.strategy: row for row in rows(some, "merge")}
    (before, *scores), (after, *ended) = made["trained_on"].stages
    assert (before, after) == ("teacher_a", "trained_on")
    assert scores == [made["teacher"].heldout, made["teacher"].test]
    assert [made["trained_on"].heldout, made["trained_on"].test] == scores
    assert ended[0] > scores[0]


def test_the_best_of_three_is_chosen_by_the_heldout_split() -> None:
    """No teacher has a better held-out score, whatever their test scores are."""
    some = block(recipe(), range(1))
    made = {row.strategy: row for row in rows(some, "merge")}
    assert made["bo3"].heldout <= made["teacher"].heldout
    assert made["student"].heldout <= made["cut"].heldout


def test_a_weight_average_is_the_mean_over_the_last_quarter(monkeypatch) -> None:
    """Eight epochs, of which two are averaged: the mean of the weights after each of the two."""
    some = block(recipe(**{"gating.epochs": "2", "fine_tune.epochs": "2"}), range(1))
    assert some.epochs.long == 8
    seen = []
    train = Block.train

    def noted(self, jobs, cost, watch=lambda numbers: None):
        def both(numbers):
            seen.append((jobs[0].stage, copy.deepcopy(jobs[0].network.state_dict())))
            watch(numbers)

        return train(self, jobs, cost, both)

    chosen_from = []

    def best(it, candidates):
        chosen_from.extend(candidates)
        return candidates[0]

    monkeypatch.setattr(Block, "train", noted)
    monkeypatch.setattr(type(some.all[0]), "best_of", best)
    list(rows(some, "weight_average"))
    first, last = [state for stage, state in seen if stage == "weight_average"]
    before = [state for stage, state in seen if stage == "before_average"][-1]
    average, start, end = (each.state_dict() for each in chosen_from)
    for name in average:
        torch.testing.assert_close(average[name], (first[name] + last[name]) / 2)
        assert torch.equal(start[name], before[name])
        assert torch.equal(end[name], last[name])


def test_rivals_cost_what_the_one_model_costs() -> None:
    some = block(recipe(), range(1), "flops")
    made = [
        each
        for unit in ("one_model", "shared_start", "weight_average")
        for each in rows(some, unit)
    ]
    assert {each.epochs for each in made} == {some.epochs.long}
    assert len({each.flops for each in made}) == 1


def test_the_published_milestones_are_those_of_the_one_model(monkeypatch) -> None:
    """The sine's falls at epoch 800 of 900, not in proportion at 750; ImageNet's every 50."""
    paper = find_preset("sine", "paper").recipe
    seen = []

    def noted(self, stages, training, *, wide=False):
        seen.append(training)
        return [[it.fresh("one_model") for it in self.all]]

    monkeypatch.setattr(Block, "networks", noted)
    list(rows(block(paper, range(1)), "one_model"))
    assert [(each.epochs, each.milestones) for each in seen] == [(900, (800,))]
    list(rows(block(paper, range(1), "flops"), "one_model"))
    assert [(each.epochs, each.milestones) for each in seen[1:]] == [(1050, (933,))]
    seen.clear()
    imagenet = find_preset("imagenet-resnet18", "paper").recipe
    drawn = find_preset("textures", "quick").recipe  # a small stand-in for a million photographs
    data = replace(drawn.data, train=100, heldout=20, test=20)
    list(rows(block(replace(imagenet, data=data, model=drawn.model), range(1)), "one_model"))
    assert [(each.epochs, each.milestones) for each in seen] == [(150, (50, 100))]


def test_networks_of_double_width_start_as_the_class_does() -> None:
    """Not side by side: all weights are drawn, at the scale of their own width."""
    (it,) = block(recipe(), range(1)).all
    graph = block(recipe(), range(1)).graph
    wide = it.wide("big_a", graph)
    assert isinstance(wide, SineMLP)
    assert wide.output.weight.shape == (1, 200)
    bound = 1 / math.sqrt(200)
    assert float(wide.output.weight.detach().abs().max()) <= bound
    assert float(wide.output.weight.detach().abs().max()) > 0.9 * bound
    assert not torch.equal(wide.hidden.weight[:100], wide.hidden.weight[100:])
    assert perceptrons.fits(it.job("big_a", wide, it.recipe.teacher))


def row(seed: int, strategy: str = "student", test: float = 0.5) -> Row:
    return Row(seed=seed, strategy=strategy, heldout=0.4, test=test, epochs=9, flops=1e6)


def test_results_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    results = Results(recipe(), "epochs", tmp_path)
    assert results.rows() == []
    results.append([row(2), row(1)])
    with results.path.open("a") as file:
        file.write('{"seed": 3, "strat')
    results.append([row(4), row(1, test=9.0)])
    assert results.rows() == [row(1), row(2), row(4)]
    first = json.loads(results.path.read_text().splitlines()[0])
    assert first["budget"] == "epochs"
    assert first["recipe"]["name"] == "sine"


def test_tables_of_different_settings_have_different_files(tmp_path: Path) -> None:
    same = {
        Results(chosen, budget, tmp_path).path
        for chosen in (recipe(), recipe(**{"gating.epochs": "1"}))
        for budget in get_args(Budget)
    }
    assert len(same) == 4
    assert Results(replace(recipe(), seed=7), "flops", tmp_path).path in same


def test_a_table_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("in the way")
    with pytest.raises(StoreError, match="NETWELD_HOME"):
        Results(recipe(), "epochs", tmp_path).append([row(1)])


def test_a_summary_is_that_of_the_scores() -> None:
    made = summary([1.0, 2.0, 6.0])
    assert (made.n, made.min, made.max, made.median, made.mean) == (3, 1, 6, 2, 3)
    assert made.std == pytest.approx(math.sqrt(7))
    assert math.isnan(summary([2.0]).std)


def test_published_figures_name_strategies_that_there_are() -> None:
    keys = {each.key for each in STRATEGIES}
    for name, published in PUBLISHED.items():
        assert find_preset(name, "paper")
        assert published.rows.keys() <= keys
        for each in published.rows.values():
            assert math.isnan(each.min) or each.min <= each.median <= each.max
        higher = find_preset(name, "paper").recipe.metric == "accuracy"
        student, one = (published.rows[key].mean for key in ("student", "one_model"))
        assert (student > one) == higher


def test_only_what_is_missing_is_done() -> None:
    rows = [row(0, key) for unit in ("merge", "one_model") for key in UNITS[unit]]
    diverged = Failure(seed=1, unit="one_model", message="It did.")
    left = tabled.missing([*rows, row(1, "long_big")], [diverged], range(2))
    assert left.pop("merge") == [1]
    assert left.pop("one_model") == []
    assert left.pop("long_big") == [0]
    assert set(map(tuple, left.values())) == {(0, 1)}


def test_a_stopped_table_goes_on(tmp_path: Path) -> None:
    """Real workers; the second time nothing is done again."""
    results = Results(recipe(), "epochs", tmp_path)
    with closing(tabled.carry_out(results, 2, workers=1)) as listening:
        for headway in listening:
            if headway.rows >= 3:
                break
    there = results.rows()
    assert 3 <= len(there) < 2 * len(STRATEGIES)
    told = list(tabled.carry_out(results, 2, workers=2))
    assert told[-1].fraction == pytest.approx(1)
    assert len(results.rows()) == 2 * len(STRATEGIES)
    assert all(old in results.rows() for old in there)


def test_each_finished_repetition_is_kept_where_networks_train_alone(tmp_path: Path) -> None:
    results = Results(recipe("digits"), "epochs", tmp_path)
    with closing(tabled.carry_out(results, 3, workers=1)) as listening:
        for headway in listening:
            if headway.rows > len(STRATEGIES):
                break
    whole = {row.strategy for row in results.rows() if row.seed == 0}
    assert whole == {each.key for each in STRATEGIES}


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_loss_that_is_not_finite_ends_only_what_it_is_part_of(tmp_path: Path, name: str) -> None:
    """Fine-tuning is part of the student and of the branches of a shared start, not of others."""
    steep = {"fine_tune.learning_rate": "100", "fine_tune.weight_decay": "1"}
    chosen = recipe(name, **steep, **{"fine_tune.epochs": "8"})
    results = Results(chosen, "epochs", tmp_path)
    for _ in tabled.carry_out(results, 2, workers=1):
        pass
    failed = {(failure.seed, failure.unit) for failure in results.failures()}
    both = {(seed, unit) for seed in (0, 1) for unit in ("merge", "shared_start")}
    assert both <= failed <= both | {(0, "ours"), (1, "ours")}
    assert all("finite" in failure.message for failure in results.failures())
    there = results.rows()
    assert {row.seed for row in there if row.strategy == "one_model"} == {0, 1}
    assert not any(row.strategy == "student" for row in there)
    assert not list(tabled.carry_out(results, 2, workers=1)), "it cannot be finished"
    assert results.rows() == there, "nothing is tried again"


def test_a_table_without_any_score_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["netweld", "table", "sine", "--n", "1"])
    results = Results(find_preset("sine", "paper").recipe, "epochs")
    for unit in UNITS:
        results.fail(Failure(seed=0, unit=unit, message="The loss became nan."))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code
    said = " ".join(capsys.readouterr().err.split())
    assert "No strategy has a score. Of teacher A, bo3, cut, student" in said
    assert "seed 0 may be missing, which flatters them: The loss became nan." in said


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    broken = Results(recipe("digits", **{"data.train": "100000"}), "epochs", tmp_path)
    with pytest.raises(NetweldError, match=r"A worker failed: .*100,?[02]00"):
        list(tabled.carry_out(broken, 1))
    with pytest.raises(RecipeError, match="n=0"):
        list(tabled.carry_out(broken, 0))


def test_the_command_shows_stored_rows_beside_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["netweld", "table", "sine", "--n", "2", "--csv", "rows.csv"])
    monkeypatch.chdir(tmp_path)
    results = Results(find_preset("sine", "paper").recipe, "epochs")
    results.append(
        [row(seed, each.key, 0.1 + seed / 10) for seed in range(3) for each in STRATEGIES]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    student = next(line for line in said.splitlines() if line.strip().startswith("student"))
    ours, paper = [0.1, 0.2, 0.15, 0.15, 0.071], [0.049, 0.116, 0.078, 0.077, 0.015]
    assert student.split()[1:12] == ["2", *(f"{each:.3f}" for each in ours + paper)]
    assert "Seeds 0 to 1" in said
    written = pd.read_csv(tmp_path / "rows.csv")
    assert len(written) == 2 * len(STRATEGIES)
    assert set(written["budget"]) == {"equal training epochs"}
    monkeypatch.setattr("sys.argv", [*sys.argv[:-1], str(tmp_path / "nowhere" / "rows.csv")])
    with pytest.raises(SystemExit) as end:
        main()
    assert "choose another place" in str(end.value.code) + capsys.readouterr().err
