"""Tables in frames and sentences, against SciPy and NumPy asked directly."""

import io
import math
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import fake_runs
import fake_tables
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from merge_core.learned import curve_places
from merge_core.presets import find_preset, preset_of
from merge_core.repetitions import Row
from merge_core.steering import NewRate
from merge_core.store import RunReader, Store
from merge_core.views.compare import (
    Table,
    changes,
    command,
    label,
    read_table,
    readable,
    table_files,
    when,
)
from merge_core.views.evidence import (
    FEWEST,
    LEVEL,
    RESAMPLES,
    caution,
    difference,
    differences,
    finding,
    interval,
    summary_file,
    summary_frame,
)
from merge_core.views.latex import latex_table
from merge_core.views.learned import (
    class_frame,
    class_split,
    class_summaries,
    curves,
    missed_peaks,
    unrecorded,
)
from merge_core.views.repeated import RETURNED, command_of, picked, repeated
from merge_core.views.scored import score_frame, seeds_text, spreads


def table(tmp_path: Path, name: str = "sine", n: int = 6, preset: str = "quick") -> Table:
    return read_table(fake_tables.make(tmp_path, name, n, preset=preset).path)


def of_pairs(tmp_path: Path, mine: dict[int, float], theirs: dict[int, float], name: str) -> Table:
    """A table of two strategies with given scores."""
    made = [
        Row(seed=seed, strategy=key, heldout=score, test=score, epochs=1, flops=1.0)
        for key, scores in (("student", mine), ("one_model", theirs))
        for seed, score in scores.items()
    ]
    return replace(table(tmp_path, name), rows=tuple(made))


