"""Networks from a person's own file, named as `package.module:factory`."""

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from merge_core.architectures import Shape
from merge_core.errors import GraphError, NetweldError


def look_in(folder: Path) -> None:
    """Let the files in a folder be found, as `python file.py` would find them."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def from_factory(model: str) -> nn.Module:
    """What the factory makes when it is called without arguments.

    Args:
        model: `package.module:factory`; the module is imported, which runs its code.

    Raises:
        GraphError: there is no such module or factory, or it makes no network.
    """
    module, _, factory = model.partition(":")
    try:
        made: Any = importlib.import_module(module)
        for part in factory.split("."):
            made = getattr(made, part)
        network = made()
    except NetweldError:
        raise
    except Exception as error:
        raise GraphError(
            f"{model!r} cannot be called ({said(error)}); give the module and the function or "
            f"class in it that makes the network without arguments, as in 'mynets.small:make', in "
            f"the folder where the command is given, and leave the file there."
        ) from error
    if not isinstance(network, nn.Module):
        raise GraphError(
            f"{model!r} made a {type(network).__name__}, but a torch.nn.Module is expected; "
            f"return the network itself."
        )
    return network


def fitting(model: str, shape: Shape) -> nn.Module:
    """The factory's network, which must take examples of a shape and give a number for each class.

    Raises:
        GraphError: as of `from_factory`, or it does not fit the examples.
    """
    network = from_factory(model)
    size = (shape.channels, shape.side, shape.side) if shape.side else (shape.channels,)
    wanted = (2, shape.classes or 1)
    given = "×".join(map(str, size))
    try:
        with torch.no_grad():
            made = tuple(network.eval()(torch.zeros(2, *size)).shape)
    except Exception as error:  # somebody else's code
        raise GraphError(
            f"{model!r} cannot be run on examples of shape {given} ({said(error)}); make it for "
            f"these, or choose other data."
        ) from error
    if made != wanted:
        raise GraphError(
            f"{model!r} gives {'×'.join(map(str, made))} for two examples of shape {given}, but "
            f"{'×'.join(map(str, wanted))} are needed; let it have that many outputs."
        )
    return network.train()


def said(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
