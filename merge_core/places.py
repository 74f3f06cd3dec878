"""Where things are on disk: runs, data sets, the dashboard's files."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _directory(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


def home() -> Path:
    """The directory of runs: `NETWELD_HOME`, or `~/.netweld`."""
    return _directory("NETWELD_HOME", Path.home() / ".netweld")


def data_directory() -> Path:
    """Where data sets are looked for and downloaded to: `NETWELD_DATA`, or `~/.netweld/data`."""
    return _directory("NETWELD_DATA", Path.home() / ".netweld" / "data")


def dashboard() -> Path:
    """The directory with `app.py`, `pages` and `assets`: in the installed package or the checkout.

    An ordinary install carries them inside `merge_core`; a checkout has them beside it.
    """
    installed = PACKAGE / "dashboard"
    return installed if installed.is_dir() else PACKAGE.parent


def samples() -> Path:
    """The directory of the finished runs that come with netweld."""
    return dashboard() / "assets" / "samples"


def netweld_version() -> str:
    """The installed version of netweld, or "not installed" in a bare checkout."""
    try:
        return version("netweld")
    except PackageNotFoundError:
        return "not installed"
