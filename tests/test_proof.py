"""Nothing is trained or merged before the laws of the network's channel graph hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import small
from torch import nn

from merge_core import compared, proof, worker
from merge_core.channels import LawErrors
from merge_core.errors import GraphError
from merge_core.events import StageFinished, StagePlanned, StageStarted
from merge_core.models import build
from merge_core.presets import preset_of
from merge_core.presets.ours import ours
from merge_core.proof import proved
from merge_core.recipes import Experiment
from merge_core.store import Store
from merge_core.tables import Block
from merge_core.training import state_arrays

EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    "merge": lambda: small("digits"),
    "ours": lambda: ours(small("digits"), 30.0),
    "coupled": lambda: preset_of("digits-coupled", "quick").recipe,
    "averaged": lambda: preset_of("digits-averaged", "quick").recipe,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, samples=tmp_path / "no samples")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel graph that is wrong: permuting changes the output by a half."""
    monkeypatch.setattr(proof, "check", lambda *_: LawErrors(0.5, 0.0, 0.0, 0.0))


def test_a_network_that_keeps_the_laws_gets_its_graph() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = proved(network, torch.randn(4, 3), "mine")
    assert [space.size for space in graph.free] == [5]


def test_laws_that_are_no_numbers_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "check", lambda *_: LawErrors(float("nan"), 0.0, 0.0, 0.0))
    with pytest.raises(GraphError, match="'mine' breaks its laws by nan"):
        proved(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), torch.randn(4, 3), "mine")


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_an_experiment_is_refused_before_it_trains(kind: str, store: Store) -> None:
    name = store.create(EXPERIMENTS[kind](), "cpu")
    assert worker.run(store, name, worker.carry_out) == 1
    with store.open(name) as reader:
        assert "breaks its laws by 5.0e-01" in reader.status()["message"]
        assert not any(stage["started"] for stage in reader.stages())


@pytest.mark.usefixtures("broken")
def test_a_table_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="breaks its laws"):
        Block(small("digits"), [0], "flops", device="cpu", data_dir=tmp_path)


@pytest.mark.usefixtures("broken")
def test_a_comparison_is_refused_before_it_merges(store: Store) -> None:
    recipe = small("digits")
    run = store.create(recipe, "cpu")
    with store.writer(run) as writer:
        for seed, stage in enumerate(compared.TEACHERS):
            writer.write(StagePlanned(stage=stage, epochs=1, steps=1, flops=1.0))
            writer.write(StageStarted(stage=stage))
            arrays = state_arrays(build(recipe.model, seed, recipe.data.shape))
            writer.write(StageFinished(stage=stage, scores={}, seconds=1.0, arrays=arrays))
        writer.finish("stopped")
    with store.open(run) as reader:
        comparison, inputs = compared.of_run(reader, ("uniform",), examples=100, fine_tune=0)
    name = store.create(comparison, "cpu", inputs)
    assert worker.run(store, name, worker.carry_out) == 1
    with store.open(name) as reader:
        assert "breaks its laws" in reader.status()["message"]
        assert not any(stage["finished"] for stage in reader.stages())
