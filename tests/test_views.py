"""Views: what stored runs say, checked against what was written and against laws."""

import dataclasses
import math
from pathlib import Path

import fake_runs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merge_core.errors import RecipeError, StoreError
from merge_core.events import StageFinished
from merge_core.presets import PRESETS, Preset, find_preset
from merge_core.recipes import PAPER_SCHEDULE, Recipe
from merge_core.stages import STAGES
from merge_core.store import Store
from merge_core.views.channels import gated_spaces, openness, provenance, share_frame
from merge_core.views.estimates import Measured, epochs_of, estimate
from merge_core.views.filters import FirstLayer, first_layer, hinge_frame, tile_frame
from merge_core.views.pairs import pair_filters
from merge_core.views.runs import (
    budget,
    checks,
    curve_frame,
    duration,
    flops_text,
    run_label,
    runs_frame,
    stage_frame,
    stage_table,
    verdict,
)
from merge_core.views.settings import with_settings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", tmp_path / "no samples")


def stages_of(store: Store, name: str) -> pd.DataFrame:
    with store.open(name) as reader:
        return stage_frame(reader)


def test_stage_frame_holds_the_written_scores_in_the_order_of_the_stages(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    frame = stages_of(store, name)
    assert list(frame["stage"]) == [stage.key for stage in STAGES]
    recipe = find_preset("textures", "quick").recipe
    written = {e.stage: e for e in fake_runs.events(recipe) if isinstance(e, StageFinished)}
    for row in frame.to_dict("records"):
        scores = written[row["stage"]].scores
        assert (row["train"], row["heldout"], row["test"]) == tuple(
            scores[split]["accuracy"] for split in ("train", "heldout", "test")
        )
    assert list(frame.loc[frame["returned"], "stage"]) == ["norms"]
    assert set(frame["state"]) == {"finished"}


def test_a_run_cut_short_has_no_scores_beyond_its_last_finished_stage(store: Store) -> None:
    frame = stages_of(store, fake_runs.make(store, "textures", state="stopped", stop="gates"))
    state = dict(zip(frame["stage"], frame["state"], strict=True))
    assert state["big"] == "finished"
    assert state["gates"] == "interrupted"
    assert state["cut"] == "waiting"
    assert frame.loc[frame["state"] != "finished", "test"].isna().all()
    assert verdict(find_preset("textures", "quick").recipe, frame) is None


def test_the_stage_that_a_worker_is_in_is_running(store: Store) -> None:
    frame = stages_of(store, fake_runs.make(store, "textures", state="running", stop="cut"))
    assert list(frame.loc[frame["state"] == "running", "stage"]) == ["cut"]


def test_a_queued_run_has_no_stages_and_no_curves(store: Store) -> None:
    with store.open(fake_runs.make(store, "sine", state="queued")) as reader:
        assert stage_frame(reader).empty
        assert curve_frame(reader).empty
        assert gated_spaces(reader) == []
        assert share_frame(reader).empty
        assert provenance(reader).empty
        assert first_layer(reader, "cut") is None


def test_curves_run_on_over_the_stages_without_gaps(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        curves = curve_frame(reader)
        planned = sum(row["epochs"] for row in reader.stages())
    assert list(curves["run_epoch"]) == list(range(1, planned + 1))
    assert set(curves["planned"]) == {planned}
    gates = curves.loc[curves["stage"] == "gates"]
    assert gates["lambda"].is_monotonic_increasing
    assert curves.loc[curves["stage"] != "gates", "lambda"].isna().all()


def test_verdict_names_every_rival_it_does_not_beat(store: Store) -> None:
    recipe = find_preset("textures", "quick").recipe
    frame = stages_of(store, fake_runs.make(store, "textures"))
    good = verdict(recipe, frame)
    assert good is not None
    assert good.better
    assert "does not beat" not in good.sentence
    frame.loc[frame["stage"] == "trained_on", "test"] = 0.9
    bad = verdict(recipe, frame)
    assert bad is not None
    assert not bad.better
    assert "does not beat teacher A trained on (0.900, −18.2 points)" in bad.sentence
    assert "the better teacher (B) (0.681, +3.7 points)" in bad.sentence


def test_verdict_on_a_loss_wants_it_lower(store: Store) -> None:
    recipe = find_preset("sine", "quick").recipe
    found = verdict(recipe, stages_of(store, fake_runs.make(store, "sine")))
    assert found is not None
    assert found.better
    assert "lower by 0.4590" in found.sentence
    assert "points" not in found.sentence


def test_verdict_says_when_a_control_is_missing(store: Store) -> None:
    frame = stages_of(store, fake_runs.make(store, "textures"))
    found = verdict(find_preset("textures", "quick").recipe, frame.loc[frame["role"] != "control"])
    assert found is not None
    assert "controls are missing" in found.caution


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_verdict_agrees_with_the_recipe_about_what_is_better(ours: float, theirs: float) -> None:
    for name in ("textures", "sine"):
        recipe = find_preset(name, "quick").recipe
        frame = pd.DataFrame(
            {
                "stage": ["teacher_a", "teacher_b", "cut"],
                "test": [theirs, theirs, ours],
                "returned": [False, False, True],
            }
        )
        found = verdict(recipe, frame)
        assert found is not None
        assert found.better == recipe.better(ours, theirs)


def test_budget_states_seed_device_epochs_and_the_split_that_chose(store: Store) -> None:
    name = fake_runs.make(store, "textures", seed=7)
    with store.open(name) as reader:
        recipe = reader.merge
        text = budget(recipe, reader.place, stage_frame(reader))
    teachers, gates = recipe.teacher.epochs, recipe.gating.epochs
    epochs = (f"2 × {teachers} teachers", f"{gates} gates", f"control {recipe.extra_epochs}")
    for part in ("Seed 7", "cpu", "Held-out", *epochs):
        assert part in text


@pytest.mark.parametrize("state", ["queued", "running", "stopped", "failed", "lost", "finished"])
def test_every_state_has_a_label_and_a_row(store: Store, state: fake_runs.State) -> None:
    fake_runs.make(store, "textures", state=state, stop="" if state == "finished" else "gates")
    (run,) = store.runs()
    assert run.state == state
    assert "**Textures** · seed 0" in run_label(run)
    assert state in run_label(run)
    assert runs_frame([run])["State"].tolist()[0].endswith(state)


def test_stage_table_is_one_row_per_stage(store: Store) -> None:
    frame = stages_of(store, fake_runs.make(store, "sine"))
    table = stage_table(frame, "loss")
    assert len(table) == len(frame)
    assert table["Stage"].str.contains("★").sum() == 1


def test_checks_tell_the_worst_error_once_it_is_known(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        text = checks(reader)
    assert text is not None
    assert "3e-07" in text
    assert "4e-07" in text
    name = fake_runs.make(store, "textures", state="stopped", stop="teacher_b")
    with store.open(name) as reader:
        assert checks(reader) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("flops", "text"), [(0, "0 FLOP"), (3.21e12, "3.21 TFLOP"), (5, "5 FLOP")])
def test_flops_text(flops: float, text: str) -> None:
    assert flops_text(flops) == text


def test_shares_and_provenance_tell_the_same(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        shares, origin = share_frame(reader), provenance(reader)
        for row in shares.to_dict("records"):
            part = origin.loc[origin["space"] == row["space"]]
            assert row["from_a"] + row["from_b"] == row["size"] == len(part)
            assert (part["teacher"] == "A").sum() == row["from_a"]
            assert row["lowest_kept"] >= row["highest_cut"]
            assert list(part["position"]) == list(range(len(part)))
        for space, pairs in reader.provenance().items():
            part = origin.loc[origin["space"] == space]
            assert [("AB"[t], i) for t, i in pairs] == list(
                zip(part["teacher"], part["index"], strict=True)
            )


def test_openness_is_the_stored_history(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        history = openness(reader, "conv2")
        assert history is not None
        assert isinstance(reader.recipe, Recipe)
        planned = reader.recipe.gating.epochs
        assert history.probability.shape == (planned, 64)
        assert list(history.epochs) == list(range(1, planned + 1))
        assert history.planned == planned
        (kept,) = [row for row in reader.kept() if row["space"] == "conv2"]
    np.testing.assert_array_equal(history.probability[-1], kept["open_probability"])
    last = history.probability[-1][history.order("probability")]
    assert (np.diff(last) >= 0).all()
    assert sorted(history.order("index")) == list(range(64))
    assert history.labels[:2] == ["A 0", "A 1"]
    assert history.labels[32] == "B 0"
    assert len(history.table()) == 64


def test_student_filters_are_the_kept_ones(store: Store) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        layer = first_layer(reader, "cut")
    assert layer is not None
    both = np.concatenate(layer.weights[:2])
    np.testing.assert_array_equal(layer.weights[2], both[layer.kept])


@pytest.mark.parametrize("order", ["original", "gate"])
def test_tiles_show_every_filter_once_and_mark_the_kept(store: Store, order: str) -> None:
    with store.open(fake_runs.make(store, "textures")) as reader:
        layer = first_layer(reader, "norms")
    assert layer is not None
    tiles = tile_frame(layer, order)
    assert sorted(zip(tiles["band"], tiles["row"], strict=True)) == [
        (band, row) for band in range(3) for row in range(16)
    ]
    marked = tiles.loc[tiles["kept"]]
    assert sorted(marked["band"] * 16 + marked["row"]) == sorted(layer.kept)
    if order == "gate":
        a = tiles.loc[tiles["band"] == 0, "row"].to_numpy()
        assert (np.diff(layer.probability[a]) <= 0).all()


def test_before_the_cut_no_filter_is_marked(store: Store) -> None:
    name = fake_runs.make(store, "textures", state="stopped", stop="gates")
    with store.open(name) as reader:
        layer = first_layer(reader, "")
    assert layer is not None
    assert len(layer.weights) == 2
    assert set(tile_frame(layer, "gate")["kept"]) == {False}


def test_missing_weights_are_a_sentence(store: Store) -> None:
    with fake_runs.running(store, "textures", "fine_tune") as (name, writer):
        writer.fact("first_layer", {"weight": "gone", "bias": None, "space": "conv1"})
    with store.open(name) as reader, pytest.raises(StoreError, match="lack 'gone'"):
        first_layer(reader, "cut")


def test_hinges_lie_where_the_neurons_change_sign(store: Store) -> None:
    with store.open(fake_runs.make(store, "sine")) as reader:
        layer = first_layer(reader, "fine_tune")
    assert layer is not None
    neurons, outside = hinge_frame(layer)
    for lane in range(3):
        assert list(neurons["lane"]).count(lane) + outside[lane] == 100
    for row in neurons.to_dict("records"):
        weight = layer.weights[row["lane"]][row["index"], 0]
        bias = layer.biases[row["lane"]][row["index"]]
        after = weight * (row["bend"] + 1e-3) + bias
        assert bool(after > 0) is row["right"]
        assert abs(weight * row["bend"] + bias) < 1e-6


def test_a_neuron_that_never_bends_is_counted_outside() -> None:
    flat = np.array([[0.0], [1.0]])
    layer = FirstLayer(
        space="hidden",
        weights=[flat, flat],
        biases=[np.array([0.0, -0.5]), np.array([1.0, -2.0])],
        kept=np.empty(0, np.int64),
        probability=np.full(4, math.nan),
        gate=np.full(4, math.nan),
    )
    neurons, outside = hinge_frame(layer)
    assert outside == [1, 2]
    assert list(neurons["bend"]) == [0.5]


@given(
    hnp.arrays(np.float64, (5, 2, 3, 3), elements=st.floats(-3, 3, width=32)),
    st.permutations(range(5)),
)
def test_pairing_finds_a_permutation_of_the_same_filters(
    weight: np.ndarray, order: list[int]
) -> None:
    random = np.random.default_rng(0)
    weight = weight + random.normal(0, 5, weight.shape)
    layer = FirstLayer(
        space="conv1",
        weights=[weight, weight[order]],
        biases=[np.zeros(5), np.zeros(5)],
        kept=np.arange(5),
        probability=np.ones(10),
        gate=np.ones(10),
    )
    pairs = pair_filters(layer)
    assert pairs.table["similarity"].to_numpy() == pytest.approx(np.ones(5))
    assert (pairs.both, pairs.one, pairs.neither) == (0, 5, 0)
    assert [order[b] for b in pairs.table["B"]] == list(pairs.table["A"])


def measured(store: Store, **changes: object) -> Measured:
    name = fake_runs.make(store, "textures")
    with store.open(name) as reader:
        run = Measured(
            name=name,
            recipe=reader.merge,
            device="cpu",
            sample=False,
            stages=stage_frame(reader),
            startup=0.0,
        )
    return dataclasses.replace(run, **changes)


def test_an_estimate_of_the_same_recipe_is_what_the_run_took(store: Store) -> None:
    run = measured(store)
    found = estimate(run.recipe, "cpu", [run])
    assert found is not None
    assert found.flops == pytest.approx(run.stages["flops"].sum())
    assert found.seconds == pytest.approx(run.stages["seconds"].sum())


def test_an_estimate_grows_with_the_epochs(store: Store) -> None:
    run = measured(store)
    stages = (run.recipe.teacher, run.recipe.gating, run.recipe.fine_tune)
    teacher, gating, fine_tune = (2 * stage.epochs for stage in stages)
    twice = with_settings(
        run.recipe,
        seed=0,
        model=run.recipe.model,
        epochs=(teacher, gating, fine_tune),
        schedule=PAPER_SCHEDULE,
    )
    found = estimate(twice, "cpu", [run])
    assert found is not None
    assert found.flops == pytest.approx(2 * run.stages["flops"].sum())
    trained = [stage for stage in run.stages["stage"] if epochs_of(run.recipe, stage)]
    extra = run.stages.loc[run.stages["stage"].isin(trained), "seconds"].sum()
    assert found.seconds == pytest.approx(run.stages["seconds"].sum() + extra)


def test_an_estimate_prefers_this_machine_and_says_where_it_comes_from(store: Store) -> None:
    run = measured(store)
    sample = dataclasses.replace(run, name="sample", sample=True)
    other = dataclasses.replace(run, name="other", device="cuda")
    found = estimate(run.recipe, "cpu", [sample, other, run])
    assert found is not None
    assert run.name in found.source
    from_sample = estimate(run.recipe, "cpu", [sample])
    assert from_sample is not None
    assert "another machine" in from_sample.source
    assert estimate(find_preset("digits", "quick").recipe, "cpu", [run]) is None


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: f"{p.recipe.name}-{p.recipe.preset}")
def test_settings_left_alone_are_the_preset(preset: Preset) -> None:
    recipe = preset.recipe
    same = with_settings(
        recipe,
        model=recipe.model,
        seed=recipe.seed,
        epochs=(recipe.teacher.epochs, recipe.gating.epochs, recipe.fine_tune.epochs),
        schedule=recipe.gates.schedule,
    )
    assert same == recipe


def test_bad_settings_are_a_sentence() -> None:
    recipe = find_preset("sine", "quick").recipe
    with pytest.raises(RecipeError, match="teachers must be trained"):
        with_settings(recipe, seed=0, model=recipe.model, epochs=(0, 1, 1), schedule=PAPER_SCHEDULE)
