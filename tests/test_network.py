"""Descriptions of networks: against hand counts, through storage, as diagrams and pictures."""

import dataclasses
import json
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torchvision.models import get_model

from merge_core.channels import check, trace
from merge_core.description import Description
from merge_core.errors import StoreError
from merge_core.inspection import describe, randomised
from merge_core.models.small import DigitsCNN
from merge_core.plots.network import spaces_diagram
from merge_core.views.network import diagram, layer_table, space_table


class Block(nn.Module):
    """Two linear layers beside a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


def residual(blocks: int = 4) -> nn.Module:
    """A stream of six channels through equal blocks."""
    return nn.Sequential(nn.Linear(3, 6), *(Block(6) for _ in range(blocks)), nn.Linear(6, 2))


def described(model: nn.Module, example: Tensor) -> Description:
    """A description with the laws really measured."""
    graph = trace(model, example)
    laws = vars(check(model, graph, example))
    return describe(model, graph, example, name="net", laws=laws, trace_seconds=0.5)


@pytest.fixture(scope="module")
def stream() -> Description:
    return described(randomised(residual()), torch.randn(4, 3))


def test_digits_cnn_against_hand_counts() -> None:
    model = DigitsCNN()
    found = described(model, torch.randn(4, 1, 8, 8))
    first, second = "features.0.0", "features.2.0"
    assert {space.name: space.size for space in found.spaces if space.free} == {
        first: 12,
        second: 24,
    }
    assert [layer.name for layer in found.layers] == [
        first, "features.0.1", second, "features.2.1", "classifier",
    ]  # fmt: skip
    work = [2 * 64 * 9 * 12, 0, 2 * 16 * 9 * 12 * 24, 0, 2 * 96 * 10]
    assert [layer.flops for layer in found.layers] == work
    own = [9 * 12, 2 * 12, 9 * 12 * 24, 2 * 24, 96 * 10 + 10]
    assert [layer.parameters for layer in found.layers] == own
    assert found.teacher.parameters == sum(own)
    assert found.teacher.flops == sum(work)
    big_work = 2 * work[0] + 4 * work[2] + 2 * work[4]
    big = 2 * own[0] + 2 * own[1] + 4 * own[2] + 2 * own[3] + 2 * 960 + 10
    assert (found.big.parameters, found.big.flops) == (big, big_work)
    assert found.student == found.teacher
    assert found.input == (1, 8, 8)
    assert 0 < found.worst_law < 1e-5


def test_layers_whose_weights_alone_are_used_stand_where_they_are_used() -> None:
    """As in Swin's attention, which hands the weights of its layers to a function."""

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.back = nn.Linear(6, 5), nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(linear(x, self.wide.weight, self.wide.bias))
            return linear(hidden, self.back.weight, self.back.bias)

    model = nn.Sequential(nn.Linear(3, 6), Inside(), nn.Linear(6, 2))
    names = [layer.name for layer in described(model, torch.randn(4, 3)).layers]
    assert [name for name in names if name != "1"] == ["0", "1.wide", "1.back", "2"]


def test_describing_leaves_the_network_alone() -> None:
    model = DigitsCNN().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    described(model, torch.randn(4, 1, 8, 8))
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_a_description_survives_json(stream: Description) -> None:
    assert Description.from_json(json.dumps(stream.to_dict())) == stream


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x", "input": 3}'])
def test_a_damaged_description_is_a_sentence(text: str) -> None:
    with pytest.raises(StoreError, match=r"inspect"):
        Description.from_json(text)


def test_the_worst_law_notices_what_is_no_number(stream: Description) -> None:
    for laws in ({"a": float("nan"), "b": 0.0}, {"a": 0.0, "b": float("nan")}):
        assert not dataclasses.replace(stream, laws=laws).worst_law <= 1e-4


def test_randomised_leaves_no_two_channels_alike() -> None:
    norm = randomised(nn.BatchNorm2d(8))
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert isinstance(tensor, Tensor)
        assert len(tensor.unique()) == 8
    assert isinstance(norm.running_var, Tensor)
    assert bool((norm.running_var > 0).all())


def test_a_residual_stream_is_one_thick_lane(stream: Description) -> None:
    drawn = diagram(stream, fold=False)
    (lane,) = [lane for lane in drawn.lanes if lane.stream]
    assert (lane.name, lane.size, lane.lane, lane.first, lane.last) == ("0", 6, 0, 0, 9)
    on_it = drawn.marks[drawn.marks["lane"] == 0]
    assert Counter(on_it["how"]) == {"writes": 5, "reads": 5}


