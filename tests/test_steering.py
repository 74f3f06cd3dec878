"""Steering as values: which schedule, rate, seed and length hold, and what a recipe refuses."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import small

from merge_core.errors import RecipeError
from merge_core.recipes import Recipe, from_json
from merge_core.schedules import Closing, Constant, GrowthLaw, Linear, Schedule
from merge_core.steering import (
    CutEarly,
    NewRate,
    NewSchedule,
    NewSeed,
    Steer,
    length,
    rate_in,
    schedule_in,
    seed_in,
    weights,
    words,
)

EPOCHS = 12
FIRST = GrowthLaw(start=0.01, growth=0.05, epochs=150)

schedules = st.one_of(
    st.builds(Constant, weight=st.floats(0.01, 10)),
    st.builds(Linear, start=st.floats(0.01, 10), end=st.floats(0.01, 10)),
)
epochs = st.integers(1, EPOCHS)
steers = st.one_of(
    st.builds(NewSchedule, epoch=epochs, schedule=schedules),
    st.builds(NewRate, epoch=epochs, learning_rate=st.floats(0.01, 10)),
    st.builds(CutEarly, epoch=st.integers(2, EPOCHS)),
    st.builds(NewSeed, epoch=st.integers(1, EPOCHS + 1), seed=st.integers(0, 9)),
)
lists = st.lists(steers, max_size=6)


def recipe(*steering: Steer) -> Recipe:
    made = small("sine", **{"gating.epochs": str(EPOCHS)})
    for steer in steering:
        made = made.steered(steer)
    return made


def everything(steering: list[Steer], epoch: int) -> tuple[object, ...]:
    return (
        schedule_in(FIRST, steering, epoch),
        rate_in(0.5, steering, epoch),
        seed_in(3, steering, epoch),
    )


@given(steering=lists, steer=steers)
def test_a_change_leaves_the_past_as_it_is(steering: list[Steer], steer: Steer):
    for epoch in range(1, steer.epoch):
        assert everything([*steering, steer], epoch) == everything(steering, epoch)


@given(steering=lists, steer=steers)
def test_the_last_change_holds_from_its_epoch_on(steering: list[Steer], steer: Steer):
    for epoch in range(steer.epoch, EPOCHS + 1):
        schedule, rate, seed = everything([*steering, steer], epoch)
        match steer:
            case NewSchedule():
                assert schedule == steer.schedule
            case NewRate():
                assert rate == steer.learning_rate
            case NewSeed():
                assert seed == steer.seed
            case CutEarly():
                assert length(EPOCHS, [*steering, steer]) < steer.epoch


@given(steering=lists)
def test_one_curve_is_what_each_epoch_uses(steering: list[Steer]):
    curve = weights(FIRST, steering, EPOCHS, per_epoch=10)
    for epoch in range(1, EPOCHS + 1):
        schedule: Schedule = schedule_in(FIRST, steering, epoch)
        assert not isinstance(schedule, Closing)
        assert curve[epoch - 1] == schedule.at((epoch * 10 - 1) / (EPOCHS * 10))


def test_a_controller_is_not_known_beforehand():
    steer = NewSchedule(epoch=4, schedule=Closing())
    curve = weights(FIRST, [steer], EPOCHS)
    assert [math.isnan(value) for value in curve] == [False] * 3 + [True] * 9
    assert words(steer) == "λ from epoch 4 on: Controlled"


@given(steering=lists)
def test_a_steered_recipe_survives_json(steering: list[Steer]):
    made = recipe(*steering)
    assert from_json(made.to_json()) == made
    assert made.steering == tuple(steering)


def test_recipes_without_steering_are_still_read():
    old = json.loads(recipe().to_json())
    assert old.pop("steering") == []
    assert old["gates"].pop("selection") == "most open"
    assert from_json(json.dumps(old)) == recipe()


@pytest.mark.parametrize(
    ("steer", "expected"),
    [
        (NewSchedule(epoch=EPOCHS + 1, schedule=FIRST), "epoch 1 to 12"),
        (NewSchedule(epoch=0, schedule=FIRST), "epoch 1 to 12"),
        (CutEarly(epoch=1), "epoch 2 to 12"),
        (NewSeed(epoch=EPOCHS + 2, seed=1), "epoch 1 to 13"),
        (NewSeed(epoch=3, seed=-1), "0 to 2"),
        (NewRate(epoch=3, learning_rate=0.0), "above 0"),
        (NewRate(epoch=3, learning_rate=math.nan), "above 0"),
    ],
)
def test_what_does_not_fit_is_refused(steer: Steer, expected: str):
    with pytest.raises(RecipeError, match=expected):
        recipe(steer)


@pytest.mark.parametrize(
    "steer",
    [
        {"kind": "faster", "epoch": 3},
        {"epoch": 3},
        {"kind": "rate", "epoch": 3},
        {"kind": "rate", "epoch": "3", "learning_rate": 1.0},
        {"kind": "lambda", "epoch": 3, "schedule": {"kind": "constant", "weight": -1}},
        7,
    ],
)
def test_damaged_steering_is_refused(steer: object):
    text = json.loads(recipe().to_json()) | {"steering": [steer]}
    with pytest.raises(RecipeError):
        from_json(json.dumps(text))


def test_a_cut_shortens_the_stage_and_what_the_controls_get():
    made = recipe(CutEarly(epoch=6))
    assert made.gate_epochs == 5
    assert made.extra_epochs == 5 + made.fine_tune.epochs
    assert recipe().extra_epochs == EPOCHS + made.fine_tune.epochs
