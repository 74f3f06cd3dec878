"""Streaming statistics of what channels carry, for several networks of one architecture at once.

A channel space is observed where its first reader reads it, after norms and activations: the place
where gates act. The values that a reader is given are copied into one buffer that holds all
networks side by side, so one product per space and batch gives the sums within and across networks.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from merge_core.channels import ChannelGraph
from merge_core.channels.rebuild import named_tensors
from merge_core.devices import laid_out, layout_for
from merge_core.errors import DataError, DivergedError, GraphError

_APART = 16  # numbers between two rows, so that not all begin in the same place of the cache
_FIRST = 32  # examples of the first batch whose mean is near enough to the mean of all
_GROUPS = 8  # of samples; threads share several products better than one with few rows
_LONG = 4  # times as many samples as rows in a group: with fewer, one product is faster

Place = tuple[str, str]
"""A space, and the weight at which it is read; "" for whichever reads it first."""


@dataclass(frozen=True)
class Moments:
    """Means and covariances of one space over all observed networks, on the CPU in float64.

    A sample is one element of one example: a position of a convolution, a position that a flatten
    gave to a linear layer. Where a unit owns several channels (a head, a group), they count like
    positions: channel k of a unit is compared with channel k of another, as they would meet if the
    two units were exchanged.

    Attributes:
        count: samples, i.e. examples times elements of a unit.
        mean: `(networks * size,)`; unit i of network t is row `t * size + i`.
        covariance: `(networks * size, networks * size)`, of the samples (divided by `count`).
        size: units of the space.
    """

    count: int
    mean: Tensor
    covariance: Tensor
    size: int

    @property
    def networks(self) -> int:
        """How many networks were observed together."""
        return len(self.mean) // self.size

    def of(self, network: int) -> slice:
        """The rows of one network."""
        return slice(network * self.size, (network + 1) * self.size)

    def between(self, a: int, b: int) -> Tensor:
        """Covariances of network a's units (rows) with network b's (columns); `(size, size)`."""
        return self.covariance[self.of(a), self.of(b)]

    def variance(self, network: int) -> Tensor:
        """Variances of one network's units; `(size,)`, never negative."""
        return self.covariance.diagonal()[self.of(network)]


@torch.no_grad()
def observe(
    networks: Sequence[nn.Module],
    graph: ChannelGraph,
    batches: Iterable[Tensor],
    spaces: Sequence[str] | None = None,
) -> dict[str, Moments]:
    """Means and covariances of the channels of all networks, in one pass over the batches.

    Each batch is multiplied in the networks' own precision (at least float32) around a point near
    the mean, and added up in float64. Memory is that of one batch's values and of the covariances,
    whatever the number of batches. The networks run in eval mode and are left as they were.

    Args:
        networks: of the architecture of `graph`, on one device.
        graph: their channel graph.
        batches: inputs, batch first, on that device.
        spaces: which to observe; all free spaces by default. A space that is read several times (a
            residual stream) is observed at the first of its readers.

    Raises:
        GraphError: a space is unknown, a network does not fit the graph, or evaluation never reads
            a space.
        DataError: there are no batches.
        DivergedError: a network computes values that are not finite.
    """
    names = [space.name for space in graph.free] if spaces is None else list(spaces)
    found = _observed(networks, graph, batches, [(name, "") for name in names])
    return {space: moments for (space, _), moments in found.items()}


@torch.no_grad()
def observe_readers(
    networks: Sequence[nn.Module], graph: ChannelGraph, batches: Iterable[Tensor]
) -> dict[Place, Moments]:
    """As `observe`, but at each reader of each free space, by space and name of the reading weight.

    What a residual stream carries changes from reader to reader.
    """
    free = {number: space.name for number, space in enumerate(graph.spaces) if space.free}
    places = {}
    for read in graph.reads:
        axis = graph.axes[read.tensor][read.dim]
        assert axis is not None
        for number in torch.unique(axis.space).tolist():
            if number in free:
                places[free[number], read.tensor] = None
    return _observed(networks, graph, batches, list(places))


def _observed(
    networks: Sequence[nn.Module],
    graph: ChannelGraph,
    batches: Iterable[Tensor],
    places: Sequence[Place],
) -> dict[Place, Moments]:
    sums = {at: _Sums(at[0], len(networks), graph.space(at[0]).size) for at in places}
    modes = [
        _Reader(network, graph, places, lambda at, value, t=t: sums[at].put(t, value))
        for t, network in enumerate(networks)
    ]
    layout = layout_for(networks[0])
    with _evaluating(networks):
        for batch in batches:
            inputs = laid_out(batch, layout)
            for network, mode in zip(networks, modes, strict=True):
                mode.run(network, inputs)
    return {at: each.moments() for at, each in sums.items()}


