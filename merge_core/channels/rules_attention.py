"""Rules for products of values: matrix products, einsum, attention. The unit is a head."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from merge_core.channels.call import Call, Value
from merge_core.channels.identities import collapse
from merge_core.channels.rules_layers import read_and_write, tie_bias, weight_of


def matmul(call: Call) -> Tensor:
    """`x @ W` is a linear layer; a product of two values sums over what they share."""
    left, right = call.args[0], call.args[1]
    value = call.value(right)
    if value is not None and value.weight is not None and len(value.weight[1]) == 2:
        name, order = value.weight
        line = call.line(call.ids(left), -1)
        out = read_and_write(call, line, name, order[0], order[1], kind="matmul")
        return call.answer(call.run(), out)
    ids_left, ids_right = collapse(call.ids(left)), collapse(call.ids(right))
    if min(ids_left.dim(), ids_right.dim()) < 2:
        raise call.fail("multiplies a matrix by a vector", "use F.linear or an explicit sum")
    product = call.identities.tie(ids_left.unsqueeze(-1), ids_right.unsqueeze(-3))
    summed = call.reduce(product, (product.dim() - 2,)).squeeze(-2)
    _bend_product(call, left, right, summed)
    return call.answer(call.run(), summed)


def _bend_product(call: Call, left: Any, right: Any, ids: Tensor) -> None:
    if call.value(left) is not None and call.value(right) is not None:
        call.bend(ids)


def einsum(call: Call) -> Tensor:
    """A product over named axes, summed over those that the result does not name."""
    equation, *operands = call.args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    equation = equation.replace(" ", "")
    if "..." in equation or "->" not in equation:
        raise call.fail(f"uses the einsum {equation!r}", "name every axis and write the arrow")
    inputs, output = equation.split("->")
    names = inputs.split(",")
    letters = [*output, *sorted(set(inputs) - set(output) - {","})]
    product: Tensor | None = None
    for operand, axes in zip(operands, names, strict=True):
        value = call.value(operand)
        if value is not None and value.weight is not None and value.tensor.dim() > 1:
            raise call.fail(
                f"multiplies by parameter {value.weight[0]!r} in einsum", "use F.linear instead"
            )
        if len(set(axes)) < len(axes):
            raise call.fail(f"takes a diagonal in einsum {equation!r}", "use torch.diagonal first")
        ids = collapse(call.ids(operand))
        ids = ids.permute([axes.index(letter) for letter in letters if letter in axes])
        shape = iter(ids.shape)
        ids = ids.reshape([next(shape) if letter in axes else 1 for letter in letters])
        product = ids if product is None else call.identities.tie(product, ids)
    assert product is not None
    dims = tuple(range(len(output), len(letters)))
    summed = call.reduce(product, dims)
    result = call.run()
    call.bend(summed)
    return call.answer(result, summed.reshape(summed.shape[: len(output)]))


def scaled_dot_product(call: Call) -> Tensor:
    """Attention inside heads: the weights belong to the head, the result is the values'."""
    given = call.bind("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
    if given.get("enable_gqa"):
        raise call.fail("shares keys between heads", "repeat the keys before attention")
    query, key, value = (
        call.identities.unite(call.ids(given[name]), (call.ids(given[name]).dim() - 2,))
        for name in ("query", "key", "value")
    )
    scores = call.identities.tie(query, key)
    heads = call.reduce(scores, (scores.dim() - 1,))
    ids = call.identities.tie(heads, value)
    call.bend(ids)
    return call.answer(call.run(), ids)


def multi_head(call: Call) -> tuple[Tensor, Tensor | None]:
    """`nn.MultiheadAttention`: reads three streams, writes one; between them the unit is a head."""
    given = call.bind(
        "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
        "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight",
        "out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask",
        "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight",
    )  # fmt: skip
    if given["bias_k"] is not None or given["bias_v"] is not None:
        raise call.fail("adds a bias to keys and values", "build it with add_bias_kv=False")
    lines = [call.line(call.ids(given[name]), -1) for name in ("query", "key", "value")]
    heads = given["num_heads"]
    if given["use_separate_proj_weight"]:
        outs = [
            read_and_write(call, line, weight_of(call, given[f"{name}_proj_weight"])[0], 1, 0)
            for name, line in zip("qkv", lines, strict=True)
        ]
    else:
        weight = weight_of(call, given["in_proj_weight"])[0]
        written = [read_and_write(call, line, weight, 1, 0) for line in lines]
        outs = list(written[0].chunk(3))
    if given["in_proj_bias"] is not None:
        tie_bias(call, given["in_proj_bias"], torch.cat(outs))
    blocks = torch.stack([atoms.view(heads, -1) for atoms in outs], 1).flatten(1)
    call.identities.block(blocks, blocks[:, :1])
    name = weight_of(call, given["out_proj_weight"])[0]
    stream = read_and_write(call, outs[2], name, 1, 0)
    tie_bias(call, given["out_proj_bias"], stream)
    call.bend(lines[0])
    meta = call.tracer.value(given["query"])
    assert meta is not None
    shape = (*meta.tensor.shape[:-1], call.shape(given["out_proj_weight"])[0])
    result = torch.empty(shape, dtype=meta.tensor.dtype, device="meta")
    call.answer(result, stream)
    if given["need_weights"] is False:
        return result, None
    weights = torch.empty(shape[:-1], dtype=meta.tensor.dtype, device="meta")
    refusal = Value(weights, None, refusal="uses attention weights that are a mean over heads")
    call.tracer.values[id(weights)] = refusal
    return result, weights


ATTENTION_RULES: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(("matmul", "bmm", "mm", "__matmul__"), matmul),
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_dot_product,
    "multi_head_attention_forward": multi_head,
}
