"""Checkpoints of others: what is understood, what is refused, and that nothing in a file runs."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from merge_core import checkpoints, places
from merge_core.checkpoints import load_into, read
from merge_core.errors import CheckpointError
from merge_core.models import build

State = dict[str, Tensor]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def refused(call: Callable[[], Any], *words: str) -> None:
    """The call ends in one sentence that holds the words."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".th", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_are_read(tmp_path: Path, suffix: str, zipped: bool) -> None:
    state = network().state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = read(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_safetensors_are_read_whatever_the_ending(tmp_path: Path) -> None:
    state = network().state_dict()
    for name in ("weights.safetensors", "weights.pt"):
        save_file(state, tmp_path / name)
        found = read(tmp_path / name)
        assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "best_prec1": 91.7, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"net": state, "acc": 1},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: state | {"epoch": 3},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    state = network().state_dict()
    torch.save(wrap(dict(state)), tmp_path / "a.pt")
    assert list(read(tmp_path / "a.pt")) == list(state)


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    state = {"module.weight": torch.ones(2), "head.weight": torch.ones(2)}
    torch.save(state, tmp_path / "a.pt")
    assert list(read(tmp_path / "a.pt")) == list(state)


class Bomb:
    """Unpickling it makes a directory."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class Code(Bomb):
    """Unpickling it runs a piece of source code that makes a directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('os').mkdir({str(self.mark)!r})",)


def _zipped(value: Any, path: Path) -> None:
    torch.save(value, path)


def _legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _bare(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, 2))


@pytest.mark.parametrize("write", [_zipped, _legacy, _bare])
@pytest.mark.parametrize("kind", [Bomb, Code])
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, write: Callable[[Any, Path], None], kind: type[Bomb]
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    write({"state_dict": {"weight": torch.ones(2), "evil": kind(mark)}}, path)
    refused(lambda: read(path), "evil.pth", "running code")
    assert not mark.exists()
    if write is _bare:  # the same file does run code where pickles are trusted
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.is_dir()


def test_a_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "whole.pt")
    refused(lambda: read(tmp_path / "whole.pt"), "Sequential", "state_dict()")


def test_a_torchscript_program_is_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:  # its mark among zip files
        archive.writestr("program/constants.pkl", pickle.dumps((), 2))
        archive.writestr("program/data.pkl", pickle.dumps({}, 2))
    refused(lambda: read(tmp_path / "program.pt"), "TorchScript")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_is_refused_at_any_length(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in [*range(12), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(lambda: read(path), "a.pt")


def test_a_cut_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(network().state_dict(), path)
    whole = path.read_bytes()
    for length in (5, 9, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(lambda: read(path), "a.safetensors", "damaged")


@pytest.mark.parametrize("kind", ["zipped", "legacy", "safetensors"])
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.pt"
    state = {"module.weight": torch.ones(2, 3), "module.bias": torch.ones(2)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zipped")
    whole, draws = path.read_bytes(), random.Random(0)
    said = []
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draws.choice((1, 2, 8))):
            content[draws.randrange(len(content))] = draws.randrange(256)
        path.write_bytes(content)
        try:
            read(path)
        except CheckpointError as error:
            said.append(str(error))
    assert 0 < len(said) < 300
    assert not any("\n" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "no state dict"),
        ([torch.ones(2)], "no state dict"),
        (torch.ones(2), "no state dict"),
        ({"state": {0: {"step": 1}}, "param_groups": []}, "no state dict"),
        ({"weight": torch.ones(2).to_sparse()}, "packed"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, value: Any, words: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    refused(lambda: read(tmp_path / "a.pt"), "a.pt", words)


def test_a_dictionary_inside_itself_ends(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["model"] = value
    torch.save(value, tmp_path / "a.pt")
    refused(lambda: read(tmp_path / "a.pt"), "no state dict")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 nor this", b"\x80\x02"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    refused(lambda: read(path), "a.pth", "not a readable checkpoint")


def test_a_wrong_ending_a_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    (tmp_path / "folder.pt").mkdir()
    refused(lambda: read(tmp_path / "photo.png"), "photo.png", ".safetensors")
    refused(lambda: read(tmp_path / "folder.pt"), "folder.pt", "cannot be read")
    refused(lambda: read(tmp_path / "absent.pt"), "absent.pt", "check the path")


def test_the_limit_counts_files_and_claimed_shapes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "SIZE_LIMIT", 10_000)
    torch.save({"weight": torch.ones(1).expand(10_000)}, tmp_path / "claims.pt")
    torch.save({"weight": torch.ones(10_000)}, tmp_path / "large.pt")
    torch.save({"weight": torch.ones(1_000)}, tmp_path / "small.pt")
    assert (tmp_path / "claims.pt").stat().st_size < 10_000
    refused(lambda: read(tmp_path / "claims.pt"), "at most")
    refused(lambda: read(tmp_path / "large.pt"), "at most")
    assert read(tmp_path / "small.pt")["weight"].shape == (1_000,)


def test_weights_that_fit_are_loaded() -> None:
    one, other = network(), network()
    load_into(one, {k: v for k, v in other.state_dict().items() if "tracked" not in k}, "'a.th'")
    x = torch.randn(5, 3, 3, 3)
    assert torch.equal(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("1.weight"), ["lacks '1.weight'"]),
        (lambda s: s.update(scale=s.pop("1.weight")), ["lacks '1.weight'", "'scale' of that"]),
        (lambda s: s.update({"3.weight": torch.ones(5, 4)}), ["'3.weight'", "5×4", "2×4"]),
        (lambda s: s.update({"4.weight": torch.ones(1)}), ["'4.weight'", "network has not"]),
        (lambda s: s["0.bias"].fill_(float("nan")), ["'0.bias'", "not finite"]),
    ],
)
def test_the_first_mismatch_is_named_and_nothing_changes(
    change: Callable[[State], Any], words: list[str]
) -> None:
    state = {key: value.clone() for key, value in network().state_dict().items()}
    change(state)
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    refused(lambda: load_into(model, state, "teacher 'a.th'"), "teacher 'a.th'", *words)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


STRANGERS = places.data_directory() / "checkpoints"


@pytest.mark.skipif(
    not any(STRANGERS.glob("cifar10_resnet20_*.th")),
    reason="needs ResNet20 checkpoints for CIFAR-10 in checkpoints/ of the data directory",
)
def test_checkpoints_of_strangers_fit_the_resnet20() -> None:
    for path in STRANGERS.glob("cifar10_resnet20_*.th"):
        load_into(build("cifar-resnet20", 0), read(path), path.name)
        refused(lambda p=path: load_into(build("cifar-resnet20-projection", 0), read(p), p.name))
