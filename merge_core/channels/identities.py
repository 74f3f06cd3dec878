"""Channel identities: which elements of the values in a network are the same channel.

Every value carries a tensor of its own shape that holds, for each element, the *atom* it came from.
Along axes without channels (batch, positions) the identities are expanded, so they cost no memory
and survive views. Two kinds of edges are collected between atoms: `same` (the two are one channel)
and `block` (the two must move together, in a fixed order: they share a unit). Nothing is solved
while tracing; `components` does it at the end.
"""

import torch
from torch import Tensor

PLAIN = 0  # no channel: a constant that is the same for every channel
INPUT = 1  # an element of the network's input: never moves
OUTPUT = 2  # an element of the network's output: never moves
FIRST = 3
MANY = 4096  # pairs from which on it pays to look for repetitions


def collapse(ids: Tensor) -> Tensor:
    """The same identities with every axis along which they are constant shrunk to length one."""
    for dim in range(ids.dim()):
        if ids.shape[dim] > 1:
            first = ids.narrow(dim, 0, 1)
            if ids.stride(dim) == 0 or bool((ids == first).all()):
                ids = first
    return ids


def components(count: int, left: Tensor, right: Tensor) -> Tensor:
    """Connected components: for each of `count` atoms the smallest atom it is connected to."""
    label = torch.arange(count)
    while True:
        low = torch.minimum(label[left], label[right])
        new = label.clone()
        new.scatter_reduce_(0, label[left], low, "amin")
        new.scatter_reduce_(0, label[right], low, "amin")
        while True:
            jumped = new[new]
            if torch.equal(jumped, new):
                break
            new = jumped
        if torch.equal(new, label):
            return label
        label = new


def distinct_pairs(left: Tensor, right: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The distinct pairs among (left[i], right[i]), and which of them each pair is."""
    keys, where = torch.unique((left << 32) | right, return_inverse=True)
    return (keys >> 32, keys & 0xFFFFFFFF), where


class Identities:
    """The atoms of one trace and the edges between them."""

    def __init__(self) -> None:
        self.count = FIRST
        self._loose = torch.zeros(1024, dtype=torch.bool)
        self._met = torch.zeros(1024, dtype=torch.bool)
        self._same: list[tuple[Tensor, Tensor]] = []
        self._block: list[tuple[Tensor, Tensor]] = []

    def new(self, number: int, loose: bool = False) -> Tensor:
        """Fresh atoms, shape (number,). Loose ones take on the identity of whatever they meet."""
        start, self.count = self.count, self.count + number
        if self.count > len(self._loose):
            more = torch.zeros(2 * self.count - len(self._loose), dtype=torch.bool)
            self._loose, self._met = torch.cat([self._loose, more]), torch.cat([self._met, more])
        self._loose[start : self.count] = loose
        return torch.arange(start, self.count)

    def settle(self, atoms: Tensor) -> Tensor:
        """Atoms that a layer has written are channels of their own, no longer loose."""
        self._loose[atoms] = False
        return atoms

    def met(self, atoms: Tensor) -> Tensor:
        """Which of the atoms were ever tied to another."""
        return self._met[atoms]

    def same(self, left: Tensor, right: Tensor) -> None:
        """Declare pairs of atoms to be one channel; plain elements say nothing."""
        left, right = self._pairs(left, right)
        self._same.append((left, right))
        self._met[left] = self._met[right] = True

    def block(self, left: Tensor, right: Tensor) -> None:
        """Declare that pairs of atoms belong to one unit."""
        left, right = self._pairs(left, right)
        self._block.append((left, right))
        self._met[left] = self._met[right] = True

    def _pairs(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        left, right = torch.broadcast_tensors(left, right)
        left, right = left.reshape(-1), right.reshape(-1)
        telling = (left != PLAIN) & (right != PLAIN) & (left != right)
        left, right = left[telling], right[telling]
        if len(left) > MANY:
            (left, right), _ = distinct_pairs(left, right)
        return left, right

    def tie(self, left: Tensor, right: Tensor) -> Tensor:
        """Identities of an elementwise combination of two values, which this ties together.

        Where the pairing is one to one, or where a side is loose, the two are the same channel.
        Otherwise (a head's weight times each channel of that head) they share a unit, and the
        result carries the finer of the two. Returns collapsed, broadcast identities.
        """
        left, right = torch.broadcast_tensors(collapse(left), collapse(right))
        if torch.equal(left, right):
            return left
        both = (left != PLAIN) & (right != PLAIN)
        result = torch.where(left == PLAIN, right, left)
        if not bool(both.any()):
            return result
        pairs, where = distinct_pairs(left[both], right[both])
        a, b = pairs
        merged = a.clone()
        loose_a, loose_b = self._loose[a], self._loose[b]
        merged[loose_a] = b[loose_a]
        easy = loose_a | loose_b
        self._adopt(torch.where(loose_a, a, b)[easy], torch.where(loose_a, b, a)[easy])
        firm_a, firm_b = a[~easy], b[~easy]
        number_a, number_b = len(torch.unique(firm_a)), len(torch.unique(firm_b))
        if number_a == len(firm_a) == number_b:
            self.same(firm_a, firm_b)
        else:
            self.block(firm_a, firm_b)
            if number_b == len(firm_b):
                merged[~easy] = firm_b
            elif number_a < len(firm_a):
                fresh = self.new(len(firm_a))
                self.block(fresh, firm_a)
                merged[~easy] = fresh
        result = result.clone()
        result[both] = merged[where]
        return result

    def _adopt(self, loose: Tensor, partner: Tensor) -> None:
        """Loose atoms become their partner; one with several partners only joins their unit."""
        _, where, partners = torch.unique(loose, return_inverse=True, return_counts=True)
        single = partners[where] == 1
        self.same(loose[single], partner[single])
        self.block(loose[~single], partner[~single])

    def unite(self, ids: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Declare the identities the same along `dims` and return them with those at length one."""
        for dim in dims:
            if ids.shape[dim] > 1:
                first = ids.narrow(dim, 0, 1)
                if ids.stride(dim) != 0 and not torch.equal(ids, first.expand_as(ids)):
                    self.same(ids, first)
                    first = ids.amax(dim, keepdim=True)  # prefer a channel to a plain element
                ids = first
        return ids

    def reduce(self, ids: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Identities of a sum over `dims` (kept at length one).

        What is summed over several channels belongs to the unit that holds them all.
        """
        ids = collapse(ids)
        mixed = tuple(dim for dim in dims if ids.shape[dim] > 1)
        if not mixed:
            return ids
        kept = [dim for dim in range(ids.dim()) if dim not in mixed]
        rows = ids.permute(*kept, *mixed).reshape(-1, *(ids.shape[dim] for dim in mixed))
        rows, where = torch.unique(rows.flatten(1), dim=0, return_inverse=True)
        fresh = self.new(len(rows))
        self.block(fresh[:, None], rows)
        shape = [1 if dim in mixed else ids.shape[dim] for dim in range(ids.dim())]
        return fresh[where].reshape(shape)

    def channels(self) -> Tensor:
        """The channel of every atom, named by the smallest atom in it."""
        return components(self.count, *_ends(self._same))

    def units(self, channel: Tensor) -> Tensor:
        """The unit of every atom, named by the smallest in it; `channel` is from `channels`."""
        left, right = _ends(self._block)
        return components(self.count, channel[left], channel[right])[channel]


def _ends(edges: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The two ends of all edges."""
    empty = torch.empty(0, dtype=torch.long)
    left, right = (torch.cat([empty, *(edge[side] for edge in edges)]) for side in (0, 1))
    return left, right
