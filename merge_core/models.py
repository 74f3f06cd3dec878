"""The architectures that recipes name, as plain modules, and loading an exported student."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from merge_core.architectures import TORCHVISION
from merge_core.errors import RecipeError, StoreError
from merge_core.recipes import Recipe


class SineMLP(nn.Module):
    """The paper's network for the sine problem: one hidden layer of ReLUs (section 3.1, Fig. 8)."""

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1)` in, `(batch, 1)` out."""
        return self.output(torch.relu(self.hidden(x)))


def _block(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False
        ),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class DigitsCNN(nn.Module):
    """Two convolutions with batch norm and a linear layer, for 8×8 grey images in 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(1, 12, 3), nn.MaxPool2d(2), _block(12, 24, 3), nn.MaxPool2d(2)
        )
        self.classifier = nn.Linear(24 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1, 8, 8)` in, `(batch, 10)` logits out."""
        return self.classifier(self.features(x).flatten(1))


class PatchCNN(nn.Module):
    """Three convolutions with batch norm for 32×32 RGB patches in 12 classes.

    The first layer has 16 filters of 7×7, large enough to look at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 16, 7, stride=2),
            _block(16, 32, 3, stride=2),
            _block(32, 64, 3, stride=2),
        )
        self.classifier = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, 32, 32)` in, `(batch, 12)` logits out."""
        return self.classifier(self.features(x).mean((2, 3)))


class LeNet(nn.Module):
    """LeNet: convolutions with 6 and 16 channels, linear layers 400-120-80-10 (section 3.2).

    Args:
        channels: of the input image, which is 28×28.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 80), nn.ReLU(), nn.Linear(80, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, 28, 28)` in, `(batch, 10)` logits out."""
        return self.classifier(self.features(x).flatten(1))


class _Block(nn.Module):
    """Two 3×3 convolutions with batch norm, added to a shortcut."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, shortcut: nn.Module
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class _ZeroPadded(nn.Module):
    """Every second position, and as many zero channels before as after the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


class CifarResNet(nn.Module):
    """The ResNets for small images: 6·`depth` + 2 layers (He et al. 2016, section 4.2).

    A stem and three stages with 16, 32 and 64 channels. Names of layers are those of the most used
    public checkpoints.

    Args:
        depth: blocks per stage; 3 gives ResNet20.
        projection: shortcuts between stages are 1×1 convolutions with batch norm ("option B");
            otherwise they have no parameters ("option A").
    """

    def __init__(self, depth: int = 3, *, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, depth, projection)
        self.layer2 = self._stage(16, 32, depth, projection)
        self.layer3 = self._stage(32, 64, depth, projection)
        self.linear = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(channels_in: int, channels_out: int, depth: int, projection: bool) -> nn.Sequential:
        stride, shortcut = 1, nn.Identity()
        if channels_in != channels_out:
            stride = 2
            shortcut = (
                nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                    nn.BatchNorm2d(channels_out),
                )
                if projection
                else _ZeroPadded((channels_out - channels_in) // 2)
            )
        first = _Block(channels_in, channels_out, stride, shortcut)
        rest = (_Block(channels_out, channels_out, 1, nn.Identity()) for _ in range(depth - 1))
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, side, side)` in, `(batch, 10)` logits out."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sine-mlp": SineMLP,
    "digits-cnn": DigitsCNN,
    "patch-cnn": PatchCNN,
    "lenet": LeNet,
    "cifar-resnet20": CifarResNet,
    "cifar-resnet20-projection": partial(CifarResNet, projection=True),
}
"""Our own networks; any other name is torchvision's."""

IMAGE_CLASSES = 12
"""Classes of the colour-image data sets."""

_SIDE = 32
"""Pixels along a side of the colour images."""


def build(name: str, seed: int) -> nn.Module:
    """A freshly initialised network; the global random state is left as it was.

    Args:
        name: of one of our own networks, or of a torchvision classifier, which is given the classes
            and, where it starts by shrinking, a stem for small images.
        seed: decides every initial weight.

    Raises:
        RecipeError: there is no such architecture, or it cannot take images of this size.
    """
    if name not in MODELS and name not in TORCHVISION:
        raise RecipeError(
            f"There is no model {name!r}; choose one of {', '.join(MODELS)} or the name of a "
            f"torchvision classifier such as 'resnet18'."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]() if name in MODELS else _torchvision(name)


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    settings: dict[str, Any] = {"num_classes": IMAGE_CLASSES}
    if name in ("googlenet", "inception_v3"):  # their side exits serve a kind of training of old
        settings |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        settings["image_size"] = _SIDE
    try:
        network = get_model(name, weights=None, **settings)
        _widen_stem(network)
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"The model {name!r} cannot take images of {_SIDE}×{_SIDE} pixels ({error}); "
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
    recipe = Recipe.from_json(metadata["recipe"])
    network = build(recipe.model, seed=0)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise StoreError(
            f"The weights in {Path(path).name!r} do not fit {recipe.model}: {first}"
        ) from error
    return network.eval()
