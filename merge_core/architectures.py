"""The architectures that a recipe may name, and the data each can learn from (no torch)."""

BUILT_IN: dict[str, tuple[str, ...]] = {
    "sine-mlp": ("sine",),
    "digits-cnn": ("digits",),
    "patch-cnn": ("photos", "textures"),
    "lenet": ("mnist",),
    "cifar-resnet20": (),
    "cifar-resnet20-projection": (),
}
"""Our own networks, each with the data sets whose shape it has."""

RGB_IMAGES = ("photos", "textures")
"""Data sets of colour images, from which every torchvision classifier can learn."""

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


def architectures_for(data: str) -> tuple[str, ...]:
    """The architectures that can learn from a data set, our own first."""
    own = tuple(name for name, fits in BUILT_IN.items() if data in fits)
    return own + (TORCHVISION if data in RGB_IMAGES else ())
