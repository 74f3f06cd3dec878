"""Other people's checkpoints: weights from a file, without running anything that the file holds.

Only tensors are read: PyTorch's files with its weights-only unpickler, and safetensors. Training
programs wrap a state dict in different ways; the common ones are understood.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Never

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from merge_core.errors import CheckpointError

SUFFIXES = (".th", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")
"""Endings of the files that `read` takes; `.tar` as in `model.pth.tar`."""

SIZE_LIMIT = 4 * 2**30
"""Bytes of the largest file, and of all tensors in it, that `read` takes."""

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
_DEPTH = 3  # wrappers inside wrappers
_PREFIXES = ("module.", "model.", "_orig_mod.")
_SAVE = "save the weights alone with torch.save(model.state_dict(), path)"


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, name → tensor on the CPU.

    A state dict inside a dictionary (under "state_dict", "model" and the like) is found, and
    prefixes that all names share because a wrapper added them ("module.", "model.", "_orig_mod.")
    are taken off.

    Raises:
        CheckpointError: the file is missing, too large, damaged, of another type, holds no state
            dict, or holds objects that could only be read by running code.
    """
    path = Path(path)
    name = path.name
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f"{name!r} is not a checkpoint by its ending; give a file that ends in one of "
            f"{', '.join(SUFFIXES)}."
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {name!r} cannot be read ({error.strerror}); check the path."
        ) from error
    _limit(name, size)
    if start[8:] == b"{":  # after the length of a safetensors header
        value = _safetensors(path)
    else:
        value = _unpickled(path, zipped=start[:4] == b"PK\x03\x04")
    return _unprefixed(_state(value, name))


def load_into(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Give a network the weights of a checkpoint; nothing is changed where they do not fit.

    Args:
        model: the network, whose names, shapes and types of numbers count.
        state: name → tensor.
        what: how to call the weights in a sentence, such as "teacher 'a.th'".

    Raises:
        CheckpointError: names the first weight that is missing, unexpected, of another shape or
            not finite.
    """
    wanted = model.state_dict()
    unexpected = [key for key in state if key not in wanted]
    advice = "choose the architecture and the data set that it was trained with"
    for key, tensor in wanted.items():
        given = state.get(key)
        if given is None:
            if key.endswith("num_batches_tracked"):  # older files have none; torch fills it in
                continue
            alike = [k for k in unexpected if state[k].shape == tensor.shape]
            instead = f" (but has {alike[0]!r} of that shape)" if alike else ""
            raise CheckpointError(f"{what} does not fit: it lacks {key!r}{instead}; {advice}.")
        if given.shape != tensor.shape:
            raise CheckpointError(
                f"{what} does not fit: its {key!r} is {_shape(given)}, but the network's is "
                f"{_shape(tensor)}; {advice}."
            )
    if unexpected:
        raise CheckpointError(
            f"{what} does not fit: it has {unexpected[0]!r}, which the network has not; {advice}."
        )
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{what} cannot be used: its {key!r} holds numbers that are not finite; "
                f"give a checkpoint from before the training diverged."
            )
    model.load_state_dict(dict(state))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _limit(name: str, size: int) -> None:
    if size > SIZE_LIMIT:
        raise CheckpointError(
            f"The checkpoint {name!r} holds {size / 2**30:.1f} GiB, but at most "
            f"{SIZE_LIMIT / 2**30:.0f} GiB are read; {_SAVE}."
        )


def _damaged(name: str, error: Exception) -> Never:
    raise CheckpointError(
        f"{name!r} is not a readable checkpoint ({type(error).__name__}): it is damaged, cut short "
        f"or another kind of file; copy it again or give another one."
    ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        _damaged(path.name, error)


def _unpickled(path: Path, *, zipped: bool) -> Any:
    """What `torch.save` wrote: containers, numbers, words and tensors, nothing else."""
    name = path.name
    if zipped:
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except Exception as error:  # zipfile raises many kinds on damaged files
            _damaged(name, error)
        _limit(name, sum(entry.file_size for entry in entries))
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise CheckpointError(
                f"{name!r} is a TorchScript program, which is never run here; {_SAVE}."
            )
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is None:
            _damaged(name, error)
        raise CheckpointError(
            f"{name!r} was not loaded: beside tensors it holds {asked[1].strip('`')!r}, which can "
            f"only be read by running code from the file; {_SAVE}."
        ) from error
    except Exception as error:  # a damaged pickle can break the unpickler anywhere
        _damaged(name, error)


def _state(value: Any, name: str) -> dict[str, Tensor]:
    """The state dict in whatever a training program saved around it."""
    for _ in range(_DEPTH):
        inner = [value[key] for key in _WRAPPERS if isinstance(value, Mapping) and key in value]
        value = next((item for item in inner if isinstance(item, Mapping)), value)
    state = {}
    if isinstance(value, Mapping):
        state = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise CheckpointError(f"{name!r} holds no state dict (name → tensor); {_SAVE}.")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"{name!r} holds {key!r} in a packed form; save it as an ordinary dense tensor."
            )
    # A few stored numbers can claim any shape, so the shapes count, not only the file.
    _limit(name, sum(tensor.numel() * tensor.element_size() for tensor in state.values()))
    return state


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers of the network put before every name."""
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state
