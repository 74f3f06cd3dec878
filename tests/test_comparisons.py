"""A comparison from end to end: what it stores and prints, and what stopping it leaves."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small
from torch import nn

from merge_core import compared, hearing, methods, worker
from merge_core.catalogue import METHODS
from merge_core.cli import comparing, results
from merge_core.data import load
from merge_core.errors import GraphError, RecipeError, StoreError
from merge_core.events import Event, Progress, StageFinished, StagePlanned, StageStarted
from merge_core.models import build
from merge_core.recipes import Comparison, Recipe
from merge_core.store import RunReader, Store
from merge_core.training import evaluate, state_arrays
from merge_core.views.outcomes import outcomes

KEYS = ("uniform", "output_ensemble", "learned_gates")
SPACES = {"digits": {"features.0.0": 12, "features.2.0": 24}, "sine": {"hidden": 100}}
MATRICES = ("correlation", "incoming_cosine", "incoming_l2", "outgoing_cosine", "outgoing_l2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("home"), samples=tmp_path_factory.mktemp("samples"))


def teacher(recipe: Recipe, seed: int) -> nn.Module:
    return build(recipe.model, seed, recipe.data.shape).eval()


def merged_run(store: Store, name: str) -> str:
    """A merge whose teachers are trained, as far as a comparison can see."""
    recipe = small(name)
    run = store.create(recipe, "cpu")
    with store.writer(run) as writer:
        for seed, stage in enumerate(compared.TEACHERS):
            writer.write(StagePlanned(stage=stage, epochs=1, steps=1, flops=1.0))
            writer.write(StageStarted(stage=stage))
            arrays = state_arrays(teacher(recipe, seed))
            writer.write(StageFinished(stage=stage, scores={}, seconds=1.0, arrays=arrays))
        writer.finish("stopped")
    return run


def compare(store: Store, run: str, keys: tuple[str, ...] = KEYS, fine_tune: int = 0) -> str:
    """A comparison of a run's teachers, carried out by this process."""
    with store.open(run) as reader:
        comparison, inputs = compared.of_run(reader, keys, examples=100, fine_tune=fine_tune)
    name = store.create(comparison, "cpu", inputs)
    assert worker.run(store, name, worker.carry_out) == 0
    return name


@pytest.fixture(scope="module", params=["digits", "sine"])
def reader(home: Store, request: pytest.FixtureRequest) -> Iterator[RunReader]:
    name = compare(home, merged_run(home, request.param), fine_tune=1)
    with home.open(name) as opened:
        yield opened


def facts(reader: RunReader) -> dict:
    return {row["stage"]: row["facts"] for row in reader.stages()}


def test_stages_come_in_order_and_all_finish(reader: RunReader) -> None:
    stages = reader.stages()
    assert [row["stage"] for row in stages] == ["teachers", "alignment", "barrier", *KEYS]
    assert all(row["finished"] and row["steps"] > 0 and row["flops"] > 0 for row in stages)
    assert reader.status()["state"] == "finished"


def test_teachers_are_judged_as_they_are(reader: RunReader) -> None:
    recipe = reader.comparison
    data = load(recipe.data, recipe.seed, Path("nowhere"))
    told = facts(reader)["teachers"]["scores"]
    assert len(told) == 2
    for seed, scores in enumerate(told):
        network = build(recipe.model, seed, recipe.data.shape)
        for split in ("heldout", "test"):
            assert scores[split] == pytest.approx(evaluate(network, getattr(data, split)), rel=1e-5)


def test_the_alignment_has_every_array_of_every_space(reader: RunReader) -> None:
    name = reader.comparison.data.name
    arrays = reader.artifact("alignment")
    told = facts(reader)["alignment"]
    assert {each["name"]: each["size"] for each in told["spaces"]} == SPACES[name]
    assert told["examples"] == 100
    assert np.all(np.diff(told["objective"]) >= -1e-3)
    for space, size in SPACES[name].items():
        for kind in (*MATRICES, *(f"{each}_aa" for each in MATRICES), "correlation_bb"):
            matrix = arrays[f"{space}|{kind}"]
            assert (matrix.shape, matrix.dtype) == ((size, size), np.float16)
            assert np.isfinite(matrix).all()
        for kind in ("match_activations", "match_weights"):
            assert sorted(arrays[f"{space}|{kind}"]) == list(range(size))
        live = ~arrays[f"{space}|dead_a"]
        assert np.diag(arrays[f"{space}|correlation_aa"])[live] == pytest.approx(1, abs=1e-3)
        assert np.diag(arrays[f"{space}|incoming_l2_aa"]) == pytest.approx(0, abs=1e-3)
        assert np.diag(arrays[f"{space}|outgoing_cosine_aa"]) == pytest.approx(1, abs=1e-3)
    count = len(SPACES[name])
    assert arrays["cka"].shape == arrays["cka_aa"].shape == (count, count)
    assert np.diag(arrays["cka_aa"]) == pytest.approx(1, abs=1e-4)


