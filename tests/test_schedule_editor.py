"""The editor of λ schedules: kinds, numbers, points, and a past that cannot be changed."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from merge_core.presets import find_preset
from merge_core.recipes.reading import build
from merge_core.schedules import KINDS, Closing, Constant, Linear, Points, Schedule

RECIPE = find_preset("textures", "quick").recipe


def page(past: bool) -> None:
    """The editor alone; what it returns is written as JSON."""
    import dataclasses
    import json

    import numpy as np
    import streamlit as st

    from merge_core.presets import find_preset
    from merge_core.views.expectations import NOTHING_KNOWN, Past
    from pages.schedule_editor import edit_schedule

    gates = find_preset("textures", "quick").recipe.gates
    over = Past(
        weights=np.array([0.01, 0.1]),
        means={"any space": np.array([0.9, 0.8])},
        opened={"any space": np.linspace(0.7, 0.9, 8)},
    )
    chosen = edit_schedule(
        gates,
        key="editor",
        epochs=8,
        known=NOTHING_KNOWN,
        past=over if past else None,
        ghost=gates.schedule if past else None,
    )
    st.code(json.dumps(dataclasses.asdict(chosen)))


def started(*, past: bool = False) -> AppTest:
    return AppTest.from_function(page, kwargs={"past": past}, default_timeout=120).run()


def chosen(app: AppTest) -> Schedule:
    assert not app.exception
    return build(Schedule, json.loads(app.code[0].value), "schedule")


def choose(app: AppTest, kind: str) -> None:
    app.selectbox[0].set_value(kind).run()


def test_untouched_it_gives_the_recipe_back_and_every_kind_can_be_chosen() -> None:
    app = started()
    assert chosen(app) == RECIPE.gates.schedule
    for kind in KINDS:
        choose(app, kind)
        assert chosen(app).kind == kind
    app.button(key="editor-Reset").click().run()
    assert chosen(app) == RECIPE.gates.schedule


def test_another_kind_begins_with_the_numbers_of_the_one_before() -> None:
    app = started()
    app.number_input(key="editor-0-start").set_value(0.5).run()
    choose(app, "linear")
    law = chosen(app)
    assert isinstance(law, Linear)
    assert law.start == 0.5
    app.number_input(key="editor-1-end").set_value(2.0).run()
    assert chosen(app) == Linear(start=0.5, end=2.0)


def test_points_follow_the_curve_that_they_come_from() -> None:
    app = started()
    choose(app, "points")
    points = chosen(app)
    assert isinstance(points, Points)
    law = RECIPE.gates.schedule
    assert not isinstance(law, Closing)
    assert [weight for _, weight in points.points] == pytest.approx(
        [law.at(place) for place, _ in points.points]
    )


@pytest.mark.parametrize("past", [False, True])
def test_a_curve_beyond_what_lambda_may_be_stays_of_its_kind(past: bool) -> None:
    app = started(past=past)
    app.number_input(key="editor-0-growth").set_value(900.0).run()
    law = chosen(app)
    choose(app, "points")
    assert chosen(app) == law
    assert "at most 1000" in app.toast[0].value


def test_a_schedule_that_does_harm_is_warned_of() -> None:
    app = started()
    assert not app.warning
    choose(app, "constant")
    app.number_input(key="editor-1-weight").set_value(0.001).run()
    assert chosen(app) == Constant(weight=0.001)
    assert "still be open at the cut" in app.warning[0].value


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_expected_can_be_read_in_a_table(kind: str) -> None:
    app = started()
    choose(app, kind)
    app.session_state["editor-expected-table-fold"] = True
    app.run()
    chosen(app)
    frame = app.dataframe[-1].value  # Points have a table of their own before it
    assert list(frame.columns)[:2] == ["epoch", "λ"]
    assert len(frame.columns) > 2
    assert frame["epoch"].is_monotonic_increasing
    assert float(frame["epoch"].iloc[-1]) == pytest.approx(8)
    assert frame.iloc[:, 2:].stack().between(0, 1).all()


def test_a_stage_under_way_can_be_changed_from_now_on() -> None:
    app = started(past=True)
    choose(app, "points")
    points = chosen(app)
    assert isinstance(points, Points)
    assert points.points[0][0] == 2 / 8
    choose(app, "closing")
    closing = chosen(app)
    assert isinstance(closing, Closing)
    assert (closing.begin, closing.opening) == (2 / 8, pytest.approx(0.8))
