"""Rules for the layers that hold parameters: convolutions, linear layers, embeddings, norms."""

from typing import Any

import torch
from torch import Tensor

from merge_core.channels.call import Call
from merge_core.channels.identities import INPUT, PLAIN


def convolution(call: Call) -> Tensor:
    """New channels from a weight; a grouped convolution ties each group in to its group out."""
    transposed = "transpose" in call.name
    names = ["input", "weight", "bias", "stride", "padding"]
    names += ["output_padding", "groups", "dilation"] if transposed else ["dilation", "groups"]
    given = call.bind(*names)
    groups = given["groups"] or 1
    weight, order = weight_of(call, given["weight"])
    axis_out, axis_in = (order[1], order[0]) if transposed else (order[0], order[1])
    positions = len(order) - 2
    line = call.line(call.ids(given["input"]), -1 - positions)
    if groups == 1:
        out = read_and_write(call, line, weight, axis_in, axis_out)
    elif transposed:
        raise call.fail(
            "is a transposed convolution in groups", "use one group, or an ordinary convolution"
        )
    else:
        out = _grouped(call, line, weight, groups)
    tie_bias(call, given["bias"], out)
    return call.answer(call.run(), out.view(-1, *[1] * positions))


def linear(call: Call) -> Tensor:
    """New channels on the last axis."""
    given = call.bind("input", "weight", "bias")
    weight, order = weight_of(call, given["weight"])
    line = call.line(call.ids(given["input"]), -1)
    out = read_and_write(call, line, weight, order[1], order[0])
    tie_bias(call, given["bias"], out)
    return call.answer(call.run(), out)


def read_and_write(
    call: Call, line: Tensor, weight: str, axis_in: int, axis_out: int, kind: str | None = None
) -> Tensor:
    """The weight's input axis is the channels in `line`; its output axis is new channels."""
    tracer = call.tracer
    atoms = tracer.axis_atoms(weight, axis_in)
    tracer.identities.same(atoms, torch.where(line == PLAIN, INPUT, line))
    layer = owner(weight)
    tracer.uses.append(("read", layer, weight, axis_in, kind or call.name))
    tracer.uses.append(("write", layer, weight, axis_out, kind or call.name))
    tracer.bends.append((line, layer, call.name))
    return tracer.identities.settle(tracer.axis_atoms(weight, axis_out))


def _grouped(call: Call, line: Tensor, weight: str, groups: int) -> Tensor:
    tracer = call.tracer
    out = tracer.identities.settle(tracer.axis_atoms(weight, 0))
    blocks_in, blocks_out = line.view(groups, -1), out.view(groups, -1)
    blocks_in = torch.where(blocks_in == PLAIN, INPUT, blocks_in)
    if blocks_in.shape[1] == blocks_out.shape[1] == 1:
        tracer.identities.same(blocks_in, blocks_out)
    else:
        tracer.identities.block(blocks_in, blocks_in[:, :1])
        tracer.identities.block(blocks_out, blocks_in[:, :1])
    tracer.uses.append(("through", owner(weight), weight, 0, call.name))
    call.site().lines[0] = blocks_in[:, 0]
    call.bend(line)
    return out


def tie_bias(call: Call, bias: Tensor | None, out: Tensor) -> None:
    """A bias lies along the output axis of its weight."""
    if bias is None:
        return
    value = call.value(bias)
    if value is None or value.weight is None:
        call.identities.same(call.ids(bias), out)  # computed from parameters
        return
    name = value.weight[0]
    call.identities.same(call.tracer.axis_atoms(name, 0), out)
    call.tracer.uses.append(("write", owner(name), name, 0, "bias"))


