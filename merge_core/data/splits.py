"""Examples in three splits, and how a pool of examples is cut into them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from merge_core.errors import DataError


@dataclass(frozen=True)
class Normalisation:
    """How pixels become numbers: (pixel / 255 − mean) / deviation.

    Attributes:
        mean, deviation: of each colour, of pixels from 0 to 1; `(channels, 1, 1)` float32.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], deviation: Sequence[float]) -> "Normalisation":
        """With one number for each colour."""
        return cls(*(torch.tensor(each).view(-1, 1, 1) for each in (mean, deviation)))

    def numbers(self, pixels: Tensor) -> Tensor:
        """float32 from uint8, both `(n, channels, height, width)`."""
        return self.normalised(pixels.float().div_(255))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Numbers from pixels from 0 to 1, in place."""
        return pixels.sub_(self.mean).div_(self.deviation)

    def pixels(self, numbers: Tensor) -> Tensor:
        """Pixels from 0 to 1 from numbers, both `(n, channels, height, width)` float32."""
        return numbers.mul(self.deviation).add_(self.mean)

    def to(self, device: str) -> "Normalisation":
        """The same on `device`."""
        return Normalisation(self.mean.to(device), self.deviation.to(device))


@dataclass(frozen=True)
class Split:
    """Examples: inputs with their targets.

    Images are kept as the bytes that they came as, in a quarter of the memory that numbers take,
    and become numbers wherever they are looked at: ask for a part before its inputs.

    Attributes:
        stored: `(n, ...)` float32 numbers, or uint8 pixels where there is a normalisation.
        targets: `(n,)` int64 classes, `(n, 1)` float32 numbers, or `(n, classes)` float32
            probabilities of classes.
        normalisation: makes numbers of pixels.
        rows: `(n,)` int64 where `stored` is a file mapped into memory that holds more examples: the
            numbers of these. It stays where it is; what is looked at goes to the targets' device.
    """

    stored: Tensor
    targets: Tensor
    normalisation: Normalisation | None = None
    rows: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """What networks take, `(n, ...)` float32; made of all pixels each time it is asked for."""
        stored = self.stored
        if self.rows is not None:
            stored = stored[self.rows.cpu()].to(self.device)
        return stored if self.normalisation is None else self.normalisation.numbers(stored)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def device(self) -> torch.device:
        """Where the examples lie."""
        return self.targets.device

    def part(self, which: slice | Tensor) -> "Split":
        """Some of the examples, by a slice or by their numbers `(k,)` int64."""
        targets = self.targets[which]
        if self.rows is not None:
            return Split(self.stored, targets, self.normalisation, self.rows[which])
        return Split(self.stored[which], targets, self.normalisation)

    def batches(self, size: int) -> Iterator["Split"]:
        """All examples in order, `size` at a time; the last part may be smaller."""
        for start in range(0, len(self), size):
            yield self.part(slice(start, start + size))

    def to(self, device: str) -> "Split":
        """The same examples on `device`."""
        normalisation = None if self.normalisation is None else self.normalisation.to(device)
        if self.rows is not None:
            rows, targets = self.rows.to(device), self.targets.to(device)
            return Split(self.stored, targets, normalisation, rows)
        return Split(self.stored.to(device), self.targets.to(device), normalisation)


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
        return self.train.part(slice(middle)), self.train.part(slice(middle, None))

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
