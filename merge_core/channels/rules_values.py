"""Rules for arithmetic, pooling and reductions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from merge_core.channels.call import Call, pin_varying, table


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
    return call.answer(value.tensor.detach(), call.tracer.ids(value))


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
    if len(tensors) == 1 and name in ACTIVATIONS:
        # Shape and type stay. On meta tensors torch would run some of these in Python, slowly.
        known = _known(call, tensors[0])
        in_place = call.name != name or call.kwargs.get("inplace") or True in call.args[1:]
        return call.answer(known if in_place else known.detach(), ids)
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
    order = ("p", "dim") if call.name in ("norm", "vector_norm") else ("dim", "keepdim")
    given = call.bind("input", *order)
    if isinstance(given["dim"], Tensor) or "other" in given:
        return elementwise(call)  # torch.max(a, b)
    source = call.args[0] if call.args else call.kwargs["input"]
    ids = call.ids(source)
    dims = given["dim"] if given["dim"] is not None else given.get("axis")
    if dims is None or dims == () or isinstance(dims, bool):
        dims = tuple(range(ids.dim()))
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    dims = tuple(dim % ids.dim() for dim in dims)
    reduced = call.reduce(ids, dims)
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
    order = ("p", "dim") if call.name == "normalize" else ("dim",)
    source = call.args[0] if call.args else call.kwargs["input"]
    ids = call.ids(source)
    dim = call.bind("input", *order)["dim"]
    if dim is None:
        dim = {"normalize": 1}.get(call.name, -1)
    call.reduce(ids, (dim % ids.dim(),))
    call.bend(ids)
    return call.answer(call.run(), ids)


def glu(call: Call) -> Tensor:
    """One half of the channels gates the other."""
    given = call.bind("input", "dim")
    ids = call.ids(given["input"])
    left, right = ids.chunk(2, -1 if given["dim"] is None else given["dim"])
    tied = call.identities.tie(left, right)
    call.bend(tied)
    return call.answer(call.run(), tied)


def convert(call: Call) -> Tensor:
    """Another type, device or view of the same numbers."""
    value = call.value(call.args[0])
    if value is None:
        return call.run()
    dtypes = {"float": torch.float32, "double": torch.float64, "half": torch.float16}
    dtype = dtypes.get(call.name, torch.bfloat16 if call.name == "bfloat16" else None)
    for argument in (*call.args[1:], *call.kwargs.values()):
        if isinstance(argument, torch.dtype):
            dtype = argument
        elif isinstance(argument, Tensor):
            dtype = argument.dtype
    return call.answer(torch.empty_like(value.tensor, dtype=dtype), call.ids(call.args[0]))


VALUE_RULES: dict[str, Callable[[Call], Any]] = {
    **table(
        passing,
        "size dim numel stride ndimension nelement element_size is_floating_point is_complex "
        "is_contiguous __len__ _assert is_same_size storage_offset requires_grad_ data_ptr",
    ),
    **table(
        passing,
        "shape dtype ndim is_nested requires_grad layout is_cuda is_sparse is_quantized is_mkldnn "
        "is_meta grad grad_fn itemsize",
        prefix="get ",
    ),
    "get device": device,
    **table(
        refused,
        "item tolist __bool__ __int__ __float__ __index__ __contains__ numpy __array__ nonzero "
        "argwhere unique equal allclose masked_select __iter__",
    ),
    **table(
        alike,
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones "
        "new_full new_empty new_tensor",
    ),
    **table(
        same_shape,
        "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout "
        "feature_alpha_dropout bernoulli",
    ),
    **table(
        elementwise,
        "relu relu6 hardtanh gelu silu mish sigmoid tanh hardswish hardsigmoid leaky_relu elu selu "
        "celu softplus softsign softshrink hardshrink tanhshrink threshold logsigmoid rrelu abs "
        "absolute neg exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square pow clamp clip "
        "clamp_min clamp_max reciprocal sin cos tan sinh cosh asin acos atan atan2 erf sign round "
        "floor ceil trunc sinc logit nan_to_num add sub mul div true_divide floor_divide multiply "
        "divide subtract rsub remainder fmod minimum maximum where masked_fill lerp addcmul "
        "addcdiv eq ne lt le gt ge logical_and logical_or logical_not isnan isinf isfinite "
        "bitwise_and bitwise_or bitwise_not clone "
        "contiguous __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ "
        "__imul__ __truediv__ __rtruediv__ __itruediv__ __pow__ __rpow__ __neg__ __rdiv__ __div__ "
        "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __invert__ zero fill",
    ),
    **{f"max_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"lp_pool{n}d": pool(n, linear=False) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pool(n, linear=True) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": pool(n, linear=True) for n in (1, 2, 3)},
    **table(resample, "interpolate upsample"),
    **table(convert, "to type type_as float double half bfloat16 cpu cuda detach"),
    "get data": convert,
    "glu": glu,
    **table(
        reduction,
        "mean sum amax amin max min prod std var norm vector_norm logsumexp any all argmax argmin "
        "median std_mean var_mean",
    ),
    **table(normalised, "softmax log_softmax softmin normalize"),
}
