"""The λ lab: a cell is a full run with its schedule, files outlive what stops them."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import small

from merge_core import carriers, lab_work
from merge_core.errors import NetweldError, RecipeError, StoreError
from merge_core.events import EpochFinished, StageFinished
from merge_core.lab import (
    AXES,
    Cell,
    Lab,
    LabFile,
    Row,
    best_cells,
    landscape,
    missing,
)
from merge_core.lab_cells import SeedOfLab
from merge_core.recipes import Recipe
from merge_core.schedules import PAPER_SCHEDULE, GrowthLaw
from merge_core.strategies import merge

SINE = {"data.train": "200", "data.heldout": "60", "data.test": "60", "teacher.epochs": "2"}


def recipe(name: str = "sine") -> Recipe:
    return small(
        name, **({**SINE, "gates.pull": "400"} if name == "sine" else {"teacher.epochs": "1"})
    )


def lab(shape: tuple[int, int] = (2, 2), name: str = "sine", family: str = "growth") -> Lab:
    return Lab.usual(recipe(name), family, shape)


def row(cell: Cell, seed: int = 0, score: float = 0.5) -> Row:
    return Row(
        cell=cell, seed=seed, cut_heldout=score, cut_test=score, tuned_heldout=score,
        tuned_test=score, undecided=0.25, means={"hidden": (0.9, 0.75, 0.5)},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_cell_is_the_full_run_with_its_schedule(name: str, tmp_path: Path) -> None:
    """Together with others it gives the numbers that it gives alone, to rounding."""
    some = lab(name=name)
    cells: list[Cell] = [(0, 0), (1, 1)]
    mine = SeedOfLab(some, 3, device="cpu", data_dir=tmp_path)
    for made in mine.rows(cells):
        scores, means = {}, {}
        for event in merge(some.recipe_of(made.cell, 3), "cpu", data_dir=tmp_path):
            if isinstance(event, StageFinished):
                scores[event.stage] = event.scores
            if isinstance(event, EpochFinished) and event.stage == "gates":
                for space, p in event.open_probabilities.items():
                    means.setdefault(space, []).append(float(p.mean()))
            if isinstance(event, StageFinished) and event.stage == "fine_tune":
                break
        for stage, of in {"cut": "cut", "fine_tune": "tuned"}.items():
            for split in ("heldout", "test"):
                expected = scores[stage][split][some.recipe.metric]
                found = getattr(made, f"{of}_{split}")
                assert found == pytest.approx(expected, rel=2e-3, abs=0.011), (stage, split)
        assert made.means.keys() == means.keys()
        for space, expected in means.items():
            np.testing.assert_allclose(made.means[space], expected, atol=2e-3)


@given(st.sampled_from(list(AXES)), st.integers(1, 32), st.integers(1, 32))
def test_a_usual_grid_has_the_papers_schedule(family: str, rows: int, columns: int) -> None:
    made = lab((rows, columns), family=family)
    assert made.shape == (rows, columns)
    assert made.paper is not None
    ends = [made.curve(made.paper).at(progress) for progress in (0, 1)]
    assert ends == pytest.approx([PAPER_SCHEDULE.at(0), PAPER_SCHEDULE.at(1)], rel=6e-3)
    levels = made.levels()
    every = [cell for level in levels for cell in level]
    assert sorted(every) == [(i, j) for i in range(rows) for j in range(columns)]
    for finer, level in enumerate(reversed(levels)):
        assert all(place % 2**finer == 0 for cell in level for place in cell)


def test_the_papers_cell_is_the_papers_schedule() -> None:
    made = lab((8, 8))
    assert made.paper == (2, 3)
    assert made.schedule((2, 3)) == PAPER_SCHEDULE
    finer = lab((15, 15))
    assert set(made.first) <= set(finer.first)
    assert made.recipe_of((0, 0), 5).gates.schedule == GrowthLaw(
        start=0.001, growth=0.00158, epochs=150
    )


def test_what_no_lab_can_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="family='points'"):
        lab(family="points")
    with pytest.raises(RecipeError, match="0x8"):
        lab((0, 8))
    with pytest.raises(RecipeError, match="1 to 32"):
        replace(lab(), first=(0.1, 0.1))
    with pytest.raises(RecipeError, match="start=-1"):
        replace(lab(), first=(-1.0,))


def test_a_file_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file = LabFile(lab(), tmp_path)
    file.begin()
    file.append([row((0, 0)), row((1, 0))])
    with file.path.open("a") as raw:
        raw.write('{"cell": [1, 1], "se')
    file.append([row((1, 1)), row((0, 0), score=9.0)])
    there = LabFile.at(file.path)
    assert there.lab == file.lab
    assert there.rows() == [row((0, 0)), row((1, 0)), row((1, 1))]
    assert missing(file.lab, there.rows(), [0]) == [(0, (0, 1))]
    assert len(missing(file.lab, there.rows(), [0, 1])) == 5


def test_a_file_of_something_else_is_no_lab(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"recipe": 1}))
    with pytest.raises(StoreError, match="does not begin as a lab"):
        LabFile.at(other)


def test_schedules_do_not_count_as_settings_of_a_lab(tmp_path: Path) -> None:
    """Nor does the recipe's seed; its epochs do."""
    chosen = recipe().changed({"gates.schedule.start": "0.5", "seed": "4"})
    same = Lab.usual(chosen, "growth", (2, 2))
    assert LabFile(same, tmp_path).path == LabFile(lab(), tmp_path).path
    other = Lab.usual(chosen.changed({"gating.epochs": "7"}), "growth", (2, 2))
    assert LabFile(other, tmp_path).path != LabFile(lab(), tmp_path).path


