"""The laws on every classification family of torchvision, in both modes, on random weights."""

from collections.abc import Callable

import pytest
import torch
from test_channels import randomised
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from merge_core.channels import check, concatenate, select, trace

SMALL = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5")
"""Family members whose laws take seconds; `netweld inspect --all` measures every family."""


def resnet() -> nn.Module:
    return narrowed(lambda: models.ResNet(BasicBlock, [2, 2, 1, 1], num_classes=7), 8)


def regnet(se_ratio: float | None) -> nn.Module:
    widths = {"w_0": 16, "w_a": 20.0, "w_m": 2.5, "group_width": 8}  # 16, 40 and 96 channels
    blocks = BlockParams.from_init_params(depth=6, se_ratio=se_ratio, **widths)
    return models.RegNet(blocks, num_classes=7, stem_width=8)


def regnet_x() -> nn.Module:
    return regnet(None)


def regnet_y() -> nn.Module:
    return regnet(0.25)


def googlenet() -> nn.Module:
    """With its auxiliary heads, which have outputs of their own in training."""
    return narrowed(lambda: models.googlenet(num_classes=7, init_weights=False), 8)


def resnext() -> nn.Module:
    return models.ResNet(Bottleneck, [2, 1, 1, 1], num_classes=7, groups=8, width_per_group=4)


def densenet() -> nn.Module:
    return models.DenseNet(8, (3, 4, 2, 2), 16, num_classes=7)


def vit() -> nn.Module:
    return models.VisionTransformer(32, 8, 2, 4, 16, 24, num_classes=7)


def swin() -> nn.Module:
    return models.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=7)


def swin_v2() -> nn.Module:
    return models.SwinTransformer(
        [2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=7,
        block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2,
    )  # fmt: skip


def maxvit() -> nn.Module:
    return models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.1, num_classes=7)


def convnext() -> nn.Module:
    return models.ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], num_classes=7)


def efficientnet() -> nn.Module:
    blocks = [MBConvConfig(1, 3, 1, 8, 8, 2), MBConvConfig(4, 5, 2, 8, 16, 2)]
    return models.EfficientNet(blocks, 0.2, 0.5, num_classes=7, last_channel=24)


def efficientnet_v2() -> nn.Module:
    blocks = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 2), FusedMBConvConfig(4, 3, 2, 8, 16, 1),
        MBConvConfig(4, 3, 2, 16, 16, 2),
    ]  # fmt: skip
    return models.EfficientNet(blocks, 0.2, 0.5, num_classes=7, last_channel=24)


def mobilenet_v2() -> nn.Module:
    return models.MobileNetV2(7, 0.25)


def mnasnet() -> nn.Module:
    return models.MNASNet(0.1, num_classes=7)


def wide_resnet() -> nn.Module:
    return narrowed(
        lambda: models.ResNet(Bottleneck, [2, 1, 1, 1], num_classes=7, width_per_group=128), 8
    )


def alexnet() -> nn.Module:
    return narrowed(lambda: models.alexnet(num_classes=7), 16)


def vgg11() -> nn.Module:
    return narrowed(lambda: models.vgg11(num_classes=7), 16)


def vgg11_bn() -> nn.Module:
    return narrowed(lambda: models.vgg11_bn(num_classes=7), 16)


def inception_v3() -> nn.Module:
    """With its auxiliary head, which has an output of its own in training."""
    return narrowed(lambda: models.inception_v3(num_classes=7, init_weights=False), 16)


TINY = (
    (resnet, 32), (regnet_x, 32), (regnet_y, 32), (googlenet, 64), (resnext, 32), (densenet, 32),
    (vit, 32), (swin, 32), (swin_v2, 32), (maxvit, 32), (convnext, 32), (efficientnet, 32),
    (efficientnet_v2, 32), (mobilenet_v2, 32), (mnasnet, 32), (wide_resnet, 32), (alexnet, 64),
    (vgg11, 32), (vgg11_bn, 64), (inception_v3, 299),
)  # fmt: skip
"""Torchvision's own classes of the large families, with few channels or blocks, and image sides."""


def narrowed(make: Callable[[], nn.Module], by: int) -> nn.Module:
    """A network of torchvision whose classes name no widths, with every width divided.

    What does not divide evenly is no width: the colours, a kernel's sides, the labels.
    """
    with torch.device("meta"):
        model = make()

    def narrow(side: int) -> int:
        return side if side % by else side // by

    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            continue
        for name in ("in_channels", "out_channels", "in_features", "out_features", "num_features"):
            if hasattr(layer, name):
                setattr(layer, name, narrow(getattr(layer, name)))
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            fresh = torch.empty([narrow(side) for side in tensor.shape], dtype=tensor.dtype)
            setattr(layer, name, nn.Parameter(fresh) if isinstance(tensor, nn.Parameter) else fresh)
        layer.reset_parameters()
    return model


def holds(model: nn.Module, size: int) -> None:
    """The laws in float64, on weights and statistics far from their start."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.data.copy_(0.5 + noise)
            elif tensor.dim() < 2 or not tensor.detach().any():
                tensor.data.add_(0.2 * (noise - 0.3))
    model.double()
    # A norm in training divides by the spread of what it sees; two examples may hardly differ.
    example = torch.randn(6, 3, size, size, generator=generator, dtype=torch.float64)
    errors = check(model, trace(model, example), example)
    assert errors.worst < 1e-12, errors


@pytest.mark.parametrize("family", SMALL)
def test_laws(family: str) -> None:
    torch.manual_seed(0)
    holds(getattr(models, family)(weights=None, num_classes=7), 64)


@pytest.mark.parametrize(("tiny", "size"), TINY, ids=[make.__name__ for make, _ in TINY])
def test_laws_of_small_members_of_large_families(tiny: Callable[[], nn.Module], size: int) -> None:
    torch.manual_seed(0)
    holds(tiny(), size)


@pytest.mark.parametrize("family", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_the_half_cut_is_a_plain_teacher(family: str) -> None:
    """Cut to half, the student has the teacher's shapes and its state loads into a fresh one."""
    torch.manual_seed(0)
    model = randomised(getattr(models, family)(weights=None, num_classes=3))
    example = torch.randn(2, 3, 64, 64)
    graph = trace(model, example)
    big = concatenate([model, model], graph)
    generator = torch.Generator().manual_seed(2)
    kept = {
        space.name: torch.randperm(2 * space.size, generator=generator)[: space.size]
        for space in graph.free
    }
    student = select(big, trace(big, example), kept).eval()
    fresh = getattr(models, family)(weights=None, num_classes=3).eval()
    fresh.load_state_dict(student.state_dict())
    torch.testing.assert_close(fresh(example), student(example), equal_nan=True)
