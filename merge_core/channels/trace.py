"""Run a network once on channel identities instead of numbers.

The forward pass runs on meta tensors (shapes without numbers) under a `TorchFunctionMode`, so it
costs no arithmetic, takes the network's own control flow, and stops at anything that would look at
a value. Each torch function has a rule that says what it does to identities; one without a rule is
an error, never a guess. Where the network's code asks which mode it is in, training and evaluation
are both followed into the same graph.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from merge_core.channels.call import Call, Guide, Mark, Tag, Value
from merge_core.channels.graph import ChannelGraph
from merge_core.channels.identities import INPUT, OUTPUT, PLAIN, Identities, collapse
from merge_core.channels.rules import RULES
from merge_core.channels.sites import Mode, site_name
from merge_core.channels.spaces import assemble
from merge_core.errors import GraphError, NetweldError


class Tracer(TorchFunctionMode):
    """The mode that follows identities; `values` maps a tensor's id() to what is known of it."""

    def __init__(self, model: nn.Module, device: torch.device, guide: Guide | None) -> None:
        super().__init__()
        self.guide = guide
        self.identities = Identities()
        self.values: dict[int, Value] = {}
        self.device = device
        self.path: list[tuple[str, dict[str, int]]] = []  # running modules, and their sites so far
        self.latest = "", ""  # the operation met last, and its layer
        self.training = False
        self.tensors: dict[str, Tensor] = {}
        self.axes: dict[tuple[str, int], Tensor] = {}  # (tensor, dimension) -> atoms
        self.elements: dict[str, Tensor] = {}  # tensor -> atoms in its own shape
        self.uses: list[tuple[str, str, str, int, str]] = []  # role, layer, tensor, dim, kind
        self.events: list[Tensor] = []  # identities that a slicing operation took together
        self.bends: list[tuple[Tensor, str, str]] = []  # identities, layer, non-linear operation
        self.mixes: list[tuple[Tensor, str, str]] = []  # identities, layer, operation summing them
        self.marks: list[Mark] = []
        self._names: dict[int, str] = {}
        self._meta: dict[int, Value] = {}
        named = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in named:
            if id(tensor) not in self._names:
                self._names[id(tensor)] = name
                self.tensors[name] = tensor

    # -- values -------------------------------------------------------------------------------

    def value(self, tensor: Tensor) -> Value | None:
        """What is known of a tensor; None for a constant."""
        known = self.values.get(id(tensor))
        if known is not None:
            return known
        name = self._names.get(id(tensor))
        if name is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return None
        if id(tensor) not in self._meta:
            meta = tensor.detach().to("meta")
            value = Value(meta, None, (name, tuple(range(tensor.dim()))))
            self._meta[id(tensor)] = self.values[id(meta)] = value
        return self._meta[id(tensor)]

    def record(self, tensor: Tensor, ids: Tensor) -> Tensor:
        """Remember the identities of a meta tensor; `ids` broadcasts to its shape."""
        self.values[id(tensor)] = Value(tensor, ids.expand(tensor.shape))
        return tensor

    def ids(self, value: Value) -> Tensor:
        """The identities of a value, in its own shape."""
        if value.refusal:
            raise self.fail(value.refusal, "use a value that keeps its channels apart")
        if value.ids is None:
            assert value.weight is not None
            name, order = value.weight
            value.ids = self.element_atoms(name).permute(order)
        return value.ids

    def axis_atoms(self, name: str, dim: int) -> Tensor:
        """One atom for each element along an axis of a parameter or buffer."""
        if (name, dim) not in self.axes:
            self.axes[name, dim] = self.identities.new(self.tensors[name].shape[dim], loose=True)
        return self.axes[name, dim]

    def element_atoms(self, name: str) -> Tensor:
        """One atom for each element of a parameter or buffer, in its shape."""
        shape = self.tensors[name].shape
        wide = [dim for dim, length in enumerate(shape) if length > 1] or [0][: len(shape)]
        if not wide:
            return torch.tensor(PLAIN)
        if len(wide) == 1:
            view = [1] * len(shape)
            view[wide[0]] = -1
            return self.axis_atoms(name, wide[0]).view(view)
        if name not in self.elements:
            self.elements[name] = self.identities.new(shape.numel(), loose=True).view(shape)
        return self.elements[name]

    def labels(self, atoms: Tensor) -> Tensor:
        """The space that the guide expects each atom in; -2 where it says nothing."""
        assert self.guide is not None
        known = torch.full((self.identities.count,), -2)
        for key, spaces in self.guide.spaces.items():
            if key in self.axes:
                known[self.axes[key]] = spaces
        return known[atoms]

    def fail(self, reason: str, remedy: str) -> GraphError:
        """The error for the module being executed."""
        where = f"Layer {self.layer!r}" if self.layer else "The network"
        return GraphError(f"{where} {reason}; {remedy}.")

    def in_any_mode(self) -> None:
        """What was noted for the mode that ran holds for both."""
        for mark in self.marks:
            mark.training = None
        if self.guide is not None:
            self.guide.gathers = {
                (layer, None, site, number): found
                for (layer, _, site, number), found in self.guide.gathers.items()
            }

    @property
    def layer(self) -> str:
        """The path of the innermost module being executed; "" for the network itself."""
        return self.path[-1][0] if self.path else ""

    # -- interception -------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = f"get {func.__self__.__name__}"
        self.latest = name, self.layer
        site = site_name(name)
        if site:
            for _, counts in self.path:
                counts[site] = counts.get(site, 0) + 1
        found: list[Value] = []
        meta_args, meta_kwargs = self._to_meta(args, found), self._to_meta(kwargs, found)
        if not found:
            changes = name.endswith("_") and args and id(args[0]) in self._names
            return func(args[0].clone(), *args[1:], **kwargs) if changes else func(*args, **kwargs)
        call = Call(self, name, func, args, kwargs, meta_args, meta_kwargs)
        rule = RULES.get(name) or RULES.get(name.rstrip("_"))
        if rule is None:
            raise self.fail(
                f"applies {name!r}, for which no rule says what it does to channels",
                "write it with operations that have one (arithmetic, views, convolutions, linear "
                "layers, norms, pooling, attention), or keep it out of the merged network",
            )
        return rule(call)

    def _to_meta(self, argument: Any, found: list[Value]) -> Any:
        if isinstance(argument, Tensor):
            value = self.value(argument)
            if value is None:
                return argument
            found.append(value)
            return value.tensor
        if type(argument) is Mode:
            return argument.value
        if type(argument) in (list, tuple):
            return type(argument)(self._to_meta(item, found) for item in argument)
        if type(argument) is dict:
            return {key: self._to_meta(item, found) for key, item in argument.items()}
        return argument


