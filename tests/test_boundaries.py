"""The import rules in pyproject.toml hold, and each of them would notice a breach."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
BREACHES = {
    "layers": ("merge_core/store/index.py", "from merge_core import launch"),
    "library": ("merge_core/plots/style.py", "import streamlit"),
    "plotly": ("pages/overview.py", "import plotly.graph_objects"),
    "looking": ("merge_core/views/runs.py", "def late():\n    import torch"),
    "pages": ("pages/gates.py", "from pages import filters"),
    "circles": ("merge_core/store/artifacts.py", "from merge_core.store import reader"),
}
"""Contract → a file and the line that would breach it."""


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says about a checkout.

    Without -S an editable install of netweld would put its own `pages` beside those of `root`.
    """
    libraries = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return subprocess.run(
        [sys.executable, "-S", "-c", LINT, "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(libraries), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code that a test may spoil."""
    for package in ("merge_core", "pages"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def contracts() -> dict[str, str]:
    """Id → name of every contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {each["id"]: each["name"] for each in settings["tool"]["importlinter"]["contracts"]}


def test_the_rules_hold() -> None:
    said = lint(ROOT)
    assert said.returncode == 0, said.stdout


def test_every_rule_has_a_breach_below() -> None:
    assert contracts().keys() == BREACHES.keys()


@pytest.mark.parametrize("contract", BREACHES)
def test_a_planted_breach_is_noticed(copy: Path, contract: str) -> None:
    file, line = BREACHES[contract]
    with (copy / file).open("a") as source:
        source.write(f"\n{line}\n")
    said = lint(copy)
    assert said.returncode == 1
    assert f"{contracts()[contract]} BROKEN" in said.stdout