def test_first_filters_are_stored_where_they_are_pictures(reader: RunReader) -> None:
    recipe = reader.comparison
    arrays = reader.artifact("alignment")
    if recipe.data.name == "sine":
        assert "first_layer" not in facts(reader)["alignment"]
        assert "first|a" not in arrays
        return
    assert facts(reader)["alignment"]["first_layer"] == {"space": "features.0.0"}
    for seed, letter in enumerate("ab"):
        weight = state_arrays(build(recipe.model, seed, recipe.data.shape))["features.0.0.weight"]
        assert np.array_equal(arrays[f"first|{letter}"], weight)


def test_the_line_begins_and_ends_at_the_teachers(reader: RunReader) -> None:
    told = facts(reader)
    barrier = told["barrier"]
    assert barrier["curves"].keys() == barrier["barrier"].keys() == {"naive", "matched", "repaired"}
    for lines in barrier["curves"].values():
        for split, metrics in lines.items():
            for metric, values in metrics.items():
                for end, at in ((0, 0), (1, -1)):
                    score = told["teachers"]["scores"][end][split][metric]
                    assert values[at] == pytest.approx(score, rel=1e-3, abs=1e-4)
    middle = barrier["points"].index(0.5)
    naive = barrier["curves"]["naive"]["test"]["loss"][middle]
    average = told["uniform"]["after"]["merged"]["test"]["loss"]
    assert naive == pytest.approx(average, rel=1e-3), "the middle is the uniform average"


def test_every_method_is_judged_in_every_state(reader: RunReader) -> None:
    told = facts(reader)
    metric, better = reader.comparison.metric, reader.comparison.better
    for key in KEYS:
        after = told[key]["after"]
        states = {"merged"} if key == "output_ensemble" else {"merged", "repaired", "fine_tuned"}
        if key == "learned_gates" and reader.comparison.data.name == "sine":
            states -= {"repaired"}  # trained, and without a norm that could be measured afresh
        assert after.keys() == states
        best = told[key]["best"]
        rivals = [scores["heldout"][metric] for scores in after.values()]
        assert not any(better(rival, after[best]["heldout"][metric]) for rival in rivals)
        for split, scores in after["merged"].items():
            assert reader.score(key, split, metric) == pytest.approx(scores[metric])
        assert told[key]["flops"] == told["teachers"]["flops"] * (1 + (key == "output_ensemble"))
        assert told[key]["seconds"].keys() == told[key]["training_flops"].keys() | (
            {"repair"} if "repaired" in after else set()
        )
    assert told["learned_gates"]["training_flops"]["merge"] > 0
    assert told["uniform"]["training_flops"]["merge"] == 0


def test_chance_is_that_of_the_test_examples(reader: RunReader) -> None:
    """Against NumPy on what the stored networks answer, example by example."""
    recipe, told = reader.comparison, facts(reader)
    data = load(recipe.data, recipe.seed, Path("nowhere"))
    inputs, targets = data.test.inputs, data.test.targets

    def answers(network: nn.Module) -> np.ndarray:
        with torch.no_grad():
            outputs = network.eval()(inputs)
        if recipe.metric == "accuracy":
            return (outputs.argmax(1) == targets).double().numpy()
        return (outputs - targets).square().mean(1).double().numpy()

    own = [answers(build(recipe.model, seed, recipe.data.shape)) for seed in (0, 1)]
    root = len(targets) ** 0.5
    for values, chance in zip(own, told["teachers"]["chance"], strict=True):
        assert chance == {"error": pytest.approx(values.std() / root, rel=1e-4), "minus": []}
    for key in ("uniform", "learned_gates"):
        network = build(recipe.model, 9, recipe.data.shape)
        arrays = reader.artifact(key)
        network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
        values, chance = answers(network), told[key]["chance"][told[key]["best"]]
        assert told[key]["chance"].keys() == told[key]["after"].keys()
        assert chance["error"] == pytest.approx(values.std() / root, rel=1e-4)
        for theirs, (gain, error) in zip(own, chance["minus"], strict=True):
            assert gain == pytest.approx((values - theirs).mean(), rel=1e-3, abs=1e-6)
            assert error == pytest.approx((values - theirs).std() / root, rel=1e-3, abs=1e-6)


