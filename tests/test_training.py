"""The training loop against a plain one, interrupted and whole, and its refusals."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from merge_core.data import Split, augmentation
from merge_core.devices import generator
from merge_core.errors import DivergedError
from merge_core.events import EpochFinished
from merge_core.recipes import Training
from merge_core.training import Job, evaluate, fit, rate_at, state_arrays, steps_per_epoch


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
        )


def images(n: int = 50, seed: int = 0) -> Split:
    draws = generator(seed, "images")
    labels = torch.randint(3, (n,), generator=draws)
    pixels = torch.randn(n, 1, 8, 8, generator=draws) + labels.view(-1, 1, 1, 1)
    return Split(pixels, labels)


def job(training: Training, net: nn.Module | None = None, **changes) -> Job:
    net = net or network()
    settings = {
        "stage": "teacher_a",
        "network": net,
        "training": training,
        "train": images(),
        "heldout": images(20, 1),
        "augment": augmentation("flips"),
        "draws": generator(5, "order"),
        "dropout_seed": 7,
    }
    return Job(**(settings | changes))


TRAINING = Training(epochs=3, batch_size=16, learning_rate=0.05, weight_decay=1e-3)


def test_weights_equal_a_plain_loops() -> None:
    """An oracle written out: momentum, decay, one-cycle rate, order and augmentation."""
    ours = job(TRAINING)
    last = [e for e in fit(ours) if isinstance(e, EpochFinished)][-1]

    plain, data, draws = network(), images(), generator(5, "order")
    velocity = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    steps, step, losses = 3 * 4, 0, []
    for _ in range(3):
        order = torch.randperm(50, generator=draws)
        losses.clear()
        for batch in (order[i : i + 16] for i in range(0, 50, 16)):
            x, y = augmentation("flips")(data.inputs[batch], draws), data.targets[batch]
            loss = functional.cross_entropy(plain(x), y)
            losses.append(loss.item() * len(batch))
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            rate = rate_at(TRAINING, step, steps)
            with torch.no_grad():
                for (name, p), g in zip(plain.named_parameters(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + g + 1e-3 * p
                    p -= rate * velocity[name]
            step += 1
    for a, b in zip(ours.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert last.metrics["train_loss"] == pytest.approx(sum(losses) / 50, rel=1e-5)
    assert last.metrics["heldout_accuracy"] == evaluate(plain, images(20, 1))["accuracy"]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_checkpoint_continues_with_the_same_numbers(stop_after: int) -> None:
    whole = job(TRAINING)
    expected = [e.metrics for e in fit(whole) if isinstance(e, EpochFinished)]

    first = job(TRAINING)
    saved = next(
        event.checkpoint()
        for event in fit(first)
        if isinstance(event, EpochFinished) and event.epoch == stop_after
    )
    second = job(TRAINING, draws=generator(99, "overwritten by the checkpoint"))
    rest = [e.metrics for e in fit(second, saved) if isinstance(e, EpochFinished)]
    assert rest == expected[stop_after:]
    for key, array in state_arrays(whole.network).items():
        assert (array == state_arrays(second.network)[key]).all()


def test_a_checkpoint_is_a_copy() -> None:
    running = fit(job(TRAINING))
    saved = next(e for e in running if isinstance(e, EpochFinished)).checkpoint()
    before = {key: array.copy() for key, array in saved.items()}
    list(running)
    assert all((saved[key] == before[key]).all() for key in before)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(fit(job(TRAINING)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_diverging_loss_names_stage_and_step() -> None:
    data = images()
    data.inputs[:] = float("inf")
    with pytest.raises(DivergedError, match=r"'teacher_a' at step 1,.*learning rate"):
        list(fit(job(Training(epochs=1, batch_size=16, learning_rate=1.0), train=data)))


@given(n=st.integers(2, 400), batch=st.integers(1, 64))
def test_steps_per_epoch_leave_out_only_a_lone_last_example(n: int, batch: int) -> None:
    sizes = [min(batch, n - start) for start in range(0, n, batch)]
    kept = sizes[: steps_per_epoch(n, batch)]
    assert len(kept) >= 1
    assert sum(sizes) - sum(kept) in (0, 1)
    if batch > 1:
        assert kept[-1] > 1


@given(
    epochs=st.integers(1, 40), per_epoch=st.integers(1, 30),
    rate=st.sampled_from(["one-cycle", "steps", "warm-up and steps", "constant"]),
)  # fmt: skip
def test_rates_never_exceed_the_learning_rate(epochs: int, per_epoch: int, rate) -> None:
    milestones = (max(1, epochs // 2),) if "steps" in rate else ()
    training = Training(
        epochs=epochs, batch_size=1, learning_rate=0.3, rate=rate, milestones=milestones
    )
    steps = epochs * per_epoch
    rates = [rate_at(training, step, steps) for step in range(steps)]
    assert all(0 < r <= 0.3 for r in rates)
    if rate == "one-cycle" and steps > 20:
        assert max(rates) > 0.28
        assert rates[-1] < 0.01
    if rate == "steps" and epochs > 1:
        assert rates[0] == 0.3
        assert rates[-1] == pytest.approx(0.03)
    if rate == "warm-up and steps" and epochs >= 4:
        risen = 2 * per_epoch
        assert rates[:risen] == pytest.approx([0.3 * (s + 1) / risen for s in range(risen)])
        assert rates[risen:] == [
            rate_at(replace(training, rate="steps"), step, steps) for step in range(risen, steps)
        ]


def test_evaluate_is_the_mean_over_the_whole_split_and_leaves_the_mode() -> None:
    net, data = network().train(), images(2500)
    scores = evaluate(net, data)
    assert net.training
    with torch.no_grad():
        outputs = net.eval()(data.inputs).double()
    assert scores["loss"] == pytest.approx(
        functional.cross_entropy(outputs, data.targets).item(), rel=1e-5
    )
    assert scores["accuracy"] == (outputs.argmax(1) == data.targets).double().mean().item()


def test_numbers_are_fitted_by_mean_squared_error() -> None:
    data = Split(torch.rand(30, 1), torch.rand(30, 1))
    scores = evaluate(nn.Linear(1, 1), data)
    assert set(scores) == {"loss"}
    assert math.isfinite(scores["loss"])


def test_dropout_draws_from_the_seed_and_survives_a_checkpoint() -> None:
    def dropping() -> nn.Module:
        return nn.Sequential(network(), nn.Dropout(0.5))

    def epochs(seed: int, checkpoint=None) -> list[EpochFinished]:
        events = fit(job(TRAINING, dropping(), dropout_seed=seed), checkpoint)
        return [e for e in events if isinstance(e, EpochFinished)]

    first, other = epochs(1), epochs(2)
    assert [e.metrics for e in epochs(1)] == [e.metrics for e in first]
    assert first[0].metrics["train_loss"] != other[0].metrics["train_loss"]
    halfway = next(
        e.checkpoint()
        for e in fit(job(TRAINING, dropping(), dropout_seed=1))
        if isinstance(e, EpochFinished)
    )
    assert [e.metrics for e in epochs(1, halfway)] == [e.metrics for e in first[1:]]


@pytest.mark.parametrize(("channels", "last"), [(4, True), (300, False)])
def test_images_lie_with_their_channels_last_where_filters_are_small(
    channels: int, last: bool
) -> None:
    """And the weights keep their layout."""
    seen: list[bool] = []
    net = nn.Sequential(
        nn.Conv2d(2, channels, 1), nn.Conv2d(channels, channels, 3), nn.Flatten(),
        nn.Linear(channels * 36, 3),
    )  # fmt: skip
    net.register_forward_pre_hook(
        lambda module, args: seen.append(
            args[0].is_contiguous(memory_format=torch.channels_last) and module.training
        )
    )
    data = Split(torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 0]))
    training = Training(epochs=1, batch_size=4, learning_rate=0.01)
    list(fit(job(training, net, train=data, heldout=data)))
    assert seen == [last, False]
    assert all(weight.is_contiguous() for weight in net.parameters())
