"""The model of the gates' dynamics against the gates themselves, and what it warns of."""

import dataclasses

import fake_runs
import numpy as np
import pytest
import torch

from merge_core.channels import trace
from merge_core.data import augmentation
from merge_core.data.generated import sine
from merge_core.devices import generator
from merge_core.dynamics import NO_DRIFT, Drift, expected, fitted_drift
from merge_core.events import EpochFinished
from merge_core.gates import Pull, gate, gates_of, open_probability, pull_to_half
from merge_core.methods.learned_gates import GateLearning
from merge_core.models.small import SineMLP
from merge_core.recipes import Gates, Training
from merge_core.schedules import (
    PAPER_SCHEDULE,
    Closing,
    Constant,
    Exponential,
    GrowthLaw,
    Points,
    Schedule,
)
from merge_core.store import Store
from merge_core.training import Job, fit
from merge_core.views.expectations import NOTHING_KNOWN, Past, expect, known_from, warnings

EPOCHS, PER_EPOCH = 20, 14
SCHEDULES: tuple[GrowthLaw | Constant | Exponential, ...] = (
    PAPER_SCHEDULE,
    Constant(weight=0.02),
    Constant(weight=1.0),
    Exponential(start=0.001, end=10.0),
)


@pytest.mark.parametrize("steps", [20, 90, 700])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.kind}-{s.at(1):.3g}")
def test_without_an_error_the_model_is_the_penalty_itself(
    schedule: GrowthLaw | Constant | Exponential, steps: int
) -> None:
    """Against the pull of the real gates, step by step."""
    gates = Gates(start=1.0, spread=0.5, schedule=schedule)
    logits = torch.distributions.Normal(1.0, 0.5).icdf((torch.arange(500) + 0.5) / 500)
    means = []
    for step in range(steps):
        logits = pull_to_half(logits, Pull.at(schedule.at(step / steps), 234.0, step, steps))
        means.append(float(open_probability(logits).mean()))
    found = expected(gates, steps, {"hidden": NO_DRIFT})
    assert found.progress[-1] == 1
    ends = (found.progress * steps).round().astype(int)
    np.testing.assert_allclose(found.means()[:, 0], np.array(means)[ends - 1], atol=0.03)


def run(schedule: Schedule) -> tuple[Gates, list[EpochFinished]]:
    """A tiny gate stage of 20 epochs; its data cannot be told apart from noise by few units."""
    data = sine(PER_EPOCH * 16, 0.2, generator(0, "data"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SineMLP(16)
    settings = Gates(start=1.0, learning_rate=0.5, schedule=schedule)
    training = Training(epochs=EPOCHS, batch_size=16, learning_rate=0.02, rate="constant")
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
    return settings, [event for event in fit(job) if isinstance(event, EpochFinished)]


def test_fitted_to_one_run_the_model_foretells_the_others() -> None:
    """The means of real gates after every epoch, under schedules that it has not seen."""
    steps = EPOCHS * PER_EPOCH
    settings, seen = run(PAPER_SCHEDULE)
    opened = [next(iter(event.open_probabilities.values())) for event in seen]
    drift = fitted_drift(settings, PAPER_SCHEDULE.over(steps), opened)
    others: list[Schedule] = [*SCHEDULES[1:], Closing()]
    for schedule in others:
        gates, seen = run(schedule)
        found = expected(gates, steps, {"hidden": drift})
        real = [float(next(iter(e.open_probabilities.values())).mean()) for e in seen]
        model = np.interp(np.arange(1, EPOCHS + 1) / EPOCHS, found.progress, found.means()[:, 0])
        np.testing.assert_allclose(model, real, atol=0.06)


@pytest.mark.parametrize("drift", [Drift(0.1, 0.05), Drift(0.02, 0.02), NO_DRIFT])
def test_a_drift_is_found_again_in_what_it_does(drift: Drift) -> None:
    gates, steps = Gates(start=1.0, schedule=PAPER_SCHEDULE), 1000
    found = expected(gates, steps, {"a": drift})
    ends = np.searchsorted(found.progress, np.arange(1, 21) / 20)
    fitted = fitted_drift(gates, PAPER_SCHEDULE.over(steps), list(found.opened[ends, 0]))
    again = expected(gates, steps, {"a": fitted})
    np.testing.assert_allclose(again.means(), found.means(), atol=0.05)


def test_a_wish_of_the_error_delays_the_closing() -> None:
    found = expected(
        Gates(start=1.0), 1000, {"none": NO_DRIFT, "weak": Drift(0.1, 0), "strong": Drift(0.5, 0)}
    )
    none, weak, strong = found.means().T
    assert (none <= weak + 1e-9).all()
    assert (weak <= strong + 1e-9).all()


def test_from_the_middle_the_model_goes_on_as_from_the_start() -> None:
    gates, steps = Gates(start=1.0, spread=0.5), 1000
    whole = expected(gates, steps, {"a": NO_DRIFT})
    middle = int(np.searchsorted(whole.progress, 0.25))
    begin = round(float(whole.progress[middle]) * steps)
    rest = expected(
        gates, steps, {"a": NO_DRIFT}, begin=begin, opened={"a": whole.opened[middle, 0]}
    )
    model = np.interp(rest.progress, whole.progress, whole.means()[:, 0])
    np.testing.assert_allclose(rest.means()[:, 0], model, atol=0.02)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (PAPER_SCHEDULE, []),
        (Closing(), []),
        (Constant(weight=0.001), ["still be open at the cut"]),
        (Points(points=((0.0, 0.001), (0.89, 0.001), (0.91, 20.0))), ["last tenth"]),
        (Constant(weight=100.0), ["fall to half together within"]),
    ],
)  # fmt: skip
def test_a_schedule_is_warned_of_when_it_must(schedule: Schedule, words: list[str]) -> None:
    gates = Gates(start=1.0)
    found = warnings(expect(gates, 20, NOTHING_KNOWN, schedule), 20)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "home", tmp_path / "samples")


def test_a_finished_run_tells_about_its_gates(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        known = known_from(reader)
        gates = reader.merge.gates
    assert list(known.drifts) == ["conv1", "conv2", "conv3"]
    assert known.run
    closed = {space: np.full(8, 0.5) for space in known.drifts}
    half = {space: np.array([0.9, 0.5]) for space in known.drifts}
    past = Past(weights=np.array([1.0, 1.0]), means=half, opened=closed)
    rest = expect(gates, 8, known, dataclasses.replace(PAPER_SCHEDULE), past)
    assert rest.progress[0] > 2 / 8
    assert abs(rest.means()[0] - 0.5).max() < 0.05
