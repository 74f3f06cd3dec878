"""Makes the finished runs that come with netweld: `python -m merge_core.samples assets/samples`.

Each recipe below runs as it would for anybody, in a worker of its own, and is then packed: the
database without its write-ahead log, so that it can be read where nothing can be written, and the
network of every stage but the gated big student, which is four times as large as the others, and
its states within the stage, from which a run could be forked.
"""

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from merge_core import launch, queue
from merge_core.errors import NetweldError, StoreError
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import RunReader, Store
from merge_core.store.databases import look

RECIPES = ("textures", "photos", "sine")
SEED = 0
LEFT_OUT = "name = 'gates' OR epoch IS NOT NULL"
"""Artifacts that a sample goes without: the gated big student, and all states within a stage."""


def make(recipe: Recipe, directory: Path) -> Path:
    """Run a recipe on the CPU in a store of its own, and pack the run.

    Args:
        recipe: what to run.
        directory: where the samples are; one of the same recipe, preset and seed is replaced.

    Returns:
        The sample's directory.

    Raises:
        StoreError: the run did not finish, or the directory cannot be written.
        RecipeError: the recipe's name cannot be part of a run's name.
    """
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        name, _ = launch.begin(store, recipe, "cpu")
        queue.wait(store, name)
        with store.open(name) as reader:
            return pack(reader, directory)


def pack(reader: RunReader, directory: Path) -> Path:
    """Copy a finished run as a sample; returns the sample's directory.

    A sample's name ends in four zeros, so that the next one of its recipe takes its place.

    Args:
        reader: the run; it stays as it is.
        directory: where the samples are.

    Raises:
        StoreError: the run is not finished, one of its files is damaged, or the directory cannot
            be written.
    """
    status = reader.status()
    if status["state"] != "finished":
        raise StoreError(
            f"Run {reader.name} is {status['state']}, but a sample must be finished. "
            f"{status['message']}".rstrip()
        )
    sample = directory / f"{reader.name.rsplit('-', 1)[0]}-0000"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as part:
            for name, file in _copy_database(reader, Path(part), sample.name):
                reader.artifact(name)  # refuses a damaged file
                shutil.copy(reader.directory / file, part)
            shutil.rmtree(sample, ignore_errors=True)
            sample.mkdir()
            for path in Path(part).iterdir():
                path.rename(sample / path.name)
    except OSError as error:
        raise StoreError(
            f"The sample {sample.name} cannot be written to {directory} ({error.strerror}); "
            f"choose another directory."
        ) from error
    return sample


def _copy_database(reader: RunReader, part: Path, name: str) -> list[tuple[str, str]]:
    """The run's database as one file that needs no log beside it; its artifacts and their files."""
    path = part / "run.sqlite"
    with closing(look(reader.directory / "run.sqlite")) as database:
        database.execute("VACUUM INTO ?", (str(path),))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"DELETE FROM artifacts WHERE {LEFT_OUT}")
        database.execute("UPDATE facts SET value = ? WHERE key = 'name'", (json.dumps(name),))
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")
        return database.execute("SELECT name, file FROM artifacts").fetchall()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m merge_core.samples", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the samples are: assets/samples")
    directory = parser.parse_args(arguments).directory
    try:
        for name in RECIPES:
            print(f"{name} runs ...", flush=True)
            recipe = find_preset(name, "quick").recipe.changed({"seed": str(SEED)})
            sample = make(recipe, directory)
            size = sum(path.stat().st_size for path in sample.iterdir())
            print(f"{sample} has {size / 1e6:.2f} MB.", flush=True)
    except NetweldError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
