"""Property tests: the laws on randomly built networks that mix every kind of part."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_channels import randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from merge_core.channels import check, concatenate, trace

PARTS = ("conv", "residual", "dense", "grouped", "depthwise", "squeeze", "shuffle", "norm", "gate",
         "padded", "layer_norm", "scale", "glu", "attention", "multihead", "shared_conv",
         "shared_linear", "dropout", "stochastic", "bare_conv", "bare_linear")  # fmt: skip
HEADS = 2


class Part(nn.Module):
    """One stage that takes `width` channels of an image and gives `self.width`."""

    def __init__(self, kind: str, width: int, wanted: int) -> None:
        super().__init__()
        self.kind = kind
        self.width = width
        if kind in ("conv", "padded"):
            self.width = wanted if kind == "conv" else width + 2
            self.conv = nn.Conv2d(width, self.width, 3, padding=1)
        elif kind == "residual":
            self.first, self.second = nn.Conv2d(width, wanted, 1), nn.Conv2d(wanted, width, 1)
        elif kind == "dense":
            self.conv = nn.Conv2d(width, wanted, 1)
            self.width = width + wanted
        elif kind == "grouped":
            self.before, self.conv = nn.Conv2d(width, 6, 1), nn.Conv2d(6, 9, 3, padding=1, groups=3)
            self.width = 9
        elif kind == "depthwise":
            self.conv = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
            self.width = 2 * width
        elif kind == "squeeze":
            self.down, self.up = nn.Linear(width, wanted), nn.Linear(wanted, width)
        elif kind == "shuffle":
            self.conv = nn.Conv2d(width, width, 1)
            self.width = 2 * width
        elif kind == "norm":
            self.norm = nn.BatchNorm2d(width)
        elif kind == "layer_norm":
            self.norm = nn.LayerNorm(width)
        elif kind == "scale":
            self.scale = nn.Parameter(torch.ones(width, 1, 1))
        elif kind in ("gate", "glu"):
            self.conv = nn.Conv2d(width, 2 * wanted, 1)
            self.width = wanted
        elif kind == "attention":
            self.qkv = nn.Linear(width, 3 * HEADS * wanted)
            self.out = nn.Linear(HEADS * wanted, width)
        elif kind == "multihead":
            self.down, self.up = nn.Linear(width, HEADS * wanted), nn.Linear(HEADS * wanted, width)
            self.attend = nn.MultiheadAttention(HEADS * wanted, HEADS, batch_first=True)
        elif kind == "shared_conv":
            self.conv = nn.Conv2d(width, width, 3, padding=1)
        elif kind == "shared_linear":
            self.down = nn.Linear(width, wanted)
            self.one, self.other = nn.Linear(wanted, width), nn.Linear(wanted, width)
        elif kind == "dropout":
            self.drop, self.conv = nn.Dropout(0.5), nn.Conv2d(width, wanted, 1)
            self.width = wanted
        elif kind == "stochastic":
            self.conv, self.drop = nn.Conv2d(width, width, 1), StochasticDepth(0.5, "row")
        elif kind in ("bare_conv", "bare_linear"):
            side = (3, 3) if kind == "bare_conv" else ()
            self.weight = nn.Parameter(torch.randn(wanted, width, *side) / width)
            self.bias = nn.Parameter(torch.randn(wanted))
            self.factor, self.shift = (nn.Parameter(torch.randn(wanted)) for _ in range(2))
            self.width = wanted

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "conv":
                return F.relu(self.conv(x))
            case "padded":
                return F.relu(self.conv(x) + F.pad(x, (0, 0, 0, 0, 1, 1)))
            case "residual":
                return x + self.second(F.gelu(self.first(x)))
            case "dense":
                return torch.cat([x, self.conv(x).relu_()], 1)
            case "grouped":
                return self.conv(self.before(x))
            case "depthwise":
                return F.silu(self.conv(x))
            case "squeeze":
                weight = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
                return x * weight[:, :, None, None]
            case "shuffle":
                both = torch.cat([x, self.conv(x)], 1)
                return both.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
            case "norm":
                return self.norm(x)
            case "layer_norm":
                return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "scale":
                return x * self.scale
            case "gate":
                value, gate = self.conv(x).chunk(2, 1)
                return value * torch.sigmoid(gate)
            case "glu":
                return F.glu(self.conv(x), 1)
            case "attention" | "multihead" | "shared_linear" | "bare_linear":
                tokens = self.tokens(x.flatten(2).transpose(1, 2))
                return tokens.transpose(1, 2).unflatten(2, x.shape[2:])
            case "shared_conv":
                return x + self.conv(F.relu(self.conv(x)))
            case "dropout":
                return self.conv(self.drop(x))
            case "stochastic":
                return x + self.drop(F.relu(self.conv(x)))
            case _:
                return F.relu(F.conv2d(x, self.weight, self.bias, padding=1))

    def tokens(self, x: Tensor) -> Tensor:
        """The stages that take positions as a sequence, channels last."""
        match self.kind:
            case "attention":
                sides = (len(x), x.shape[1], 3, HEADS, -1)
                q, k, v = self.qkv(x).reshape(sides).permute(2, 0, 3, 1, 4).unbind(0)
                weight = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
                return x + self.out((weight @ v).transpose(1, 2).flatten(2))
            case "multihead":
                y = self.down(x)
                return x + self.up(self.attend(y, y, y, need_weights=False)[0])
            case "shared_linear":
                return self.one(self.down(x).relu()) + self.other(self.down(torch.tanh(x)).relu())
            case _:
                y = F.gelu(F.linear(x, self.weight, self.bias))
                return F.layer_norm(y, y.shape[-1:], self.factor, self.shift)


class Mixed(nn.Module):
    def __init__(self, kinds: list[tuple[str, int]], spatial: bool) -> None:
        super().__init__()
        width = 4
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.parts = nn.Sequential()
        for kind, wanted in kinds:
            part = Part(kind, width, wanted)
            self.parts.append(part)
            width = part.width
        self.spatial = spatial
        self.head = nn.Linear(width * (4 if spatial else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts(self.stem(x))
        x = F.adaptive_avg_pool2d(x, 2 if self.spatial else 1)
        return self.head(x.flatten(1))


def keeps_the_laws(kinds: list[tuple[str, int]], spatial: bool) -> None:
    torch.manual_seed(0)
    model = randomised(Mixed(kinds, spatial).double())
    example = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    graph = trace(model, example)
    assert trace(model, example) == graph
    assert check(model, graph, example).worst < 1e-12
    big = trace(concatenate([model] * 3, graph), example)
    assert [(s.name, s.size) for s in big.free] == [(s.name, 3 * s.size) for s in graph.free]


@settings(max_examples=18, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(st.tuples(st.sampled_from(PARTS), st.integers(2, 4)), max_size=5),
    spatial=st.booleans(),
)
def test_laws_on_random_networks(kinds: list[tuple[str, int]], spatial: bool) -> None:
    keeps_the_laws(kinds, spatial)


@pytest.mark.parametrize("kind", PARTS)
def test_laws_of_each_part_between_others(kind: str) -> None:
    keeps_the_laws([("conv", 4), (kind, 3), ("norm", 2)], spatial=True)
