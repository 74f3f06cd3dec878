"""Comparisons as people ask for them: of a run's teachers, or of checkpoint files (no torch)."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from merge_core.architectures import SHAPES
from merge_core.catalogue import METHODS
from merge_core.errors import RecipeError, StoreError
from merge_core.recipes import Averaging, Comparison, Data, Gates, Recipe, Training
from merge_core.store import RunReader

TEACHERS = {"teacher_a": "A", "teacher_b": "B"}
"""The stages of a run whose networks are compared, and their labels."""

EXAMPLES = 2000
"""Training examples that statistics are measured on, unless somebody asks for more."""

_FINE_TUNING = Training(epochs=1, batch_size=128, learning_rate=0.02, weight_decay=5e-4)
_GATING = Training(epochs=4, batch_size=128, learning_rate=0.05, weight_decay=5e-4)
_GATES = Gates(start=1.0, learning_rate=0.5)


def fitting(teachers: int) -> tuple[str, ...]:
    """Every method that takes so many teachers."""
    return tuple(card.key for card in METHODS if not 0 < card.teachers < teachers)


def of_run(
    reader: RunReader,
    methods: Sequence[str],
    *,
    fine_tune: int = 0,
    examples: int = EXAMPLES,
    settings: Mapping[str, str] | None = None,
) -> tuple[Comparison, list[Path]]:
    """The comparison of a run's teachers, and their files.

    Args:
        reader: a merge or a coupling whose teachers are trained, or an earlier comparison, whose
            teachers are compared once more.
        methods: keys of the catalogue.
        fine_tune: epochs of training for every method's network, as the run fine-tunes.
        examples: training examples that statistics are measured on.
        settings: dotted key → value, as `--set` takes them.

    Raises:
        StoreError: the run has not trained its teachers yet, or has none.
        RecipeError: a method or setting does not exist or does not fit.
    """
    recipe = reader.recipe
    if isinstance(recipe, Comparison):
        made = dataclasses.replace(
            recipe,
            methods=tuple(methods),
            examples=examples,
            fine_tune=recipe.fine_tune.over(fine_tune),
        )
        inputs = reader.inputs()
    elif isinstance(recipe, Averaging):
        raise StoreError(
            f"Run {reader.name} averages workers and has no two teachers that could be compared; "
            f"give a merge or a run with coupled teachers."
        )
    else:
        gating, gates, tuning = _GATING, _GATES, _FINE_TUNING
        if isinstance(recipe, Recipe):
            gating, gates, tuning = recipe.gating, recipe.gates, recipe.fine_tune
        made = Comparison(
            name=f"compare-{recipe.name}",
            preset=recipe.preset,
            seed=recipe.seed,
            data=recipe.data,
            model=recipe.model,
            precision=recipe.precision,
            code=recipe.code,
            of=reader.name,
            teachers=tuple(TEACHERS.values()),
            methods=tuple(methods),
            examples=examples,
            gates=gates,
            gating=gating,
            fine_tune=tuning.over(fine_tune),
        )
        inputs = _teacher_files(reader)
    changed = made.changed(settings or {})
    if made.of and (changed.seed, changed.data.name) != (made.seed, made.data.name):
        raise RecipeError(
            f"The teachers of {made.of} learned from {made.data.name} with seed {made.seed}, which "
            f"decides what they have not seen; leave seed and data.name as they are."
        )
    return changed, inputs


def _teacher_files(reader: RunReader) -> list[Path]:
    stored = {row["name"]: row["file"] for row in reader.artifacts()}
    if not TEACHERS.keys() <= stored.keys():
        raise StoreError(
            f"Run {reader.name} is {reader.status()['state']} and has not trained both teachers "
            f"yet; compare them once it has."
        )
    return [reader.directory / stored[stage] for stage in TEACHERS]


def of_files(
    files: Sequence[Path],
    methods: Sequence[str],
    *,
    model: str,
    data: str,
    fine_tune: int = 0,
    examples: int = EXAMPLES,
    settings: Mapping[str, str] | None = None,
) -> Comparison:
    """The comparison of teachers from checkpoint files.

    Args:
        files: one for each teacher.
        methods: keys of the catalogue.
        model: their architecture.
        data: name of the data set that they are judged on.
        fine_tune, examples, settings: as of `of_run`.

    Raises:
        RecipeError: the data set, the model, a method or a setting does not exist or does not fit.
    """
    if data not in SHAPES:
        near = difflib.get_close_matches(data, SHAPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(SHAPES)}."
        raise RecipeError(f"There is no data set {data!r}; {hint}")
    made = Comparison(
        name="compare-" + "-".join(re.findall("[a-z0-9]+", model.lower())),
        preset="files",
        data=Data(name=cast(Any, data)),
        model=model,
        teachers=_labels(files),
        methods=tuple(methods),
        examples=examples,
        gates=_GATES,
        gating=_GATING,
        fine_tune=_FINE_TUNING.over(fine_tune),
    )
    return made.changed(settings or {})


def _labels(files: Sequence[Path]) -> tuple[str, ...]:
    """The files' names without their endings, numbered where two are the same."""
    stems = [path.stem for path in files]
    return tuple(
        stem if stems.count(stem) == 1 else f"{stem} ({number})"
        for number, stem in enumerate(stems, start=1)
    )
