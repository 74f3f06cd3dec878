"""Data sets: deterministic, in three disjoint splits, refused with a sentence where missing."""

import gzip
import itertools
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)

from merge_core.architectures import SHAPES
from merge_core.data import augmentation, load
from merge_core.data.class_names import CLASS_NAMES
from merge_core.data.photographs import PATCH, block_corner
from merge_core.data.splits import Normalisation
from merge_core.devices import generator
from merge_core.errors import DataError, RecipeError
from merge_core.recipes import Data

SMALL = [
    Data(name="sine", train=40, heldout=20, test=30, noise=0.2),
    Data(name="textures", train=40, heldout=20, test=30, noise=0.35),
    Data(name="photos", train=40, heldout=20, test=30),
    Data(name="digits", train=40, heldout=20, test=30),
]


@pytest.mark.parametrize("data", SMALL, ids=lambda d: d.name)
def test_same_seed_same_examples_and_other_seed_others(data: Data, tmp_path: Path) -> None:
    first, again, other = (load(data, seed, tmp_path) for seed in (3, 3, 4))
    for name in ("train", "heldout", "test"):
        a, b, c = (getattr(d, name) for d in (first, again, other))
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert not torch.equal(a.inputs, c.inputs)
    assert [len(first.train), len(first.heldout), len(first.test)] == [40, 20, 30]


def test_digits_splits_are_disjoint_and_complete(tmp_path: Path) -> None:
    data = load(Data(name="digits"), 0, tmp_path)
    assert len(data.train) + len(data.heldout) + len(data.test) == 1797
    rows = torch.cat([s.inputs.flatten(1) for s in (data.train, data.heldout, data.test)])
    assert len(rows.unique(dim=0)) == 1797


@pytest.mark.parametrize("train", [40, 41])
def test_halves_share_no_example_and_leave_none_out(train: int, tmp_path: Path) -> None:
    data = load(Data(name="digits", train=train, heldout=20, test=30), 0, tmp_path)
    first, second = data.halves
    assert 0 <= len(second) - len(first) <= 1
    assert torch.equal(torch.cat([first.inputs, second.inputs]), data.train.inputs)
    assert torch.equal(torch.cat([first.targets, second.targets]), data.train.targets)


@pytest.mark.parametrize("shape", [(427, 640)])
def test_photo_blocks_are_disjoint_with_a_margin(shape: tuple[int, int]) -> None:
    """Every two blocks leave at least three untouched pixels between all their patches."""
    covered = []
    for region, block in itertools.product(range(6), range(25)):
        top, left = block_corner(shape, region, block, [0.0, 0.0])
        bottom, right = block_corner(shape, region, block, [0.999999, 0.999999])
        covered.append((top, left, bottom + PATCH, right + PATCH))
        assert 0 <= top <= bottom <= shape[0] - PATCH
        assert 0 <= left <= right <= shape[1] - PATCH
    for a, b in itertools.combinations(covered, 2):
        apart = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
        assert apart >= 3


def test_photo_splits_take_different_blocks(tmp_path: Path) -> None:
    """No patch of one split is a (turned) patch of another: compared by their sorted pixels."""
    data = load(Data(name="photos", train=400, heldout=200, test=200), 0, tmp_path)
    signs = [
        {tuple(image.flatten().sort().values[::97].tolist()) for image in split.inputs}
        for split in (data.train, data.heldout, data.test)
    ]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(signs, 2))
    assert all(len(s) > 100 for s in signs)


def test_texture_classes_differ_in_orientation(tmp_path: Path) -> None:
    """Without noise the strongest frequency of a single grating points along its orientation."""
    data = load(Data(name="textures", train=200, heldout=1, test=1), 0, tmp_path).train
    for image, label in zip(data.inputs, data.targets, strict=True):
        if label >= 6:
            continue
        channel = image[image.flatten(1).std(1).argmax()]
        spectrum = torch.fft.fft2(torch.nn.functional.pad(channel - channel.mean(), (0, 224) * 2))
        peak = int(spectrum[:128].abs().argmax())
        row, column = divmod(peak, 256)
        column = column - 256 if column >= 128 else column
        angle = torch.atan2(torch.tensor(float(row)), torch.tensor(float(column)))
        steps = float(angle) / (torch.pi / 6) - float(label)
        assert abs((steps + 3) % 6 - 3) < 0.35


@pytest.mark.parametrize(
    "name", ["flips", "flips and quarter turns", "shifts", "flips and shifts", "flips and crops"]
)
def test_augmentation_moves_pixels_and_draws_from_its_generator(name: str) -> None:
    images = torch.rand(64, 3, 8, 8, generator=generator(0, "images"))
    change = augmentation(name)
    once = change(images, generator(1, "draws"))
    again = change(images, generator(1, "draws"))
    assert torch.equal(once, again)
    assert once.shape == images.shape
    assert not torch.equal(once, images)
    if name in ("flips", "flips and quarter turns"):
        assert torch.equal(once.flatten(1).sort().values, images.flatten(1).sort().values)


