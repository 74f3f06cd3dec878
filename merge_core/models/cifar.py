"""Networks for images of 32×32, as in experiments with CIFAR."""

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return torch.relu_(y)


class _ZeroPadded(nn.Module):
    """Every second position, and as many zero channels before as after the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        # A slice would leave the gradient in another layout than channels last, and then every
        # operation that meets both layouts takes several times as long.
        x = functional.avg_pool2d(x, 1, 2)
        return functional.pad(x, (0, 0, 0, 0, self.channels, self.channels))


class CifarResNet(nn.Module):
    """The ResNets for small images: 6·`depth` + 2 layers (He et al. 2016, section 4.2).

    A stem and three stages with 16, 32 and 64 channels. Names of layers are those of the most used
    public checkpoints.

    Args:
        channels, classes: of the images.
        depth: blocks per stage; 3 gives ResNet20.
        projection: shortcuts between stages are 1×1 convolutions with batch norm ("option B");
            otherwise they have no parameters ("option A").
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, *, depth: int = 3, projection: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, depth, projection)
        self.layer2 = self._stage(16, 32, depth, projection)
        self.layer3 = self._stage(32, 64, depth, projection)
        self.linear = nn.Linear(64, classes)
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
        """`(batch, channels, side, side)` in, `(batch, classes)` logits out."""
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class CifarVGG(nn.Module):
    """VGG11 for 32×32 without biases and norms, one linear layer at the end (the paper's code)."""

    WIDTHS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
    """Channels of each convolution; 0 is a pooling that halves the image."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in self.WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, 32, 32)` in, `(batch, classes)` logits out."""
        return self.classifier(self.features(x).flatten(1))
