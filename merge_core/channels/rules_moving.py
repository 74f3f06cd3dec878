"""Rules for moving data: views, transposes, slices, concatenation, padding."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from merge_core.channels.call import Call, Tag, Value, table
from merge_core.channels.identities import INPUT, PLAIN, collapse
from merge_core.channels.sites import SHAPES, gathered


def move(call: Call) -> Any:
    """Moving data moves identities: the same function is applied to them."""
    return call.answer(
        call.run(), call.func(*_as_ids(call, call.args), **_as_ids(call, call.kwargs))
    )


def reshape(call: Call) -> Tensor:
    """Views keep the order of elements, whatever the strides."""
    result = call.run()
    ids = _reshaped(call.ids(call.args[0]), result.shape)
    _mark_shape(call, ids)
    return call.answer(result, ids)


def _reshaped(ids: Tensor, shape: torch.Size) -> Tensor:
    """Identities in another shape; outer axes that stay, and have no channels, cost no memory."""
    old, new = list(ids.shape), list(shape)
    shared = min(len(old), len(new))
    first = next((at for at in range(shared) if old[at] != new[at]), shared)
    last = next((at for at in range(shared - first) if old[-1 - at] != new[-1 - at]), 0)
    for at in (*range(first), *range(-last, 0)):
        if ids.shape[at] > 1 and ids.stride(at) == 0:
            ids = ids.narrow(at, 0, 1)
            new[at] = 1
    return ids.reshape(new).expand(shape)


def expand(call: Call) -> Tensor:
    """Repetition without copying."""
    result = call.run()
    ids = call.ids(call.args[0]).expand(result.shape)
    _mark_shape(call, ids)
    return call.answer(result, ids)


def _mark_shape(call: Call, ids: Tensor) -> None:
    """Note which of the sizes given count channels."""
    if call.name not in SHAPES:
        return
    thin = collapse(ids)
    given = list(call.args[1:]) or list(call.kwargs.values())
    start = 0
    if call.name == "unflatten":
        start = given[0] % call.ids(call.args[0]).dim()
        given = given[1:]
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = list(given[0])
    mark = call.site()
    mark.shape = thin
    for dim in range(thin.dim()):
        tagged = 0 <= dim - start < len(given) and isinstance(given[dim - start], Tag)
        if tagged and thin.shape[dim] > 1:
            mark.tags[dim] = given[dim - start]


def line_of(ids: Tensor, dim: int) -> Tensor:
    """The identities along one dimension, at the first place of all others."""
    line = ids.movedim(dim, 0)
    return line[(slice(None), *(0,) * (ids.dim() - 1))]


def _as_ids(call: Call, argument: Any) -> Any:
    if isinstance(argument, Tensor):
        if call.value(argument) is not None:
            return call.ids(argument)
        if argument.is_floating_point() and call.name != "expand_as":
            return torch.tensor(PLAIN if _uniform(argument) else INPUT).expand(argument.shape)
        return argument  # indices, repetitions, a shape
    if type(argument) in (list, tuple):
        return type(argument)(_as_ids(call, item) for item in argument)
    if type(argument) is dict:
        return {key: _as_ids(call, item) for key, item in argument.items()}
    return argument


def turn(call: Call) -> Tensor:
    """Transposing a weight that nothing has looked into keeps it a weight."""
    value = call.value(call.args[0])
    if value is None or value.weight is None or value.ids is not None:
        return move(call)
    result = call.run()
    name, order = value.weight
    marks = torch.empty([2 + axis for axis in range(len(order))], device="meta")
    turned = call.func(marks, *call.args[1:], **call.kwargs)
    new_order = tuple(order[length - 2] for length in turned.shape)
    call.tracer.values[id(result)] = Value(result, None, (name, new_order))
    return result


def take(call: Call) -> Any:
    """Slices: channels that are taken apart from the others become spaces of their own."""
    source = call.args[0] if call.args else call.kwargs["input"]
    before = torch.unique(collapse(call.ids(source)))
    result = _guided_chunk(call, call.ids(source)) if call.name == "chunk" else None
    result = move(call) if result is None else result
    _mark_taken(call, call.ids(source), result)
    for item in result if isinstance(result, (tuple, list)) else (result,):
        taken = torch.unique(collapse(call.ids(item)))
        if not torch.equal(taken, before):
            call.tracer.events.append(taken)
    return result


def _chunked_dim(call: Call, ids: Tensor) -> int:
    names = ("input", "dim") if call.name == "gathered" else ("input", "chunks", "dim")
    return (call.bind(*names)["dim"] or 0) % ids.dim()


def _guided_chunk(call: Call, ids: Tensor) -> Any:
    """In a resized network: the pieces that hold the right spaces, where a chunk would not.

    Halves of an odd number of channels are no longer halves when every channel comes twice.
    """
    guide = call.tracer.guide
    layer, counts = call.tracer.path[-1]
    if guide is None:
        return None
    number = counts["chunk"] - 1
    key = (layer, call.tracer.training, "chunk", number)
    pieces = guide.chunks.get(key, guide.chunks.get((layer, None, "chunk", number)))
    if pieces is None:
        return None
    dim = _chunked_dim(call, ids)
    labels = call.tracer.labels(line_of(collapse(ids), dim))
    indices = [torch.isin(labels, spaces).nonzero().flatten() for spaces in pieces]
    plain = torch.arange(len(labels)).chunk(len(indices))
    if len(plain) == len(indices) and all(map(torch.equal, plain, indices)):
        return None
    if not torch.equal(torch.sort(torch.cat(indices)).values, torch.arange(len(labels))):
        return None
    guide.gathers[key] = indices
    value = call.value(call.args[0])
    assert value is not None
    return call.answer(
        gathered(value.tensor, dim, indices), [_picked(ids, dim, index) for index in indices]
    )


def _picked(ids: Tensor, dim: int, index: Tensor) -> Tensor:
    """Identities at the given places of a dimension with channels."""
    sides = list(ids.shape)
    sides[dim] = len(index)
    return collapse(ids).index_select(dim, index).expand(sides)


def gather(call: Call) -> Any:
    """The pieces of a chunk by index: see `sites.gathered`."""
    value, dim, indices = call.args
    ids = call.ids(value)
    before = torch.unique(collapse(ids))
    pieces = [_picked(ids, dim, index) for index in indices]
    result = call.answer(call.run(), pieces)
    _mark_taken(call, ids, result)
    for piece in pieces:
        taken = torch.unique(collapse(piece))
        if not torch.equal(taken, before):
            call.tracer.events.append(taken)
    return result


def _mark_taken(call: Call, ids: Tensor, result: Any) -> None:
    """Note the widths in a split, a narrow or a slice of channels."""
    thin = collapse(ids)
    if call.name in ("split", "split_with_sizes"):
        given = call.bind("tensor", "size", "dim")
        dim = (given["dim"] or 0) % thin.dim()
        if thin.shape[dim] > 1:
            mark = call.site()
            for number, item in enumerate(result):
                mark.lines[number] = line_of(call.ids(item), dim)
            if isinstance(given["size"], Tag):
                mark.tags[0] = given["size"]
    elif call.name in ("chunk", "gathered"):
        dim = _chunked_dim(call, thin)
        if thin.shape[dim] > 1:
            lines = {at: line_of(call.ids(item), dim) for at, item in enumerate(result)}
            call.site().lines.update(lines)
    elif call.name == "narrow":
        given = call.bind("input", "dim", "start", "length")
        dim = given["dim"] % thin.dim()
        if thin.shape[dim] > 1:
            line, start = line_of(thin, dim), given["start"]
            call.site().lines.update({0: line[:start], 1: line[start : start + given["length"]]})
    elif call.name == "__getitem__":
        index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        dim = 0
        for at, part in enumerate(index):
            if part is Ellipsis:
                dim = thin.dim() - sum(other is not None for other in index[at + 1 :])
            elif isinstance(part, slice):
                if thin.shape[dim] > 1 and part != slice(None) and part.step in (None, 1):
                    start, stop, _ = part.indices(thin.shape[dim])
                    line = line_of(thin, dim)
                    call.site(dim=at).lines.update({0: line[:start], 1: line[start:stop]})
                    return
                dim += 1
            elif part is not None:
                dim += 1


def join(call: Call) -> Tensor:
    """Concatenation of values and constants."""
    given = call.bind("tensors", "dim")
    known = [call.ids(tensor) for tensor in given["tensors"] if call.value(tensor) is not None]
    dim = (given["dim"] or 0) % known[0].dim()
    wide = any(collapse(ids).shape[dim] > 1 for ids in known)
    parts, blanks = [], {}
    for number, tensor in enumerate(given["tensors"]):
        if call.value(tensor) is not None:
            parts.append(call.ids(tensor))
        elif wide and _uniform(tensor):
            blanks[number] = blank(call, tensor.shape[dim])
            shape = [-1 if other == dim else 1 for other in range(tensor.dim())]
            parts.append(blanks[number].view(shape).expand(tensor.shape))
        else:
            pinned = wide and not _uniform(tensor)
            parts.append(torch.tensor(INPUT if pinned else PLAIN).expand(tensor.shape))
    if blanks:
        call.site().lines.update(blanks)
    return call.answer(call.run(), _side_by_side(parts, dim))


def _side_by_side(parts: list[Tensor], dim: int) -> Tensor:
    """Identities one after another along `dim`; axes on which all are constant cost no memory."""
    thin = [collapse(ids) for ids in parts]
    shape = list(torch.broadcast_shapes(*(_without(ids.shape, dim) for ids in thin)))
    whole = list(parts[0].shape)
    lengths = [ids.shape[dim] for ids in parts]
    whole[dim] = sum(lengths)
    filled = [
        ids.expand(*(length if at == dim else side for at, side in enumerate(shape)))
        for ids, length in zip(thin, lengths, strict=True)
    ]
    return torch.cat(filled, dim).expand(whole)


def _without(shape: torch.Size, dim: int) -> torch.Size:
    """The shape with length one along `dim`."""
    return torch.Size((*shape[:dim], 1, *shape[dim + 1 :]))


def _uniform(constant: Tensor) -> bool:
    return constant.numel() == 0 or bool((constant == constant.flatten()[0]).all())


def blank(call: Call, number: int) -> Tensor:
    """Constant channels: they become whatever channels they are added to."""
    return call.identities.new(number, loose=True)


def pad(call: Call) -> Tensor:
    """Padding of positions keeps the channels; padding of channels adds plain ones."""
    given = call.bind("input", "pad", "mode", "value")
    ids = call.ids(given["input"])
    result = call.run()
    for number in range(len(given["pad"]) // 2):
        low, high = given["pad"][2 * number : 2 * number + 2]
        dim = ids.dim() - 1 - number
        before, after = ids.shape[:dim], ids.shape[dim + 1 :]
        if (low, high) == (0, 0):
            continue
        if collapse(ids).shape[dim] == 1:
            ids = ids.narrow(dim, 0, 1).expand(*before, result.shape[dim], *after)
            continue
        if given["mode"] not in (None, "constant") or low < 0 or high < 0:
            raise call.fail("pads or crops channels other than with a constant", "use torch.cat")
        ends = [blank(call, low), blank(call, high)]
        mark = call.site(dim=-1 - number)
        mark.lines.update(enumerate(ends))
        shape = [-1 if other == dim else 1 for other in range(ids.dim())]
        wide = [end.view(shape).expand(*before, len(end), *after) for end in ends]
        ids = _side_by_side([wide[0], ids, wide[1]], dim)
    return call.answer(result, ids)


MOVING_RULES: dict[str, Callable[[Call], Any]] = {
    **table(
        move,
        "squeeze unsqueeze movedim moveaxis expand_as repeat repeat_interleave tile roll "
        "flip channel_shuffle pixel_shuffle pixel_unshuffle stack hstack vstack unfold tril triu",
    ),
    **table(reshape, "view reshape flatten unflatten view_as reshape_as ravel"),
    "expand": expand,
    **table(turn, "t transpose permute swapaxes swapdims adjoint"),
    **{f"get {n}": turn for n in ("T", "mT")},
    **table(
        take,
        "chunk split tensor_split unbind narrow select __getitem__ index_select split_with_sizes "
        "unsafe_chunk unsafe_split hsplit",
    ),
    "gathered": gather,
    **table(join, "cat concat concatenate"),
    "pad": pad,
}
