"""λ schedules of every kind: their laws, their JSON, and a controller that keeps to its path."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merge_core.channels import trace
from merge_core.data import augmentation
from merge_core.data.generated import sine
from merge_core.devices import generator
from merge_core.errors import RecipeError
from merge_core.events import EpochFinished
from merge_core.gates import Pull, gate, gates_of, open_probability, pull_to_half
from merge_core.methods.learned_gates import GateLearning
from merge_core.models.small import SineMLP
from merge_core.presets import find_preset
from merge_core.recipes import Gates, Training
from merge_core.recipes.reading import build
from merge_core.schedules import (
    KINDS,
    TITLES,
    Closing,
    Constant,
    Cosine,
    Curve,
    Exponential,
    GrowthLaw,
    Linear,
    Points,
    Schedule,
    Stairs,
    as_kind,
)
from merge_core.training import Job, fit

TEXTURES = find_preset("textures", "quick").recipe
weights = st.floats(1e-9, 1e3)


@st.composite
def drawn(draw: st.DrawFn) -> Points:
    places = sorted(draw(st.sets(st.floats(0, 1), min_size=1, max_size=8)))
    return Points(points=tuple((place, draw(weights)) for place in places))


between = [
    st.builds(Linear, start=weights, end=weights),
    st.builds(Exponential, start=weights, end=weights),
    st.builds(Cosine, start=weights, end=weights),
    st.builds(Stairs, start=weights, end=weights, stairs=st.integers(2, 40)),
]
curves = st.one_of(
    *between,
    st.builds(Constant, weight=weights),
    st.builds(GrowthLaw, start=weights, growth=weights, epochs=st.integers(1, 200)),
    drawn(),
)
closings = st.builds(
    Closing, begin=st.floats(0, 0.4), opening=st.floats(0.5, 1), half=st.floats(0.5, 1)
)


@given(curve=curves, steps=st.integers(1, 300))
def test_over_is_at_in_every_step(curve: Curve, steps: int) -> None:
    over = curve.over(steps)
    assert over.shape == (steps,)
    one_by_one = [curve.at(step / steps) for step in range(steps)]
    np.testing.assert_allclose(over, one_by_one, rtol=1e-12)


@given(curve=curves, progress=st.floats(0, 1))
def test_every_weight_is_positive_and_finite(curve: Curve, progress: float) -> None:
    assert 0 < curve.at(progress) < math.inf


@given(curve=st.one_of(*between), places=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_law_between_two_ends_never_turns_back_nor_leaves_them(curve, places) -> None:
    before, after = (curve.at(place) for place in sorted(places))
    assert min(curve.start, curve.end) <= before <= max(curve.start, curve.end)
    assert (after - before) * (curve.end - curve.start) >= 0
    assert (curve.at(0), curve.at(1)) == pytest.approx((curve.start, curve.end), rel=1e-9)


@given(start=weights, growth=weights, places=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_the_growth_law_never_falls(start: float, growth: float, places) -> None:
    law = GrowthLaw(start=start, growth=growth, epochs=50)
    before, after = (law.at(place) for place in sorted(places))
    assert before <= after


@given(curve=drawn(), progress=st.floats(0, 1))
def test_points_are_met_and_between_them_logarithms_are_straight(
    curve: Points, progress: float
) -> None:
    for place, weight in curve.points:
        assert curve.at(place) == pytest.approx(weight, rel=1e-9)
    places, logs = zip(*((place, math.log(weight)) for place, weight in curve.points), strict=True)
    assert math.log(curve.at(progress)) == pytest.approx(
        np.interp(progress, places, logs), abs=1e-9
    )


@given(schedule=st.one_of(curves, closings))
def test_every_schedule_survives_json_alone_and_in_a_recipe(schedule: Schedule) -> None:
    text = json.dumps(dataclasses.asdict(schedule), allow_nan=False)
    assert build(Schedule, json.loads(text), "schedule") == schedule
    gates = dataclasses.replace(TEXTURES.gates, schedule=schedule)
    recipe = dataclasses.replace(TEXTURES, gates=gates)
    assert type(recipe).from_json(recipe.to_json()) == recipe


def test_a_recipe_of_before_there_were_kinds_has_a_growth_law() -> None:
    settings = json.loads(TEXTURES.to_json())
    assert settings["gates"]["schedule"].pop("kind") == "growth"
    assert type(TEXTURES).from_json(json.dumps(settings)) == TEXTURES


def test_every_kind_has_a_title_and_is_what_it_says() -> None:
    assert list(KINDS) == list(TITLES)
    for kind in KINDS:
        assert as_kind(kind, TEXTURES.gates.schedule).kind == kind


WITH_ENDS = ("growth", "linear", "exponential", "cosine", "step", "points")


@given(start=st.floats(1e-4, 1), factor=st.floats(1, 1e3), old=st.sampled_from(WITH_ENDS))
def test_a_schedule_keeps_its_ends_in_another_kind(start: float, factor: float, old: str) -> None:
    first = as_kind(old, Exponential(start=start, end=start * factor))
    for kind in WITH_ENDS:
        made = as_kind(kind, first)
        assert isinstance(made, Curve)
        assert (made.at(0), made.at(1)) == pytest.approx((start, start * factor), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({"kind": "constant", "weight": "0.3"}, Constant(weight=0.3)),
        ({"start": "0.1", "kind": "linear", "end": "2"}, Linear(start=0.1, end=2.0)),
        ({"kind": "step", "stairs": "2", "start": "1", "end": "9"},
         Stairs(start=1.0, end=9.0, stairs=2)),
        ({"kind": "points", "points": "0:0.01,0.5:2"}, Points(points=((0.0, 0.01), (0.5, 2.0)))),
        ({"kind": "closing", "half": "0.8"}, Closing(half=0.8)),
    ],
)  # fmt: skip
def test_a_schedule_is_set_by_dotted_keys_in_any_order(settings, schedule: Schedule) -> None:
    recipe = TEXTURES.changed({f"gates.schedule.{key}": text for key, text in settings.items()})
    assert recipe.gates.schedule == schedule


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "cosin"}, ["'cosin'", "cosine"]),
        ({"kind": "constant", "start": "1"}, ["'start' is unknown", "weight"]),
        ({"kind": "constant", "weight": "0"}, ["weight=0.0", "above 0"]),
        ({"kind": "linear", "end": "2000"}, ["end=2000", "at most 1000"]),
        ({"kind": "step", "stairs": "1"}, ["stairs=1", "2 to 1000"]),
        ({"kind": "points", "points": "0:1,0:2"}, ["0, 0", "after the one before"]),
        ({"kind": "points", "points": "0.5"}, ["2 numbers", "0:0.01"]),
        ({"kind": "points", "points": ""}, ["0 points", "1 to 200"]),
        ({"kind": "points", "points": "2:1"}, ["progress=2.0", "between 0"]),
        ({"kind": "closing", "half": "0"}, ["half=0.0", "before it reaches half"]),
        ({"kind": "closing", "opening": "0.2"}, ["opening=0.2", "0.5 to 1"]),
    ],
)  # fmt: skip
def test_a_wrong_schedule_gets_one_sentence(settings: dict[str, str], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        TEXTURES.changed({f"gates.schedule.{key}": text for key, text in settings.items()})
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@given(
    closing=closings, progress=st.floats(0, 1), means=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_a_controlled_weight_is_one_on_the_path_and_grows_with_the_mean(
    closing: Closing, progress: float, means: tuple[float, float]
) -> None:
    path = float(closing.path(np.array(progress)))
    assert 0.5 <= path <= closing.opening
    assert closing.weight(progress, path) == pytest.approx(1)
    low, high = (closing.weight(progress, mean) for mean in sorted(means))
    assert 1e-3 <= low <= high <= 1e3
    as_tensor = closing.weight(progress, torch.tensor(max(means), dtype=torch.float64))
    assert float(as_tensor) == pytest.approx(high, rel=1e-9)


@pytest.mark.parametrize("steps", [60, 400, 4000])
@pytest.mark.parametrize("pull", [60.0, 234.0, 1000.0])
@pytest.mark.parametrize("wish", [0.0, 5.0, 20.0])
def test_a_controller_keeps_simulated_gates_on_its_path(
    steps: int, pull: float, wish: float
) -> None:
    """Whatever the pull, the length of the stage and what the error wants: nothing is tuned."""
    closing = Closing()
    logits = torch.linspace(0.9, 1.1, 64)
    wishes = torch.linspace(0, 2 * wish, 64) / steps
    first = float(open_probability(logits).mean())
    for step in range(steps):
        p = open_probability(logits)
        logits = logits + wishes * 4 * p * (1 - p)
        mean = open_probability(logits).mean()
        weight = closing.weight(step / steps, mean)
        logits = pull_to_half(logits, Pull.at(weight, pull, step, steps))
        path = float(closing.path(np.array((step + 1) / steps)))
        if path < first - 0.05:
            assert float(open_probability(logits).mean()) == pytest.approx(path, abs=0.06)


def test_a_controller_keeps_real_gates_on_its_path_and_its_weight_is_recorded() -> None:
    epochs = 20
    data = sine(210, 0.2, generator(0, "data"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SineMLP(12)
    settings = Gates(start=1.0, learning_rate=0.5, schedule=Closing())
    training = Training(epochs=epochs, batch_size=16, learning_rate=0.02, rate="constant")
    draws = generator(0, "gates")
    gated = gate(network, trace(network, data.inputs[:4]), start=1.0, spread=0.01, draws=draws)
    job = Job(
        stage="gates",
        network=gated,
        training=training,
        train=data,
        heldout=data,
        augment=augmentation("none"),
        draws=generator(0, "order"),
        dropout_seed=0,
        companion=GateLearning(gates=gates_of(gated), settings=settings, training=training),
        generators=(draws,),
    )
    seen = [event for event in fit(job) if isinstance(event, EpochFinished)]
    used = [event.metrics["lambda"] for event in seen]
    assert len({round(weight, 6) for weight in used}) > epochs / 2
    assert all(1e-3 <= weight <= 1e3 for weight in used)
    for event in seen:
        path = float(Closing().path(np.array(event.epoch / epochs)))
        (opened,) = event.open_probabilities.values()
        if path < 0.88:
            assert float(opened.mean()) == pytest.approx(path, abs=0.06)
    (opened,) = seen[-1].open_probabilities.values()
    assert float(opened.mean()) == pytest.approx(0.5, abs=0.01)
