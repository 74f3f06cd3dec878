"""Data sets from files: layouts that are understood, and a sentence for each that is not."""

import hashlib
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from merge_core import places
from merge_core.checkpoints import load_into, read
from merge_core.data import Dataset, load, pools, trees
from merge_core.errors import DataError, RecipeError
from merge_core.folders import files_below
from merge_core.models import build
from merge_core.recipes import Data

MEAN, DEVIATION = (torch.tensor(each).view(1, 3, 1, 1) for each in pools.IMAGENET)


def pixels(images: torch.Tensor) -> torch.Tensor:
    """The bytes that normalised images came from."""
    return ((images * DEVIATION + MEAN) * 255).round().to(torch.uint8)


def refused(call: Callable[[], Any], *words: str) -> None:
    """The call ends in one sentence that holds the words."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def plain(shade: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, shade if mode == "L" else (shade, 0, 255 - shade))


def write_tree(
    root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")
) -> None:
    """`parts` is part ("" for none) → images per class; every image has a shade of its own.

    Shades of the second class begin at 128.
    """
    for offset, (part, count) in enumerate(parts.items()):
        for number, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                plain(number * 128 + offset * 64 + i).save(folder / f"{i}.png")


def shades(dataset: Dataset) -> list[list[int]]:
    """The shade of every image of each split, after a check that it decides the label."""
    found = []
    for split in (dataset.train, dataset.heldout, dataset.test):
        reds = pixels(split.inputs)[:, 0, 0, 0].long()
        assert torch.equal(reds // 128, split.targets)
        found.append(reds.tolist())
    return found


IMAGES = Data(name="images", source="pets", side=8, classes=2)


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_a_tree_with_a_test_folder(tmp_path: Path, test: str) -> None:
    write_tree(tmp_path / "pets", {"train": 20, test: 5})
    train, heldout, reported = shades(load(IMAGES, 0, tmp_path))
    assert sorted(train + heldout) == [*range(20), *range(128, 148)]
    assert len(heldout) == 4
    assert sorted(reported) == [*range(64, 69), *range(192, 197)]


def test_a_test_folder_goes_before_a_validation_folder(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", {"train": 10, "val": 3, "test": 4})
    assert len(load(IMAGES, 0, tmp_path).test) == 8


def test_without_a_test_folder_the_test_images_are_split_off(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", {"": 20})
    parts = shades(load(IMAGES, 0, tmp_path))
    assert [len(part) for part in parts] == [24, 8, 8]
    assert sorted(shade for part in parts for shade in part) == [*range(20), *range(128, 148)]
    assert parts != shades(load(IMAGES, 1, tmp_path))


def test_a_zip_file_gives_what_its_folder_gives(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", {"train": 10, "val": 3})
    (tmp_path / "pets" / "train" / ".hidden.png").write_bytes(b"junk")
    (tmp_path / "pets" / "notes.txt").write_text("not an image")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in (tmp_path / "pets").rglob("*"):
            archive.write(path, f"outer/{path.relative_to(tmp_path)}")
    folder = load(IMAGES, 3, tmp_path)
    zipped = load(Data(name="images", source="pets.zip", side=8, classes=2), 3, tmp_path)
    for a, b in zip(folder.splits, zipped.splits, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)


@pytest.mark.skipif(os.name != "posix", reason="makes links")
def test_links_to_folders_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    """As ImageNet is often kept: parts and classes lie elsewhere. One folder can be two parts."""
    write_tree(tmp_path / "disk", {"": 5})
    pets = tmp_path / "pets"
    (pets / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (pets / "train" / name).symlink_to(tmp_path / "disk" / name)
    (pets / "val").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "cat" / "around").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "dog" / "itself").symlink_to(".")
    (tmp_path / "disk" / "dog" / "all").symlink_to(tmp_path)
    found = list(files_below(pets))
    assert len(found) == len(set(found))
    images = {f"{name}/{i}.png" for name in ("cat", "dog") for i in range(5)}
    wanted = {f"{part}/{image}" for part in ("train", "val") for image in images}
    assert wanted <= set(found)
    (tmp_path / "disk" / "cat" / "around").unlink()
    (tmp_path / "disk" / "dog" / "all").unlink()
    assert sorted(files_below(pets)) == sorted(wanted)
    train, heldout, test = shades(load(IMAGES, 0, tmp_path))
    assert sorted(train + heldout) == sorted(test) == [*range(5), *range(128, 133)]


def test_images_become_upright_colour_squares(tmp_path: Path) -> None:
    """The middle of an oblong image stays; grey becomes colour; turned photographs are righted."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    wide = plain(10, (40, 8))
    wide.paste(plain(200, (8, 8)), (16, 0))
    wide.save(tmp_path / "pets" / "cat" / "wide.png")
    plain(77, (20, 30), "L").save(tmp_path / "pets" / "cat" / "grey.png")
    turned = plain(0, (8, 8))
    turned.paste(plain(255, (8, 4)), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "pets" / "dog" / "turned.png", exif=exif)
    with trees.opened(tmp_path / "pets") as files:
        classes, learn, report = trees.trees(files, "pets", 8)
        found = learn.pixels(torch.tensor([1, 0, 2]))
    assert (classes, report) == (["cat", "dog"], None)
    assert list(learn.paths) == ["cat/grey.png", "cat/wide.png", "dog/turned.png"]
    assert found.dtype == torch.uint8
    assert (found[0, 0] == 200).all()
    assert (found[1] == 77).all()
    assert (found[2, 0, :4] == 0).all()
    assert (found[2, 0, 4:] == 255).all()


