"""Networks as users write them: widths as numbers in the code, heads, tied weights, refusals."""

import math

import pytest
import torch
from test_channels import randomised
from torch import Tensor, nn
from torch.nn import functional as F

from merge_core.channels import ChannelGraph, check, concatenate, select, trace
from merge_core.errors import GraphError


class LiteralView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.last = nn.Conv2d(3, 4, 3), nn.Linear(36, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).view(-1, 4 * 3 * 3)
        return self.last(F.relu(self.hidden(x)))


class ZeroPadded(nn.Module):
    """The shortcut of the CIFAR ResNets, with its padding as a number in a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, 2, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)
        self.shortcut = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8 // 4, 8 // 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.norm(self.conv(x)) + self.shortcut(x)).mean((2, 3)))


class Blank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        blank = torch.zeros(len(x), 2, *x.shape[2:], dtype=x.dtype, device=x.device)
        return self.head((self.two(x) + torch.cat([x, blank], 1)).relu().mean((2, 3)))


class Transformer(nn.Module):
    """A small GPT: fused projection, heads as an attribute, tied or untied."""

    def __init__(self, fused: bool, tied: bool = False) -> None:
        super().__init__()
        self.heads, self.width, self.fused = 2, 8, fused
        self.tokens, self.places = nn.Embedding(9, 8), nn.Parameter(torch.randn(1, 5, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, 9, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, index: Tensor) -> Tensor:
        x = self.tokens(index) + self.places
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(x)).split(self.width, dim=2)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return self.head(self.last(x))[:, -1]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(5, 8), nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1)
        return self.head(self.encoder(x)[:, 0])


class Recurrent(nn.Module):
    """One convolution used three times, and a mapping as output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.step(x).relu()
        return {"logits": self.head(x.amax((2, 3)))}


class Asking(nn.Module):
    """Code that differs between the modes, with widths as numbers in either."""

    def __init__(self, plainly: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)
        self.plainly = plainly
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        if self.plainly:  # a function in C, which takes no other value for the mode than a bool
            x = torch.dropout(x, 0.0, self.training)
        elif self.training:
            x = x.view(-1, 4, 9).view(len(x), -1, 3, 3)
        return self.head(self.two(x).relu().reshape(len(x), 54))


class Mixing(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed, self.mix, self.head = nn.Linear(5, 6), nn.Linear(4, 4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if self.kind == "tokens":
            x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "channels":
            x = x * x.mean(-1, keepdim=True).sigmoid()
        if self.kind == "data" and x.sum() > 0:
            x = -x
        x = self.head(x.mean(1))
        return x.log_softmax(1) if self.kind == "log_softmax" else x


IMAGES, TOKENS, ROWS = (3, 3, 5, 5), (3, 5), (3, 4, 5)
GOOD = {
    "literal view": (LiteralView, IMAGES),
    "asking for the mode": (Asking, IMAGES),
    "mode for a function in C": (lambda: Asking(plainly=True), IMAGES),
    "zero padding": (ZeroPadded, IMAGES),
    "blank channels": (Blank, IMAGES),
    "attention": (lambda: Transformer(False), TOKENS),
    "fused attention": (lambda: Transformer(True), TOKENS),
    "encoder": (Encoder, ROWS),
    "shared convolution": (Recurrent, IMAGES),
}


def example_of(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if shape is TOKENS:
        return torch.randint(0, 9, shape, generator=generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def traced(model: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor, ChannelGraph]:
    model, example = randomised(model.double()), example_of(shape)
    return model, example, trace(model, example)


@pytest.mark.parametrize("name", GOOD)
def test_laws(name: str) -> None:
    factory, shape = GOOD[name]
    model, example, graph = traced(factory(), shape)
    assert check(model, graph, example).worst < 1e-12


@pytest.mark.parametrize("name", GOOD)
def test_student_loads_into_a_fresh_teacher(name: str) -> None:
    factory, shape = GOOD[name]
    model, example, graph = traced(factory(), shape)
    big = concatenate([model, model], graph)
    half = {space.name: torch.arange(space.size) for space in graph.free}
    student = select(big, trace(big, example), half).eval()
    fresh = factory().double().eval()
    fresh.load_state_dict(student.state_dict())
    one, two = student(example), fresh(example)
    one, two = (out["logits"] if isinstance(out, dict) else out for out in (one, two))
    torch.testing.assert_close(one, two)


def test_label_sets_side_by_side() -> None:
    first, second = (
        randomised(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, labels)), labels)
        for labels in (3, 2)
    )
    example = torch.randn(2, 5)
    big = concatenate([first, second], trace(first, example), heads="concatenate")
    torch.testing.assert_close(big(example), torch.cat([first(example), second(example)], 1))


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (Mixing("tokens"), ROWS, "'mix' applies 'linear' along positions"),
        (Mixing("channels"), ROWS, "the network applies 'mean' over its channels"),
        (Mixing("data"), ROWS, "looks at the numbers of its data"),
        (Mixing("log_softmax"), ROWS, "applies 'log_softmax'.*return logits"),
        (Transformer(False, tied=True), TOKENS, "a weight tied between input and output"),
        (nn.Sequential(nn.Linear(5, 4), nn.LSTM(4, 4)), ROWS, "Layer '1' applies 'lstm'"),
        (
            nn.Sequential(nn.ReLU(), nn.Linear(6, 4)),
            ROWS,
            "shape .*at or after 'linear' in layer '1'",
        ),
    ],
)
def test_refusals(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    model, example = randomised(model.double()), example_of(shape)
    with pytest.raises(GraphError, match=sentence):
        concatenate([model, model], trace(model, example))
