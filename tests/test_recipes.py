"""Recipes and λ schedules: they round-trip, and refuse in one sentence what does not fit."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core.errors import RecipeError
from merge_core.presets import PRESETS, TIED, find_preset, merge_names, preset_of, recipe_names
from merge_core.recipes import (
    PAPER_SCHEDULE,
    Averaging,
    Comparison,
    Coupling,
    MethodSettings,
    Recipe,
    Training,
    as_text,
    from_json,
)
from merge_core.schedules import GrowthLaw, Points

TEXTURES = find_preset("textures", "quick").recipe


@pytest.mark.parametrize(
    "preset", [*PRESETS, *TIED], ids=lambda p: f"{p.recipe.name}-{p.recipe.preset}"
)
def test_every_preset_survives_json(preset) -> None:
    assert from_json(preset.recipe.to_json()) == preset.recipe
    assert type(preset.recipe).from_json(preset.recipe.to_json()) == preset.recipe
    assert preset_of(preset.recipe.name, preset.recipe.preset) == preset


def test_every_recipe_of_the_plan_has_a_quick_preset() -> None:
    embedded = {"sine", "digits", "photos", "textures"}
    papers = {
        "imagewoof-lenet": 6000,
        "imagewoof-resnet18": 600,
        "cifar100-resnet20": 600,
        "cifar10-vgg11": 600,
        "imagenet-resnet18": 150,
        "sine": 900,
    }
    assert set(merge_names()) == {*embedded, *papers, "mnist-lenet", "images"}
    for name in merge_names():
        assert find_preset(name, "quick").recipe.name == name
    for name, epochs in papers.items():
        recipe = find_preset(name, "paper").recipe
        assert 2 * recipe.teacher.epochs + recipe.extra_epochs == epochs


def test_tied_trainings_are_there_for_both_sets_of_digits() -> None:
    tied = {f"{data}-{way}" for data in ("digits", "mnist") for way in ("coupled", "averaged")}
    assert set(recipe_names()) == tied | set(merge_names())
    with pytest.raises(RecipeError, match="There is no recipe 'digits-coupled'"):
        find_preset("digits-coupled", "quick")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("imagewoof-resnet18", 6.55),
        ("cifar100-resnet20", 7.25),
        ("cifar10-vgg11", 0.355),
        ("imagenet-resnet18", 6.11),
    ],
)
def test_the_papers_schedules_end_where_its_code_does(name: str, end: float) -> None:
    law = find_preset(name, "paper").recipe.gates.schedule
    assert isinstance(law, GrowthLaw)
    last = float(law.values()[-1])
    assert last + law.growth * last**0.5 == pytest.approx(end, rel=0.01)  # after the last epoch


def test_settings_are_replaced_by_dotted_keys() -> None:
    recipe = TEXTURES.changed(
        {
            "seed": "7",
            "gates.schedule.start": "0.5",
            "teacher.milestones": "2,5",
            "gating.rate": "steps",
        }
    )
    law = recipe.gates.schedule
    assert isinstance(law, GrowthLaw)
    assert (recipe.seed, law.start) == (7, 0.5)
    assert (recipe.teacher.milestones, recipe.gating.rate) == ((2, 5), "steps")
    assert dataclasses.replace(recipe, seed=0).data == TEXTURES.data


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("gats.start", "1", ["gats", "did you mean 'gates'"]),
        ("gates", "1", ["has parts", "gates.start"]),
        ("seed.x", "1", ["no parts"]),
        ("gates.schedule.strat", "1", ["did you mean 'start'"]),
        ("teacher.epochs", "many", ["'many'", "a whole number"]),
        ("teacher.epochs", "0", ["1 epoch or more"]),
        ("teacher.learning_rate", "nan", ["nan", "above 0"]),
        ("gates.schedule.growth", "-1", ["growth=-1.0", "above 0"]),
        ("data.name", "cats", ["cats", "one of"]),
        ("seed", "-1", ["-1", "2³¹"]),
        ("teacher.milestones", "5,2", ["growing"]),
    ],
)
def test_a_wrong_setting_gets_one_sentence(key: str, value: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        TEXTURES.changed({key: value})
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "preset", "words"),
    [
        ("texture", "quick", "did you mean 'textures'"),
        ("zzz", "quick", "choose one of"),
        ("digits", "paper", "choose quick"),
    ],
)
def test_a_wrong_name_gets_one_sentence(name: str, preset: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        find_preset(name, preset)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": 3}'])
def test_damaged_json_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_json(text)


def test_json_with_an_unknown_or_wrong_key_is_refused() -> None:
    good = json.loads(TEXTURES.to_json())
    with pytest.raises(RecipeError, match="colour"):
        Recipe.from_json(json.dumps(good | {"colour": 1}))
    with pytest.raises(RecipeError, match=r"teacher\.epochs"):
        Recipe.from_json(json.dumps(good | {"teacher": good["teacher"] | {"epochs": "3"}}))
    with pytest.raises(RecipeError, match="seed"):
        Recipe.from_json(json.dumps(good | {"seed": True}))


@given(
    start=st.floats(1e-4, 1), growth=st.floats(1e-4, 1), epochs=st.integers(1, 300),
    steps=st.integers(1, 2000),
)  # fmt: skip
def test_growth_law_is_the_papers_recursion(start, growth, epochs, steps) -> None:
    law = GrowthLaw(start=start, growth=growth, epochs=epochs)
    values = law.values()
    assert values[0] == start
    np.testing.assert_allclose(np.diff(values), growth * np.sqrt(values[:-1]), rtol=1e-9)
    stretched = law.over(steps)
    assert len(stretched) == steps
    assert [law.at(step / steps) for step in (0, steps // 2)] == pytest.approx(
        [stretched[0], stretched[steps // 2]]
    )
    assert (np.diff(stretched) >= 0).all()


def test_the_papers_sine_schedule_ends_where_its_code_does() -> None:
    assert PAPER_SCHEDULE.values()[-1] == pytest.approx(14.5, abs=0.3)


@given(epochs=st.integers(1, 400))
def test_training_over_other_epochs_keeps_its_shape(epochs: int) -> None:
    training = Training(
        epochs=100, batch_size=4, learning_rate=0.1, rate="steps", milestones=(50, 75)
    )
    longer = training.over(epochs)
    assert longer.epochs == epochs
    assert longer.learning_rate == training.learning_rate
    if epochs >= 4:
        assert [m / epochs for m in longer.milestones] == pytest.approx(
            [0.5, 0.75], abs=0.51 / epochs
        )


def comparison(**changes: object) -> Comparison:
    made = Comparison(
        name="compare-textures",
        preset="quick",
        data=TEXTURES.data,
        model=TEXTURES.model,
        of="textures-quick-s0-0000",
        teachers=("A", "B"),
        methods=("uniform", "learned_gates"),
        gates=TEXTURES.gates,
        gating=TEXTURES.gating,
        fine_tune=TEXTURES.fine_tune.over(0),
    )
    return dataclasses.replace(made, **changes)


def test_a_comparison_survives_json_and_is_told_from_a_merge() -> None:
    made = comparison()
    assert from_json(made.to_json()) == made
    assert Comparison.from_json(made.to_json()) == made
    assert from_json(TEXTURES.to_json()) == TEXTURES
    with pytest.raises(RecipeError, match="is a comparison, but a merge was expected"):
        Recipe.from_json(made.to_json())


def test_weights_of_ones_own_are_one_for_each_teacher() -> None:
    made = comparison().changed({"weights": "0.7,0.3"})
    assert made.weights == (0.7, 0.3)
    assert Comparison.from_json(made.to_json()) == made
    for bad in ("0.7", "0.7,0.2", "1.5,-0.5", "nan,1", "0.5,0.3,0.2"):
        with pytest.raises(RecipeError, match="2 teachers need 2 weights from 0 to 1 with sum 1"):
            comparison().changed({"weights": bad})
    with pytest.raises(RecipeError, match="a number was expected"):
        comparison().changed({"weights": "half,half"})


@pytest.mark.parametrize(
    ("key", "bad", "expected"),
    [
        ("top_k", "0", "1 or more of the most similar channels"),
        ("temperature", "0", "between 0.001 and 1,000"),
        ("entropy", "nan", "between 0.001 and 1,000"),
        ("up_to", "-1", "0, for all channel spaces, or how many"),
        ("up_to", "half", "a whole number was expected"),
    ],
)
def test_settings_of_methods_are_checked(key: str, bad: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=f"got {key}=.*{expected}"):
        comparison().changed({key: bad})


def test_a_comparison_of_an_earlier_version_has_the_usual_settings_of_methods() -> None:
    old = json.loads(comparison().to_json())
    for field in dataclasses.fields(MethodSettings):
        del old[field.name]
    assert from_json(json.dumps(old)) == comparison()


def test_settings_are_written_as_they_are_read() -> None:
    changed = {"gates.schedule.kind": "points", "gates.schedule.points": "0.0:0.01,1.0:10.0"}
    schedule = TEXTURES.changed(changed).gates.schedule
    assert isinstance(schedule, Points)
    assert as_text(schedule.points) == changed["gates.schedule.points"]
    assert as_text(comparison(weights=(0.7, 0.3)).weights) == "0.7,0.3"


def test_a_recipe_of_an_earlier_version_names_no_kind_and_is_a_merge() -> None:
    old = json.loads(TEXTURES.to_json())
    del old["kind"]
    assert from_json(json.dumps(old)) == TEXTURES


@pytest.mark.parametrize("kind", ["dance", None, 3, ["merge"]])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(RecipeError, match="kind="):
        from_json(json.dumps({"kind": kind}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("unifrom",)}, ["'unifrom'", "did you mean 'uniform'"]),
        ({"methods": ("uniform", "uniform")}, ["uniform", "more than once"]),
        ({"teachers": ("A",)}, ["two or more"]),
        ({"examples": 0}, ["examples=0", "10 examples"]),
        ({"model": "sine-mlp"}, ["'sine-mlp'", "choose for example"]),
        ({"gating": TEXTURES.gating.over(0)}, ["gating.epochs=0"]),
    ],
)
def test_a_comparison_refuses_what_does_not_fit(
    changes: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(RecipeError) as refused:
        comparison(**changes)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("digits-coupled", "pull.strength", "-1", ["pull.strength='-1.0'", "0 or more"]),
        ("digits-coupled", "pull.strength", "inf", ["inf", "pull.heads_from"]),
        ("digits-coupled", "pull.strength", "9.6", ["from 9.5 on", "further apart"]),
        ("digits-coupled", "pull.strength", "0.1,9.6", ["0.1,9.6", "from 9.5 on"]),
        ("digits-coupled", "pull.strength", "", ["one number for all layers"]),
        ("digits-coupled", "pull.per_layer", "1.5", ["'per_layer' is unknown", "strength"]),
        ("digits-coupled", "pull.law", "falling", ["constant, growing"]),
        ("digits-coupled", "teacher.epochs", "0", ["1 epoch or more"]),
        ("digits-averaged", "workers", "1", ["workers=1", "2 to 20"]),
        ("digits-averaged", "workers", "21", ["workers=21", "2 to 20"]),
        ("digits-averaged", "every", "-1", ["every=-1"]),
        ("digits-averaged", "share", "0", ["above 0"]),
        ("digits-averaged", "average", "best", ["plain, matched"]),
        ("digits-averaged", "data.halves", "disjoint", ["leave it at 'shared'"]),
        ("digits-averaged", "training.epochs", "0", ["1 epoch or more"]),
    ],
)
def test_a_tied_training_refuses_what_does_not_fit(
    name: str, key: str, value: str, words: list[str]
) -> None:
    with pytest.raises(RecipeError) as refused:
        preset_of(name, "quick").recipe.changed({key: value})
    for word in words:
        assert word in str(refused.value)


def test_a_coupling_of_an_earlier_version_is_read_where_it_can_be() -> None:
    recipe = preset_of("digits-coupled", "quick").recipe
    old = json.loads(recipe.to_json())
    old["pull"] |= {"strength": 0.1, "per_layer": 1.0}
    assert from_json(json.dumps(old)) == recipe
    old["pull"]["per_layer"] = 0.5
    with pytest.raises(RecipeError, match=r"per_layer=0.5, .* give pull.strength, as 1,0.1,0.01"):
        from_json(json.dumps(old))


def test_the_control_of_coupled_teachers_takes_as_many_steps_as_both() -> None:
    halves = preset_of("digits-coupled", "quick").recipe
    whole = halves.changed({"data.halves": "shared"})
    assert isinstance(halves, Coupling)
    assert isinstance(whole, Coupling)
    assert halves.alone == halves.teacher
    assert whole.alone.epochs == 2 * whole.teacher.epochs


def test_the_kinds_of_recipes_are_told_apart() -> None:
    coupled = preset_of("digits-coupled", "quick").recipe.to_json()
    with pytest.raises(RecipeError, match="is a coupling, but an averaging was expected"):
        Averaging.from_json(coupled)
    with pytest.raises(RecipeError, match="is a coupling, but a merge was expected"):
        Recipe.from_json(coupled)
