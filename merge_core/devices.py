"""Where a run computes: one setting, `auto`, `cpu`, `cuda` or `mps`; and the seeds of its draws."""

import hashlib

import torch

from merge_core.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve(device: str) -> str:
    """The device that a run will use; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: the name is unknown or this machine has no such device.
    """
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in here.items() if there)
    if device not in here:
        raise DeviceError(f"There is no device {device!r}; choose one of {', '.join(DEVICES)}.")
    if not here[device]:
        there = ", ".join(name for name, ok in here.items() if ok)
        raise DeviceError(
            f"The device {device!r} was asked for, but this machine has only {there}; "
            f"choose one of those or auto."
        )
    return device


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose of a run, e.g. `derived_seed(0, "teacher_a")`.

    Two purposes of one run, and one purpose of two runs, get independent streams; the value is the
    same on every machine and in every process.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, device: str = "cpu") -> torch.Generator:
    """A random generator on `device` for one purpose of the run with this recipe seed."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose))
