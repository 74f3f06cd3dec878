"""The shapes of data, and the architectures that fit them (no torch)."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What a network for some data takes and gives.

    Attributes:
        channels: colours of an image; 1 for grey and for plain numbers.
        side: pixels along each side of the square image; 0 for plain numbers.
        classes: how many there are to tell apart; 0 where a number is to be found.
    """

    channels: int
    side: int
    classes: int


SHAPES: dict[str, Shape] = {
    "sine": Shape(1, 0, 0),
    "digits": Shape(1, 8, 10),
    "photos": Shape(3, 32, 12),
    "textures": Shape(3, 32, 12),
    "mnist": Shape(1, 28, 10),
    "cifar10": Shape(3, 32, 10),
    "cifar100": Shape(3, 32, 100),
    "imagewoof": Shape(3, 64, 10),
    "images": Shape(3, 64, 10),
}
"""Data set → its shape, unless a recipe says otherwise."""

OWN: dict[str, Callable[[Shape], bool]] = {
    "sine-mlp": lambda shape: shape.side == 0,
    "digits-cnn": lambda shape: shape.side == 8 and shape.channels == 1,
    "patch-cnn": lambda shape: shape.channels == 3,
    "lenet": lambda shape: shape.side == 28,
    "cifar-resnet20": lambda shape: shape.channels == 3,
    "cifar-resnet20-projection": lambda shape: shape.channels == 3,
    "cifar-vgg11": lambda shape: shape.channels == 3 and shape.side == 32,
}
"""Our own networks, each with the shapes that it can take."""

TORCHVISION: tuple[str, ...] = (
    "alexnet",
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *(f"efficientnet_b{size}" for size in range(8)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
    "googlenet",
    "inception_v3",
    "maxvit_t",
    *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(
        f"regnet_y_{size}"
        for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")
    ),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    "squeezenet1_0",
    "squeezenet1_1",
    *(f"swin_{size}" for size in "tsb"),
    *(f"swin_v2_{size}" for size in "tsb"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "vit_l_32",
    "vit_h_14",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
"""Every classifier of torchvision, by torchvision's own names."""


_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def is_factory(model: str) -> bool:
    """Whether a name is that of a person's own network, `package.module:factory`."""
    return _FACTORY.fullmatch(model) is not None


def architectures_for(shape: Shape) -> tuple[str, ...]:
    """The architectures that can learn from data of a shape, our own first."""
    own = tuple(name for name, fits in OWN.items() if fits(shape))
    return own + (TORCHVISION if shape.channels == 3 else ())
