"""Charts of repetitions draw what is in the tables."""

import base64
import math
import re
from dataclasses import replace
from pathlib import Path

import fake_tables
import numpy as np
import pandas as pd
import pytest

from merge_core.learned import CURVE_POINTS
from merge_core.plots.compare import boxes, forest, jitter, score_against_flops, stage_lines
from merge_core.plots.learned import MOST_CLASSES, class_dots, overlaid_curves
from merge_core.repetitions import summary
from merge_core.store import Store
from merge_core.views.compare import published_text, read_table
from merge_core.views.evidence import differences
from merge_core.views.learned import class_summaries, curves
from merge_core.views.repeated import picked, repeated
from merge_core.views.scored import Way, spreads


def numbers(value: list[float] | dict[str, str]) -> list[float]:
    """Coordinates as they are in a figure: a list, or an array in base64."""
    if isinstance(value, dict):
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    return list(value)


@pytest.mark.parametrize(
    ("name", "preset", "marks"),
    [
        ("sine", "paper", {"student": 2, "bo3": 2, "one_model": 2}),
        ("sine", "quick", {"student": 2, "bo3": 2, "one_model": 2}),
        ("imagenet-resnet18", "paper", {"student": 1, "one_model": 1}),
        ("digits", "quick", {}),
    ],
)
def test_every_repetition_is_a_point(
    tmp_path: Path, name: str, preset: str, marks: dict[str, int]
) -> None:
    table = read_table(fake_tables.make(tmp_path, name, preset=preset).path)
    drawn = boxes(spreads(table, "test"), "test", table.metric, "").to_dict()["data"]
    points = [trace for trace in drawn if trace.get("customdata") is not None]
    assert sum(len(numbers(trace["x"])) for trace in points) == len(table.rows)
    student = {round(score, 9) for score in table.scores("student", "test").values()}
    assert {round(score, 9) for score in numbers(points[0]["x"])} == student
    published = [trace for trace in drawn if "paper" in trace.get("name", "")]
    assert sum(len(trace["x"]) for trace in published) == sum(marks.values())
    assert not any(math.isnan(value) for trace in published for value in trace["x"])
    words = published_text(table)
    assert ("order of the strategies" in words) == (bool(marks) and preset != "paper")
    assert bool(words) == bool(marks)


def test_jitter_keeps_points_apart_and_is_the_same_again() -> None:
    found = jitter(50)
    assert np.array_equal(found, jitter(50))
    assert np.abs(found).max() <= 0.5
    assert np.diff(np.sort(found)).min() > 0.001


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_the_forest_has_every_difference_with_its_interval(tmp_path: Path, name: str) -> None:
    table = read_table(fake_tables.make(tmp_path, name).path)
    found = differences(table, "student", "test")
    figure = forest(found, table.metric, "").to_dict()
    bars = [trace for trace in figure["data"] if trace.get("error_x")]
    assert sum(len(trace["x"]) for trace in bars) == len(table.strategies) - 1
    unit = 100 if name == "digits" else 1
    means = {value for trace in bars for value in trace["x"]}
    assert means == {unit * each.mean.value for each in found}
    (zero,) = figure["layout"]["shapes"]
    assert zero["x0"] == zero["x1"] == 0


def test_cost_and_stages(tmp_path: Path) -> None:
    table = read_table(fake_tables.make(tmp_path).path)
    drawn = score_against_flops(spreads(table, "test"), "test", "loss", "").to_dict()["data"]
    assert {trace["x"][0] for trace in drawn} == {1e12, 1.5e12}
    ways = table.ways("test")
    lines = stage_lines(ways, "test", "loss", "").to_dict()["data"]
    assert len(lines) == sum(len(way.scores) + 1 for way in ways)
    thick = [trace["y"] for trace in lines if trace.get("text") is not None]
    assert list(thick[0]) == pytest.approx(ways[0].scores.mean().tolist())


def test_equal_costs_stand_in_the_middle_of_an_axis_with_room(tmp_path: Path) -> None:
    found = spreads(read_table(fake_tables.make(tmp_path).path), "test")
    alike = [replace(each, flops=2e12) for each in found]
    for some, room in ((found, None), (alike, (1.6e12, 2.4e12))):
        axis = score_against_flops(some, "test", "loss", "").to_dict()["layout"]["xaxis"]
        assert axis.get("range") == (room and pytest.approx(room))