def test_a_method_s_network_is_the_one_that_was_best(reader: RunReader) -> None:
    recipe = reader.comparison
    data = load(recipe.data, recipe.seed, Path("nowhere"))
    for key in ("uniform", "learned_gates"):
        network = build(recipe.model, 9, recipe.data.shape)
        arrays = reader.artifact(key)
        network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
        told = facts(reader)[key]
        assert evaluate(network, data.test) == pytest.approx(
            told["after"][told["best"]]["test"], rel=1e-4
        )


def test_the_tables_are_printed(reader: RunReader, capsys: pytest.CaptureFixture[str]) -> None:
    results.show_result(reader)
    out = capsys.readouterr().out
    rows = [line.split("  ")[0].strip() for line in out.splitlines()]
    for first in ("Teacher A", "Teacher B", "Output ensemble", "Uniform average", "Learned gates"):
        assert first in rows
    assert "after 1 epoch" in out
    found = outcomes(reader)
    assert "Best minus" in out
    assert out.count(" ± ") == 2 + sum(len(each.networks) + 1 for each in found.methods)
    assert "± is one standard error" in out
    comparing.show_barrier(reader)
    out = capsys.readouterr().out
    assert out.count("Barrier ") == 2
    assert "Test loss" in out
    results.show_run(reader)
    assert "fine_tune.epochs=1" in capsys.readouterr().out


def test_every_method_of_the_catalogue_is_compared(home: Store) -> None:
    name = compare(home, merged_run(home, "sine"), tuple(card.key for card in METHODS))
    with home.open(name) as opened:
        told = facts(opened)
    for card in METHODS:
        assert "error" not in told[card.key], told[card.key]
        assert told[card.key]["size"] == card.size


