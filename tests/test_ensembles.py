"""Networks that train together are those that `training.fit` makes one by one, to rounding."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from merge_core.channels import trace
from merge_core.data import Split, augmentation
from merge_core.data.generated import sine
from merge_core.devices import generator
from merge_core.ensembles import fit_together
from merge_core.ensembles.noise import SLOPE, fill_uniform, gates_
from merge_core.errors import DivergedError, RecipeError
from merge_core.events import Arrays, EpochFinished
from merge_core.gates import gate, gates_of, sample
from merge_core.methods.learned_gates import GateLearning
from merge_core.models import build
from merge_core.models.small import SineMLP
from merge_core.recipes import Gates, Training
from merge_core.schedules import Closing, GrowthLaw, Schedule
from merge_core.training import Job, fit, state_arrays

SINE = Training(epochs=4, batch_size=32, learning_rate=0.02, rate="steps", milestones=(2,))


def sine_job(number: int, training: Training = SINE, **changes: Any) -> Job:
    """Job `number`: data, start and order of its own."""
    data = sine(210, 0.2, generator(number, "data"))  # the last batch is smaller
    with torch.random.fork_rng():
        torch.manual_seed(number)
        network = SineMLP(12)
    settings = {
        "stage": "teacher_a",
        "network": network,
        "training": training,
        "train": data,
        "heldout": data,
        "augment": augmentation("none"),
        "draws": generator(number, "order"),
        "dropout_seed": number,
    }
    return Job(**(settings | changes))


def gated_job(number: int, gates: Gates) -> Job:
    """The same with gates that learn."""
    plain = sine_job(number)
    draws = generator(number, "gates")
    gated = gate(
        plain.network,
        trace(plain.network, plain.train.inputs[:4]),
        start=gates.start,
        spread=gates.spread,
        draws=draws,
    )
    learning = GateLearning(gates=gates_of(gated), settings=gates, training=plain.training)
    return replace(plain, network=gated, companion=learning, generators=(draws,))


def image_job(number: int, training: Training) -> Job:
    """A convolutional network with batch norm on flipped images."""
    draws = generator(number, "images")
    labels = torch.randint(10, (70,), generator=draws)
    images = torch.randn(70, 1, 8, 8, generator=draws) + labels.view(-1, 1, 1, 1) / 5
    return sine_job(
        number,
        training,
        network=build("digits-cnn", number),
        train=Split(images, labels),
        heldout=Split(images, labels),
        augment=augmentation("flips"),
    )


def alone(make: Callable[[int], Job], number: int) -> tuple[Arrays, float]:
    """What `fit` makes of a job: its network's state and the last epoch's training loss."""
    job = make(number)
    last = [event for event in fit(job) if isinstance(event, EpochFinished)][-1]
    return state_arrays(job.network), last.metrics["train_loss"]


def assert_equal_to_fit(make: Callable[[int], Job], at_once: int | None) -> None:
    jobs = [make(number) for number in range(5)]
    starts = [copy.deepcopy(job.network.state_dict()) for job in jobs]
    seen = {}
    for event in fit_together(jobs, at_once):
        for number, loss in zip(event.networks, event.losses.tolist(), strict=True):
            seen[number] = event.epoch, loss
    for number, (job, start) in enumerate(zip(jobs, starts, strict=True)):
        state, loss = alone(make, number)
        assert seen[number] == (job.training.epochs, pytest.approx(loss, rel=1e-4))
        for key, tensor in job.network.state_dict().items():
            expected = torch.from_numpy(state[key])
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=2e-5)
            if tensor.is_floating_point():
                assert not torch.equal(start[key], tensor), key


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_perceptrons_equal_fit(at_once: int | None) -> None:
    """With rates and decay of their own, and the momentum that goes with them."""

    def make(number: int) -> Job:
        return sine_job(
            number,
            replace(
                SINE,
                learning_rate=0.01 * (1 + number),
                weight_decay=1e-3 * number,
                momentum=0.9 if number else 0.5,
                rate="steps" if number % 2 else "constant",
                milestones=(2,) if number % 2 else (),
            ),
        )

    assert_equal_to_fit(make, at_once)


@pytest.mark.parametrize("at_once", [None, 2])
def test_gated_perceptrons_equal_fit(at_once: int | None) -> None:
    """With λ schedules, gates' rates and starts of their own, down to half; two are controlled."""

    def make(number: int) -> Job:
        schedule: Schedule = GrowthLaw(start=0.01 * (1 + number), growth=0.05, epochs=3 + number)
        if number in (1, 4):
            schedule = Closing(opening=0.9)
        return gated_job(
            number, Gates(start=0.5 * number, learning_rate=0.1 * (1 + number), schedule=schedule)
        )

    assert_equal_to_fit(make, at_once)


