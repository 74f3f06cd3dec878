"""Examples in three splits, and how a pool of examples is cut into them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from merge_core.errors import DataError


@dataclass(frozen=True)
class Split:
    """Examples: `inputs (n, ...)` float32 with their targets.

    `targets` are `(n,)` int64 classes, `(n, 1)` float32 numbers, or `(n, classes)` float32
    probabilities of classes.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: str) -> "Split":
        """The same examples on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """The three splits of one recipe's data.

    Attributes:
        train, heldout, test: the splits.
        class_names: what people call the classes, by number; empty where nobody has said.
    """

    train: Split
    heldout: Split
    test: Split
    class_names: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, held-out and test."""
        return self.train, self.heldout, self.test

    @property
    def halves(self) -> tuple[Split, Split]:
        """The training split in two disjoint halves, for teachers that saw different examples."""
        middle = len(self.train) // 2
        inputs, targets = self.train.inputs, self.train.targets
        return Split(inputs[:middle], targets[:middle]), Split(inputs[middle:], targets[middle:])

    def to(self, device: str) -> "Dataset":
        """The same data set on `device`."""
        train, heldout, test = (split.to(device) for split in self.splits)
        return Dataset(train, heldout, test, class_names=self.class_names)


def drawn(count: int, sizes: Sequence[int], draws: torch.Generator, name: str) -> list[Tensor]:
    """The numbers 0 to `count` − 1 in random order, cut into parts of the given sizes.

    Raises:
        DataError: fewer examples than asked for.
    """
    if sum(sizes) > count:
        raise DataError(
            f"{name!r} has {count} examples, but {sum(sizes)} were asked for; "
            f"make data.train, data.heldout and data.test smaller."
        )
    order = torch.randperm(count, generator=draws)
    return list(order[: sum(sizes)].split(list(sizes)))


def given(n: int, name: str) -> int:
    """The size of a split of generated examples, which must be given.

    Raises:
        DataError: it is 0.
    """
    if n == 0:
        raise DataError(
            f"{name!r} is generated, so the size of each split must be given; "
            f"set data.train, data.heldout and data.test above 0."
        )
    return n
