"""`netweld inspect`: real inspections in processes of their own, and how they are refused."""

import sys
from pathlib import Path

import pytest
from torchvision import models
from torchvision.models import list_models

from merge_core import inspected, inspection
from merge_core.architectures import TORCHVISION
from merge_core.cli import main
from merge_core.errors import GraphError, StoreError

OWN = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.left(x) + self.right(x)

def nothing():
    return 3

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cumsum(self.inner(x), 1)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a directory with a network in a file."""
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "home"


def netweld(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["netweld", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_network_in_a_persons_own_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspected.names() == []
    assert netweld(monkeypatch, "inspect", "mine:Twice", "--input", "4", "--full") == 0
    out = capsys.readouterr().out
    assert "1 channel space to merge, 2 fixed" in out
    assert "left, right" in out, "all readers are named"
    assert "Big student" in out
    assert "Permuting any channel changes the output by" in out
    assert inspected.names() == ["mine:Twice"]
    assert inspected.read("mine:Twice").teacher.parameters == 4 * 6 + 6 + 2 * (12 + 2)
    assert [path.name for path in (home / "inspections").iterdir()] == ["mine-Twice.json"]


def test_what_cannot_be_inspected_is_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert netweld(monkeypatch, "inspect", "mine:Odd", "--input", "4") == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "cumsum" in error
    assert error.count("\n") == 1
    assert inspected.names() == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mine:small", "with --input"),
        ("mine:nothing", "made a int"),
        ("mine:missing", "cannot be called"),
        ("absent:make", "No module named 'absent'"),
    ],
)
def test_what_is_no_network_for_the_input_is_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    """In this process, which a refusal does not end."""
    monkeypatch.syspath_prepend(str(home.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(GraphError, match=words):
        inspection.inspect(model, (5,), 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("resnet17", "did you mean 'resnet18'"),
        ("../../etc/passwd", "no torchvision classifier"),
        ("../x:make", "no torchvision classifier"),
        ("resnet18 --input 3x0x4", "3x0x4"),
        ("resnet18 --input big", "as in 3x224x224"),
        ("", "--all"),
        ("resnet18 --all", "--all"),
    ],
)
def test_wrong_names_are_refused_before_a_process_starts(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    words: str,
) -> None:
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", "raise SystemExit('must not start')"))
    assert netweld(monkeypatch, "inspect", *arguments.split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert words in error
    assert error.count("\n") == 1


def test_a_process_that_dies_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(StoreError, match="broke off"):
        inspected.start("resnet18").result()


def test_a_network_that_breaks_its_laws_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = (
        "import merge_core.inspection as i; from merge_core.channels import LawErrors\n"
        "import sys; i.check = lambda *_: LawErrors(0.5, 0.0, 0.0, 0.0); sys.exit(i.main())"
    )
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", wrong))
    assert netweld(monkeypatch, "inspect", "mine:small", "--input", "4") == 2
    assert "breaks its laws by 5.0e-01" in capsys.readouterr().err


def test_all_prints_a_row_per_family_and_goes_on_after_a_refusal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    families = {"Ours": "mine:small", "Odd": "mine:Odd"}
    monkeypatch.setattr(inspected, "FAMILIES", families)
    assert netweld(monkeypatch, "inspect", "--all", "--input", "4") == 1
    head, rule, ours, odd = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in (head, rule, ours)}) == 1
    assert [cell.strip() for cell in ours.split("|")][1:4] == ["Ours", "mine:small", "1"]
    assert "cumsum" in odd


def test_the_families_are_torchvisions_and_every_kind_of_network_is_there() -> None:
    assert set(inspected.FAMILIES.values()) <= set(TORCHVISION)
    assert set(TORCHVISION) == set(list_models(module=models))


def test_only_inspected_networks_can_be_read(home: Path) -> None:
    (home / "inspections").mkdir(parents=True)
    (home / "secret.json").write_text("{}")
    for name in ("../secret", "resnet18"):
        with pytest.raises(StoreError, match="has not been inspected"):
            inspected.read(name)
    with pytest.raises(GraphError):
        inspected.start("../secret")