_ALIKE = ("batchnorm", "dropout", "instancenorm", "torchvision.ops.stochastic_depth")
"""Where modules are defined that look at their mode and do the same to channels in both."""


def _finish(tracer: Tracer, output: Any) -> tuple[torch.Size, int]:
    """Pin every output; returns the shape of the first and the dimension of its channels."""
    first: tuple[torch.Size, int] | None = None
    for tensor in tensors_in(output):
        value = tracer.value(tensor)
        if value is not None:
            ids = tracer.ids(value)
            tracer.identities.block(ids, torch.tensor(OUTPUT))
            if first is None:
                wide = [dim for dim, length in enumerate(collapse(ids).shape) if length > 1]
                first = tensor.shape, wide[0] if wide else min(1, ids.dim() - 1)
    if first is None:
        raise tracer.fail("returns nothing that depends on its input", "return the output tensor")
    return first


def _output(model: nn.Module, meta: Tensor, tracer: Tracer) -> Any:
    """What the network gives under the tracer.

    GraphError where the network itself fails, as it does for an example of another shape.
    """
    try:
        with tracer:
            return model(meta)
    except NetweldError:
        raise
    except Exception as error:
        if isinstance(error, TypeError) and Mode.__name__ in str(error):
            raise  # see `trace`
        operation, layer = tracer.latest
        where = f" in layer {layer!r}" if layer else ""
        after = f", at or after {operation!r}{where}" if operation else ""
        said = " ".join(str(error).split()).rstrip(".!") or type(error).__name__
        raise GraphError(
            f"The network does not run on an example of shape {tuple(meta.shape)} and "
            f"{str(meta.dtype).removeprefix('torch.')}: {said}{after}; give an example that it "
            f"takes, with the batch first (to `netweld inspect` the shape of one, with --input)."
        ) from error


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Give every module back the attributes, modes and buffers it had, and torch its RNG state."""
    before = [
        (module, dict(module.__dict__), dict(module._parameters), dict(module._buffers))
        for module in model.modules()
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, attributes, parameters, buffers in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)


def _tag(model: nn.Module) -> None:
    """Let the integer attributes of the network's own modules be recognised where they are used."""
    for layer, module in model.named_modules():
        if not type(module).__module__.startswith("torch.nn."):
            for name, value in module.__dict__.items():
                if type(value) is int and not name.startswith("_"):
                    module.__dict__[name] = Tag.of(value, layer, name)


