"""Networks by name, freshly initialised, and loading an exported student."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from merge_core.architectures import SHAPES, TORCHVISION, Shape, is_factory
from merge_core.errors import RecipeError, StoreError
from merge_core.models.cifar import CifarResNet, CifarVGG
from merge_core.models.own import fitting
from merge_core.models.small import DigitsCNN, LeNet, PatchCNN, SineMLP
from merge_core.recipes import from_json

MODELS: dict[str, Callable[..., nn.Module]] = {
    "sine-mlp": SineMLP,
    "digits-cnn": DigitsCNN,
    "patch-cnn": PatchCNN,
    "lenet": LeNet,
    "cifar-resnet20": CifarResNet,
    "cifar-resnet20-projection": partial(CifarResNet, projection=True),
    "cifar-vgg11": CifarVGG,
}
"""Our own networks; any other name is torchvision's. All for images take channels and classes."""

_SMALL = 32
"""Pixels along a side up to which an image is small."""


def build(name: str, seed: int, shape: Shape | None = None) -> nn.Module:
    """A freshly initialised network; the global random state is left as it was.

    Args:
        name: of one of our own networks; or of a torchvision classifier, which is given the classes
            and, where it starts by shrinking small images, a stem for them; or of a person's own,
            `package.module:factory`, which is imported and taken as it is.
        seed: decides every initial weight.
        shape: of the examples, as `recipe.data.shape` says; None for those that our network was
            made for, and for a torchvision classifier those of `photos`.

    Raises:
        RecipeError: there is no such architecture, or it cannot take images of this size.
        GraphError: a person's own network cannot be made, or does not fit.
    """
    if name not in MODELS and name not in TORCHVISION and not is_factory(name):
        raise RecipeError(
            f"There is no model {name!r}; choose one of {', '.join(MODELS)} or the name of a "
            f"torchvision classifier such as 'resnet18'."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_factory(name):
            return fitting(name, shape or SHAPES["photos"])
        if name in TORCHVISION:
            return _torchvision(name, shape or SHAPES["photos"])
        if shape is None or shape.side == 0:
            return MODELS[name]()
        return MODELS[name](channels=shape.channels, classes=shape.classes)


def _torchvision(name: str, shape: Shape) -> nn.Module:
    from torchvision.models import get_model

    settings: dict[str, Any] = {"num_classes": shape.classes}
    if name in ("googlenet", "inception_v3"):  # their side exits serve a kind of training of old
        settings |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        settings["image_size"] = shape.side
    try:
        network = get_model(name, weights=None, **settings)
        if shape.side <= _SMALL:
            _widen_stem(network)
        with torch.no_grad():
            network.eval()(torch.zeros(1, shape.channels, shape.side, shape.side))
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"The model {name!r} cannot take images of {shape.side}×{shape.side} pixels ({error}); "
            f"choose a smaller one such as 'resnet18'."
        ) from error
    return network.train()


def _widen_stem(network: nn.Module) -> None:
    """Keep small images large: no stride in the first convolution, no pooling right after it.

    As is common for 32×32 images (He et al., "Deep residual learning", section 4.2). A first
    convolution that cuts the image into patches is left as it is.
    """
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d)
    ]
    name, stem = layers[0]
    if not isinstance(stem, nn.Conv2d) or stem.stride == (1, 1) or stem.stride == stem.kernel_size:
        return
    small = nn.Conv2d(3, stem.out_channels, 3, padding=1, bias=stem.bias is not None)
    network.set_submodule(name, small)
    for after_name, after in layers[1:2]:
        if isinstance(after, nn.MaxPool2d):
            network.set_submodule(after_name, nn.Identity())


def load_student(path: str | Path) -> nn.Module:
    """The merged network of a file that `netweld export` wrote, in eval mode on the CPU.

    Raises:
        StoreError: the file is missing, is not a safetensors file, or holds no exported student.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise StoreError(
            f"There is no file {Path(path).name!r}; give the path that `netweld export` printed."
        ) from error
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{Path(path).name!r} is not a readable safetensors file ({error}); export it again."
        ) from error
    if "recipe" not in metadata:
        raise StoreError(
            f"{Path(path).name!r} holds no recipe in its metadata; "
            f"give a file that `netweld export` wrote."
        )
    recipe = from_json(metadata["recipe"])
    network = build(recipe.model, 0, recipe.data.shape)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise StoreError(
            f"The weights in {Path(path).name!r} do not fit {recipe.model}: {first}"
        ) from error
    return network.eval()
