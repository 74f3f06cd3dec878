"""What is lost when a run, a table, a lab or a search is deleted, and what stays."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merge_core.recipes import Comparison
from merge_core.store import RunSummary, Store, file_of, folder_of, kind_of
from merge_core.views.comparisons import comparisons_of


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What deleting something does.

    Attributes:
        what: is lost.
        files: how many are removed.
        size: bytes that become free; a file that a fork shares takes its room until that is gone.
        forks, comparisons: of the run, which stay whole.
    """

    what: str
    files: int
    size: int
    forks: int = 0
    comparisons: int = 0

    def words(self) -> str:
        """The same as sentences."""
        lost = (
            f"Its {self.what} are lost for good: {_counted(self.files, 'file')}, which frees "
            f"{size_text(self.size)}."
        )
        stay = [
            _counted(count, what)
            for count, what in ((self.forks, "fork"), (self.comparisons, "comparison"))
            if count
        ]
        if not stay:
            return lost
        many = self.forks + self.comparisons > 1
        return f"{lost} Its {' and '.join(stay)} {'stay' if many else 'stays'} whole."


def loss(store: Store, run: RunSummary) -> Loss:
    """What is lost when a run is deleted now; its files need not be whole.

    Raises:
        StoreError: the run is unknown or a sample.
    """
    sizes = _sizes(store.directory(run.name).rglob("*"))
    known = set(store.names(samples=False))
    own = [] if isinstance(run.recipe, Comparison) else store.runs(samples=False)
    return Loss(
        what="networks, curves and scores",
        files=len(sizes),
        size=sum(sizes),
        forks=sum(each.parent == run.name and each.run in known for each in store.forks()),
        comparisons=len(comparisons_of(own, run.name)),
    )


def loss_of(home: Path, key: str) -> Loss:
    """What is lost when a table, a lab or a search is deleted now.

    Args:
        home: the home directory.
        key: what it is known by (see `merge_core.store.Turn`).
    """
    sizes = _sizes([file_of(home, key), *folder_of(home, key).rglob("*")])
    what = {"table": "repetitions", "lab": "schedules", "search": "trials"}[kind_of(key)]
    return Loss(what=what, files=len(sizes), size=sum(sizes))


def _sizes(paths: Iterable[Path]) -> list[int]:
    """The bytes that become free with each file."""
    sizes = []
    for path in paths:
        with suppress(FileNotFoundError):  # a worker has just renamed it
            if path.is_file():
                found = path.stat()
                sizes.append(found.st_size if found.st_nlink == 1 else 0)
    return sizes


def size_text(size: int) -> str:
    """Bytes in the unit that people would use: "34 kB", "1.2 MB", "310 MB"."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.{1 if size < 10 * bytes_ else 0}f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