def _huge_png() -> bytes:
    """A small file that claims 60,000 × 60,000 pixels."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))):
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    return content


def _cut_jpeg() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(content, "JPEG")
    return content.getvalue()[:-900]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", ["none of"]), (b"junk", ["none of"]), (_huge_png(), ["pixels"]), (_cut_jpeg(), [])],
    ids=["empty", "junk", "huge", "cut"],
)
def test_an_image_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    write_tree(tmp_path / "pets", {"": 4})
    (tmp_path / "pets" / "dog" / "bad.jpg").write_bytes(content)
    refused(lambda: load(IMAGES, 0, tmp_path), "dog/bad.jpg", *words)


def test_an_image_file_that_unpacks_without_end_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "LARGEST_FILE", 100_000)
    with zipfile.ZipFile(tmp_path / "pets", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
            archive.writestr(name, bytes(10_000_000))
    assert (tmp_path / "pets").stat().st_size < 100_000
    refused(lambda: load(IMAGES, 0, tmp_path), "more than")


def test_trees_that_are_none_are_refused(tmp_path: Path) -> None:
    refused(lambda: load(IMAGES, 0, tmp_path), "'pets'", str(tmp_path), "data.source")
    (tmp_path / "pets").mkdir()
    refused(lambda: load(IMAGES, 0, tmp_path), "no images")
    write_tree(tmp_path / "pets", {"": 4}, ("cat", "dog", "owl"))
    refused(lambda: load(IMAGES, 0, tmp_path), "3 classes", "data.classes=3")
    plain(1).save(tmp_path / "pets" / "stray.png")
    refused(lambda: load(IMAGES, 0, tmp_path), "stray.png", "class")


def test_a_class_that_is_only_tested_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", {"train": 4})
    write_tree(tmp_path / "pets" / "test", {"": 2}, ("cat", "owl"))
    refused(lambda: load(IMAGES, 0, tmp_path), "'owl'")


def test_a_broken_zip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets").write_bytes(b"PK\x03\x04 and no more")
    refused(lambda: load(IMAGES, 0, tmp_path), "'pets'", "zip")


def test_more_images_than_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "pets", {"": 20})

    class Memory:
        available = 40 * 8 * 8 * 3 - 1

    monkeypatch.setattr(pools.psutil, "virtual_memory", Memory)
    refused(lambda: load(IMAGES, 0, tmp_path), "memory", "data.side")


@pytest.mark.parametrize(
    "source", ["../pets", "a/../b", "/etc", "a//b", "a\\b", "C:pets", ".", "..", "a\n", "a/"]
)
def test_a_source_stays_inside_the_data_directory(source: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.source"):
        Data(name="images", source=source)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "photos", "side": 64}, "data.side"),
        ({"name": "mnist", "source": "pets"}, "data.source"),
        ({"name": "cifar10", "classes": 5}, "data.classes"),
        ({"name": "images", "classes": 1}, "data.classes"),
        ({"name": "images", "side": 4}, "data.side"),
        ({"name": "textures", "normalise": "imagenet"}, "data.normalise"),
    ],
)
def test_settings_of_other_data_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError, match=key.replace(".", r"\.")):
        Data(**settings)


# Arrays


def write_arrays(path: Path, **changes: Any) -> None:
    """10 training and 4 test images of 8×8; image i has shade i, its label is odd or even."""
    count = {"train": 10, "test": 4}
    found: dict[str, Any] = {}
    for part, n in count.items():
        shade = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
        found[f"{part}_images"] = np.broadcast_to(shade, (n, 8, 8, 3))
        found[f"{part}_labels"] = np.arange(n) % 2
    found |= changes
    np.savez_compressed(path, **{key: value for key, value in found.items() if value is not None})


ARRAYS = Data(name="images", source="pets.npz", side=8, classes=2)


def test_arrays_with_and_without_test_images(tmp_path: Path) -> None:
    path = tmp_path / "pets.npz"
    write_arrays(path)
    dataset = load(ARRAYS, 0, tmp_path)
    assert [len(split) for split in dataset.splits] == [9, 1, 4]
    write_arrays(
        path, test_images=None, test_labels=None, train_labels=(np.arange(10) % 2)[:, None]
    )
    dataset = load(ARRAYS, 0, tmp_path)
    assert [len(split) for split in dataset.splits] == [6, 2, 2]
    seen = torch.cat([pixels(split.inputs)[:, 0, 0, 0] for split in dataset.splits])
    labels = torch.cat([split.targets for split in dataset.splits])
    assert sorted(seen.tolist()) == list(range(10))
    assert torch.equal(seen % 2, labels)


def test_grey_and_larger_arrays(tmp_path: Path) -> None:
    grey = np.broadcast_to(np.arange(10, dtype=np.uint8).reshape(10, 1, 1), (10, 16, 20))
    write_arrays(tmp_path / "pets.npz", train_images=grey)
    train = load(ARRAYS, 0, tmp_path).train
    assert train.inputs.shape == (9, 3, 8, 8)
    assert torch.equal(pixels(train.inputs)[:, 2, 4, 4] % 2, train.targets)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_labels": None}, ["train_labels", "train_images"]),
        ({"train_images": np.zeros((10, 8, 8, 3))}, ["float64", "uint8"]),
        ({"train_images": np.zeros((10, 3, 8, 8), np.uint8)}, ["(10, 3, 8, 8)"]),
        ({"train_images": np.zeros((10, 0, 8, 3), np.uint8)}, ["(10, 0, 8, 3)", "above 0"]),
        ({"test_images": np.zeros((4, 8, 0), np.uint8)}, ["(4, 8, 0, 1)", "above 0"]),
        ({"train_labels": np.arange(9)}, ["(9,)", "10 images"]),
        ({"train_labels": np.arange(10) - 1}, ["from 0"]),
        ({"train_labels": np.arange(10) / 2}, ["float64"]),
        ({"test_labels": np.arange(4)}, ["class 3", "only among its test"]),
        ({"train_labels": np.arange(10)}, ["10 classes", "data.classes=10"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    write_arrays(tmp_path / "pets.npz", **changes)
    refused(lambda: load(ARRAYS, 0, tmp_path), "pets.npz", *words)


class Bomb:
    """Unpickling it makes a directory."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_code_in_arrays_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    write_arrays(tmp_path / "pets.npz", train_images=np.array([Bomb(mark)], dtype=object))
    refused(lambda: load(ARRAYS, 0, tmp_path), "pets.npz", "plain arrays")
    assert not mark.exists()
    with np.load(tmp_path / "pets.npz", allow_pickle=True) as file:
        file["train_images"]
    assert mark.is_dir()