def test_every_use_of_a_space_is_a_mark_and_no_two_lanes_collide(stream: Description) -> None:
    drawn = diagram(stream, fold=False)
    for how, names in (("writes", "writers"), ("reads", "readers")):
        count = sum(len(getattr(space, names)) for space in stream.spaces)
        assert list(drawn.marks["how"]).count(how) == count
    for a in drawn.lanes:
        for b in drawn.lanes:
            apart = a.lane != b.lane or a.last < b.first or b.last < a.first
            assert a == b or apart


def test_repeated_blocks_fold_into_one(stream: Description) -> None:
    drawn = diagram(stream, fold=True)
    assert drawn.labels == ["0", "1–4.up", "1–4.down", "5"]
    assert drawn.hidden == 6
    assert len(diagram(stream, fold=False).labels) == 10


def test_blocks_of_other_shapes_do_not_fold() -> None:
    inner = (Block(4), Block(4), nn.Linear(4, 6), Block(6))
    model = nn.Sequential(nn.Linear(3, 4), *inner, nn.Linear(6, 2))
    drawn = diagram(described(randomised(model), torch.randn(4, 3)), fold=True)
    assert drawn.labels == ["0", "1–2.up", "1–2.down", "3", "4.up", "4.down", "5"]


def test_hovering_tells_writers_readers_and_sizes(stream: Description) -> None:
    drawn = diagram(stream, fold=False)
    marks = drawn.marks[(drawn.marks["row"] == 1) & (drawn.marks["how"] == "reads")]
    (text,) = marks["text"]
    for words in ("<b>1.up</b>", "12×6", "84 parameters", "reads <b>0</b>: 6 units",
                  "written by 0, 1.down, 2.down, 3.down and 1 more",
                  "read by 1.up, 2.up, 3.up, 4.up and 1 more"):  # fmt: skip
        assert words in text


def test_the_tables_say_the_same(stream: Description) -> None:
    layers = layer_table(stream).set_index("Layer")
    assert layers.loc["2.down", "Writes"] == "0"
    assert layers.loc["2.down", "Reads"] == "2.up"
    spaces = space_table(stream, 1).set_index("Space")
    assert spaces.loc["0", "Written by"] == "0 and 4 more"
    assert list(spaces["Fixed"]) == ["fixed", "", "", "", "", "", "fixed"]


def test_the_picture_has_every_layer_and_says_more_than_by_colour(stream: Description) -> None:
    drawn = diagram(stream, fold=False)
    picture = spaces_diagram(drawn).to_dict()
    assert picture["layout"]["yaxis"]["ticktext"] == drawn.labels
    symbols = {each["name"]: each["marker"]["symbol"] for each in picture["data"] if "name" in each}
    assert symbols["writes the space"] != symbols["reads it"]
    (sizes,) = [each["text"] for each in picture["data"] if each["mode"] == "text"]
    assert sorted(sizes) == sorted(str(lane.size) for lane in drawn.lanes)


def unmeasured(name: str) -> Description:
    """One of torchvision's networks, without numbers and without laws."""
    with torch.device("meta"):
        model = get_model(name, weights=None)
    example = torch.empty(2, 3, 32, 32)
    return describe(model, trace(model, example), example, name=name, laws={}, trace_seconds=0.0)


def test_depthwise_layers_are_shown_within_their_space() -> None:
    found = unmeasured("shufflenet_v2_x0_5")
    drawn = diagram(found, fold=False)
    assert "passes" in set(drawn.marks["how"])
    assert found.student == found.teacher


@pytest.mark.parametrize(
    ("name", "rows", "unfolded", "lanes"),
    [("resnet50", 30, 54, 5), ("densenet121", 121, 121, 27)],
)
def test_large_networks_stay_readable(name: str, rows: int, unfolded: int, lanes: int) -> None:
    """As many rows and lanes as a person can look through: the spaces share lanes."""
    found = unmeasured(name)
    for fold, height in ((True, rows), (False, unfolded)):
        drawn = diagram(found, fold=fold)
        assert (len(drawn.labels), drawn.hidden) == (height, unfolded - height)
        assert len(set(drawn.labels)) == height
        assert max(map(len, drawn.labels)) <= 31  # 30 letters and an ellipsis
        assert {lane.lane for lane in drawn.lanes} == set(range(lanes))
        assert max(drawn.marks["row"]) == height - 1
        for a in drawn.lanes:
            assert 0 <= a.first <= a.last < height
            for b in drawn.lanes:
                assert a == b or a.lane != b.lane or a.last < b.first or b.last < a.first
        picture = spaces_diagram(drawn).to_dict()["layout"]
        pixels = (picture["height"] - 90) / height
        assert pixels >= 16  # a label of 10 to 13 px on each row
        assert picture["height"] <= 2100  # two or three screens
        assert picture["yaxis"]["tickfont"]["size"] <= pixels - 6
        left, right = picture["xaxis"]["range"]
        assert left < 0
        assert lanes - 1 < right < 28  # on the narrowest page, 12 px from lane to lane