def test_a_zip_of_a_part_shows_what_its_width_costs(
    home: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with home.open(merged_run(home, "digits")) as reader:
        comparison, inputs = compared.of_run(
            reader, ("zip", "uniform"), examples=100, fine_tune=1, settings={"up_to": "1"}
        )
    name = home.create(comparison, "cpu", inputs)
    assert worker.run(home, name, worker.carry_out) == 0
    with home.open(name) as opened:
        told, found = facts(opened), outcomes(opened)
        results.show_result(opened)
    part, whole = told["zip"], told["uniform"]
    assert "error" not in part
    assert whole["flops"] < part["flops"] < 2 * whole["flops"]
    assert (part["size"], whole["size"]) == ("a wider network", "one network")
    assert part["training_flops"]["fine_tune"] > whole["training_flops"]["fine_tune"]
    assert part["after"].keys() == {"merged", "repaired", "fine_tuned"}
    assert found.best is not None
    assert found.best.card.key == "uniform", "no wider network is a merge to one teacher's size"
    assert "Zip (up_to=1)" in capsys.readouterr().out


def test_a_method_that_fails_leaves_its_sentence_and_the_others_go_on(
    home: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(teachers, graph, setting):
        raise GraphError("These teachers cannot be averaged; take others.")
        yield

    run = merged_run(home, "sine")
    monkeypatch.setattr(methods.implementation("uniform"), "merge", refuse)
    name = compare(home, run, ("uniform", "output_ensemble"))
    with home.open(name) as opened:
        told = facts(opened)
        results.show_result(opened)
    assert told["uniform"]["error"] == "These teachers cannot be averaged; take others."
    assert "after" in told["output_ensemble"]
    out = capsys.readouterr().out
    assert "Uniform average failed: These teachers cannot be averaged; take others." in out


@pytest.mark.parametrize("stage", ["teachers", "alignment", "barrier", "learned_gates"])
def test_stopped_anywhere_it_goes_on_to_the_same_numbers(
    home: Store, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish to stop is heard in the middle of a stage, also where no event is yielded."""
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.0)
    run = merged_run(home, "digits")
    whole = compare(home, run)
    with home.open(run) as reader:
        comparison, inputs = compared.of_run(reader, KEYS, examples=100)
    name = home.create(comparison, "cpu", inputs)

    def stopped(work: worker.Work) -> Iterator[Event]:
        def pulse(event: Progress) -> None:
            if event.stage == stage:
                home.command(name, "stop")
            work.pulse(event)

        return worker.carry_out(dataclasses.replace(work, pulse=pulse))

    assert worker.run(home, name, stopped) == 3
    with home.open(name) as opened:
        assert opened.status()["stage"] == stage
        assert facts(opened)[stage] == {}
        after = home.commands(name)[-1].id
    assert worker.run(home, name, worker.carry_out, after=after) == 0
    with home.open(whole) as one, home.open(name) as other:
        assert one.scores() == other.scores()
        hashes = [
            {row["name"]: row["sha256"] for row in reader.artifacts()} for reader in (one, other)
        ]
        assert hashes[0] == hashes[1]


def saved(recipe: Recipe, seed: int, path: Path) -> Path:
    """A checkpoint as training programs of others write it."""
    weights = {f"module.{k}": v for k, v in teacher(recipe, seed).state_dict().items()}
    torch.save({"state_dict": weights, "best": 0.9}, path)
    return path


def of_files(files: list[Path], **settings: str) -> Comparison:
    sizes = {"data.train": "300", "data.heldout": "100", "data.test": "100"}
    return compared.of_files(
        files,
        ("uniform",),
        model="digits-cnn",
        data="digits",
        examples=100,
        settings=sizes | settings,
    )


def test_checkpoints_of_others_are_compared(
    home: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [saved(small("digits"), seed, tmp_path / f"{seed}.th") for seed in range(3)]
    comparison = of_files(files)
    assert comparison.teachers == ("0", "1", "2")
    name = home.create(comparison, "cpu", files)
    assert worker.run(home, name, worker.carry_out) == 0
    with home.open(name) as opened:
        results.show_result(opened)
        assert "may have learned from the held-out examples" in capsys.readouterr().out
        assert len(facts(opened)["teachers"]["scores"]) == 3
        again, inputs = compared.of_run(opened, ("output_ensemble",), examples=50)
        assert (again.teachers, again.methods) == (comparison.teachers, ("output_ensemble",))
        assert [path.read_bytes() for path in inputs] == [path.read_bytes() for path in files]


def test_a_checkpoint_that_does_not_fit_is_one_sentence_with_its_name(
    home: Store, tmp_path: Path
) -> None:
    files = [
        saved(small("digits"), 0, tmp_path / "mine.th"),
        saved(small("sine"), 0, tmp_path / "theirs.th"),
    ]
    name = home.create(of_files(files), "cpu", files)
    assert worker.run(home, name, worker.carry_out) == 1
    with home.open(name) as opened:
        message = opened.status()["message"]
    assert "teacher 'theirs' does not fit" in message
    assert message.count("\n") == 0


def test_labels_are_told_apart(tmp_path: Path) -> None:
    assert of_files([tmp_path / "x" / "a.th", tmp_path / "y" / "a.th"]).teachers == (
        "a (1)",
        "a (2)",
    )


def test_a_comparison_of_a_run_keeps_its_data(home: Store) -> None:
    run = merged_run(home, "digits")
    with home.open(run) as opened:
        recipe = opened.merge
        comparison, _ = compared.of_run(opened, ("uniform",), fine_tune=3)
        for changed in ({"seed": "5"}, {"data.name": "mnist", "model": "lenet"}):
            with pytest.raises(RecipeError, match=r"digits|fit"):
                compared.of_run(opened, ("uniform",), settings=changed)
    assert (comparison.data, comparison.seed) == (recipe.data, recipe.seed)
    assert (comparison.of, comparison.fine_tune.epochs) == (run, 3)


def test_a_run_without_teachers_cannot_be_compared(home: Store) -> None:
    run = home.create(small("digits"), "cpu")
    with home.open(run) as opened, pytest.raises(StoreError, match="queued and has not trained"):
        compared.of_run(opened, ("uniform",))


def test_methods_that_take_fewer_teachers_are_left_out() -> None:
    assert set(compared.fitting(2)) == {card.key for card in METHODS}
    few = {card.key for card in METHODS if card.teachers and card.teachers < 3}
    assert set(compared.fitting(3)) == {card.key for card in METHODS} - few
