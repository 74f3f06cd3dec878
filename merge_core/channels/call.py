"""One intercepted torch function: its arguments, their identities, and how to answer it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from merge_core.channels.identities import INPUT, PLAIN, Identities, collapse
from merge_core.channels.sites import site_name

if TYPE_CHECKING:
    from merge_core.channels.trace import Tracer


@dataclass
class Value:
    """What is known of one meta tensor: identities per element, or a weight not yet looked into."""

    tensor: Tensor
    ids: Tensor | None
    weight: tuple[str, tuple[int, ...]] | None = None  # parameter name, its axes in this order
    refusal: str = ""  # why nothing may be computed from it


@dataclass
class Guide:
    """What a resized network's trace should find: the spaces on axes and in the pieces of chunks.

    `gathers` is filled in by the trace: the pieces of those chunks that need an index.
    """

    spaces: dict[tuple[str, int], Tensor]
    chunks: dict[tuple[str, bool | None, str, int], list[Tensor]]
    gathers: dict[tuple[str, bool | None, str, int], list[Tensor]] = field(default_factory=dict)


class Tag(int):
    """An integer attribute of a module, which remembers where it came from while a trace runs."""

    layer: str
    attribute: str
    numeric: bool  # also used as a number, as in 1/sqrt(width): must keep its value

    @classmethod
    def of(cls, value: int, layer: str, attribute: str) -> "Tag":
        tag = cls(value)
        tag.layer, tag.attribute, tag.numeric = layer, attribute, False
        return tag

    def __float__(self) -> float:
        self.numeric = True
        return int(self) * 1.0

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        self.numeric = True
        return int(self) ** other

    def __truediv__(self, other: Any) -> Any:
        self.numeric = True
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        self.numeric = True
        return other / int(self)


@dataclass
class Mark:
    """One use of a site in a trace: which, and the identities whose number it depends on."""

    layer: str
    training: bool | None
    site: str
    number: int
    lines: dict[int, Tensor] = field(default_factory=dict)
    shape: Tensor | None = None  # of a view: the identities of its result, collapsed
    parts: Tensor | None = None
    dim: int = -1
    tags: dict[int, Tag] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A torch function applied to at least one traced value.

    `args` are as the network gave them; `meta_args` have parameters and traced values replaced by
    meta tensors, while constants keep their numbers.
    """

    tracer: "Tracer"
    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meta_args: tuple[Any, ...]
    meta_kwargs: dict[str, Any]

    @property
    def identities(self) -> Identities:
        return self.tracer.identities

    def bind(self, *names: str) -> dict[str, Any]:
        """The arguments by name, as in the function's signature; absent ones are None."""
        bound: dict[str, Any] = dict.fromkeys(names)
        bound.update(zip(names, self.args, strict=False))
        bound.update(self.kwargs)
        return bound

    def run(self) -> Any:
        """The function on meta tensors: shapes and types of the result, no numbers."""
        return self.func(*_on_meta(self.meta_args), **_on_meta(self.meta_kwargs))

    def value(self, argument: Any) -> Value | None:
        """What is known of a traced argument; None for constants and everything else."""
        return self.tracer.value(argument) if isinstance(argument, Tensor) else None

    def shape(self, argument: Tensor) -> torch.Size:
        """The shape of an argument, without being traced itself."""
        value = self.value(argument)
        return torch.Tensor.size(argument if value is None else value.tensor)

    def ids(self, argument: Any) -> Tensor:
        """Identities of an argument in its own shape.

        A constant that is the same everywhere is plain. One that varies could tell channels
        apart, so along the dimensions where it varies it pins whatever it meets there.
        """
        value = self.value(argument)
        if value is not None:
            return self.tracer.ids(value)
        if not isinstance(argument, Tensor) or argument.numel() == 0:
            shape = argument.shape if isinstance(argument, Tensor) else ()
            return torch.tensor(PLAIN).expand(shape)
        return torch.tensor(PLAIN).expand(argument.shape)

    def line(self, ids: Tensor, dim: int) -> Tensor:
        """Identities along `dim`, shape (length,), after making all other positions agree."""
        dim %= ids.dim()
        thin = collapse(ids).shape
        if ids.shape[dim] > 1 == thin[dim] and max(thin) > 1:
            raise self.fail(
                f"applies {self.name!r} along positions, with one weight for every channel",
                "let layers read channels: teachers side by side cannot share such a weight",
            )
        others = tuple(other for other in range(ids.dim()) if other != dim)
        return self.identities.unite(ids, others).reshape(-1)

    def reduce(self, ids: Tensor, dims: tuple[int, ...]) -> Tensor:
        """`Identities.reduce`; a sum over several channels is noted as an operation that mixes."""
        before = self.identities.count
        result = self.identities.reduce(ids, dims)
        if self.identities.count > before:
            self.tracer.mixes.append(
                (torch.unique(collapse(ids)), self.tracer.layer, self.name.strip("_"))
            )
        return result

    def bend(self, ids: Tensor) -> None:
        """Note a non-linear operation: the teachers' mean cannot be taken before it."""
        self.tracer.bends.append((collapse(ids), self.tracer.layer, self.name))

    def answer(self, result: Any, ids: Any) -> Any:
        """Record identities for a result (or a tuple of results) and hand it on."""
        if isinstance(result, Tensor):
            return self.tracer.record(result, ids)
        if isinstance(result, (tuple, list)):
            for item, item_ids in zip(result, _repeat(ids, len(result)), strict=True):
                self.answer(item, item_ids)
        return result

    def site(self, dim: int = -1, parts: Tensor | None = None) -> Mark:
        """Note that this call may hold widths as numbers; fill in its `lines`."""
        path, counts = self.tracer.path[-1]
        site = site_name(self.name)
        mark = Mark(path, self.tracer.training, site, counts[site] - 1, parts=parts, dim=dim)
        self.tracer.marks.append(mark)
        return mark

    def tensors(self) -> list[Tensor]:
        """Every tensor argument, in order."""
        return list(_tensors((self.args, self.kwargs)))

    def fail(self, reason: str, remedy: str) -> Exception:
        return self.tracer.fail(reason, remedy)


def pin_varying(call: Call, constant: Tensor, ids: Tensor) -> Tensor:
    """Identities of a constant beside a value with `ids`: INPUT where it tells channels apart."""
    if constant.is_meta or constant.numel() <= 1:
        return torch.tensor(PLAIN)
    shape = collapse(ids).shape
    for back in range(1, min(constant.dim(), len(shape)) + 1):
        if shape[-back] > 1 and constant.shape[-back] > 1:
            first = constant.narrow(-back, 0, 1)
            if not bool((constant == first).all()):
                return torch.tensor(INPUT)
    return torch.tensor(PLAIN)


def _repeat(ids: Any, number: int) -> Iterator[Any]:
    return iter([ids] * number) if isinstance(ids, Tensor) else iter(ids)


def _on_meta(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument if argument.is_meta else argument.to("meta")
    if type(argument) in (list, tuple):
        return type(argument)(_on_meta(item) for item in argument)
    if type(argument) is dict:
        return {key: _on_meta(item) for key, item in argument.items()}
    return argument


def _tensors(argument: Any) -> Iterator[Tensor]:
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for item in argument:
            yield from _tensors(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from _tensors(item)


def table(
    rule: Callable[[Call], Any], names: str, prefix: str = ""
) -> dict[str, Callable[[Call], Any]]:
    """One rule under many names."""
    return {prefix + name: rule for name in names.split()}