@contextmanager
def _paths(model: nn.Module, path: list[tuple[str, dict[str, int]]]) -> Iterator[None]:
    """Keep `path` at the modules being executed."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            enter = module.register_forward_pre_hook(
                lambda _module, _args, name=name: path.append((name, {})), prepend=True
            )
            leave = module.register_forward_hook(
                lambda _module, _args, _out: void(path.pop()), always_call=True
            )
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        yield


def void(_: object) -> None:
    """A forward hook must return None to leave the output as it is."""


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclass-like outputs."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_in(item)
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from tensors_in(item)


def trace(model: nn.Module, example: Tensor, guide: Guide | None = None) -> ChannelGraph:
    """The channel graph of `model` for inputs shaped like `example` (batch first).

    The model's numbers are never used and nothing in it changes: mode, buffers, gradients and the
    random state stay as they are. `guide` is for networks that were resized. GraphError names
    layer, operation and remedy where the channels cannot be followed.
    """
    try:
        return _traced(model, example, guide, watching=True)
    except TypeError as error:
        # Some functions written in C take nothing but a plain bool for the mode.
        if Mode.__name__ not in str(error):
            raise
    if guide is not None:
        guide.gathers.clear()
    return _traced(model, example, guide, watching=False)


def _traced(
    model: nn.Module, example: Tensor, guide: Guide | None, *, watching: bool
) -> ChannelGraph:
    """One trace; unless it is `watching` whether the mode is looked at, it follows both modes."""
    meta = torch.empty(example.shape, dtype=example.dtype, device="meta")
    device = torch.device("cpu") if example.is_meta else example.device
    tracer = Tracer(model, device, guide)
    training = model.training
    first: tuple[torch.Size, int] | None = None
    with _undisturbed(model):
        _tag(model)
        for mode in (training, not training):
            watched = Mode(mode)
            for module in model.modules():
                kind = type(module).__module__.removeprefix("torch.nn.modules.")
                plain = kind in _ALIKE or not watching
                module.__dict__["training"] = mode if plain else watched
            tracer.training = mode
            tracer.values.clear()
            tracer._meta.clear()
            with _paths(model, tracer.path):
                if example.is_floating_point():
                    tracer.record(meta, torch.tensor(INPUT))
                else:
                    tracer.record(meta, torch.tensor(PLAIN))
                output = _output(model, meta, tracer)
            found = _finish(tracer, output)
            first = first or found
            if watching and not watched.asked:
                tracer.in_any_mode()
                break
    assert first is not None
    return assemble(tracer, meta, first)
