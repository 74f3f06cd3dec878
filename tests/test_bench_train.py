"""The measurements of `netweld bench train`: what is compared does the same work."""

import re

import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional

from merge_core import bench_train, compiling, processes
from merge_core.data import Normalisation, augmentation
from merge_core.data.pools import IMAGENET
from merge_core.devices import generator
from merge_core.errors import DeviceError
from merge_core.training import Course


def numbers(line: str) -> list[float]:
    """All numbers of a line that stand alone."""
    return [float(number) for number in re.findall(r"(?<=\s)[0-9.]*[0-9](?=\s|$)", line)]


def test_a_batch_is_changed_as_pictures_are_one_by_one() -> None:
    """Per image, with torchvision: flipped, normalised, padded, cropped; the same draws."""
    count, side, reach = 64, 32, 4
    mean, deviation = map(list, IMAGENET)
    pool = bench_train.pool(count)
    pixels = Normalisation.of(*IMAGENET).numbers(pool.images)
    found = augmentation("flips and shifts")(pixels, generator(1, "draws"))
    draws = generator(1, "draws")
    coins = torch.rand(count, generator=draws) < 0.5
    offsets = torch.randint(2 * reach + 1, (2, count), generator=draws)
    assert coins.any()
    assert not coins.all()
    for number, image in enumerate(pool.images):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        if coins[number]:
            picture = ImageOps.mirror(picture)
        pixels = functional.normalize(functional.to_tensor(picture), mean, deviation)
        top, left = offsets[:, number].tolist()
        expected = functional.crop(functional.pad(pixels, [reach]), top, left, side, side)
        assert torch.equal(found[number], expected)


def test_the_plain_pictures_are_those_of_the_pool() -> None:
    pool = bench_train.pool(8)
    pictures = bench_train.Pictures(pool)
    pictures.change.transforms = pictures.change.transforms[2:]  # without crop and flip
    expected = Normalisation.of(*IMAGENET).numbers(pool.images)
    assert len(pictures) == 8
    for number, (pixels, label) in enumerate(pictures[i] for i in range(8)):
        assert torch.equal(pixels, expected[number])
        assert label == pool.labels[number]


def test_traffic_is_what_operations_read_and_write() -> None:
    value = torch.ones(1000)
    with bench_train.Traffic() as counted:
        torch.relu(value)
    assert counted.bytes == 4000 + 4000
    with bench_train.Traffic() as counted:
        value.view(10, 100)
        value[:500]
    assert counted.bytes == 0
    repeated = torch.ones(()).expand(1000)
    with bench_train.Traffic() as counted:
        value.add_(repeated)
    assert counted.bytes == 4000 + 4 + 4000


def test_a_tiny_measurement_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    bench_train.measure(16, 1, "cpu", 0)
    said = capsys.readouterr().out.splitlines()
    assert "cpu" in said[0]
    for line in said[1:]:
        first, second, ratio = numbers(line)
        assert ratio > 0  # of the speeds before they were rounded to whole images in a second
        assert (second - 0.5) / (first + 0.5) - 0.01 <= ratio
        assert ratio * (first - 0.5) <= second + 0.5 + 0.01 * first
        assert len(numbers(line)) == 3
    compared = 4 if compiling.missing("cpu") else 6
    assert len(said) == 1 + 2 * compared


def test_when_a_compilation_is_repaid() -> None:
    """An epoch of 6 s takes 5 s when compiled: 30 s are repaid after 30 epochs, which are 180 s."""
    assert "repaid after 3.0 minutes" in bench_train.repaid(30.0, 6.0, 5.0)
    assert bench_train.repaid(30.0, 5.0, 5.0) == "compiled in 30 s, which is never repaid"


@pytest.mark.skipif(bool(compiling.missing("cpu")), reason="nothing can be compiled here")
def test_only_what_asks_for_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed = []
    monkeypatch.setattr(Course, "rehearse", lambda course: rehearsed.append(course.job.precision))
    jobs = bench_train.jobs(bench_train.pool(128), bench_train.paper(), "cpu")
    assert set(bench_train.compiled(jobs)) == {"compiled", "both"}
    assert rehearsed == ["float32", "bfloat16"]


def test_a_step_of_the_bench_moves_more_than_its_activations() -> None:
    job = bench_train.jobs(bench_train.pool(4), bench_train.paper(), "cpu")["alone"]
    activations = 4 * 4 * (7 * 16 * 32**2 + 6 * 32 * 16**2 + 6 * 64 * 8**2)
    assert bench_train.traffic(job) > 10 * activations
    assert "need" in bench_train.memory_part(job, 1.0, "cpu", 1)


def test_processes_keep_their_memory_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert "trim_threshold" in processes.environment()["GLIBC_TUNABLES"]
    monkeypatch.setenv("GLIBC_TUNABLES", "mine")
    assert processes.environment()["GLIBC_TUNABLES"] == "mine"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_a_sentence() -> None:
    with pytest.raises(DeviceError, match="this machine has only"):
        bench_train.main(16, 1, "cuda")
