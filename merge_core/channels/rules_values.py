"""Rules for operations without parameters: arithmetic, moving data, pooling, reductions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from merge_core.channels.call import Call, Tag, Value, pin_varying
from merge_core.channels.identities import INPUT, PLAIN, collapse
from merge_core.channels.sites import SHAPES, gathered


def passing(call: Call) -> Any:
    """Questions about a tensor that do not depend on its numbers."""
    return call.run()


def device(call: Call) -> torch.device:
    """Constants made beside a value keep their numbers: they live on the real device."""
    return call.tracer.device


def refused(call: Call) -> Any:
    """Numbers turned into Python values decide the network's course."""
    raise call.fail(
        f"looks at the numbers of its data ({call.name!r})",
        "make the forward pass independent of the data",
    )


def alike(call: Call) -> Tensor:
    """`zeros_like` and its kin make a constant with numbers, not a value to follow."""
    meta = call.run()
    fill = {"ones_like": 1, "new_ones": 1}.get(call.name, 0)
    if "full" in call.name:
        fill = call.args[2] if len(call.args) > 2 else call.kwargs["fill_value"]
    return torch.full(meta.shape, fill, dtype=meta.dtype, device=call.tracer.device)


def same_shape(call: Call) -> Tensor:
    """Dropout: in evaluation nothing, in training a mask; the identities stay."""
    source = call.args[0] if call.args else call.kwargs["input"]
    value = call.value(source)
    assert value is not None
    return call.answer(torch.empty_like(value.tensor), call.tracer.ids(value))


def elementwise(call: Call) -> Tensor:
    """Arithmetic ties its operands, element by element."""
    tensors = call.tensors()
    traced = [tensor for tensor in tensors if call.value(tensor) is not None]
    ids = call.ids(traced[0])
    for tensor in traced[1:]:
        ids = call.identities.tie(ids, call.ids(tensor))
    for tensor in tensors:
        if call.value(tensor) is None:
            ids = call.identities.tie(ids, pin_varying(call, tensor, ids))
    name = call.name.strip("_")
    linear = name in LINEAR or (name in PRODUCTS and len(traced) == 1)
    if not linear:
        call.bend(ids)
    if len(tensors) == 1 and name in ACTIVATIONS and call.name == name:
        in_place = call.kwargs.get("inplace") or (True in call.args[1:])
        if not in_place:
            return call.answer(torch.empty_like(_known(call, tensors[0])), ids)
    return call.answer(call.run(), ids)


def _known(call: Call, tensor: Tensor) -> Tensor:
    value = call.value(tensor)
    assert value is not None
    return value.tensor


ACTIVATIONS = {
    "relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "relu6",
    "hardtanh", "elu", "mish", "softplus",
}  # fmt: skip
LINEAR = {"add", "radd", "iadd", "sub", "rsub", "isub", "neg", "clone", "contiguous", "to", "float"}
PRODUCTS = {"mul", "rmul", "imul", "div", "true_divide", "itruediv", "truediv", "idiv"}


def move(call: Call) -> Any:
    """Moving data moves identities: the same function is applied to them."""
    return call.answer(
        call.run(), call.func(*_as_ids(call, call.args), **_as_ids(call, call.kwargs))
    )


def reshape(call: Call) -> Tensor:
    """Views keep the order of elements, whatever the strides."""
    result = call.run()
    ids = call.ids(call.args[0]).reshape(result.shape)
    _mark_shape(call, ids)
    return call.answer(result, ids)


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
    return ids.movedim(dim, 0).flatten(1)[:, 0] if ids.dim() > 1 else ids


