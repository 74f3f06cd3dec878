"""Merges without gates that cost what the merges of the other presets cost, and give more."""

from dataclasses import replace

from merge_core.presets.preset import Preset
from merge_core.recipes import Recipe, Refit

_WITH_CLASSES = ("digits", "imagewoof-lenet", "mnist-lenet")
"""Recipes whose student learns from the examples' classes beside what the teachers give."""
_BEGUN = 6
"""Epochs below which a teacher has hardly begun to learn."""


def ours(recipe: Recipe, total: float) -> Refit:
    """The merge without gates that fits the budget of a merge.

    Numbers: four teachers, whose channels fit the targets directly; fine-tuning at a third of the
    rate, because the selected channels are good already. Classes: three teachers, or two where
    three would hardly begin to learn, imitated on mixed examples, from random channels of theirs;
    half of what is imitated are the examples' classes where teachers hardly began, and on the tasks
    that gain by it. A part of the budget is left for selecting channels, for what the teachers give
    and for norm statistics.

    `netweld bench ours` changes one thing of it at a time; the README has its tables.
    Chosen one by one by mean held-out scores of seeds that no table has (from 100 on).
    `sine`, 16 seeds, loss: chosen without training from 2 teachers of 500 epochs 0.069, from 3 of
    350 0.053, from 4 of 250 0.048, from 4 of 200 0.048; chosen for the teachers' mean instead of
    the targets 0.165; fine-tuned at the whole rate and refitted 0.052, at a third 0.042; without
    the last refit 0.045; with a ridge of 1e-6 it diverged on some seeds. 6 teachers of 140 epochs:
    0.041. `textures` with 3,000 examples, 3 seeds, accuracy: a teacher 0.581, three together 0.682,
    selected channels 0.532, fine-tuned on the examples themselves 0.577, on what two teachers give
    for them 0.594. On what three give for mixed examples, at the teachers' rate: from the selected
    channels 0.668 (0.652 at half the rate), from random channels of the teachers 0.676, from an
    untrained network 0.659; so there it is the imitation that counts, and selecting does not help.

    Classes as half of the targets, difference to none in points of accuracy ± standard error at the
    budgets of the README's tables, 5 seeds (`digits` and Imagewoof at 98 epochs 3): MNIST with 300
    labels +2.1 ± .7, Imagewoof at 24 epochs +1.3 ± .7 and at 98 +2.2 ± .7, `digits` +0.6 ± .2;
    `textures` −1.1 ± .3 and `photos` −2.6 ± 1.0, so not there. Two teachers instead of three where
    three have 3 or 4 epochs each: MNIST +28 ± 11, `textures` +6.2 ± 2.5, `photos` +1.0 ± 2.3,
    Imagewoof +0.9 ± .9; with classes as half of the targets, too: +34 ± 9, +16 ± 5, +0.8 ± 2.6 and
    +1.3 ± 1.0.

    Args:
        recipe: the merge that it is compared with; its data, model and settings of training hold.
        total: the budget: epochs of training one network of ordinary width.
    """
    fits = recipe.metric == "loss"
    hardly = not fits and int(0.2 * total) < _BEGUN
    teachers, share = (4, 0.175) if fits else (2, 0.3) if hardly else (3, 0.2)
    teacher = max(1, int(share * total))
    mixes = 0 if fits else max(1, min(4, int(0.08 * total)))
    labelling = mixes * teachers / 3  # a pass forward costs a third of an epoch of training
    selecting = 0.093 * total if fits else 0.01 * total + 2
    left = total - selecting - teachers * teacher - labelling
    epochs = max(1, int(left / max(1, mixes)))
    rate = (0.3 if fits else 1.0) * recipe.teacher.learning_rate
    return Refit(
        name=recipe.name,
        preset="ours",
        seed=recipe.seed,
        data=recipe.data,
        model=recipe.model,
        precision=recipe.precision,
        code=recipe.code,
        teachers=teachers,
        teacher=recipe.teacher.over(teacher),
        examples=1000 if fits else 2000,
        start="selected" if fits else "random",
        fine_tune=replace(recipe.fine_tune.over(epochs), learning_rate=rate),
        mixes=mixes,
        labels=0.5 if hardly or recipe.name in _WITH_CLASSES else 0.0,
    )


def preset_ours(preset: Preset[Recipe], cost: float) -> Preset[Refit]:
    """The preset `ours` beside another one.

    Args:
        preset: what it is compared with.
        cost: of an epoch of its big student, in epochs of one network.
    """
    recipe = preset.recipe
    total = 2 * recipe.teacher.epochs + recipe.fine_tune.epochs + cost * recipe.gating.epochs
    how = (
        "channels chosen by least squares instead of gates, the output refitted"
        if recipe.metric == "loss"
        else "imitated together by a student that starts from random channels of theirs"
    )
    return Preset(
        recipe=ours(recipe, total),
        title=f"{preset.title.removesuffix(', as in the paper')}, without gates",
        story=f"More teachers, {how}, for the work of the preset {recipe.preset}.",
    )
