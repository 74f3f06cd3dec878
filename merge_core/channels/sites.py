"""Places in a network's code that hold a width as a number, and what is done about them.

A forward pass may write `x.view(-1, 400)`, or normalise over all channels. Such an operation is a
*site*. When a network is built at other widths, each module with a site that would go wrong gets a
`Rewrites` hook: while that module runs, a `TorchFunctionMode` hands the operation the right sizes.
A norm over channels is given parts, so that each teacher's channels are normalised by themselves
until the cut. Modules of torch need no rewriting: their attributes follow their tensors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

SHAPES = ("view", "reshape", "unflatten", "expand")
NORMS = ("layer_norm", "rms_norm", "group_norm")
SITED = {*SHAPES, *NORMS, "split", "__getitem__", "narrow", "pad", "cat", "chunk", "conv"}


def site_name(name: str) -> str:
    """The name under which calls of a torch function are counted; "" where none is a site."""
    if name.startswith("conv") and name[4:] in ("1d", "2d", "3d"):
        name = "conv"
    elif name in ("parted_norm", "concat", "concatenate", "split_with_sizes"):
        name = {"parted_norm": "layer_norm", "split_with_sizes": "split"}.get(name, "cat")
    elif name in ("rms_norm", "group_norm"):
        name = "layer_norm"
    elif name == "gathered":
        name = "chunk"
    return name if name in SITED else ""


@dataclass(frozen=True, eq=False)
class Plan:
    """How a norm over the channels in dimension `dim` (negative) falls into parts.

    `parts[e]` is the part of channel e; all parts have the same length.
    """

    kind: str
    dim: int
    eps: float | None
    parts: Tensor = field(repr=False)

    def split(self) -> tuple[int, Tensor | None]:
        """The number of parts, and the order that puts them side by side (None: they are)."""
        number = int(self.parts.max()) + 1
        order = torch.argsort(self.parts, stable=True)
        side_by_side = torch.equal(order, torch.arange(len(order)))
        return number, None if side_by_side else order


def parted_norm(value: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan) -> Tensor:
    """A layer, RMS or one-group norm in which each part of the channels is normalised by itself."""
    if has_torch_function_unary(value):
        return handle_torch_function(parted_norm, (value,), value, weight, bias, plan)
    dim = plan.dim % value.dim()
    number, order = plan.split()
    ordered = value if order is None else value.index_select(dim, order.to(value.device))
    ordered = ordered.unflatten(dim, (number, -1))
    shape = ordered.shape[dim + 1 :]
    if plan.kind == "rms_norm":
        normal = F.rms_norm(ordered, shape, eps=plan.eps)
    else:
        normal = F.layer_norm(ordered, shape, eps=1e-5 if plan.eps is None else plan.eps)
    normal = normal.flatten(dim, dim + 1)
    if order is not None:
        normal = normal.index_select(dim, torch.argsort(order).to(value.device))
    for tensor, combine in ((weight, torch.mul), (bias, torch.add)):
        if tensor is not None:
            along = plan.kind == "group_norm"
            shaped = tensor.view(-1, *[1] * (value.dim() - dim - 1)) if along else tensor
            normal = combine(normal, shaped)
    return normal


def gathered(value: Tensor, dim: int, indices: list[Tensor]) -> tuple[Tensor, ...]:
    """The pieces of a value at `indices` along `dim`: a chunk whose pieces are no longer runs."""
    if has_torch_function_unary(value):
        return handle_torch_function(gathered, (value,), value, dim, indices)
    return tuple(value.index_select(dim, index.to(value.device)) for index in indices)


class Mode:
    """What modules find in `training` during a trace: notes whether their code looks at it."""

    def __init__(self, value: bool) -> None:
        self.value = value
        self.asked = False

    def __bool__(self) -> bool:
        self.asked = True
        return self.value

    def __eq__(self, other: object) -> bool:
        return bool(self) == other

    __hash__ = object.__hash__

    def __index__(self) -> int:
        return int(bool(self))


@dataclass
class Change:
    """What one site needs: sizes by position (None: as given), or parts of a norm."""

    lengths: tuple[int | None, ...] = ()
    parts: Tensor | None = None
    dim: int = -1
    gather: list[Tensor] | None = None  # the pieces of a chunk
    needed: bool = False

    def apply(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operation with its sizes corrected; notes whether they had to be."""
        site = site_name(name)
        if site == "layer_norm":
            return self._norm(func, name, args, kwargs)
        if site == "chunk":
            if self.gather is None:
                return func(*args, **kwargs)
            return gathered(args[0], _get(args, kwargs, 2, "dim") or 0, self.gather)
        before = (args, dict(kwargs))
        if site in SHAPES:
            args, kwargs = self._shape(name, args, kwargs)
        elif site == "split":
            args, kwargs = self._split(args, kwargs)
        elif site == "conv":
            args, kwargs = _with(args, kwargs, 6, "groups", self.lengths[0])
        elif site == "__getitem__":
            args = (args[0], self._slices(args[1]))
        elif site == "narrow":
            args, kwargs = _with(args, kwargs, 2, "start", self.lengths[0])
            args, kwargs = _with(args, kwargs, 3, "length", self.lengths[1])
        elif site == "pad":
            args, kwargs = _with(args, kwargs, 1, "pad", self._pads(_get(args, kwargs, 1, "pad")))
        elif site == "cat":
            args = (self._filled(args[0], _get(args, kwargs, 1, "dim") or 0), *args[1:])
        if not _same((args, kwargs), before):
            self.needed = True
        return func(*args, **kwargs)

    def _norm(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "parted_norm":
            return func(*args, **kwargs)
        value = args[0]
        shape = value.shape[self.dim % value.dim() :]
        if self.parts is not None:
            self.needed = True
            at = 2
            if name == "rms_norm":
                weight, bias = _get(args, kwargs, 2, "weight"), None
                eps = _get(args, kwargs, 3, "eps")
            else:
                weight, bias = (
                    _get(args, kwargs, at + i, k) for i, k in enumerate(("weight", "bias"))
                )
                eps = _get(args, kwargs, 4, "eps")
            return parted_norm(value, weight, bias, Plan(name, self.dim, eps, self.parts))
        if name == "group_norm":
            return func(*args, **kwargs)
        if tuple(_get(args, kwargs, 1, "normalized_shape")) != tuple(shape):
            self.needed = True
            args, kwargs = _with(args, kwargs, 1, "normalized_shape", tuple(shape))
        return func(*args, **kwargs)

    def _shape(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if name == "unflatten":
            start = _get(args, kwargs, 1, "dim") % args[0].dim()
            sizes = _get(args, kwargs, 2, "sizes")
            lengths = self.lengths[start : start + len(sizes)]
            return _with(args, kwargs, 2, "sizes", _filled_in(sizes, lengths))
        listed = len(args) == 2 and isinstance(args[1], (tuple, list))
        given = args[1:]
        if listed:
            given = tuple(args[1])
        if not given or any(not isinstance(size, int) for size in given):
            return args, kwargs
        sizes = _filled_in(given, self.lengths)
        return ((args[0], sizes) if listed else (args[0], *sizes)), kwargs

    def _split(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        key = "split_size_or_sections" if "split_size_or_sections" in kwargs else "split_size"
        given = _get(args, kwargs, 1, key)
        wanted = [length for length in self.lengths if length is not None]
        if isinstance(given, int) and len(set(wanted[:-1]) | {max(wanted)}) == 1:
            return _with(args, kwargs, 1, key, wanted[0])
        return _with(args, kwargs, 1, key, wanted)

    def _slices(self, index: Any) -> Any:
        start, length = self.lengths
        assert start is not None
        assert length is not None
        parts = list(index) if isinstance(index, tuple) else [index]
        at = self.dim
        given = parts[at]
        parts[at] = slice(
            None if given.start is None else start,
            None if given.stop is None else start + length,
        )
        return tuple(parts) if isinstance(index, tuple) else parts[0]

    def _pads(self, given: Iterable[int]) -> list[int]:
        pads = list(given)
        at = 2 * (-1 - self.dim)
        for offset, length in enumerate(self.lengths):
            assert length is not None
            pads[at + offset] = length
        return pads

    def _filled(self, tensors: Any, dim: int) -> Any:
        made = list(tensors)
        for at, length in enumerate(self.lengths):
            if length is not None and made[at].shape[dim] != length:
                shape = list(made[at].shape)
                shape[dim] = length
                made[at] = made[at].narrow(dim, 0, 1).expand(shape)
        return made


def _filled_in(given: Iterable[int], lengths: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(
        size if size == -1 or length is None else length
        for size, length in zip(given, lengths, strict=False)
    )


def _get(args: tuple[Any, ...], kwargs: dict[str, Any], at: int, name: str) -> Any:
    return args[at] if len(args) > at else kwargs.get(name)


def _with(
    args: tuple[Any, ...], kwargs: dict[str, Any], at: int, name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > at:
        return (*args[:at], value, *args[at + 1 :]), kwargs
    return args, {**kwargs, name: value}


def _same(after: Any, before: Any) -> bool:
    """Whether two argument lists are the same, tensors by identity, sequences by content."""
    if isinstance(after, (tuple, list)) and isinstance(before, (tuple, list)):
        return len(after) == len(before) and all(map(_same, after, before))
    if isinstance(after, dict):
        return after.keys() == before.keys() and all(_same(after[k], before[k]) for k in after)
    return after is before if isinstance(after, Tensor) else bool(after == before)


class _Rewriter(TorchFunctionMode):
    """Counts the sites of one call of a module and corrects those that have a change."""

    def __init__(self, changes: dict[tuple[bool | None, str, int], Change], training: bool) -> None:
        super().__init__()
        self.changes = changes
        self.training = training
        self.counts: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        site = site_name(name)
        if site:
            number = self.counts.get(site, 0)
            self.counts[site] = number + 1
            either = self.changes.get((None, site, number))
            change = self.changes.get((self.training, site, number), either)
            if change is not None:
                return change.apply(func, name, args, kwargs)
        return func(*args, **kwargs)


class Rewrites:
    """The hooks on one module: while it runs, its sites get the sizes they need."""

    def __init__(self, changes: dict[tuple[bool | None, str, int], Change]) -> None:
        self.changes = changes
        self._running: list[_Rewriter] = []

    def install(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self.enter)
        module.register_forward_hook(self.leave, always_call=True)

    def enter(self, module: nn.Module, args: Any) -> None:
        training = module.training
        mode = _Rewriter(self.changes, training.value if isinstance(training, Mode) else training)
        mode.__enter__()
        self._running.append(mode)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running.pop().__exit__(None, None, None)


def rewritten(model: nn.Module) -> Iterator[nn.Module]:
    """The modules whose sites are corrected."""
    for module in model.modules():
        if any(
            isinstance(getattr(hook, "__self__", None), Rewrites)
            for hook in module._forward_pre_hooks.values()
        ):
            yield module


def strip(model: nn.Module) -> None:
    """Remove every rewriting hook from a network."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), Rewrites):
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)
