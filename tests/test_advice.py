"""The check before a budget is spent says what the learning curve says."""

from typing import Any

import pytest
from small import small

from merge_core import places
from merge_core.presets import find_preset
from merge_core.store import Store
from merge_core.views.advice import LEARNED, advice


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
