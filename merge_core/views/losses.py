"""What is lost when a run is deleted, and what stays."""

from contextlib import suppress
from dataclasses import dataclass

from merge_core.recipes import Comparison
from merge_core.store import RunSummary, Store
from merge_core.views.comparisons import comparisons_of


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What deleting a run does.

    Attributes:
        files: how many are removed.
        size: bytes that become free; a file that a fork shares takes its room until that is gone.
        forks, comparisons: of the run, which stay whole.
    """

    files: int
    size: int
    forks: int
    comparisons: int

    def words(self) -> str:
        """The same as sentences."""
        lost = (
            f"Its networks, curves and scores are lost for good: {_counted(self.files, 'file')}, "
            f"which frees {size_text(self.size)}."
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
    sizes = []
    for path in store.directory(run.name).rglob("*"):
        with suppress(FileNotFoundError):  # a worker has just renamed it
            if path.is_file():
                found = path.stat()
                sizes.append(found.st_size if found.st_nlink == 1 else 0)
    known = set(store.names(samples=False))
    own = [] if isinstance(run.recipe, Comparison) else store.runs(samples=False)
    return Loss(
        files=len(sizes),
        size=sum(sizes),
        forks=sum(each.parent == run.name and each.run in known for each in store.forks()),
        comparisons=len(comparisons_of(own, run.name)),
    )


def size_text(size: int) -> str:
    """Bytes in the unit that people would use: "34 kB", "1.2 MB", "310 MB"."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.{1 if size < 10 * bytes_ else 0}f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
