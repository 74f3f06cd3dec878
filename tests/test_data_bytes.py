"""Images stay bytes until they are looked at, and nothing that is learned from them tells."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from merge_core.data import Normalisation, Split, augmentation, load
from merge_core.data.pools import Arrays, divided
from merge_core.data.splits import drawn
from merge_core.devices import generator
from merge_core.ensembles import fit_together
from merge_core.events import Arrays as State
from merge_core.events import EpochFinished
from merge_core.recipes import Data, Training
from merge_core.repair import norms_reestimated
from merge_core.training import Job, evaluate, fit, state_arrays

MEAN, DEVIATION = (0.4, 0.5, 0.45), (0.2, 0.25, 0.3)
TRAINING = Training(epochs=3, batch_size=16, learning_rate=0.05)


def images(n: int, seed: int = 0) -> Split:
    draws = generator(seed, "bytes")
    pixels = torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=draws)
    labels = torch.randint(4, (n,), generator=draws)
    return Split(pixels, labels, Normalisation.of(MEAN, DEVIATION))


def as_numbers(split: Split) -> Split:
    """The same examples, kept as numbers."""
    return Split(split.inputs, split.targets)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4)
        )


def job(train: Split, heldout: Split) -> Job:
    return Job(
        stage="teacher_a",
        network=network(),
        training=TRAINING,
        train=train,
        heldout=heldout,
        augment=augmentation("flips and shifts"),
        draws=generator(5, "order"),
        dropout_seed=7,
    )


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


@given(data=st.data(), n=st.integers(1, 20), size=st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_a_part_has_the_numbers_of_the_whole(data: st.DataObject, n: int, size: int) -> None:
    """The oracle is the formula in double precision, pixel by pixel."""
    split = images(n)
    exact = split.stored.numpy().astype(np.float64) / 255
    exact = (exact - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1))
    assert np.abs(split.inputs.numpy() - exact).max() < 1e-6
    which = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), min_size=1)))
    part = split.part(which)
    assert torch.equal(part.inputs, split.inputs[which])
    assert torch.equal(part.targets, split.targets[which])
    batches = list(split.batches(size))
    assert [len(each) for each in batches[:-1]] == [size] * ((n - 1) // size)
    assert torch.equal(torch.cat([each.inputs for each in batches]), split.inputs)
    assert torch.equal(torch.cat([each.targets for each in batches]), split.targets)


def test_bytes_teach_what_their_numbers_teach() -> None:
    """Alone and as one of several, with norms and scores, to the last bit."""
    pixels, heldout = images(50), images(20, 1)
    one, other = job(pixels, heldout), job(as_numbers(pixels), as_numbers(heldout))
    ends = [[e for e in fit(each) if isinstance(e, EpochFinished)][-1] for each in (one, other)]
    assert ends[0].metrics == ends[1].metrics
    assert same(ends[0].checkpoint(), ends[1].checkpoint())

    many = [job(pixels, heldout) for _ in range(2)]
    same_many = [job(as_numbers(pixels), as_numbers(heldout)) for _ in range(2)]
    for jobs in (many, same_many):
        list(fit_together(jobs))
    for a, b in zip(many, same_many, strict=True):
        assert same(state_arrays(a.network), state_arrays(b.network))

    def renormed(split: Split) -> State:
        mirrored = augmentation("flips")
        return state_arrays(
            norms_reestimated(one.network, split, 16, mirrored, generator(1, "norms"))
        )

    assert same(renormed(pixels), renormed(as_numbers(pixels)))
    assert evaluate(one.network, heldout) == evaluate(one.network, as_numbers(heldout))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_resumed_training_ends_as_the_whole_one(stop_after: int) -> None:
    pixels, heldout = images(50), images(20, 1)
    whole = job(pixels, heldout)
    saved = next(
        event.checkpoint()
        for event in fit(whole)
        if isinstance(event, EpochFinished) and event.epoch == stop_after
    )
    expected = job(as_numbers(pixels), as_numbers(heldout))
    list(fit(expected))
    rest = job(pixels, heldout)
    list(fit(rest, saved))
    assert same(state_arrays(rest.network), state_arrays(expected.network))


def test_photos_are_bytes_with_the_numbers_they_always_had(tmp_path: Path) -> None:
    data = load(Data(name="photos", train=40, heldout=20, test=30), 3, tmp_path)
    for split in data.splits:
        assert split.stored.dtype == torch.uint8
        assert torch.equal(split.inputs, (split.stored.float() / 255 - 0.45) / 0.27)


def test_chosen_images_of_a_pool_stay_bytes() -> None:
    pixels = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 3, 8, 8).contiguous()
    pool = Arrays(pixels, torch.arange(60) % 10)
    data = Data(name="images", side=8, classes=10, train=30, heldout=10, test=20)
    made = divided(pool, None, data, (MEAN, DEVIATION), generator(2, "pool"))
    parts = drawn(60, (30, 10, 20), generator(2, "pool"), "images")
    for split, part in zip(made.splits, parts, strict=True):
        stored: Tensor = split.stored
        assert stored.dtype == torch.uint8
        assert stored[:, 0, 0, 0].tolist() == part.tolist()
        assert split.targets.tolist() == (part % 10).tolist()
    halves = made.halves
    assert all(
        half.stored.untyped_storage().data_ptr() == made.train.stored.untyped_storage().data_ptr()
        for half in halves
    )