def test_colours_change_as_torchvision_changes_them() -> None:
    """Its functions, called with the same factors in the same order, are the oracle."""
    normalisation = Normalisation.of((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    images = normalisation.normalised(torch.rand(16, 3, 8, 8, generator=generator(0, "images")))
    crops = augmentation("flips and crops")(images, draws := generator(1, "draws"))
    factors = 0.85 + 0.3 * torch.rand(3, 16, 1, 1, 1, generator=draws)
    adjusts = (adjust_brightness, adjust_contrast, adjust_saturation)
    wanted = normalisation.pixels(crops)
    for adjust, each in zip(adjusts, factors, strict=True):
        wanted = torch.stack([adjust(w, f.item()) for w, f in zip(wanted, each, strict=True)])
    change = augmentation("flips, crops and colours", normalisation)
    found = normalisation.pixels(change(images, generator(1, "draws")))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert not torch.allclose(found, normalisation.pixels(crops), atol=0.02)


def test_colours_are_for_colour_photographs() -> None:
    with pytest.raises(RecipeError, match="not made of colour photographs"):
        Data(name="mnist", augment="flips, crops and colours")


def test_turns_reach_all_eight_symmetries() -> None:
    image = torch.arange(4.0).view(1, 1, 2, 2).expand(400, 1, 2, 2)
    turned = augmentation("flips and quarter turns")(image, generator(0, "draws"))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8


def test_crops_show_a_part_of_the_image_and_nothing_beside_it() -> None:
    """On a ramp from 0 to 1 the range of a crop is the crop's side: √0.4 to √0.8 of the image's."""
    side = 32
    ramp = (torch.arange(side) + 0.5).div(side).expand(500, 2, side, side)
    found = augmentation("flips and crops")(ramp, generator(0, "draws"))
    assert found.min() >= ramp.min()
    assert found.max() <= ramp.max()
    seen = (found.amax((1, 2, 3)) - found.amin((1, 2, 3))) * side / (side - 1)
    assert seen.min() > 0.4**0.5 - 0.01
    assert seen.max() < 0.8**0.5 + 0.01
    assert seen.std() > 0.05


def test_more_examples_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1797"):
        load(Data(name="digits", train=5000, heldout=10, test=10), 0, tmp_path)


def test_generated_data_need_sizes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train"):
        load(Data(name="sine"), 0, tmp_path)


def test_mnist_without_files_or_network_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError, match="NETWELD_DATA") as caught:
        load(Data(name="mnist", train=10, heldout=10, test=10), 0, tmp_path)
    assert "\n" not in str(caught.value)


def _write_mnist(directory: Path, train: int, test: int) -> None:
    """Tiny files in MNIST's layout: image i is filled with the value i % 256, its label i % 10."""
    raw = directory / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = b"".join(bytes([i % 256]) * 784 for i in range(n))
        header = b"".join(v.to_bytes(4, "big") for v in (0x803, n, 28, 28))
        labels = (0x801).to_bytes(4, "big") + n.to_bytes(4, "big") + bytes(i % 10 for i in range(n))
        for name, content in (
            (f"{prefix}-images-idx3-ubyte", header + images),
            (f"{prefix}-labels-idx1-ubyte", labels),
        ):
            (raw / name).write_bytes(content)
            with gzip.open(raw / f"{name}.gz", "wb") as file:
                file.write(content)


def test_mnist_reads_torchvisions_layout(tmp_path: Path) -> None:
    _write_mnist(tmp_path, train=50, test=20)
    data = load(Data(name="mnist", train=30, heldout=15, test=0), 0, tmp_path)
    assert data.train.inputs.shape == (30, 1, 28, 28)
    assert (len(data.heldout), len(data.test)) == (15, 20)
    pixels = (data.train.inputs[:, 0, 0, 0] * 0.3081 + 0.1307) * 255
    assert torch.equal(pixels.round().long() % 10, data.train.targets)


def test_damaged_mnist_is_one_sentence(tmp_path: Path) -> None:
    _write_mnist(tmp_path, train=50, test=20)
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(DataError, match="damaged"):
        load(Data(name="mnist", train=30, heldout=15, test=0), 0, tmp_path)


@pytest.mark.parametrize(
    ("part", "kind", "words"),
    [
        ("train", "images", "48 training images and 50 labels"),
        ("train", "labels", "50 training images and 48 labels"),
        ("t10k", "labels", "20 test images and 18 labels"),
    ],
)
def test_mnist_of_other_lengths_is_one_sentence(
    tmp_path: Path, part: str, kind: str, words: str
) -> None:
    _write_mnist(tmp_path, train=50, test=20)
    (file,) = (tmp_path / "MNIST" / "raw").glob(f"{part}-{kind}-idx?-ubyte")
    content = bytearray(file.read_bytes()[: -2 * (784 if kind == "images" else 1)])
    content[4:8] = (int.from_bytes(content[4:8], "big") - 2).to_bytes(4, "big")
    file.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load(Data(name="mnist", train=30, heldout=15, test=0), 0, tmp_path)
    assert "delete its folder MNIST" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", SMALL[1:], ids=lambda d: d.name)
def test_every_class_has_a_name_of_its_own(data: Data, tmp_path: Path) -> None:
    names = load(data, 0, tmp_path).class_names
    assert len(set(names)) == len(names) == data.shape.classes


def test_published_names_are_one_for_each_class() -> None:
    for name, names in CLASS_NAMES.items():
        assert len(set(names)) == len(names) == SHAPES[name].classes