@pytest.mark.parametrize("length", [0, 3, 200, -30])
def test_damaged_arrays_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "pets.npz"
    write_arrays(path)
    path.write_bytes(path.read_bytes()[:length])
    refused(lambda: load(ARRAYS, 0, tmp_path), "pets.npz", "numpy.savez")


# CIFAR in torchvision's layout, made small: the sums that torchvision compares are made to fit.


def write_cifar(
    directory: Path, kind: str, monkeypatch: pytest.MonkeyPatch, labels: int = 10
) -> Path:
    from torchvision.datasets import CIFAR10, CIFAR100

    known = CIFAR10 if kind == "cifar10" else CIFAR100
    folder = directory / known.base_folder
    folder.mkdir()
    key = "labels" if kind == "cifar10" else "fine_labels"
    sums: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for part, found in sums.items():
        for name, _ in getattr(known, part):
            shade = np.arange(10, dtype=np.uint8).reshape(10, 1)
            entry = {"data": np.broadcast_to(shade, (10, 3072)).copy(), key: list(range(labels))}
            content = pickle.dumps(entry, 2)
            (folder / name).write_bytes(content)
            found.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(known, part, found)
    content = pickle.dumps({known.meta["key"]: list("abcdefghij")}, 2)
    (folder / known.meta["filename"]).write_bytes(content)
    monkeypatch.setattr(known, "meta", known.meta | {"md5": hashlib.md5(content).hexdigest()})
    return folder


