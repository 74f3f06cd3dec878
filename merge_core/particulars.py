"""What tables and runs keep of a network beside its scores, and of the machine that made it."""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from merge_core import places
from merge_core.data import Dataset, Split
from merge_core.learned import CURVE_POINTS, ClassCounts, Learned, curve_places
from merge_core.recipes import Data, Experiment
from merge_core.repetitions import Session
from merge_core.training import evaluate, is_classification


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a network scores on the held-out and the test split, and what it answers there.

    Attributes:
        scores: split → metric → value.
        learned: from the same evaluation.
    """

    scores: Mapping[str, Mapping[str, float]]
    learned: Learned


def judged(network: nn.Module, data: Dataset, kind: Data) -> Judgement:
    """Evaluate a network.

    Args:
        network: its mode is put back afterwards.
        data: where the network is.
        kind: what the recipe says of the data.
    """
    scores, classes = {}, {}
    for name, split in (("heldout", data.heldout), ("test", data.test)):
        if is_classification(split):
            count = _Count(kind.shape.classes, split.device)
            scores[name] = evaluate(network, split, count)
            classes[name] = count.counts
        else:
            scores[name] = evaluate(network, split)
    curve = learned_curve(network, data.test.device) if kind.name == "sine" else ()
    return Judgement(scores=scores, learned=Learned(classes=classes, curve=curve))


class _Count:
    """Counts the examples of each class, and those that are told right; waits for no GPU."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._right = torch.zeros(classes, dtype=torch.int64, device=device)
        self._examples = torch.zeros_like(self._right)

    def __call__(self, outputs: Tensor, batch: Split) -> None:
        right = outputs.argmax(1) == batch.targets
        self._right.index_add_(0, batch.targets, right.long())
        self._examples.index_add_(0, batch.targets, torch.ones_like(batch.targets))

    @property
    def counts(self) -> ClassCounts:
        return ClassCounts(
            right=tuple(self._right.tolist()), examples=tuple(self._examples.tolist())
        )


@torch.no_grad()
def learned_curve(network: nn.Module, device: torch.device) -> tuple[float, ...]:
    """What a network of one number gives at `learned.curve_places`, to four places.

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


def session(recipe: Experiment, device: str, class_names: tuple[str, ...]) -> Session:
    """This process, computing as the recipe says on `device`, told to whoever reads the table."""
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
        computing=recipe.computing,
    )


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