@pytest.mark.parametrize("at_once", [None, 2])
def test_gated_perceptrons_that_draw_the_same_equal_fit(at_once: int | None) -> None:
    """One seed under many λ schedules: the noise is drawn once, also across stacks."""

    def make(number: int) -> Job:
        schedule = GrowthLaw(start=0.1 * (1 + number), growth=0.5, epochs=5)
        return gated_job(7, Gates(start=1, learning_rate=1, schedule=schedule))

    assert_equal_to_fit(make, at_once)
    jobs, single = [make(number) for number in range(3)], make(0)
    list(fit_together(jobs))
    list(fit(single))
    states = [gates_of(job.network).draws.get_state() for job in jobs]
    expected = gates_of(single.network).draws.get_state()
    assert all(torch.equal(state, expected) for state in states)


@pytest.mark.parametrize("at_once", [None, 2])
def test_convolutional_networks_equal_fit(at_once: int | None) -> None:
    training = Training(epochs=2, batch_size=16, learning_rate=0.05, weight_decay=1e-3)
    assert_equal_to_fit(lambda number: image_job(number, training), at_once)


@pytest.mark.parametrize("logit", [-6.0, -1.0, 0.0, 2.0, 8.0])
def test_noise_is_that_of_the_gates(logit: float) -> None:
    """The same draws as `gates.sample` makes, and the same derivatives as autograd takes."""
    logits = torch.full((2, 3), logit)
    logits[1] += torch.tensor([0.1, 0.2, 0.3])
    noise, slopes = torch.empty(2, 4000, 3), torch.empty(2, 4000, 3)
    fill_uniform(noise, [generator(number, "noise") for number in range(2)])
    gates_(noise, slopes, logits, noise)
    for number in range(2):
        mine = logits[number].clone().requires_grad_()
        expected = sample(mine, 4000, generator(number, "noise"))
        torch.testing.assert_close(noise[number], expected.detach(), rtol=0, atol=5e-6)
        (gradient,) = torch.autograd.grad(expected.sum(), mine)
        torch.testing.assert_close(slopes[number].sum(0) * SLOPE, gradient, rtol=1e-3, atol=2e-2)


def test_noise_stays_finite_at_the_ends() -> None:
    noise = torch.tensor([1e-6, 0.5, 1 - 1e-6]).repeat(1, 1, 3)
    logits = torch.tensor([[-200.0] * 3 + [0.0] * 3 + [200.0] * 3])
    slopes = torch.empty_like(noise)
    gates_(noise, slopes, logits, noise)
    assert noise.flatten().tolist() == [0, 0, 0, 0, 0.5, 1, 1, 1, 1]
    assert slopes.flatten().tolist() == [0, 0, 0, 0, 0.25, 0, 0, 0, 0]


def test_what_differs_is_refused() -> None:
    with pytest.raises(RecipeError, match="2 numbers of epochs"):
        list(fit_together([sine_job(0), sine_job(1, replace(SINE, epochs=2))]))
    wide = sine_job(1, network=SineMLP(13))
    with pytest.raises(RecipeError, match="2 shapes of networks"):
        list(fit_together([sine_job(0), wide]))


def test_networks_with_dropout_equal_fit() -> None:
    """They draw from the one global generator, so they train one after the other."""

    def make(number: int) -> Job:
        with torch.random.fork_rng():
            torch.manual_seed(number)
            network = nn.Sequential(nn.Linear(1, 8), nn.Dropout(), nn.Linear(8, 1))
        return sine_job(number, network=network)

    assert_equal_to_fit(make, None)


def test_a_diverging_network_is_named() -> None:
    jobs = [sine_job(0), sine_job(1)]
    jobs[1].train.inputs[:] = float("inf")
    with pytest.raises(DivergedError, match=r"'teacher_a' of network 1 in epoch 1"):
        list(fit_together(jobs))


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("make", [sine_job, image_job])
def test_networks_can_be_looked_at_after_every_epoch(
    make: Callable[..., Job], at_once: int
) -> None:
    """What they have learned after an epoch is what a training of one epoch learns."""
    training = Training(epochs=2, batch_size=32, learning_rate=0.02, rate="constant")
    jobs = [make(number, training) for number in range(2)]
    after_one = [{}, {}]
    for event in fit_together(jobs, at_once):
        event.write_back()
        for number in event.networks:
            if event.epoch == 1:
                after_one[number] = copy.deepcopy(jobs[number].network.state_dict())
    short = [make(number, replace(training, epochs=1)) for number in range(2)]
    list(fit_together(short))
    for seen, job, one in zip(after_one, jobs, short, strict=True):
        for name, value in one.network.state_dict().items():
            torch.testing.assert_close(seen[name], value)
            assert not value.is_floating_point() or not torch.equal(
                job.network.state_dict()[name], value
            )


def test_no_jobs_are_no_work() -> None:
    assert list(fit_together([])) == []
