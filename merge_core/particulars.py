"""What a table keeps of a network beside its scores, and of the machine that made it.

For a fit of numbers that is the curve it has learned, for classes the accuracy of each class. The
pages that draw them load no torch, so they are kept as plain numbers.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from merge_core import places
from merge_core.data import Split
from merge_core.repetitions import CURVE_POINTS, Session, curve_places

_BATCH = 1000


@torch.no_grad()
def learned_curve(network: nn.Module, device: str) -> tuple[float, ...]:
    """What a network of one number gives at `repetitions.curve_places`, to four places.

    Args:
        network: from `(n, 1)` to `(n, 1)`; its mode is put back afterwards.
        device: where it is.
    """
    was_training = network.training
    network.eval()
    x = torch.tensor(curve_places(), device=device).view(CURVE_POINTS, 1)
    y = network(x).flatten().double().cpu()
    network.train(was_training)
    return tuple(round(value, 4) for value in y.tolist())


@torch.no_grad()
def class_accuracies(network: nn.Module, split: Split, classes: int) -> tuple[float | None, ...]:
    """The share of each class's examples that the network tells to be of it.

    Args:
        network: gives a score for each class; its mode is put back afterwards.
        split: examples with classes as targets.
        classes: how many there are.

    Returns:
        One number for each class, None for a class without examples.
    """
    was_training = network.training
    network.eval()
    told = torch.cat([network(each.inputs).argmax(1) for each in split.batches(_BATCH)])
    network.train(was_training)
    seen = torch.bincount(split.targets, minlength=classes).tolist()
    hits = torch.bincount(split.targets[told == split.targets], minlength=classes).tolist()
    return tuple(
        round(right / count, 4) if count else None for right, count in zip(hits, seen, strict=True)
    )


def session(device: str, class_names: tuple[str, ...]) -> Session:
    """This process, computing on `device`, told to whoever reads the table."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    versions = {each: version(each) for each in ("torch", "torchvision", "numpy")}
    return Session(
        started=time.time(),
        device=device,
        hardware=name,
        workers=1,
        versions={
            "netweld": places.netweld_version(),
            "python": platform.python_version(),
            **versions,
        },
        class_names=class_names,
    )


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
