"""The small networks of the quick recipes and of the paper's first problems."""

import torch
from torch import Tensor, nn


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
    """Two convolutions with batch norm and a linear layer, for 8×8 images."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(channels, 12, 3), nn.MaxPool2d(2), _block(12, 24, 3), nn.MaxPool2d(2)
        )
        self.classifier = nn.Linear(24 * 2 * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, 8, 8)` in, `(batch, classes)` logits out."""
        return self.classifier(self.features(x).flatten(1))


class PatchCNN(nn.Module):
    """Three convolutions with batch norm, made for patches of 32×32.

    The first layer has 16 filters of 7×7, large enough to look at.
    """

    def __init__(self, channels: int = 3, classes: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(channels, 16, 7, stride=2),
            _block(16, 32, 3, stride=2),
            _block(32, 64, 3, stride=2),
        )
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, side, side)` in, `(batch, classes)` logits out."""
        return self.classifier(self.features(x).mean((2, 3)))


class LeNet(nn.Module):
    """LeNet: convolutions with 6 and 16 channels, linear layers 400-120-80 (section 3.2)."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
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
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 80), nn.ReLU(), nn.Linear(80, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, 28, 28)` in, `(batch, classes)` logits out."""
        return self.classifier(self.features(x).flatten(1))
