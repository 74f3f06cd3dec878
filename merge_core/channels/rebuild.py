"""Make a module of the same class with other tensors: the one way in which modules are made."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from merge_core.channels.scales import CHILD
from merge_core.channels.sites import Change, Rewrites, strip
from merge_core.errors import GraphError


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under their first name; tied ones once, carried scales left out."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not name.startswith(f"{CHILD}."):
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


Changes = Mapping[str, dict[tuple[bool | None, str, int], Change]]


def rebuild(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    attributes: Mapping[tuple[str, str], int] | None = None,
    changes: Changes | None = None,
) -> nn.Module:
    """A copy of `model` that holds `tensors` under the given names and clones of all others.

    Sizes that modules of torch keep as attributes follow the tensors; `attributes` sets others by
    (layer, name), and `changes` are the corrections that each layer's code needs (None: those that
    the model has). `model` is not touched and shares no memory with the copy except what the
    caller passed in.
    """
    memo: dict[int, object] = {}
    for name, old in named_tensors(model).items():
        if name in tensors:
            new = tensors[name]
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            memo[id(old)] = new
    made = copy.deepcopy(model, memo)
    for old, new in zip(model.modules(), made.modules(), strict=True):
        _resize(old, new)
    for (layer, name), value in (attributes or {}).items():
        setattr(made.get_submodule(layer), name, value)
    if changes is not None:
        strip(made)
        for layer, corrections in changes.items():
            Rewrites(corrections).install(made.get_submodule(layer))
    return made


def _resize(old: nn.Module, new: nn.Module) -> None:
    """Bring the attributes of one module in line with its tensors."""
    if isinstance(new, _ConvNd) and isinstance(old, _ConvNd):
        first, second = new.weight.shape[:2]
        if isinstance(new, _ConvTransposeNd):
            first, second = second, first
        elif old.groups > 1:
            new.groups = first // (old.out_channels // old.groups)
        new.out_channels, new.in_channels = first, second * new.groups
    elif isinstance(new, nn.Linear):
        new.out_features, new.in_features = new.weight.shape
    elif isinstance(new, _NormBase):
        for tensor in (new.weight, new.running_mean):
            if tensor is not None:
                new.num_features = len(tensor)
    elif isinstance(new, nn.LayerNorm | nn.RMSNorm) and new.weight is not None:
        new.normalized_shape = tuple(new.weight.shape)
    elif isinstance(new, nn.GroupNorm) and isinstance(old, nn.GroupNorm) and new.affine:
        new.num_channels = len(new.weight)
        if old.num_groups > 1:
            new.num_groups = new.num_channels // (old.num_channels // old.num_groups)
    elif isinstance(new, nn.MultiheadAttention) and isinstance(old, nn.MultiheadAttention):
        _resize_attention(old, new)
    elif isinstance(new, nn.Embedding):
        new.embedding_dim = new.weight.shape[1]
    elif isinstance(new, nn.PReLU):
        new.num_parameters = new.weight.numel()


def _resize_attention(old: nn.MultiheadAttention, new: nn.MultiheadAttention) -> None:
    """Widths of torch's attention, which wants heads and streams in one proportion."""
    new.embed_dim, inner = new.out_proj.weight.shape
    new.num_heads = inner // old.head_dim
    if inner != new.embed_dim:
        raise GraphError(
            f"nn.MultiheadAttention with {new.num_heads} heads of {old.head_dim} channels cannot "
            f"read a stream of {new.embed_dim}; keep the same share of heads and stream."
        )
    new.kdim = new.embed_dim if new.k_proj_weight is None else new.k_proj_weight.shape[1]
    new.vdim = new.embed_dim if new.v_proj_weight is None else new.v_proj_weight.shape[1]