def test_an_interval_is_scipy_s() -> None:
    values = tuple(np.random.default_rng(3).normal(0.2, 0.1, 20).tolist())
    for name, of in (("mean", np.mean), ("median", np.median)):
        found = interval(values, "mean" if name == "mean" else "median")
        asked = bootstrap(
            (np.array(values),),
            of,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert found.value == of(values)
        assert (found.low, found.high) == (asked.low, asked.high)


@settings(max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_an_interval_holds_the_mean_or_is_unknown(values: list[float]) -> None:
    found = interval(tuple(values))
    assert found.value == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert min(values) - 1e-9 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= max(values) + 1e-9


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_difference_is_of_common_seeds_alone(tmp_path: Path, name: str) -> None:
    mine = {seed: 0.3 + 0.01 * seed for seed in range(8)}
    theirs = {seed: 0.5 - 0.01 * seed for seed in range(2, 9)}
    found = difference(of_pairs(tmp_path, mine, theirs, name), "student", "one_model", "test")
    assert found is not None
    assert found.seeds == tuple(range(2, 8))
    expected = [mine[seed] - theirs[seed] for seed in range(2, 8)]
    assert found.values == pytest.approx(expected)
    assert found.mean.value == pytest.approx(np.mean(expected))
    assert found.mean.high < 0  # lower: better for a loss, worse for an accuracy
    assert found.verdict == ("better" if name == "sine" else "worse")
    assert found.wins == (6 if name == "sine" else 0)
    alone = of_pairs(tmp_path, {0: 0.1}, {1: 0.1}, name)
    assert difference(alone, "student", "one_model", "test") is None


def test_with_few_repetitions_nothing_is_clear(tmp_path: Path) -> None:
    for n in (FEWEST - 1, FEWEST):
        scores = {seed: 0.1 + 0.001 * seed for seed in range(n)}
        far = dict.fromkeys(range(n), 0.9)
        made = of_pairs(tmp_path, scores, far, "sine")
        (found,) = differences(made, "student", "test")
        assert found.mean.high < 0
        assert found.verdict == ("better" if n == FEWEST else "unclear")
        words = finding(made, "student", "test")
        assert ("clearly better" in words) == (n == FEWEST)
        assert ("Nothing is clear" in words) == (n < FEWEST)


def test_no_difference_is_called_none(tmp_path: Path) -> None:
    mine = {seed: 0.5 + 0.1 * (-1) ** seed for seed in range(12)}
    theirs = {seed: 0.5 - 0.1 * (-1) ** seed for seed in range(12)}
    made = of_pairs(tmp_path, mine, theirs, "digits")
    assert "no clear difference** to one model" in finding(made, "student", "test")
    assert "clearly" not in finding(made, "student", "test")
    assert "fewer than" not in caution(made, "test")


def test_a_sentence_names_winners_and_losers_with_figures(tmp_path: Path) -> None:
    words = finding(table(tmp_path), "bo3", "test")
    better, worse = words.index("clearly better than"), words.index("clearly worse than")
    assert better < words.index("shared start") < worse < words.index("student (+0.1")
    assert "teacher A (" not in words  # it has spent less: no rival


def test_equal_epochs_are_told_not_to_be_equal_work(tmp_path: Path) -> None:
    assert "1.50 times the training FLOPs" in caution(table(tmp_path), "test")
    fair = read_table(fake_tables.make(tmp_path, budget="flops").path)
    assert "times the training FLOPs" not in caution(fair, "test")


def test_figures_are_numpy_s(tmp_path: Path) -> None:
    made = table(tmp_path, preset="paper")
    frame = summary_frame(made, "test")
    rows = {str(row["Strategy"]): row for row in frame.to_dict("records")}
    scores = [row.test for row in made.of("student")]
    student = rows["student"]
    for name, of in (("min", min), ("max", max), ("median", np.median), ("mean", np.mean)):
        assert student[name] == pytest.approx(of(scores))
    assert student["std"] == pytest.approx(np.std(scores, ddof=1))
    assert student["paper median"] == 0.078
    assert math.isnan(rows["long big"]["paper mean"])
    assert all(each.published is None for each in spreads(made, "heldout"))
    assert len(score_frame(made)) == len(made.rows)


def test_the_way_through_the_stages_has_whole_ways_only(tmp_path: Path) -> None:
    made = table(tmp_path)
    made = replace(
        made, rows=tuple(row for row in made.rows if (row.seed, row.strategy) != (2, "cut"))
    )
    first = made.ways("test")[0].scores
    assert list(first.columns) == ["teacher A", "cut", "student"]
    assert first.index.tolist() == [0, 1, 3, 4, 5]
    cut = dict(zip(first.index.tolist(), first["cut"].tolist(), strict=True))
    assert cut[3] == made.scores("cut", "test")[3]


def test_recorded_stages_are_the_way(tmp_path: Path) -> None:
    made = table(tmp_path)
    stages = (("teacher_a", 3.0, 4.0), ("teacher_b", 5.0, 6.0), ("gates", 1.0, 2.0))
    rows = tuple(
        replace(row, stages=stages) if (row.strategy, row.seed) == ("student", 1) else row
        for row in made.rows
    )
    results = fake_tables.make(tmp_path / "other")
    results.path.unlink()
    results.append(rows)
    first, second = read_table(results.path).ways("heldout")
    assert first.scores.to_dict("index") == {1: {"Teacher A": 3.0, "Teacher B": 5.0, "Gated": 1.0}}
    assert first.apart == {"Teacher A", "Teacher B"}
    assert list(second.scores.columns) == ["ours, selected", "ours"]


def test_missed_peaks_are_counted() -> None:
    target = [math.sin(10 * math.pi * x) for x in curve_places()]
    assert missed_peaks(target) == 0
    assert missed_peaks([0.0] * len(target)) == 10
    flat = [0.0 if x > 0.6 else y for x, y in zip(curve_places(), target, strict=True)]
    assert missed_peaks(flat) == 4
    assert missed_peaks([0.6 * y for y in target]) == 0


def test_curves_and_classes_are_those_of_the_rows(tmp_path: Path) -> None:
    sine, digits = table(tmp_path), table(tmp_path, "digits")
    assert len(curves(sine)["student"]) == 6
    assert not curves(digits)
    assert class_frame(sine, "test").empty
    assert not class_summaries(sine, ["student"], "test")
    found = class_summaries(digits, ["teacher", "student"], "test")
    assert list(found) == list(fake_tables.SESSION.class_names[:9])  # the tenth has no examples
    scores = list(digits.scores("student", "test").values())
    assert found["two"]["student"].mean == pytest.approx(np.mean(scores))
    known = class_frame(digits, "test")["accuracy"].tolist()
    assert sum(math.isnan(accuracy) for accuracy in known) == len(digits.rows)


def test_of_early_tables_only_test_is_known_by_class(tmp_path: Path) -> None:
    digits = table(tmp_path, "digits")
    assert class_split(digits, "heldout") == "heldout"
    assert len(class_summaries(digits, ["student"], "heldout")) == 10
    early = replace(digits, rows=tuple(replace(row, heldout_classes=()) for row in digits.rows))
    assert class_split(early, "heldout") == "test"
    assert not unrecorded(early)
    older = replace(digits, rows=tuple(replace(row, classes=()) for row in digits.rows[:1]))
    assert unrecorded(older).endswith("did not keep: seed 0.")


def test_runs_that_tell_other_classes_apart_have_none_in_common(tmp_path: Path) -> None:
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    with ExitStack() as stack:
        names = [fake_runs.make(store, name) for name in ("textures", "digits")]
        groups = repeated([stack.enter_context(store.open(name)) for name in names])
    scored = picked(groups, "accuracy", [RETURNED])
    assert scored.class_names("0:returned") == tuple(fake_runs.NAMES)
    assert scored.class_names("1:returned")[3] == "class 3"  # ten classes, but twelve names
    assert len(class_summaries(scored, ["1:returned"], "test")) == 10
    assert not class_summaries(scored, ["0:returned", "1:returned"], "test")


def test_every_figure_says_what_it_rests_on(tmp_path: Path) -> None:
    words = table(tmp_path).conditions("test")
    assert words.startswith("Sine (quick): n = 6, seeds 0 to 5, equal training epochs, test ")
    for part in ("cpu (a made-up processor)", "torch 2.9"):
        assert part in words
    old = replace(table(tmp_path), sessions=())
    assert "not written down" in old.conditions("test")
    assert replace(table(tmp_path, "digits"), sessions=()).class_names("cut")[3] == "class 3"


def test_files_say_what_their_numbers_rest_on(tmp_path: Path) -> None:
    made = table(tmp_path, "digits")
    rests = {"budget": "equal training epochs", "device": "cpu (a made-up processor)"}
    more = {"split": "heldout", "seeds": "0 to 5"}
    for frame, told in (
        (score_frame(made), rests),
        (class_frame(made, "heldout"), rests | {"split": "heldout"}),
        (summary_file(made, "heldout"), rests | more),
    ):
        read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
        assert len(read) == len(frame) > 0
        assert {key: set(read[key]) for key in told} == {key: {each} for key, each in told.items()}
        assert set(read["torch"]) == {2.9}
    old = score_frame(replace(made, sessions=()))
    assert set(old["device"]) == set(old["torch"]) == {""}


def test_seeds_in_words() -> None:
    assert seeds_text([4]) == "4"
    assert seeds_text([0, 2]) == "0 and 2"
    assert seeds_text([3, 4, 5]) == "3 to 5"
    assert seeds_text([0, 2, 5]) == "0, 2 and 5"


def test_the_command_makes_the_same_recipe() -> None:
    preset = find_preset("sine", "quick").recipe
    changed = preset.changed({"gating.epochs": "7", "teacher.milestones": "50,90"})
    told = dict(setting.split("=", 1) for setting in changes(changed))
    assert preset.changed(told) == changed
    assert not changes(replace(preset, seed=4))


def test_the_command_of_a_table(tmp_path: Path) -> None:
    said = command(table(tmp_path))
    assert said == "netweld table sine --preset quick --n 6 --budget epochs"


def test_the_day_of_a_table_is_that_of_its_work_and_not_of_its_file(tmp_path: Path) -> None:
    found = table(tmp_path)
    noon = datetime(2024, 5, 6, 12).timestamp()
    sessions = tuple(replace(fake_tables.SESSION, started=at) for at in (noon, noon - 86_400))
    assert when(replace(found, sessions=sessions)) == "2024-05-06"
    assert when(replace(found, sessions=())) == ""


def test_files_that_are_no_tables_are_left_out(tmp_path: Path) -> None:
    made = fake_tables.make(tmp_path)
    (made.path.parent / "junk.jsonl").write_text('{"a": 1}\n')
    files = table_files(tmp_path, tmp_path / "samples")
    assert len(files) == 2
    (found,) = readable(files)
    assert "n = 6" in label(found)


def test_latex_is_set_as_it_stands(tmp_path: Path) -> None:
    frame = summary_frame(table(tmp_path), "test").assign(odd="50 % & more_")
    text = latex_table(frame, "A caption: 100 %")
    lines = text.splitlines()
    assert r"\caption{A caption: 100 \%}" in lines
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(frame)
    assert all(line.count(" & ") == len(frame.columns) - 1 for line in body)
    assert r"50 \% \& more\_" in body[0]
    assert r"\toprule" in lines


@pytest.fixture(scope="module")
def readers() -> Iterator[list[RunReader]]:
    samples = Path(__file__).parent.parent / "assets" / "samples"
    store = Store(Path("no home"), samples)
    with ExitStack() as stack:
        yield [
            stack.enter_context(store.open(f"{name}-quick-s0-0000"))
            for name in ("textures", "sine")
        ]


def test_runs_of_one_recipe_are_its_repetitions(readers: list[RunReader]) -> None:
    groups = repeated(readers)
    assert [group.runs for group in groups] == [(reader.name,) for reader in readers]
    assert {group.recipe.metric for group in groups} == {"accuracy", "loss"}
    (alone,) = repeated([readers[0], readers[0]])
    assert alone.seeds == (0,)  # the same seed does not count twice
    cut = picked(groups, "accuracy", ["cut"])
    assert cut.scores("0:cut", "test") == {0: readers[0].score("cut", "test", "accuracy")}
    name = f"{groups[0].title}: n = 1, seed 0, its recipe's own budget (38 epochs, "
    words = cut.conditions("heldout")
    assert words.startswith(name)
    assert words.endswith("), cpu, torch 2.15.0+cu132; held-out (chooses) accuracy.")
    (budget,) = set(score_frame(cut)["budget"])
    assert budget in words
    unfinished = replace(groups[0], rows=groups[0].rows[:2])
    assert unfinished.basis.budget == "its recipe's own budget"


def test_picked_runs_cost_all_that_they_rest_on(readers: list[RunReader]) -> None:
    (group,) = repeated(readers[:1])
    flops = {row["stage"]: row["flops"] for row in readers[0].stages()}
    found = {row.strategy: row.flops for row in group.rows}
    both = flops["teacher_a"] + flops["teacher_b"]
    assert found["teacher_b"] == flops["teacher_b"]
    assert found["ensemble"] == found["big"] == both
    assert found["cut"] == both + flops["gates"]
    assert found["fine_tune"] == found[RETURNED] == both + flops["gates"] + flops["fine_tune"]
    assert found["random_half"] == both + flops["random_half"]
    assert found["trained_on"] == flops["teacher_a"] + flops["trained_on"]
    (way,) = picked([group], "accuracy", ["cut"]).ways("test")
    assert len(way.scores.columns) == len(group.stages) - 1


def test_pairs_need_the_same_data(readers: list[RunReader]) -> None:
    (group,) = repeated(readers[:1])
    longer = replace(group, recipe=group.recipe.changed({"gating.epochs": "9"}))
    noisier = replace(group, recipe=group.recipe.changed({"data.noise": "0.9"}))
    scored = picked([group, longer, noisier], "accuracy", ["cut"])
    found = differences(scored, "0:cut", "test")
    assert [(each.other, each.seeds, each.values) for each in found] == [("1:cut", (0,), (0.0,))]


def test_the_command_of_a_run_makes_its_recipe() -> None:
    for preset, seed in (("quick", 0), ("ours", 7)):
        usual = preset_of("textures", preset).recipe
        recipe = replace(usual.changed({"fine_tune.epochs": "3"}), seed=seed)
        words = shlex.split(command_of(recipe, "cpu"))
        told = dict(word.split("=", 1) for word in words if "=" in word)
        assert usual.changed({**told, "seed": str(seed)}) == recipe
        assert words[:5] == ["netweld", "merge", "textures", "--preset", preset]
    steered = find_preset("textures", "quick").recipe.steered(NewRate(epoch=2, learning_rate=0.1))
    assert command_of(steered, "cpu").startswith("# steered")