@contextmanager
def reads(
    network: nn.Module,
    graph: ChannelGraph,
    spaces: Sequence[str],
    receive: Callable[[str, Tensor], None],
) -> Iterator[Callable[[Tensor], None]]:
    """A function that runs the network on a batch and hands `receive` what the spaces carry.

    `receive(space, value)` is called once per space and batch, when its first reader runs; `value`
    has the shape (units, examples, ...), and a later operation of the network may overwrite it. The
    network is in eval mode inside, without gradients, and is left as it was.
    """
    places = [(space, "") for space in spaces]
    mode = _Reader(network, graph, places, lambda at, value: receive(at[0], value))
    with torch.no_grad(), _evaluating([network]):
        yield lambda batch: mode.run(network, batch)


@contextmanager
def _evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    before = [(m, m.training) for network in networks for m in network.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


class _Elements:
    """The elements of one space along a reader's input axis, (size, elements of a unit)."""

    def __init__(self, mine: Tensor, unit: Tensor, size: int) -> None:
        self.length = len(unit)
        self.index = mine[torch.argsort(unit[mine], stable=True)]
        self.shape = (size, len(mine) // size)
        run = torch.arange(len(self.index)) + self.index[0]
        self.start = int(self.index[0]) if torch.equal(self.index, run) else None

    def units(self, value: Tensor, dim: int) -> Tensor:
        """The value with the units of the space first: (size, examples, ...)."""
        if self.start is None:
            value = value.index_select(dim, self.index.to(value.device))
        elif len(self.index) < self.length:
            value = value.narrow(dim, self.start, len(self.index))
        return value.unflatten(dim, self.shape).movedim(dim % value.dim(), 0)


_LAST = {"linear", "matmul", "bmm", "mm", "__matmul__"}  # read the last axis; others are "conv…"
_ATTENTION = "multi_head_attention_forward"
_PROJECTIONS = {
    "query": ("in_proj_weight", "q_proj_weight"),
    "key": ("k_proj_weight",),
    "value": ("v_proj_weight",),
}


class _Reader(TorchFunctionMode):
    """Hands on what is read at each place, once in each forward pass."""

    def __init__(
        self,
        network: nn.Module,
        graph: ChannelGraph,
        places: Sequence[Place],
        receive: Callable[[Place, Tensor], None],
    ) -> None:
        super().__init__()
        self.places = frozenset(places)
        self.receive = receive
        self.waiting: set[Place] = set()
        self.readers: dict[int, list[tuple[Place, _Elements]]] = {}
        tensors = named_tensors(network)
        numbers = {s.name: number for number, s in enumerate(graph.spaces)}
        for tensor, dim in dict.fromkeys((read.tensor, read.dim) for read in graph.reads):
            axis = graph.axes[tensor][dim]
            assert axis is not None
            if tensor not in tensors or tensors[tensor].shape[dim] != len(axis.space):
                raise GraphError(
                    f"The network has no {tensor!r} with {len(axis.space)} elements along "
                    f"dimension {dim}, which its channel graph reads; give networks of the traced "
                    "architecture."
                )
            for at in places:
                space, where = at
                size = graph.space(space).size
                mine = (axis.space == numbers[space]).nonzero().flatten()
                if len(mine) and where in ("", tensor):
                    elements = _Elements(mine, axis.unit, size)
                    self.readers.setdefault(id(tensors[tensor]), []).append((at, elements))

    def run(self, network: nn.Module, batch: Tensor) -> None:
        """One forward pass in which every place is handed on."""
        self.waiting = set(self.places)
        with self:
            network(batch)
        if self.waiting:
            raise GraphError(
                f"The channels of {min(self.waiting)[0]!r} are not read in evaluation mode, so "
                "they cannot be observed; leave this space out."
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.waiting and name == _ATTENTION:
            return self._attention(func, args, kwargs)
        if self.waiting and (name in _LAST or name.startswith("conv")):
            value, weight = (*args, *(kwargs[k] for k in ("input", "weight") if k in kwargs))[:2]
            self._hand_on(value, weight, -1 if name in _LAST else 1 - weight.dim())
        return func(*args, **kwargs)

    def _hand_on(self, value: Tensor, weight: Tensor, dim: int) -> None:
        base = weight if weight._base is None else weight._base  # W.T is a reading weight, too
        for at, elements in self.readers.get(id(base), ()):
            if at in self.waiting:
                self.waiting.discard(at)
                self.receive(at, elements.units(value, dim))

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Attention as torch fuses it: (length, examples, channels) in and out.

        What its last projection reads shows when the projection is left out, and applied after.
        """
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        for which, weights in _PROJECTIONS.items():
            for weight in weights:
                if given.get(weight) is not None:
                    self._hand_on(given[which].transpose(0, 1), given[weight], -1)
        weight, bias = given["out_proj_weight"], given["out_proj_bias"]
        if not any(at in self.waiting for at, _ in self.readers.get(id(weight), ())):
            return func(**given)
        same = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        heads, attention = func(**given | {"out_proj_weight": same, "out_proj_bias": None})
        self._hand_on(heads.transpose(0, 1), weight, -1)
        return F.linear(heads, weight, bias), attention


class _Sums:
    """The sums of one space over all networks, around a point near the mean."""

    def __init__(self, space: str, networks: int, size: int) -> None:
        self.space, self.networks, self.size = space, networks, size
        self.count = 0
        self.rows = torch.empty(0)  # one batch, (networks * size, examples, ...)
        self.groups = 1  # in which its samples are multiplied
        self.shift = torch.empty(0)  # (networks * size,), the mean of the first examples
        self.total = torch.empty(0)  # (networks * size,) float64, of rows
        self.products = torch.empty(0)  # (networks * size, networks * size) float64

    def put(self, network: int, value: Tensor) -> None:
        """Take a network's values (size, ...) of a batch; the last network's turn adds them up."""
        if network == 0:
            self._make_room(value)
        mine = slice(network * self.size, (network + 1) * self.size)
        rows, shift = self.rows[mine], self.shift[mine]
        samples = tuple(range(1, value.dim()))
        if self.count == 0:
            shift.copy_(value[:, :_FIRST].mean(samples, dtype=shift.dtype))
        if rows.shape != value.shape:
            raise GraphError(
                f"The networks read {self.space!r} with the shapes {tuple(rows.shape)} and "
                f"{tuple(value.shape)}; give networks of one architecture."
            )
        torch.sub(value, shift.view(-1, *[1] * len(samples)), out=rows)
        if network == self.networks - 1:
            self._add()

    def _make_room(self, value: Tensor) -> None:
        """A buffer in the memory order of the value, kept while batches have one shape."""
        height = self.networks * self.size
        if not self.count:
            dtype = torch.promote_types(value.dtype, torch.float32)
            self.shift = torch.zeros(height, dtype=dtype, device=value.device)
            exact = "cpu" if value.device.type == "mps" else value.device  # MPS has no float64
            self.total = torch.zeros(height, dtype=torch.float64, device=exact)
            self.products = torch.zeros(height, height, dtype=torch.float64, device=exact)
        shape = value.shape[1:]
        if self.rows.shape[1:] == shape:
            return
        samples = shape.numel()
        if value.stride(0) == 1:
            self.rows = self.shift.new_empty(*shape, height).movedim(-1, 0)
        else:
            rows = self.shift.new_empty(height, samples + _APART)[:, :samples]
            self.rows = rows.unflatten(1, shape)
        most = min(samples // (_LONG * height), _GROUPS)
        self.groups = math.gcd(samples, max(1, most))

    def _add(self) -> None:
        samples = self.rows.flatten(1)
        self.total += samples.sum(1).to(self.total.device)
        groups = samples.unflatten(1, (self.groups, -1)).transpose(0, 1)
        for product in torch.bmm(groups, groups.mT).to(self.products.device):
            self.products += product
        self.count += samples.shape[1]

    def moments(self) -> Moments:
        if not self.count:
            raise DataError("There are no examples to observe; give at least one batch.")
        mean = self.total.cpu() / self.count
        covariance = self.products.cpu() / self.count - torch.outer(mean, mean)
        covariance.diagonal().clamp_(min=0)
        bad = ~covariance.diagonal().isfinite()
        if bad.any():
            number = int(bad.nonzero()[0, 0]) // self.size
            raise DivergedError(
                f"Network {number + 1} computes values in {self.space!r} that are not finite; "
                "give a network whose training did not diverge."
            )
        mean += self.shift.cpu().double()
        return Moments(self.count, mean, covariance, self.size)
