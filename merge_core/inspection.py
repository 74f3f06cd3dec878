"""Describe a network by its channel graph; as a program, one that a person names.

    python -P -m merge_core.inspection MODEL SHAPE BATCH FILE

writes the description of MODEL to FILE. What a person can mend is one sentence on the standard
error and exit status 2.
"""

import copy
import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from merge_core import description
from merge_core.architectures import TORCHVISION
from merge_core.channels import ChannelGraph, check, concatenate, flops, select, trace
from merge_core.channels.rebuild import named_tensors, rebuild
from merge_core.description import Cost, Description
from merge_core.errors import GraphError, NetweldError
from merge_core.models.own import from_factory, look_in, said


def describe(
    model: nn.Module,
    graph: ChannelGraph,
    example: Tensor,
    *,
    name: str,
    laws: dict[str, float],
    trace_seconds: float,
    precision: str = "float32",
) -> Description:
    """What the channel graph says of a network, and what the network costs before and after.

    The costs of the big student and of the student are those of networks that `concatenate` and
    `select` really make.

    Args:
        model: one teacher.
        graph: its channel graph.
        example: a batch of inputs.
        name: of the architecture.
        laws: relative error of each law, as `channels.check` measured it.
        trace_seconds: how long the trace took.
        precision: in which the laws were measured.

    Raises:
        GraphError: the network cannot be concatenated or halved.
    """
    shapes = on_meta(model)
    big = concatenate([model, model], graph)
    halves = {space.name: torch.arange(space.size) for space in graph.free}
    student = select(big, trace(big, example), halves)
    work = flops(shapes, example)
    return Description(
        name=name,
        input=tuple(example.shape[1:]),
        layers=_layers(shapes, graph, example, work),
        spaces=tuple(
            description.Space(
                name=space.name,
                size=space.size,
                free=space.free,
                writers=space.writers,
                readers=space.readers,
                through=space.through,
            )
            for space in graph.spaces
        ),
        teacher=Cost(parameters=_count(shapes), flops=sum(work.values())),
        big=_cost(big, example),
        student=_cost(student, example),
        laws=dict(laws),
        precision=precision,
        trace_seconds=trace_seconds,
        torch=torch.__version__,
    )


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of a network whose floating-point tensors have shapes and no numbers."""
    return rebuild(
        model,
        {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in named_tensors(model).items()
            if tensor.is_floating_point()
        },
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _cost(model: nn.Module, example: Tensor) -> Cost:
    return Cost(parameters=_count(model), flops=sum(flops(model, example).values()))


def _layers(
    model: nn.Module, graph: ChannelGraph, example: Tensor, work: dict[str, int]
) -> tuple[description.Layer, ...]:
    """All modules that hold parameters, compute, or belong to a space, as they are executed."""
    named = dict(model.named_modules())
    wanted = {name for name, module in named.items() if module._parameters} | work.keys()
    for space in graph.spaces:
        wanted.update(space.writers, space.readers, space.through)
    order = _execution(model, example)
    seen: set[int] = set()
    layers = []
    registered = [name for name in named if name in wanted]  # decides where neither is called
    for name in sorted(registered, key=lambda name: _rank(name, order)):
        module = named[name]
        own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
        seen.update(map(id, own))
        layers.append(
            description.Layer(
                name=name,
                kind=type(module).__name__,
                shape=_shape(module),
                parameters=sum(parameter.numel() for parameter in own),
                flops=work.get(name, 0),
            )
        )
    return tuple(layers)


def _execution(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Each module that runs in a forward pass → its place in the order of first calls."""
    order: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _module, _args, name=name: void(order.setdefault(name, len(order)))
        )
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model.eval()(torch.empty_like(example, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return order


def void(_: object) -> None:
    """A forward hook must return None to leave the input as it is."""


def _rank(name: str, order: dict[str, int]) -> int:
    """The place of a layer; one that is never called itself stands with the module around it."""
    while name and name not in order:
        name = name.rpartition(".")[0]
    return order[name]


def _shape(module: nn.Module) -> tuple[int, ...]:
    """The shape of the parameter with the most dimensions, the first of them."""
    shapes = [tuple(p.shape) for p in module._parameters.values() if p is not None]
    return max(shapes, key=len, default=())


def build(model: str) -> nn.Module:
    """The network that a person named, its weights made random.

    Args:
        model: torchvision's name of a classifier, or `package.module:factory`, where the factory
            is called without arguments.

    Raises:
        GraphError: there is no such network, or the factory fails.
    """
    if ":" not in model:
        return randomised(_classifier(model))
    look_in(Path.cwd())
    return randomised(from_factory(model))


def _classifier(name: str) -> nn.Module:
    from torchvision.models import get_model

    if name not in TORCHVISION:
        raise GraphError(f"There is no torchvision classifier {name!r}; choose one that is.")
    # These two would spend a minute on initial weights.
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, **quick)


def randomised(model: nn.Module) -> nn.Module:
    """The same network with numbers in everything that starts as zeros or ones; in place.

    Fresh norms, biases and scales would hide a wrong graph: all channels have the same.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator).to(tensor)
                if name.endswith("running_var"):
                    tensor.copy_(0.5 + noise)
                elif tensor.dim() < 2 or not tensor.any():
                    tensor.add_(0.2 * (noise - 0.3))
    return model


def inspect(model: str, shape: tuple[int, ...], batch: int) -> Description:
    """Build, trace, check and describe the network that a person named, on random weights.

    Raises:
        GraphError: there is no such network, it cannot take this input, or its channels cannot be
            followed.
    """
    network = build(model)
    example = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    trace(nn.Linear(1, 1), torch.empty(1, 1))  # what torch loads at first use is nobody's time
    try:
        start = time.perf_counter()
        graph = trace(network, example)
        seconds = time.perf_counter() - start
        laws, precision = _laws(network, example)
        return describe(
            network, graph, example,
            name=model, laws=laws, trace_seconds=seconds, precision=precision,
        )  # fmt: skip
    except NetweldError:
        raise
    except Exception as error:
        given = "×".join(map(str, (batch, *shape)))
        raise GraphError(
            f"{model!r} cannot be run on an input of shape {given} ({said(error)}); "
            f"give the shape of one example with --input, as in --input 3x224x224."
        ) from error


def _laws(network: nn.Module, example: Tensor) -> tuple[dict[str, float], str]:
    """The errors of the laws, and the precision in which they were measured.

    In float64 rounding cannot hide anything; code that makes float32 tensors of its own is measured
    in float32.
    """
    try:
        double, wide = copy.deepcopy(network).double(), example.double()
        with torch.no_grad():
            double.eval()(wide)
    except RuntimeError:
        double, wide = network, example
    return vars(check(double, trace(double, wide), wide)), str(wide.dtype).removeprefix("torch.")


def main() -> int:
    """Carry out one inspection; returns the exit status."""
    model, shape, batch, file = sys.argv[1:]
    warnings.simplefilter("ignore")  # the standard error is for the sentence
    torch.manual_seed(0)
    try:
        found = inspect(model, tuple(int(size) for size in shape.split("x")), int(batch))
    except NetweldError as error:
        print(error, file=sys.stderr)
        return 2
    path = Path(file)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(found.to_dict()))
    fresh.replace(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