def test_every_curve_lies_over_the_target(tmp_path: Path) -> None:
    table = read_table(fake_tables.make(tmp_path, n=3).path)
    learned = curves(table)
    figure = overlaid_curves(learned, table.titles, "").to_dict()
    assert len(figure["data"]) == 2 * len(learned)
    assert np.isnan(numbers(figure["data"][0]["y"])).sum() == 3
    assert "0 of 3 miss a peak" in figure["layout"]["annotations"][0]["text"]


def test_of_many_classes_those_are_shown_that_differ(tmp_path: Path) -> None:
    table = read_table(fake_tables.make(tmp_path, "digits").path)
    found = class_summaries(table, ["teacher", "student"], "test")
    few = class_dots(found, table.titles, "test", "").to_dict()["data"]
    assert [trace["name"] for trace in few] == ["teacher A", "student"]
    assert len(few[0]["x"]) == 9
    many = {
        f"class {i}": {"teacher": summary([0.5]), "student": summary([0.5 + i / 100])}
        for i in range(40)
    }
    shown = class_dots(many, table.titles, "test", "").to_dict()["data"][0]["customdata"]
    assert set(shown) == {f"class {i}" for i in range(40 - MOST_CLASSES, 40)}


def test_runs_side_by_side() -> None:
    samples = Path(__file__).parent.parent / "assets" / "samples"
    with Store(Path("no home"), samples).open("textures-quick-s0-0000") as reader:
        groups = repeated([reader])
    (way,) = picked(groups, "accuracy", ["cut"]).ways("test")
    line, mean = stage_lines([way], "test", "accuracy", "").to_dict()["data"]
    assert list(line["y"]) == list(mean["y"])  # of one run
    scores = [score for score in line["y"] if score is not None]
    assert sorted(scores) == sorted(way.scores.iloc[0].tolist())
    assert list(line["y"]).count(None) == 4  # two teachers, two controls: not on the line
    found = spreads(picked(groups, "accuracy", ["cut", "gates"]), "test")
    drawn = boxes(found, "test", "accuracy", "")
    assert len(drawn.to_dict()["data"]) == 4


def test_the_stages_of_several_ways_share_their_places() -> None:
    ways = [
        Way(key="student", title="a", scores=pd.DataFrame({"A": [0.1], "Cut": [0.2]})),
        Way(key="ours", title="b", scores=pd.DataFrame({"A": [0.1], "B": [0.1], "Tuned": [0.4]})),
    ]
    axis = stage_lines(ways, "test", "accuracy", "").to_dict()["layout"]["xaxis"]
    assert list(axis["ticktext"]) == ["A", "B", "Tuned", "Cut"]
    apart = Way(key="ours", title="c", scores=pd.DataFrame({"C": [0.1], "D": [0.1]}))
    axis = stage_lines([ways[0], apart], "test", "accuracy", "").to_dict()["layout"]["xaxis"]
    assert list(axis["ticktext"]) == ["A", "Cut", "C", "D"]


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_every_figure_holds_what_it_rests_on(tmp_path: Path, name: str) -> None:
    table = read_table(fake_tables.make(tmp_path, name).path)
    rests, metric = table.conditions("test"), table.metric
    found = spreads(table, "test")
    figures = [
        boxes(found, "test", metric, rests),
        forest(differences(table, "student", "test"), metric, rests),
        score_against_flops(found, "test", metric, rests),
        stage_lines(table.ways("test"), "test", metric, rests),
    ]
    if name == "sine":
        figures.append(overlaid_curves(curves(table), table.titles, rests))
    else:
        classes = class_summaries(table, ["teacher", "student"], "test")
        figures.append(class_dots(classes, table.titles, "test", rests))
    for figure in figures:
        title = figure.to_dict()["layout"]["title"]
        lines = re.sub("</?span.*?>", "", title["text"]).split("<br>")
        assert " ".join(lines) == rests
        assert len(lines) > 1
        assert max(map(len, lines)) <= 64  # a telephone shows as many letters
        assert title["automargin"]


def test_a_note_takes_no_room_from_the_plot() -> None:
    found = {"student": [[0.0] * CURVE_POINTS]}
    bare, noted = (
        overlaid_curves(found, {"student": "student"}, rests).to_dict()["layout"]["height"]
        for rests in ("", "seeds " * 40)
    )
    assert noted - bare == 4 * 16
