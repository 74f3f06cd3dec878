"""Networks that learn in bfloat16: what is rounded, what is not, and that it can be asked for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small
from test_pages import begun, opened, store
from torch import nn

from merge_core import precision
from merge_core.catalogue import METHOD_BY_KEY
from merge_core.channels import trace
from merge_core.compared import of_run
from merge_core.comparisons import trials
from merge_core.comparisons.situation import Situation
from merge_core.data import Dataset, Split, augmentation
from merge_core.devices import generator
from merge_core.ensembles import fit_together, modules
from merge_core.errors import DeviceError, RecipeError
from merge_core.events import EpochFinished, StageFinished
from merge_core.gates import Gates, gates_of
from merge_core.lab import Lab
from merge_core.lab_cells import SeedOfLab
from merge_core.methods import LEARNED_GATES, Setting
from merge_core.models import build
from merge_core.particulars import session
from merge_core.precision import outputs_of, require, settled
from merge_core.presets import find_preset, preset_of
from merge_core.presets.ours import ours
from merge_core.recipes import Comparison, Experiment, Training, from_json
from merge_core.repetitions import Results
from merge_core.staging import Stages
from merge_core.store import Store
from merge_core.tables import Block
from merge_core.training import Alone, Job, evaluate, fit, state_arrays
from merge_core.worker import Work, carry_out

__all__ = ["begun", "store"]  # the fixtures

HALVED = {"precision": "bfloat16"}
TRAINING = Training(epochs=4, batch_size=16, learning_rate=0.05)


def images(n: int, seed: int) -> Split:
    draws = generator(seed, "images")
    labels = torch.randint(10, (n,), generator=draws)
    return Split(torch.randn(n, 1, 8, 8, generator=draws) + labels.view(-1, 1, 1, 1) - 4.5, labels)


def small_data() -> Dataset:
    return Dataset(images(128, 0), images(64, 1), images(64, 2))


def gated_job(kind: str, seed: int = 0) -> Job:
    """The gate stage of a small network with batch norm, from the same draws every time."""
    recipe = find_preset("digits", "quick").recipe.changed({"precision": kind})
    setting = Setting(
        recipe=replace(recipe, gating=TRAINING),
        data=small_data(),
        augment=augmentation("none"),
        draws=lambda purpose: generator(seed, purpose),
        teachers=2,
    )
    network = build("digits-cnn", 0)
    return LEARNED_GATES.job(network, trace(network, setting.example), setting)


def learned(job: Job) -> list[EpochFinished]:
    return [event for event in fit(job) if isinstance(event, EpochFinished)]


def test_a_layer_multiplies_rounded_numbers_and_gives_float32() -> None:
    """Against the same product written out: inputs and weights rounded, the sum in full."""
    draws = generator(0, "layer")
    layer, inputs = nn.Linear(40, 7, bias=False), torch.randn(5, 40, generator=draws)
    found = outputs_of(layer, inputs, "bfloat16")
    rounded = inputs.bfloat16().double() @ layer.weight.bfloat16().double().T
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), rounded, rtol=2**-8, atol=1e-6)
    assert not torch.equal(found, layer(inputs))
    found.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_it_learns_as_float32_does_and_keeps_float32() -> None:
    jobs = {kind: gated_job(kind) for kind in ("float32", "bfloat16")}
    read: list[torch.dtype] = []
    for module in jobs["bfloat16"].network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *told: read.append(told[2].dtype))
    losses = {}
    for kind, job in jobs.items():
        events = learned(job)
        losses[kind] = [event.metrics["train_loss"] for event in events]
        for name, array in events[-1].checkpoint().items():
            kept = "generator" in name or name == "epoch" or "num_batches" in name
            assert kept or array.dtype == np.float32, name
    full, half = losses["float32"], losses["bfloat16"]
    assert half != full
    assert half[-1] < 0.9 * half[0]
    assert half == pytest.approx(full, rel=0.03)
    assert torch.bfloat16 in read  # in training
    assert torch.float32 in read  # in evaluation
    for job in jobs.values():
        for probabilities in gates_of(job.network).open_probabilities().values():
            assert float(probabilities.mean()) == pytest.approx(0.5, abs=0.02)


def test_gates_are_drawn_in_float32_and_do_not_undo_the_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, job = [], gated_job("bfloat16")
    scales = Gates.scales

    def noted(self: Gates, batch: int) -> dict[str, torch.Tensor]:
        found = scales(self, batch)
        drawn.append({each.dtype for each in found.values()})
        return found

    monkeypatch.setattr(Gates, "scales", noted)
    norms = [m for m in job.network.modules() if isinstance(m, nn.BatchNorm2d)]
    seen = []
    for norm in norms:
        norm.register_forward_pre_hook(lambda _, values: seen.append(values[0].dtype))
    outputs_of(job.network.train(), job.train.part(slice(8)).inputs, "bfloat16").sum().backward()
    assert drawn == [{torch.float32}]
    assert set(seen) == {torch.bfloat16}
    logits = next(gates_of(job.network).parameters())
    assert logits.grad is not None
    assert logits.grad.dtype == torch.float32


def test_a_recipe_and_a_seed_give_the_same_numbers_also_after_a_break() -> None:
    whole = gated_job("bfloat16")
    expected = [event.metrics for event in learned(whole)]
    first = gated_job("bfloat16")
    saved = next(e.checkpoint() for e in fit(first) if isinstance(e, EpochFinished))
    second = gated_job("bfloat16", seed=9)  # whose draws the checkpoint takes over
    rest = [e.metrics for e in fit(second, saved) if isinstance(e, EpochFinished)]
    assert rest == expected[1:]
    state = state_arrays(second.network)
    for key, array in state_arrays(whole.network).items():
        assert (array == state[key]).all()


def test_many_networks_are_what_each_is_alone() -> None:
    def job(number: int) -> Job:
        return Job(
            stage="teacher_a",
            network=build("digits-cnn", number),
            training=Training(epochs=1, batch_size=32, learning_rate=0.05),
            train=images(64, number),
            heldout=images(10, 9),
            augment=augmentation("none"),
            draws=generator(number, "order"),
            dropout_seed=number,
            precision="bfloat16",
        )

    together = [job(number) for number in range(2)]
    list(fit_together(together, at_once=2))
    for number, each in enumerate(together):
        alone = job(number)
        learned(alone)
        for one, other in zip(each.network.parameters(), alone.network.parameters(), strict=True):
            assert torch.equal(one, other)


def test_teachers_are_judged_in_float32_and_compared_as_they_learned(store: Store) -> None:
    recipe = find_preset("digits", "quick").recipe.changed(HALVED)
    run = store.create(recipe, "cpu")
    stages = Stages(recipe, "cpu", small_data(), None)
    with store.writer(run) as writer:
        for stage in ("teacher_a", "teacher_b"):
            writer.write(stages.planned(stage, TRAINING))
            network = stages.fresh(stage)
            assert stages.job(stage, network, TRAINING).precision == "bfloat16"
            for event in stages.trained(stage, network, TRAINING):
                writer.write(event)
                if isinstance(event, StageFinished):
                    assert event.scores["test"] == evaluate(network, stages.data.test)
    with store.open(run) as reader:
        comparison, _ = of_run(reader, ("uniform",))
    assert comparison.precision == "bfloat16"


def test_a_comparison_tunes_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = find_preset("digits", "quick").recipe
    comparison = Comparison(
        name="compare",
        preset="files",
        data=recipe.data,
        model=recipe.model,
        precision="bfloat16",
        code="compiled",
        teachers=("A", "B"),
        gates=recipe.gates,
        gating=TRAINING,
        fine_tune=TRAINING,
    )
    teachers = [build(recipe.model, seed).eval() for seed in (0, 1)]
    asked: list[Job] = []
    monkeypatch.setattr(trials, "fit", lambda job: iter(asked.append(job) or ()))
    here = Situation(comparison, small_data(), teachers, "cpu", lambda progress: None)
    list(trials.tried(METHOD_BY_KEY["uniform"], here))
    assert [(job.precision, job.code) for job in asked] == [("bfloat16", "compiled")]


@pytest.mark.parametrize("gains", [True, False])
def test_auto_is_bfloat16_where_that_gains(gains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gains", lambda device: gains)
    expected, found = gated_job("bfloat16" if gains else "float32"), gated_job("auto")
    assert [e.metrics for e in learned(found)] == [e.metrics for e in learned(expected)]
    plain = replace(
        found, network=build("digits-cnn", 0), companion=Alone(), precision="auto", generators=()
    )
    assert modules.fits(plain) == (not gains)


def test_tables_and_labs_settle_it_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "gains", lambda device: True)
    recipe = small("digits").changed({"precision": "auto"})
    block = Block(recipe, [0], "epochs", device="cpu", data_dir=tmp_path)
    assert block.recipe.precision == "bfloat16"
    lab = SeedOfLab(Lab.usual(recipe, "growth", (2, 2)), 0, device="cpu", data_dir=tmp_path)
    assert lab.block.recipe.precision == "bfloat16"
    assert settled("auto", "cuda", many=True) == "float32"  # where networks train as one
    assert settled("bfloat16", "cuda", many=True) == "bfloat16"


def test_who_gains_by_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors with instructions for it and GPUs that do not emulate it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        precision.gains.cache_clear()
        assert settled("auto", "cpu") == ("bfloat16" if there else "float32")
        assert settled("auto", "cuda") == "bfloat16"
        assert settled("auto", "mps") == "float32"
        assert settled("bfloat16", "mps") == "bfloat16"
        assert settled("float32", "cuda") == "float32"
    precision.gains.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert settled("auto", "cuda") == "float32"
    precision.gains.cache_clear()
    for device in ("cpu", "cuda", "mps"):
        require("auto", device)


def test_what_auto_was_is_written_down(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gains", lambda device: True)
    noted = {}
    recipe = small("digits").changed({"precision": "auto"})
    work = Work(
        recipe=recipe,
        device="cpu",
        resume=None,
        inputs=(),
        code=None,
        note=noted.__setitem__,
        pulse=lambda progress: None,
        reading=lambda done, of: None,
        steering=tuple,
    )
    next(carry_out(work))
    assert noted["computing"] == " in bfloat16"
    assert recipe.computing == ", precision auto"
    assert session(recipe.changed(HALVED), "cpu", ()).place.endswith(") in bfloat16")
    assert session(small("digits"), "cpu", ()).place.endswith(")")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_cannot_is_refused_before_anything_is_read(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: False)
    require("float32", device)
    with pytest.raises(DeviceError, match=f"'bfloat16', but the device '{device}'.*float32"):
        require("bfloat16", device)
    recipe = small("digits").changed(HALVED)
    with pytest.raises(DeviceError, match="choose float32"):
        Block(recipe, [0], "epochs", device=device, data_dir=tmp_path)


def test_a_worker_refuses_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    work = Work(
        recipe=small("digits").changed(HALVED),
        device="cpu",
        resume=None,
        inputs=(),
        code=None,
        note=lambda key, value: None,
        pulse=lambda progress: None,
        reading=lambda done, of: None,
        steering=tuple,
    )
    with pytest.raises(DeviceError, match="precision='bfloat16'"):
        next(carry_out(work))


def test_a_recipe_that_does_not_say_is_float32() -> None:
    """As early versions wrote it; and as tables, labs and searches are named after their recipes,
    one that is float32 goes on without saying so."""
    recipe = find_preset("textures", "quick").recipe
    assert recipe.precision == "float32"
    assert "precision" not in json.loads(recipe.to_json())
    halved = recipe.changed(HALVED)
    assert json.loads(halved.to_json())["precision"] == "bfloat16"
    assert from_json(halved.to_json()) == halved
    explicit = json.loads(recipe.to_json()) | {"precision": "float32"}
    assert from_json(json.dumps(explicit)) == recipe
    assert Results(recipe, "epochs").path != Results(halved, "epochs").path


def test_what_comes_of_a_recipe_has_its_precision() -> None:
    assert ours(find_preset("textures", "quick").recipe.changed(HALVED), 50).precision == "bfloat16"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("textures", "half", "precision='half', but it must be one of float32, bfloat16, auto"),
        ("sine", "auto", "precision='auto', but .*leave it at 'float32'"),
        ("sine", "bfloat16", "precision='bfloat16', but .*leave it at 'float32'"),
    ],
)
def test_precision_is_checked(name: str, value: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        find_preset(name, "quick").recipe.changed({"precision": value})


def test_the_form_offers_it_where_classes_are_learned(
    store: Store, begun: list[tuple[Experiment, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("sine").run()
    assert not [each for each in app.segmented_control if "precision" in str(each.key)]
    app.selectbox(key="recipe").set_value("digits-averaged").run()
    app.segmented_control(key="precision-digits-averaged-quick").set_value("bfloat16")
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    assert recipe == preset_of("digits-averaged", "quick").recipe.changed(HALVED)
