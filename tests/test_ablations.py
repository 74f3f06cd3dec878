"""The ablation of the preset `ours`: what is changed, what stays, what a row says."""

from pathlib import Path

import pytest
import torch

from merge_core.ablations import classes
from merge_core.ablations.numbers import CHANGES, Trained, student
from merge_core.bench_ours import line, rows
from merge_core.presets import find_preset
from merge_core.presets.ours import ours
from merge_core.refits.selecting import RIDGE, selected
from merge_core.tables import Block
from merge_core.tables.ours import Ours


@pytest.fixture(scope="module")
def trained() -> Trained:
    settings = {"data.train": "400", "data.heldout": "60", "data.test": "60"}
    settings |= {"teacher.epochs": "6", "teacher.milestones": "5", "gating.epochs": "3"}
    settings |= {"fine_tune.epochs": "3", "fine_tune.milestones": "2"}
    recipe = find_preset("sine", "paper").recipe.changed(settings)
    return Trained(Block(recipe, range(2), "flops", device="cpu", data_dir=Path()))


def test_every_change_is_one_thing_at_the_same_budget(trained: Trained) -> None:
    usual = trained.recipe
    assert CHANGES[0].of(usual) == usual
    spent = usual.teachers * usual.teacher.epochs + usual.fine_tune.epochs
    for change in CHANGES[1:]:
        recipe = change.of(usual)
        assert 0 <= spent - recipe.teachers * recipe.teacher.epochs - recipe.fine_tune.epochs < 4
        differs = [recipe != usual, change.rule != "targets", change.ridge != RIDGE]
        assert sum(differs) + (len(change.ways) < 3) == 1


def test_the_preset_s_student_is_that_of_the_preset(trained: Trained) -> None:
    assert len(trained.scores(CHANGES[0])) == 2
    (runs,) = trained._teachers._taught.values()
    mine = student(runs[0], trained.block.graph, "targets", RIDGE)
    theirs = selected(runs[0].teachers, trained.block.graph, runs[0].setting).student
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor)


def test_the_largest_weights_are_kept(trained: Trained) -> None:
    trained.scores(CHANGES[0])
    run = trained._teachers._taught[4, trained.recipe.teacher.epochs][0]
    made = student(run, trained.block.graph, "weights", RIDGE).state_dict()
    states = [teacher.state_dict() for teacher in run.teachers]
    into = [
        torch.cat([s["hidden.weight"], s["hidden.bias"][:, None]], 1).norm(dim=1) for s in states
    ]
    norms = torch.cat(
        [one * s["output.weight"][0].abs() for one, s in zip(into, states, strict=True)]
    )
    kept = norms.topk(len(made["hidden.weight"])).indices.sort().values
    every = torch.cat([s["hidden.weight"] for s in states])
    assert torch.equal(made["hidden.weight"], every[kept])


def test_a_row_says_how_much_worse_the_change_is() -> None:
    cells = line("2 teachers", [0.3, 0.5, 0.4], [0.2, 0.3, 0.5], "loss").split("|")
    assert [cell.strip() for cell in cells[2:6]] == ["0.4000", "0.4000", "0.3000", "0.5000"]
    assert cells[6].strip().startswith("+0.0667 (")
    assert cells[7].strip() == "2"
    cells = line("2 teachers", [0.3, 0.5, 0.4], [0.2, 0.3, 0.5], "accuracy").split("|")
    assert cells[6].strip().startswith("+6.7 (")
    assert cells[7].strip() == "1"
    assert line("ours", [0.3], None, "loss").endswith("|  |  |")


def test_ways_are_chosen_among(monkeypatch: pytest.MonkeyPatch, trained: Trained) -> None:
    losses = [{"selected": 3.0, "tuned": 2.0, "refitted": 1.0}, {"selected": 3.0}]  # one diverged
    monkeypatch.setattr(Trained, "_made", lambda self, recipe, change: losses)
    fresh = Trained(trained.block)
    by_ways = {change.ways: fresh.scores(change) for change in CHANGES}
    assert by_ways == {
        ("selected", "tuned", "refitted"): [1.0, 3.0],
        ("selected", "tuned"): [2.0, 3.0],
        ("selected",): [3.0, 3.0],
    }


@pytest.fixture(scope="module")
def told() -> Block:
    """Two repetitions of digits on few examples."""
    settings = {"data.train": "60", "data.heldout": "40", "data.test": "40"}
    settings |= {"teacher.epochs": "3", "gating.epochs": "1", "fine_tune.epochs": "2"}
    recipe = find_preset("digits", "quick").recipe.changed(settings)
    return Block(recipe, range(2), "flops", device="cpu", data_dir=Path())


def test_every_change_for_classes_is_one_thing_at_the_same_budget(told: Block) -> None:
    usual = ours(told.recipe, 60)
    assert classes.CHANGES[0].of(usual) == usual
    spent = usual.teachers * usual.teacher.epochs + usual.tuning_passes
    changes = classes.changes(usual)
    assert changes[0] is classes.CHANGES[0]
    assert len(changes) == len(classes.CHANGES) - 1, "the preset has one of the numbers of teachers"
    for change in changes[1:]:
        recipe = change.of(usual)
        mine = recipe.teachers * recipe.teacher.epochs + recipe.tuning_passes
        assert 0 <= spent - mine < max(4, usual.mixes)
        assert (recipe != usual) + change.untrained == 1


def test_the_preset_for_classes_scores_as_in_a_table(told: Block) -> None:
    """And a row of the ablation is its title with a score for each repetition."""
    expected = [row.heldout for row in Ours().rows(told) if row.strategy == "ours"]
    title, scores = next(rows(told))
    assert title == classes.CHANGES[0].title
    assert scores == expected
