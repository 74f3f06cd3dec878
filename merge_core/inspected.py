"""Inspections of networks: starting them, and where their descriptions lie (no torch).

An inspection is a process of its own, because it needs torch and runs a person's own code.
"""

import difflib
import re
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from merge_core import places, processes
from merge_core.architectures import TORCHVISION, is_factory
from merge_core.description import Description
from merge_core.errors import GraphError, StoreError

PROGRAM = ("-P", "-m", "merge_core.inspection")
"""How Python starts an inspection; with -P it finds a person's own files only when it looks."""

FAMILIES = {
    "AlexNet": "alexnet",
    "VGG": "vgg11",
    "VGG with norm": "vgg11_bn",
    "ResNet": "resnet50",
    "Wide ResNet": "wide_resnet50_2",
    "ResNeXt": "resnext50_32x4d",
    "DenseNet": "densenet121",
    "SqueezeNet": "squeezenet1_1",
    "GoogLeNet": "googlenet",
    "Inception v3": "inception_v3",
    "MobileNet v2": "mobilenet_v2",
    "MobileNet v3": "mobilenet_v3_large",
    "EfficientNet": "efficientnet_b0",
    "EfficientNet v2": "efficientnet_v2_s",
    "MNASNet": "mnasnet1_0",
    "RegNet X": "regnet_x_400mf",
    "RegNet Y": "regnet_y_400mf",
    "ShuffleNet v2": "shufflenet_v2_x1_0",
    "ConvNeXt": "convnext_tiny",
    "ViT": "vit_b_32",
    "Swin": "swin_t",
    "Swin v2": "swin_v2_t",
    "MaxViT": "maxvit_t",
}
"""One network of every classification family of torchvision."""

BATCH = 4
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?", re.ASCII)


def usual_input(model: str) -> tuple[int, int, int]:
    """The images that a network is made for, unless a person says otherwise."""
    return (3, 299, 299) if model == "inception_v3" else (3, 224, 224)


def parsed_shape(text: str) -> tuple[int, ...]:
    """`3x224x224` as numbers.

    Raises:
        GraphError: it is no shape.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){0,4}", text):
        raise GraphError(
            f"The input {text!r} is no shape; give the sizes of one example with x between them, "
            f"as in 3x224x224."
        )
    return tuple(int(size) for size in text.split("x"))


def directory() -> Path:
    """Where descriptions lie."""
    return places.home() / "inspections"


def _file(model: str) -> Path:
    """The file of a network that passed `check_name`; no two networks share one."""
    return directory() / f"{model.replace(':', '-')}.json"


def names() -> list[str]:
    """The networks that have been inspected, in alphabetical order."""
    found = (path.stem.replace("-", ":") for path in directory().glob("*.json"))
    return sorted(name for name in found if _NAME.fullmatch(name))


def read(model: str) -> Description:
    """The description of a network that has been inspected.

    Raises:
        StoreError: it has not been, or the file is damaged.
    """
    if model not in names():
        raise StoreError(
            f"The network {model!r} has not been inspected; run `netweld inspect {model}`."
        )
    return Description.from_json(_file(model).read_text())


@dataclass(frozen=True)
class Inspection:
    """An inspection on its way."""

    model: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def result(self) -> Description:
        """Wait for the end; the description. To be called once.

        Raises:
            GraphError: the network does not exist, or its channels cannot be followed.
            StoreError: the process was killed or could not write.
        """
        with self.errors:
            try:
                status = self.process.wait()
            except BaseException:
                self.process.kill()
                raise
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines() or [""]
        if status == 0:
            return read(self.model)
        if status == 2:
            raise GraphError(lines[-1])
        why = lines[-1] or f"status {status}"
        raise StoreError(
            f"The inspection of {self.model!r} broke off ({why}); when memory ran out, try a "
            f"smaller network or a smaller --batch."
        )


MOST = 2
"""Inspections that one process has on their way at once: of all viewers of a dashboard together."""

_on_their_way: list[subprocess.Popen[bytes]] = []


def start(model: str, shape: tuple[int, ...] | None = None, batch: int = BATCH) -> Inspection:
    """Start to inspect a network in a process of its own.

    Args:
        model: torchvision's name of a classifier, or `package.module:factory`.
        shape: of one example; that of the usual images by default.
        batch: examples in the batch that is traced and checked.

    Raises:
        GraphError: there is no classifier of that name.
        StoreError: nothing can be written, no process can be started, or this process has as many
            inspections on their way as it may have (`MOST`).
    """
    check_name(model)
    _on_their_way[:] = [process for process in _on_their_way if process.poll() is None]
    if len(_on_their_way) >= MOST:
        raise StoreError(
            f"{len(_on_their_way)} networks are being inspected on this machine already; wait "
            f"until one is done and try again."
        )
    text = "x".join(map(str, shape or usual_input(model)))
    errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the inspection
    try:
        directory().mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, *PROGRAM, model, text, str(batch), str(_file(model))],
            env=processes.environment() | {"NETWELD_HOME": str(places.home())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise StoreError(
            f"The inspection of {model!r} could not be started ({error}); mend that and try again."
        ) from error
    _on_their_way.append(process)
    # Somebody must wait for a child, or it stays behind as a zombie.
    threading.Thread(target=process.wait, name=f"reap {model}", daemon=True).start()
    return Inspection(model, process, errors)


def check_name(model: str) -> None:
    """Refuse what names no torchvision classifier and has not the form of a person's own network.

    Raises:
        GraphError: says what comes near.
    """
    if is_factory(model):
        return
    if model not in TORCHVISION:
        near = difflib.get_close_matches(model, TORCHVISION, n=3)
        hint = f"did you mean {_listed(near)}?" if near else "choose one such as 'resnet18'."
        raise GraphError(
            f"There is no torchvision classifier {model!r}, and a network of your own is named "
            f"as package.module:factory; {hint}"
        )


def _listed(found: list[str]) -> str:
    return " or ".join(repr(name) for name in found)