def weight_of(call: Call, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    value = call.value(tensor)
    if value is None or value.weight is None:
        raise call.fail(
            f"computes the weight of {call.name!r} from other tensors",
            "use a plain parameter (remove weight normalisation or parametrisations first)",
        )
    return value.weight


def owner(name: str) -> str:
    """The layer that holds a parameter; a parameter of the network itself stands for itself."""
    return name.rpartition(".")[0] or name


def batch_norm(call: Call) -> Tensor:
    """Per-channel parameters and statistics on dimension 1; nothing mixes channels."""
    given = call.bind("input", "running_mean", "running_var", "weight", "bias")
    ids = call.ids(given["input"])
    line = call.line(ids, 1)
    along(call, [given[key] for key in ("running_mean", "running_var", "weight", "bias")], line)
    call.bend(line)
    result = call.meta_args[0] if call.meta_args else call.meta_kwargs["input"]
    return call.answer(result.detach(), line.view(-1, *[1] * (ids.dim() - 2)))


def layer_norm(call: Call) -> Tensor:
    """A norm over channels: once concatenated, each teacher's part is normalised by itself."""
    given = call.bind("input", "normalized_shape", "weight", "bias")
    ids = call.ids(given["input"])
    dim = ids.dim() - len(given["normalized_shape"])
    return _norm_over(call, given, ids, dim, None)


def group_norm(call: Call) -> Tensor:
    """Groups of channels are units; one group is a norm over all channels and positions."""
    given = call.bind("input", "num_groups", "weight", "bias")
    ids = call.ids(given["input"])
    if given["num_groups"] == 1:
        return _norm_over(call, given, ids, 1, None)
    line = call.line(ids, 1)
    blocks = line.view(given["num_groups"], -1)
    call.identities.block(blocks, blocks[:, :1])
    along(call, [given["weight"], given["bias"]], line)
    call.bend(line)
    return call.answer(call.run(), line.view(-1, *[1] * (ids.dim() - 2)))


def parted_norm(call: Call) -> Tensor:
    """The norm of a big student: see `sites.parted_norm`."""
    given = call.bind("input", "weight", "bias", "plan")
    ids = call.ids(given["input"])
    return _norm_over(call, given, ids, given["plan"].dim % ids.dim(), given["plan"].parts)


def _norm_over(
    call: Call, given: dict[str, Any], ids: Tensor, dim: int, parts: Tensor | None
) -> Tensor:
    line = call.line(ids, dim)
    shape = [-1 if other == dim else 1 for other in range(ids.dim())]
    for key in ("weight", "bias"):
        tensor = given[key]
        if tensor is not None and call.shape(tensor).numel() > 1:
            if tensor.dim() > 1:
                call.identities.tie(line.view(shape), call.ids(tensor))
            else:
                along(call, [tensor], line)
    site = call.site(parts=parts, dim=dim - ids.dim())
    site.lines[dim] = line
    call.bend(line)
    return call.answer(call.run(), line.view(shape))


def along(call: Call, tensors: list[Tensor | None], line: Tensor) -> None:
    """Parameter vectors that lie along channels which they neither read nor write."""
    names = [weight_of(call, tensor)[0] for tensor in tensors if tensor is not None]
    if not names:
        return
    atoms = torch.stack([call.tracer.axis_atoms(name, 0) for name in names])
    call.identities.same(atoms, torch.where(line == PLAIN, INPUT, line))
    call.tracer.uses += [("through", owner(name), name, 0, call.name) for name in names]


def embedding(call: Call) -> Tensor:
    """Rows of a table: new channels on its second axis."""
    given = call.bind("input", "weight")
    weight, order = weight_of(call, given["weight"])
    out = call.identities.settle(call.tracer.axis_atoms(weight, order[1]))
    call.tracer.uses.append(("write", owner(weight), weight, order[1], call.name))
    return call.answer(call.run(), out)


def prelu(call: Call) -> Tensor:
    """One slope per channel, or one for all."""
    given = call.bind("input", "weight")
    ids = call.ids(given["input"])
    if call.shape(given["weight"]).numel() > 1:
        along(call, [given["weight"]], call.line(ids, 1 if ids.dim() > 1 else 0))
    call.bend(ids)
    return call.answer(call.run(), ids)


LAYER_RULES = {
    **{f"conv{n}d": convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": convolution for n in (1, 2, 3)},
    "linear": linear,
    "embedding": embedding,
    "batch_norm": batch_norm,
    "instance_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": group_norm,
    "parted_norm": parted_norm,
    "prelu": prelu,
}
