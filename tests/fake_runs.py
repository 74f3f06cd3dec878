"""Plausible runs written through the real writer, without any training: for looking only."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

from merge_core.description import Cost, Description, Layer, Space
from merge_core.events import (
    Arrays,
    ChannelsKept,
    EpochFinished,
    Event,
    Progress,
    StageFinished,
    StagePlanned,
    StageStarted,
    StudentReturned,
)
from merge_core.learned import ClassCounts, Learned, curve_places
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.schedules import Closing
from merge_core.stages import STAGES
from merge_core.store import RunWriter, Store
from merge_core.store.databases import RunLock

ACCURACY = {
    "teacher_a": 0.678,
    "teacher_b": 0.681,
    "ensemble": 0.737,
    "big": 0.737,
    "gates": 0.721,
    "cut": 0.702,
    "norms": 0.718,
    "fine_tune": 0.709,
    "random_half": 0.671,
    "trained_on": 0.662,
}
LOSS = {stage: 1.2 - accuracy for stage, accuracy in ACCURACY.items()}
SIZES = {
    "textures": {"conv1": 16, "conv2": 32, "conv3": 64},
    "sine": {"hidden": 100},
    "digits": {"conv1": 8, "conv2": 16},
}
WEIGHTS = {"textures": (16, 3, 7, 7), "sine": (100, 1), "digits": (8, 1, 3, 3)}
LAYER = {"textures": "conv1", "sine": "hidden", "digits": "conv1"}
EPOCHS_BEFORE_STOP = 2
LEARNED = ("learned", "class_names")
"""Facts of a stage on what its network answers."""
NAMES = [f"kind {number}" for number in range(12)]
"""What people call the classes of textures; of other data there are fewer."""
LAWS = {"law_errors": {"permute": 3e-7, "concatenate": 2e-7}, "mean_error": 4e-7}
TINY = Description(
    name="resnet18",
    input=(4,),
    layers=(
        Layer(name="a", kind="Linear", shape=(6, 4), parameters=30, flops=48),
        Layer(name="b", kind="Linear", shape=(2, 6), parameters=14, flops=24),
    ),
    spaces=(
        Space(name="input", size=4, free=False, writers=(), readers=("a",), through=()),
        Space(name="a", size=6, free=True, writers=("a",), readers=("b",), through=()),
        Space(name="output", size=2, free=False, writers=("b",), readers=(), through=()),
    ),
    teacher=Cost(parameters=44, flops=72),
    big=Cost(parameters=86, flops=144),
    student=Cost(parameters=44, flops=72),
    laws={"permute": 3e-7, "concatenate": 2e-7},
    trace_seconds=0.1,
    torch="2.9",
)
"""A network of two layers, as an inspection describes it."""

_HELD: list[RunLock] = []
"""The runs that this process pretends to work on."""

State = Literal["finished", "stopped", "failed", "lost", "running", "queued"]


def make(
    store: Store,
    name: str = "textures",
    *,
    state: State = "finished",
    stop: str = "",
    seed: int = 0,
    early: bool = False,
) -> str:
    """Write a run that ends in `state`; unless it is finished, in the middle of stage `stop`.

    An `early` one is of a netweld that did not keep what networks answer.
    """
    recipe = find_preset(name, "quick").recipe.changed({"seed": str(seed)})
    run = store.create(recipe, "cpu")
    if state == "queued":
        return run
    with store.writer(run) as writer:
        writer.fact("device", "cpu")
        _write(writer, recipe, stop, early)
        if state not in ("lost", "running"):
            message = "The loss of stage 'gates' became NaN at step 7." if state == "failed" else ""
            writer.finish(state, message)
    if state == "running":
        _HELD.append(RunLock(store.directory(run)))
    return run


@contextmanager
def running(store: Store, name: str, stop: str) -> Iterator[tuple[str, RunWriter]]:
    """A run in the middle of stage `stop`, whose worker is this process."""
    recipe = find_preset(name, "quick").recipe
    run = store.create(recipe, "cpu")
    with store.writer(run) as writer:
        writer.fact("device", "cpu")
        _write(writer, recipe, stop)
        yield run, writer


def _write(writer: RunWriter, recipe: Recipe, stop: str, early: bool = False) -> None:
    for event in events(recipe):
        if early and isinstance(event, StageFinished):
            told = {key: value for key, value in event.facts.items() if key not in LEARNED}
            event = dataclasses.replace(event, facts=told)
        if isinstance(event, EpochFinished | StageFinished) and event.stage == stop:
            past = isinstance(event, StageFinished) or event.epoch > EPOCHS_BEFORE_STOP
            if past:
                writer.write(Progress(stage=stop, step=47 * EPOCHS_BEFORE_STOP + 5))
                return
        writer.write(event)


def events(recipe: Recipe) -> Iterator[Event]:
    """The events of a whole run."""
    random = np.random.default_rng(recipe.seed)
    epochs = {
        "teacher_a": recipe.teacher.epochs,
        "teacher_b": recipe.teacher.epochs,
        "gates": recipe.gating.epochs,
        "fine_tune": recipe.fine_tune.epochs,
        "random_half": recipe.extra_epochs,
        "trained_on": recipe.extra_epochs,
    }
    keys = [s.key for s in STAGES if not (s.key == "norms" and recipe.name == "sine")]
    for key in keys:
        count = epochs.get(key, 0)
        yield StagePlanned(stage=key, epochs=count, steps=count * 47, flops=count * 2.5e10)
    arrays = _networks(recipe, random)
    kept, probabilities = {}, {}
    for space, size in SIZES[recipe.name].items():
        probabilities[space] = random.uniform(0, 1, 2 * size).astype(np.float32)
        kept[space] = np.sort(np.argsort(-probabilities[space])[:size])
    layer = LAYER[recipe.name]
    both = {
        k: np.concatenate([arrays["teacher_a"][k], arrays["teacher_b"][k]]) for k in _keys(recipe)
    }
    arrays["cut"] = {k: both[k][kept[layer]] for k in both}
    for later in ("norms", "fine_tune", "random_half", "trained_on"):
        arrays[later] = {k: v * np.float32(1.05) for k, v in arrays["cut"].items()}
    for key in keys:
        yield StageStarted(stage=key)
        for epoch in range(1, epochs.get(key, 0) + 1):
            yield _epoch(recipe, key, epoch, epochs[key], probabilities, random)
        if key == "gates":
            for space, size in SIZES[recipe.name].items():
                p = probabilities[space]
                yield ChannelsKept(
                    space=space, kept=kept[space], open_probability=p, gate=p * 0.9, teachers=2
                )
                assert len(p) == 2 * size
        yield StageFinished(
            stage=key,
            scores=_scores(recipe, key),
            seconds=0.4 * epochs.get(key, 0) + 0.1,
            arrays=arrays.get(key, {}),
            facts={"learned": _learned(recipe, key).to_dict()}
            | {
                "teacher_a": {"first_layer": _first_layer(recipe), "class_names": NAMES},
                "big": {"network": _network(recipe).to_dict(), **LAWS},
            }.get(key, {}),
        )
    yield StudentReturned(stage="fine_tune" if recipe.name == "sine" else "norms")


def _scores(recipe: Recipe, stage: str) -> dict[str, dict[str, float]]:
    splits = {"train": 0.05, "heldout": 0.01, "test": 0.0}
    if recipe.metric == "loss":
        # The paper's order: the merge helps after fine-tuning.
        value = 0.06 if stage == "fine_tune" else LOSS[stage]
        return {split: {"loss": value + more / 10} for split, more in splits.items()}
    return {
        split: {"accuracy": ACCURACY[stage] + more, "loss": LOSS[stage] - more}
        for split, more in splits.items()
    }


def _learned(recipe: Recipe, stage: str) -> Learned:
    """All classes as well as their stage; curves that are the lower, the larger their loss is."""
    if recipe.metric == "loss":
        level = 1 - LOSS[stage]
        places = (math.sin(10 * math.pi * x) for x in curve_places())
        return Learned(curve=tuple(round(level * y, 4) for y in places))
    examples = (100,) * recipe.data.shape.classes
    right = (round(100 * ACCURACY[stage]),) * len(examples)
    counts = ClassCounts(right=right, examples=examples)
    return Learned(classes={"heldout": counts, "test": counts})


def _epoch(
    recipe: Recipe,
    stage: str,
    epoch: int,
    last: int,
    probabilities: Arrays,
    random: np.random.Generator,
) -> EpochFinished:
    part = epoch / last
    value = 0.3 + 0.4 * part + random.normal(0, 0.01)
    metrics = {
        "train_loss": 1.4 - value,
        "heldout_loss": 1.5 - value,
        "learning_rate": 0.1 * (1 - part),
    }
    if recipe.metric == "accuracy":
        metrics |= {"train_accuracy": value + 0.05, "heldout_accuracy": value}
    opened = {}
    if stage == "gates":
        schedule = recipe.gates.schedule
        assert not isinstance(schedule, Closing)
        metrics["lambda"] = schedule.at((epoch - 1) / last)
        opened = {
            space: (0.99 * (1 - part) + p * part).astype(np.float32)
            for space, p in probabilities.items()
        }
    return EpochFinished(
        stage=stage,
        epoch=epoch,
        step=epoch * 47,
        metrics=metrics,
        open_probabilities=opened,
        checkpoint=dict,
    )


def _keys(recipe: Recipe) -> list[str]:
    layer = LAYER[recipe.name]
    return [f"{layer}.weight", f"{layer}.bias"] if recipe.name == "sine" else [f"{layer}.weight"]


def _first_layer(recipe: Recipe) -> dict[str, str | None]:
    layer = LAYER[recipe.name]
    bias = f"{layer}.bias" if recipe.name == "sine" else None
    return {"weight": f"{layer}.weight", "bias": bias, "space": layer}


def _networks(recipe: Recipe, random: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    shape, layer = WEIGHTS[recipe.name], LAYER[recipe.name]
    networks = {}
    for stage in ("teacher_a", "teacher_b"):
        weight = random.normal(0, 1, shape).astype(np.float32)
        if len(shape) == 4:
            weight = 0.1 * weight + _gratings(shape, random)
        networks[stage] = {f"{layer}.weight": weight}
        if recipe.name == "sine":
            bend = random.uniform(-0.3, 1.3, shape[0])
            networks[stage][f"{layer}.bias"] = (-weight[:, 0] * bend).astype(np.float32)
    return networks


def _gratings(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Oriented edges in random colours, `(filters, channels, height, width)`."""
    count, channels, height, width = shape
    y, x = np.mgrid[:height, :width]
    angle = random.uniform(0, np.pi, (count, 1, 1))
    wave = np.sin(
        1.2 * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 6, (count, 1, 1))
    )
    colour = random.normal(0, 1, (count, channels, 1, 1))
    return (wave[:, None] * colour).astype(np.float32)


def _network(recipe: Recipe) -> Description:
    """The network as a chain of layers, one for each channel space and one for the output."""
    names = ["input", *SIZES[recipe.name], "output"]
    sizes = [3, *SIZES[recipe.name].values(), 2]
    layers, spaces = [], []
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        wide = sizes[i - 1] * size
        if i:
            shape = (size, sizes[i - 1])
            layers.append(
                Layer(name=name, kind="Linear", shape=shape, parameters=wide, flops=2 * wide)
            )
        spaces.append(
            Space(
                name=name,
                size=size,
                free=0 < i < len(names) - 1,
                writers=(name,) if i else (),
                readers=tuple(names[i + 1 : i + 2]),
                through=(),
            )
        )
    cost = Cost(
        parameters=sum(layer.parameters for layer in layers),
        flops=sum(layer.flops for layer in layers),
    )
    return Description(
        name=recipe.model,
        input=(3,),
        layers=tuple(layers),
        spaces=tuple(spaces),
        teacher=cost,
        big=Cost(parameters=4 * cost.parameters, flops=4 * cost.flops),
        student=cost,
        laws=LAWS["law_errors"],
        trace_seconds=0.1,
        torch="2.9",
    )