def test_a_landscape_is_the_mean_over_seeds_and_its_best_comes_first() -> None:
    some = [row((0, 0), 0, 0.2), row((0, 0), 1, 0.4), row((1, 1), 0, 0.25), row((0, 1), 0, 0.5)]
    values = landscape(lab(), some, "tuned_heldout")
    np.testing.assert_allclose(values, [[0.3, 0.5], [np.nan, 0.25]])
    assert best_cells(lab(), some) == [(1, 1), (0, 0), (0, 1)]
    assert best_cells(lab(name="digits"), some) == [(0, 1), (0, 0), (1, 1)]
    assert row((0, 0)).open_at_cut == 0.5
    assert row((0, 0)).open_before == 0.75


@given(st.integers(1, 5), st.integers(1, 6))
def test_all_work_is_shared_out(seeds: int, count: int) -> None:
    todo = missing(lab((4, 4)), [], range(seeds))
    shares = lab_work.shared_out(todo, count)
    assert sorted(each for share in shares for each in share) == sorted(todo)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 or len(shares) < count
    if seeds % count == 0:
        every = [{seed for seed, _ in share} for share in shares]
        assert sum(map(len, every)) == seeds


def test_a_stopped_lab_goes_on(tmp_path: Path) -> None:
    """Real workers; the second time nothing is done again."""
    file = LabFile(lab((3, 3)), tmp_path)
    with closing(lab_work.carry_out(file, workers=1)) as listening:
        for headway in listening:
            if headway.rows >= 2:
                break
    there = file.rows()
    assert 2 <= len(there) < 9
    told = carriers.progress_of(file.path)
    assert told is not None
    assert told.state == "stopped"
    *_, last = lab_work.carry_out(file, workers=2)
    assert last.fraction == pytest.approx(1)
    assert len(file.rows()) == 9
    assert file.rows()[: len(there)] == there


def test_a_lab_that_a_page_begins_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process; while it works nobody else can, and it can be stopped."""
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    file = LabFile(lab((1, 2)))
    process = lab_work.begin(file, 2, seed=3)
    with pytest.raises(StoreError, match="stop it first"):
        lab_work.begin(file)
    assert process.wait(120) == 0
    told = carriers.progress_of(file.path)
    assert told is not None
    assert (told.state, told.asked.n) == ("finished", 2)
    assert {(row.cell, row.seed) for row in file.rows()} == {
        ((0, j), seed) for j in range(2) for seed in (3, 4)
    }
    long = LabFile(Lab.usual(recipe().changed({"gating.epochs": "100000"}), "growth", (1, 1)))
    process = lab_work.begin(long)
    carriers.stop(long.path)
    process.wait(60)
    told = carriers.progress_of(long.path)
    assert told is not None
    assert told.state == "stopped"
    assert long.rows() == []


def test_a_lab_that_fails_says_why(tmp_path: Path) -> None:
    broken = recipe("digits").changed({"data.train": "100000"})
    file = LabFile(Lab.usual(broken, "growth", (1, 1)), tmp_path)
    with pytest.raises(NetweldError, match=r"A worker failed: .*100,?[02]00"):
        list(lab_work.carry_out(file))
    with pytest.raises(RecipeError, match="0 seeds"):
        list(lab_work.carry_out(file, 0))
