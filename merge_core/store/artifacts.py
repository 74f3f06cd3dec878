"""Named arrays as safetensors files that are either whole or not there."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from merge_core.errors import StoreError
from merge_core.events import Arrays


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one.

    The bytes go to a temporary name, reach the disk, and only then take the name.
    """
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # only there can a directory be opened and flushed
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def to_bytes(arrays: Arrays, metadata: Mapping[str, str] | None = None) -> bytes:
    """Arrays as the content of a safetensors file."""
    # safetensors stores the memory of an array as it lies, so a transposed view must be copied.
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors_numpy.save(plain, dict(metadata) if metadata else None)


def save(path: Path, arrays: Arrays) -> tuple[str, int]:
    """Write arrays as one safetensors file; returns its SHA-256 in hex and its size in bytes."""
    content = to_bytes(arrays)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest(), len(content)


def load(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read arrays back.

    Raises:
        StoreError: the file is missing, or is not the one that was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"The file {path.name} of run {path.parent.name} cannot be read ({error.strerror}); "
            f"put it back or run the recipe again."
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError(
            f"The file {path.name} of run {path.parent.name} is damaged: its content is not what "
            f"was written; restore it from a copy or run the recipe again."
        )
    try:
        return safetensors_numpy.load(content)
    except SafetensorError as error:
        raise StoreError(
            f"The file {path.name} of run {path.parent.name} is not a safetensors file ({error}); "
            f"run the recipe again."
        ) from error
