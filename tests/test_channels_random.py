"""Property tests: the laws on randomly built networks that mix every kind of part."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_channels import randomised
from torch import Tensor, nn
from torch.nn import functional as F

from merge_core.channels import check, concatenate, trace

PARTS = ("conv", "residual", "dense", "grouped", "depthwise", "squeeze", "shuffle", "norm", "gate",
         "padded", "layer_norm", "scale", "glu")  # fmt: skip


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
            case _:
                return F.glu(self.conv(x), 1)


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


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(st.tuples(st.sampled_from(PARTS), st.integers(2, 4)), max_size=5),
    spatial=st.booleans(),
)
def test_laws_on_random_networks(kinds: list[tuple[str, int]], spatial: bool) -> None:
    torch.manual_seed(0)
    model = randomised(Mixed(kinds, spatial).double())
    example = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    graph = trace(model, example)
    assert trace(model, example) == graph
    assert check(model, graph, example).worst < 1e-12
    big = trace(concatenate([model] * 3, graph), example)
    assert [(s.name, s.size) for s in big.free] == [(s.name, 3 * s.size) for s in graph.free]
