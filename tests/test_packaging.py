"""What an ordinary and an editable install bring along."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling, which builds netweld, is not installed")

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from hatchling import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
WHERE = """
import merge_core.cli
from merge_core import places
from merge_core.cli.dashboard import streamlit_command
print(streamlit_command(port=None, address="127.0.0.1", browser=False)[5])
print(places.samples())
"""


def built(how: str, directory: Path) -> zipfile.ZipFile:
    """A wheel of this checkout, as pip asks hatchling for it."""
    command = [sys.executable, "-c", BUILD, how, str(directory)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(directory / done.stdout.splitlines()[-1])


def installed(wheel: zipfile.ZipFile, site: Path) -> list[str]:
    """Where a netweld installed from this wheel finds its app and its samples."""
    wheel.extractall(site)
    paths = [str(site)]
    for file in site.glob("*.pth"):
        paths += file.read_text().splitlines()
    done = subprocess.run(
        [sys.executable, "-P", "-c", WHERE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def files_under(*names: str) -> set[str]:
    """The files of a checkout's directories, without what Python leaves behind."""
    found = (path for name in names for path in (ROOT / name).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_carries_the_dashboard(tmp_path: Path) -> None:
    with built("build_wheel", tmp_path) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert "netweld = merge_core.cli:main" in wheel.read(entry).decode()
        where = installed(wheel, tmp_path / "site")
    beside = {"app.py"} | files_under("pages", "assets", ".streamlit")
    assert files == files_under("merge_core") | {f"merge_core/dashboard/{name}" for name in beside}
    inside = tmp_path / "site" / "merge_core" / "dashboard"
    assert where == [str(inside / "app.py"), str(inside / "assets" / "samples")]
    assert (inside / "app.py").is_file()


def test_an_editable_install_uses_the_checkout(tmp_path: Path) -> None:
    with built("build_editable", tmp_path) as wheel:
        where = installed(wheel, tmp_path / "site")
    assert where == [str(ROOT / "app.py"), str(ROOT / "assets" / "samples")]
