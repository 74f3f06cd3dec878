"""Images that do not fit into memory are read from a file, to the same numbers."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from merge_core import places
from merge_core.data import Dataset, decoded, load, pools
from merge_core.data.reading import told_to
from merge_core.data.trees import Tree
from merge_core.errors import DataError
from merge_core.recipes import Data

DATA = Data(name="images", source="pets", side=8, classes=2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a data directory with two classes of eleven images, of which one is for tests."""
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    monkeypatch.setattr(decoded, "BLOCK", 4)
    for number, name in enumerate(("cat", "dog")):
        for part, count in (("train", 10), ("val", 1)):
            folder = tmp_path / "data" / "pets" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                shade = (100 * number + 8 * i, len(part), 3)
                Image.new("RGB", (9 + i, 8), shade).save(folder / f"{i}.png")
    return tmp_path


def from_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, int]:
    """The data set by way of a file, and how many images were decoded for it."""
    seen = 0
    usual = Tree.pixels

    def counted(self: Tree, chosen: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(chosen)
        return usual(self, chosen)

    with monkeypatch.context() as patched:
        patched.setattr(pools, "IN_MEMORY", 0)
        patched.setattr(Tree, "pixels", counted)
        made = load(DATA, 3, home / "data")
    return made, seen


def test_both_ways_give_the_same_batches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = load(DATA, 3, home / "data")
    assert usual.train.rows is None
    made, seen = from_file(home, monkeypatch)
    assert seen == 22
    order = torch.randperm(len(usual.train))
    for mine, theirs in zip(made.splits, usual.splits, strict=True):
        assert mine.rows is not None
        assert len(mine) == len(theirs)
        assert torch.equal(mine.inputs, theirs.inputs)
        for one, other in zip(mine.to("cpu").batches(3), theirs.batches(3), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
    one, other = (split.part(order).part(slice(2, 7)) for split in (made.train, usual.train))
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(made.halves[1].inputs, usual.halves[1].inputs)
    again, seen = from_file(home, monkeypatch)
    assert seen == 0
    assert torch.equal(again.train.inputs, usual.train.inputs)


@pytest.mark.parametrize("memory", [2**30, 0])
def test_how_far_the_reading_is_gets_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(pools, "IN_MEMORY", memory)
    monkeypatch.setattr(pools, "BLOCK", 4)
    told: list[tuple[int, int]] = []
    with told_to(lambda done, of: told.append((done, of))):
        load(DATA, 3, home / "data")
    whole = list(told)
    load(DATA, 3, home / "data")
    assert told == whole, "nobody listens any more"
    if memory:  # 18 to learn from, 2 held out, 2 for tests: one after the other
        assert [done for done, _ in told] == [4, 8, 12, 16, 18, 20, 22]
        assert {of for _, of in told} == {22}
    else:  # both folders are decoded whole
        assert told == [(4, 20), (8, 20), (12, 20), (16, 20), (20, 20), (2, 2)]


def test_a_listener_can_end_the_reading_and_it_goes_on_from_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    def listen(done: int, of: int) -> None:
        if done == 12:
            raise Enough

    with monkeypatch.context() as patched:
        patched.setattr(pools, "IN_MEMORY", 0)
        with pytest.raises(Enough), told_to(listen):
            load(DATA, 3, home / "data")
    made, seen = from_file(home, monkeypatch)
    assert seen == 22 - 12
    assert torch.equal(made.train.inputs, load(DATA, 3, home / "data").train.inputs)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        ("nothing", 0),
        ("stopped", 12),  # two of its blocks of four were written, of twenty
        ("cut off", 20),
        ("a bit", 20),
        ("sums", 20),
        ("another image", 20),
    ],
)
def test_what_is_there_is_gone_on_from_and_damage_is_written_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch, harm: str, expected: int
) -> None:
    from_file(home, monkeypatch)
    pixels = max((home / "decoded").glob("*.pixels"), key=lambda path: path.stat().st_size)
    sums = pixels.with_suffix(".sums")
    content = bytearray(pixels.read_bytes())
    if harm == "stopped":
        sums.write_text("\n".join(sums.read_text().splitlines()[:2]) + "\n")
        pixels.write_bytes(content[: 9 * 192])
    elif harm == "cut off":
        pixels.write_bytes(content[:-1])
    elif harm == "a bit":
        content[-5] ^= 1
        pixels.write_bytes(content)
    elif harm == "sums":
        sums.write_text("no numbers")
    elif harm == "another image":
        Image.new("RGB", (30, 30), (1, 2, 3)).save(home / "data/pets/train/cat/0.png")
    made, seen = from_file(home, monkeypatch)
    assert seen == expected
    assert torch.equal(made.train.inputs, load(DATA, 3, home / "data").train.inputs)


def test_a_disk_that_is_too_small_is_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"20 decoded images of 8×8 need .* GiB more"):
        from_file(home, monkeypatch)
    assert not list((places.home() / "decoded").glob("*.pixels"))
