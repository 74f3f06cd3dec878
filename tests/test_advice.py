"""The check before a budget is spent says what the learning curve says."""

from dataclasses import replace
from typing import Any

import fake_runs
import pytest
from small import small
from test_pages import store

from merge_core import places
from merge_core.presets import find_preset
from merge_core.recipes import Data
from merge_core.store import Store
from merge_core.views.advice import LEARNED, RISEN, advice
from pages import picking, precedents

__all__ = ["store"]  # the fixture


def curve(**values: list[float]) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch + 1, "name": name, "value": value}
        for name, series in values.items()
        for epoch, value in enumerate(series)
    ]


def test_a_network_that_knows_its_examples_has_saturated() -> None:
    recipe = small("digits")
    for last, improving in ((LEARNED - 0.01, True), (LEARNED + 0.01, False)):
        told = advice(recipe, curve(train_accuracy=[0.3, last], heldout_accuracy=[0.3, 0.6]))
        assert told is not None
        assert told.improving is improving
        assert f"{last:.0%}" in told.sentence
        assert "60%" in told.sentence


TRAIN, HELDOUT = [0.2, 0.4, 0.5, 0.6], [0.2, 0.3, 0.37, 0.36]


@pytest.mark.parametrize(
    ("losses", "train", "heldout", "improving"),
    [
        ([2.2, 1.83, 1.85, 1.90], TRAIN, HELDOUT, False),  # LeNet on Imagewoof
        ([2.2, 1.40, 1.41, 1.43], TRAIN, HELDOUT, True),  # on photos
        ([2.0, 1.0, 1.1, 1.0 + RISEN + 1e-9], TRAIN, HELDOUT, False),
        ([2.0, 1.2, 1.5, 2.5], [0.2, 0.5, 0.3, 0.1], HELDOUT, True),  # what it had learned is lost
        ([2.0, 1.5, 1.5, 1.6], TRAIN, [0.2, 0.25, 0.3, 0.4], True),  # gets more and more right
        ([2.0, 1.0, 1.1], TRAIN[:3], HELDOUT[:3], True),  # too short to tell
        (
            [2.0, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0, 1.5],
            [0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.6],
            [0.3] * 8,
            True,  # one bad epoch
        ),
    ],
)
def test_a_heldout_loss_that_has_risen_says_that_more_epochs_add_nothing(
    losses: list[float], train: list[float], heldout: list[float], improving: bool
) -> None:
    rows = curve(train_accuracy=train, heldout_accuracy=heldout, heldout_loss=losses)
    told = advice(small("digits"), rows)
    assert told is not None
    assert told.improving is improving
    assert ("after epoch 2" in told.sentence) is not improving


def test_only_the_last_epoch_counts_in_whatever_order_rows_come() -> None:
    rows = curve(train_accuracy=[0.2, 0.99], heldout_accuracy=[0.2, 0.7])
    assert advice(small("digits"), rows) == advice(small("digits"), rows[::-1])


@pytest.mark.parametrize(("last", "improving"), [(0.2, True), (0.39, False)])
def test_a_loss_that_still_falls_still_learns(last: float, improving: bool) -> None:
    told = advice(small("sine"), curve(heldout_loss=[0.9, 0.6, 0.5, 0.4, 0.4, last, 0.4, last]))
    assert told is not None
    assert told.improving is improving


def test_a_short_curve_says_nothing() -> None:
    assert advice(small("digits"), []) is None
    assert advice(small("sine"), curve(heldout_loss=[0.5, 0.4])) is None


@pytest.mark.parametrize(("name", "improving"), [("textures", False), ("photos", True)])
def test_the_samples_are_told_apart_as_long_runs_have_measured(name: str, improving: bool) -> None:
    """Three times the epochs added nothing on textures and four points on photos."""
    store = Store(places.home())
    (run,) = (
        run
        for run in store.runs()
        if run.sample
        and run.recipe.name == name
        and run.recipe == find_preset(name, "quick").recipe
    )
    with store.open(run.name) as reader:
        told = advice(reader.recipe, reader.metrics("teacher_a"))
    assert told is not None
    assert told.improving is improving


PETS = Data(
    name="images", source="pets", side=32, classes=12, augment="flips", train=100, heldout=20
)


def finished(store: Store, data: Data = PETS, **changes: Any) -> str:
    """A run that could tell what a merge on some data is worth."""
    recipe = replace(find_preset("textures", "quick").recipe, data=data, **changes)
    run = store.create(recipe, "cpu")
    with store.writer(run) as writer:
        for event in fake_runs.events(recipe):
            writer.write(event)
        writer.finish("finished")
    picking.read_anew()
    return run


def test_only_runs_that_learned_from_the_same_tell_of_one_to_come(store: Store) -> None:
    """Neither other images nor as many as others; how many judge a network does not matter."""
    recipe = replace(find_preset("textures", "quick").recipe, data=PETS)
    for change in (
        {"source": "cars"},
        {"train": 50},
        {"side": 64},
        {"classes": 10},
        {"noise": 0.5},
        {"augment": "none"},
        {"halves": "disjoint"},
        {"normalise": "imagenet"},
    ):
        finished(store, replace(PETS, **change))
        assert precedents.advice_before(recipe) is None, change
        assert not precedents.known_gates(recipe, recipe.model).run, change
    same = finished(store, replace(PETS, heldout=30, test=40), seed=3)
    told = precedents.advice_before(recipe)
    assert told is not None
    assert told[1] == same
    assert precedents.known_gates(recipe, recipe.model).run == same


def test_a_size_that_is_left_out_is_the_usual_one(store: Store) -> None:
    usual = Data(name="images", source="images", side=64, classes=10)
    recipe = replace(find_preset("textures", "quick").recipe, data=Data(name="images"))
    same = finished(store, usual)
    told = precedents.advice_before(recipe)
    assert told is not None
    assert told[1] == same