def cifar(name: str, **settings: Any) -> Data:
    return Data(**{"name": name, **settings})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)


@pytest.mark.parametrize(("name", "count"), [("cifar10", 50), ("cifar100", 10)])
def test_cifar_in_torchvisions_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    write_cifar(tmp_path, name, monkeypatch)
    dataset = load(cifar(name, normalise="imagenet"), 0, tmp_path)
    assert len(dataset.train) + len(dataset.heldout) == count
    assert len(dataset.heldout) == count // 10
    assert len(dataset.test) == 10
    for split in dataset.splits:
        assert torch.equal(pixels(split.inputs)[:, 1, 5, 5].long(), split.targets)
    own = load(cifar(name), 0, tmp_path)
    assert torch.equal(own.train.targets, dataset.train.targets)
    assert not torch.equal(own.train.inputs, dataset.train.inputs)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_changed_cifar_files_are_refused_and_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refused(
        lambda: load(cifar(name), 0, tmp_path),
        "could not be downloaded",
        "NETWELD_DATA",
    )
    mark = tmp_path / "ran"
    folder = write_cifar(tmp_path, name, monkeypatch)
    file = folder / ("data_batch_2" if name == "cifar10" else "train")
    file.write_bytes(pickle.dumps(Bomb(mark)))
    refused(
        lambda: load(cifar(name), 0, tmp_path),
        "damaged",
        folder.name,
    )
    assert not mark.exists()


def test_cifar_with_a_label_too_few_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, "cifar100", monkeypatch, labels=9)
    refused(
        lambda: load(cifar("cifar100"), 0, tmp_path),
        "10 training images and 9 labels",
        "cifar-100-python",
    )


def test_some_of_cifar10_as_arrays(tmp_path: Path) -> None:
    n = 20
    images = np.zeros((n, 32, 32, 3), np.uint8)
    images[:, :, :, 0] = np.arange(n, dtype=np.uint8).reshape(n, 1, 1)
    part = {"images": images, "labels": np.arange(n) % 10}
    found = {f"{split}_{key}": each for split in ("train", "test") for key, each in part.items()}
    np.savez(tmp_path / "cifar10-subset.npz", **found)
    dataset = load(Data(name="cifar10", normalise="imagenet"), 0, tmp_path)
    assert [len(split) for split in dataset.splits] == [18, 2, 20]
    assert torch.equal(pixels(dataset.train.inputs)[:, 0, 0, 0] % 10, dataset.train.targets)


# The real ones, where the data directory has them.

REAL = places.data_directory()


def needs(path: str) -> Any:
    return pytest.mark.skipif(
        not (REAL / path).exists(), reason=f"needs {path} in the data directory"
    )


@needs("cifar-100-python/train")
def test_the_real_cifar100() -> None:
    dataset = load(Data(name="cifar100"), 0, REAL)
    assert [len(split) for split in dataset.splits] == [45_000, 5_000, 10_000]
    assert torch.equal(dataset.test.targets.bincount(), torch.full((100,), 100))
    torch.testing.assert_close(
        dataset.train.inputs.mean((0, 2, 3)), torch.zeros(3), atol=0.01, rtol=0
    )


@needs("imagewoof2-64/train")
def test_the_real_imagewoof() -> None:
    dataset = load(Data(name="imagewoof", side=28), 0, REAL)
    assert len(dataset.train) + len(dataset.heldout) == 9_025
    assert dataset.test.inputs.shape == (3_929, 3, 28, 28)
    assert len(dataset.train.targets.unique()) == 10


@needs("cifar10-subset.npz")
@needs("checkpoints/cifar10_resnet20_a.th")
def test_checkpoints_of_strangers_reach_their_accuracy() -> None:
    """91.73 % on all 10,000 test images; here on 1,000 of them."""
    data = Data(name="cifar10", normalise="imagenet", test=1_000)
    test = load(data, 0, REAL).test
    network = build("cifar-resnet20", 0, data.shape).eval()
    load_into(network, read(REAL / "checkpoints" / "cifar10_resnet20_a.th"), "teacher A")
    with torch.no_grad():
        right = (network(test.inputs).argmax(1) == test.targets).float().mean()
    assert float(right) == pytest.approx(0.917, abs=0.03)


def test_folders_name_the_classes(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", {"train": 10, "val": 3})
    folders = sorted(path.name for path in (tmp_path / "pets" / "train").iterdir())
    assert load(IMAGES, 3, tmp_path).class_names == tuple(folders)