def _as_ids(call: Call, argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument if call.value(argument) is None else call.ids(argument)
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
    key = (layer, call.tracer.training, "chunk", counts["chunk"] - 1)
    if guide is None or key not in guide.chunks:
        return None
    dim = _chunked_dim(call, ids)
    labels = call.tracer.labels(line_of(collapse(ids), dim))
    indices = [torch.isin(labels, spaces).nonzero().flatten() for spaces in guide.chunks[key]]
    plain = torch.arange(len(labels)).chunk(len(indices))
    if len(plain) == len(indices) and all(map(torch.equal, plain, indices)):
        return None
    if not torch.equal(torch.sort(torch.cat(indices)).values, torch.arange(len(labels))):
        return None
    guide.gathers[key] = indices
    value = call.value(call.args[0])
    assert value is not None
    return call.answer(
        gathered(value.tensor, dim, indices), [ids.index_select(dim, index) for index in indices]
    )


def gather(call: Call) -> Any:
    """The pieces of a chunk by index: see `sites.gathered`."""
    value, dim, indices = call.args
    ids = call.ids(value)
    before = torch.unique(collapse(ids))
    pieces = [ids.index_select(dim, index) for index in indices]
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
    return call.answer(call.run(), call.func(parts, dim))


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
        ids = torch.cat([wide[0], ids, wide[1]], dim)
    return call.answer(result, ids)


def pool(positions: int, linear: bool) -> Callable[[Call], Tensor]:
    """Pooling or resampling over the last `positions` axes."""

    def rule(call: Call) -> Tensor:
        source = call.args[0] if call.args else call.kwargs["input"]
        ids = call.ids(source)
        dims = tuple(range(ids.dim() - positions, ids.dim()))
        ids = call.identities.unite(ids, dims)
        if not linear:
            call.bend(ids)
        return call.answer(call.run(), ids)

    return rule


def resample(call: Call) -> Tensor:
    """Interpolation over every axis after the channels."""
    source = call.args[0] if call.args else call.kwargs["input"]
    return pool(call.ids(source).dim() - 2, linear=True)(call)


def reduction(call: Call) -> Any:
    """A sum, mean or maximum over some axes."""
    given = call.bind("input", "dim", "keepdim")
    if isinstance(given["dim"], Tensor) or "other" in given:
        return elementwise(call)  # torch.max(a, b)
    source = call.args[0] if call.args else call.kwargs["input"]
    ids = call.ids(source)
    dims = given["dim"] if given["dim"] is not None else given.get("axis")
    if dims is None or dims == ():
        dims = tuple(range(ids.dim()))
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    dims = tuple(dim % ids.dim() for dim in dims)
    reduced = call.identities.reduce(ids, dims)
    if call.name not in ("mean", "sum"):
        call.bend(ids)
    full = reduced.expand([1 if d in dims else n for d, n in enumerate(ids.shape)])
    result = call.run()
    first = result if isinstance(result, Tensor) else result[0]
    if first.dim() < ids.dim():
        full = full.squeeze(dims)
    return call.answer(result, full)


def normalised(call: Call) -> Tensor:
    """Softmax and its kin: elementwise, but everything along `dim` belongs together."""
    given = call.bind("input", "dim")
    source = call.args[0] if call.args else call.kwargs["input"]
    ids = call.ids(source)
    dim = given["dim"]
    if dim is None:
        dim = {"normalize": 1}.get(call.name, -1)
    call.identities.reduce(ids, (dim % ids.dim(),))
    call.bend(ids)
    return call.answer(call.run(), ids)


def _table(rule: Callable[[Call], Any], names: str) -> dict[str, Callable[[Call], Any]]:
    return dict.fromkeys(names.split(), rule)


VALUE_RULES: dict[str, Callable[[Call], Any]] = {
    **_table(
        passing,
        "size dim numel stride ndimension nelement element_size is_floating_point is_complex "
        "is_contiguous __len__ _assert is_same_size storage_offset requires_grad_ data_ptr",
    ),
    **{
        f"get {n}": passing
        ** dict.fromkeys(
            (
                "get shape",
                "get dtype",
                "get ndim",
                "get is_nested",
                "get requires_grad",
                "get layout",
                "get is_cuda",
                "get is_sparse",
                "get is_quantized",
                "get is_mkldnn",
                "get is_meta",
                "get grad",
                "get grad_fn",
                "get itemsize",
            ),
            passing,
        ),  # fmt: skip
    },
    "get device": device,
    **_table(
        refused,
        "item tolist __bool__ __int__ __float__ __index__ __contains__ numpy __array__ nonzero "
        "argwhere unique equal allclose masked_select __iter__",
    ),
    **_table(
        alike,
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones "
        "new_full new_empty new_tensor",
    ),
    **_table(
        same_shape,
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout "
        "feature_alpha_dropout bernoulli",
    ),
    **_table(
        elementwise,
        "relu relu6 hardtanh gelu silu mish sigmoid tanh hardswish hardsigmoid leaky_relu elu selu "
        "celu softplus softsign softshrink hardshrink tanhshrink threshold logsigmoid rrelu abs "
        "absolute neg exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square pow clamp clip "
        "clamp_min clamp_max reciprocal sin cos tan sinh cosh asin acos atan atan2 erf sign round "
        "floor ceil trunc sinc logit nan_to_num add sub mul div true_divide floor_divide multiply "
        "divide subtract rsub remainder fmod minimum maximum where masked_fill lerp addcmul "
        "addcdiv eq ne lt le gt ge logical_and logical_or logical_not isnan isinf isfinite "
        "bitwise_and bitwise_or bitwise_not softmin_ float double half bfloat16 to type clone "
        "contiguous detach __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ "
        "__imul__ __truediv__ __rtruediv__ __itruediv__ __pow__ __rpow__ __neg__ __rdiv__ __div__ "
        "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __invert__ sigmoid_ zero_ fill_ "
        "hardsigmoid_ tensor",
    ),
    **_table(
        move,
        "squeeze unsqueeze movedim moveaxis expand_as repeat repeat_interleave tile roll "
        "flip channel_shuffle pixel_shuffle pixel_unshuffle stack hstack vstack unfold tril triu",
    ),
    **_table(reshape, "view reshape flatten unflatten view_as reshape_as ravel"),
    "expand": expand,
    **_table(turn, "t transpose permute swapaxes swapdims adjoint"),
    **{f"get {n}": turn for n in ("T", "mT")},
    "get data": elementwise,
    **_table(
        take,
        "chunk split tensor_split unbind narrow select __getitem__ index_select split_with_sizes "
        "unsafe_chunk unsafe_split hsplit",
    ),
    "gathered": gather,
    **_table(join, "cat concat concatenate"),
    "pad": pad,
    **{f"max_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"lp_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pool(n, linear=True) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": pool(n, linear=True) for n in (1, 2, 3)},
    **_table(resample, "interpolate upsample"),
    **_table(
        reduction,
        "mean sum amax amin max min prod std var norm vector_norm logsumexp any all argmax argmin "
        "median std_mean var_mean",
    ),
    **_table(normalised, "softmax log_softmax softmin normalize"),
}
