"""The finished runs that come with netweld: whole, small, and true to their weights."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fake_runs
import numpy as np
import pytest
import torch
from small import small

from merge_core import places, samples
from merge_core.data import load
from merge_core.errors import StoreError
from merge_core.methods.output_ensemble import MeanOfOutputs
from merge_core.models import build
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.stages import RETURNABLE
from merge_core.store import RunReader, Store
from merge_core.training import evaluate, load_arrays

MOST_BYTES = 4_000_000
SAMPLES = Store(Path("no home"), samples=places.samples())


REMAKE = "make them again: python -m merge_core.samples assets/samples"


@pytest.fixture(params=samples.RECIPES)
def sample(request: pytest.FixtureRequest) -> Iterator[RunReader]:
    """Every sample in turn."""
    recipe = find_preset(request.param, "quick").recipe
    with SAMPLES.open(f"{recipe.name}-{recipe.preset}-s{samples.SEED}-0000") as reader:
        yield reader


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", samples=tmp_path / "samples")


def network(reader: RunReader, recipe: Recipe, stage: str) -> torch.nn.Module:
    """The network that a stage left, from its stored weights."""
    return load_arrays(build(recipe.model, seed=0), reader.artifact(stage)).eval()


def test_the_samples_are_what_the_recipes_make_now(sample: RunReader) -> None:
    recipe = find_preset(sample.recipe.name, "quick").recipe
    assert sample.recipe == recipe.changed({"seed": str(samples.SEED)}), REMAKE
    assert sample.status()["state"] == "finished"


def test_the_samples_are_small_and_lie_alone() -> None:
    assert len(SAMPLES.names()) == len(samples.RECIPES)
    files = [path for path in places.samples().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {path.suffix for path in files} == {".sqlite", ".safetensors", ".jsonl"}


def test_the_scores_follow_from_the_stored_weights(sample: RunReader) -> None:
    """Teachers, ensemble and every stored network, on the test split, evaluated once more."""
    recipe = sample.merge
    test = load(recipe.data, recipe.seed, Path("nowhere")).test
    stored = {row["name"] for row in sample.artifacts()}
    assert {"teacher_a", "teacher_b", "cut", sample.facts()["returned"]} <= stored
    networks = {stage: network(sample, recipe, stage) for stage in stored}
    networks["ensemble"] = MeanOfOutputs([networks["teacher_a"], networks["teacher_b"]])
    for stage, judged in networks.items():
        again = evaluate(judged, test)
        told = sample.score(stage, "test", "loss")
        assert again["loss"] == pytest.approx(told, rel=1e-4), stage
        if recipe.metric == "accuracy":
            told = sample.score(stage, "test", "accuracy")
            assert again["accuracy"] == pytest.approx(told, abs=2 / len(test)), stage


def test_the_returned_stage_is_the_best_by_held_out_score(sample: RunReader) -> None:
    metric = sample.recipe.metric
    heldout = {stage: sample.score(stage, "heldout", metric) for stage in RETURNABLE}
    there = {stage: score for stage, score in heldout.items() if score is not None}
    best = max if metric == "accuracy" else min
    assert there[sample.facts()["returned"]] == best(there.values())


def test_a_packed_run_is_read_where_nothing_can_be_written(store: Store, tmp_path: Path) -> None:
    run = fake_runs.make(store, "textures")
    weights = sorted(path.name for path in store.directory(run).glob("*.safetensors"))
    with store.open(run) as reader:
        packed = samples.pack(reader, tmp_path / "samples")
        told, scores, kept = reader.facts(), reader.scores(), reader.kept()
        stages = {row["name"] for row in reader.artifacts()} - {"gates", "checkpoint"}
    assert sorted(p.name for p in store.directory(run).glob("*.safetensors")) == weights
    assert packed.name == run[:-4] + "0000"
    assert {path.name for path in packed.iterdir()} == {
        "run.sqlite",
        *(f"{stage}.safetensors" for stage in stages),
    }
    with closing(sqlite3.connect(packed / "run.sqlite")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    with store.open(packed.name) as reader:
        assert reader.sample
        assert reader.facts() == told | {"name": packed.name}
        assert reader.scores() == scores
        assert {row["name"] for row in reader.artifacts()} == stages
        for mine, theirs in zip(reader.kept(), kept, strict=True):
            assert np.array_equal(mine["kept"], theirs["kept"])
        assert all(reader.artifact(stage) for stage in stages)


def test_packing_again_takes_the_old_sample_s_place(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "samples"
    for _ in range(2):
        with store.open(fake_runs.make(store, "sine")) as reader:
            samples.pack(reader, directory)
    (packed,) = directory.iterdir()
    assert store.names()[-1] == packed.name


def test_only_a_finished_and_undamaged_run_is_packed(store: Store, tmp_path: Path) -> None:
    with (
        store.open(fake_runs.make(store, "sine", state="stopped", stop="gates")) as reader,
        pytest.raises(StoreError, match="is stopped, but a sample must be finished"),
    ):
        samples.pack(reader, tmp_path / "samples")
    run = fake_runs.make(store, "sine")
    (store.directory(run) / "cut.safetensors").write_bytes(b"damaged")
    with store.open(run) as reader, pytest.raises(StoreError, match=r"cut\.safetensors .* damaged"):
        samples.pack(reader, tmp_path / "samples")
    assert not list((tmp_path / "samples").iterdir())


def test_a_made_sample_is_a_real_run(tmp_path: Path) -> None:
    recipe = small("sine")
    made = samples.make(recipe, tmp_path)
    with Store(tmp_path / "home", samples=tmp_path).open(made.name) as reader:
        assert reader.recipe == recipe
        assert reader.status()["state"] == "finished"
        assert reader.device == "cpu"
        stored = {row["file"] for row in reader.artifacts()}
        assert all(row["epoch"] is None for row in reader.artifacts()), "no state within a stage"
    assert {path.name for path in made.iterdir()} == {"run.sqlite", *stored}
