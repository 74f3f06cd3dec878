"""λ labs: which there are, and what is to be said of them in frames and in words."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from merge_core import linefile
from merge_core.carriers import Carried, progress_of
from merge_core.errors import NetweldError
from merge_core.lab import (
    MEASURES,
    Cell,
    Lab,
    LabFile,
    Row,
    best_cells,
    directory,
    landscape,
)
from merge_core.presets import find_preset
from merge_core.recipes import Experiment
from merge_core.schedules import TITLES
from merge_core.views.runs import recipe_title


@dataclass(frozen=True, kw_only=True)
class LabNow(Carried):
    """One lab as it is now.

    Attributes:
        lab: what it is.
        rows: what is finished, in the order in which it came.
    """

    lab: Lab
    rows: tuple[Row, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds that it has or was asked for."""
        asked = self.progress.asked if self.progress is not None else None
        wanted = range(asked.seed, asked.seed + asked.n) if asked is not None else range(0)
        return sorted({*wanted, *(row.seed for row in self.rows)})

    def of(self, cell: Cell) -> list[Row]:
        """A cell's rows, by seed."""
        return sorted((row for row in self.rows if row.cell == cell), key=lambda row: row.seed)


def lab_files(home: Path) -> list[Path]:
    """The files of labs, the one that changed last first."""
    return linefile.newest(directory(home))


def read_lab(path: Path) -> LabNow:
    """The lab in a file.

    Raises:
        NetweldError: the file is no lab, or cannot be read.
    """
    file = LabFile.at(path)
    return LabNow(path=path, lab=file.lab, rows=tuple(file.rows()), progress=progress_of(path))


def readable_lab(path: Path) -> LabNow | None:
    """The lab in a file; None where this version of netweld cannot read it."""
    try:
        return read_lab(path)
    except NetweldError:
        return None


def lab_label(now: LabNow) -> str:
    """A lab in a few words: recipe, preset, family, grid, seeds."""
    lab = now.lab
    changed = ", changed" if changes(lab) else ""
    return (
        f"**{recipe_title(lab.recipe)}** ({lab.recipe.preset}{changed}) · {TITLES[lab.family]} · "
        f"{lab.shape[0]} × {lab.shape[1]} schedules · {_seeds(now.seeds)}{now.mark}"
    )


def _seeds(seeds: Sequence[int]) -> str:
    if not seeds:
        return "no seed yet"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"{len(seeds)} seeds"


def changes(lab: Lab) -> dict[str, str]:
    """The settings in which a lab's recipe differs from its preset, as `--set` takes them."""
    usual = find_preset(lab.recipe.name, lab.recipe.preset).recipe
    told = _flat(json.loads(replace(usual, seed=0).to_json()))
    mine = _flat(json.loads(lab.recipe.to_json()))
    return {
        key: value
        for key, value in mine.items()
        if told.get(key) != value and not key.startswith("gates.schedule")
    }


def _flat(values: dict, before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            found[f"{before}{key}"] = text
    return found


def lab_command(now: LabNow) -> str:
    """What to type for the same lab."""
    lab, seeds = now.lab, now.seeds or [0]
    parts = ["netweld", "lab", lab.recipe.name, "--preset", lab.recipe.preset]
    parts += ["--family", lab.family, "--grid", f"{lab.shape[0]}x{lab.shape[1]}"]
    parts += ["--seeds", str(len(seeds)), "--seed", str(seeds[0])]
    for key, value in changes(lab).items():
        parts += ["--set", f"{key}={value}"]
    return shlex.join(parts)


def cell_text(lab: Lab, cell: Cell) -> str:
    """A schedule in words: its two numbers."""
    return ", ".join(
        f"{axis.title} = {value:g}" for axis, value in zip(lab.axes, lab.numbers(cell), strict=True)
    )


def settings_of(lab: Lab, cell: Cell) -> list[str]:
    """The schedule of a cell as options of `netweld merge`."""
    pairs = zip(lab.axes, lab.numbers(cell), strict=True)
    told = [] if lab.family == "growth" else [f"gates.schedule.kind={lab.family}"]
    return [*told, *(f"gates.schedule.{axis.field}={value:g}" for axis, value in pairs)]


def merge_command(lab: Lab, cell: Cell, seed: int) -> str:
    """What to type for a full run of a cell."""
    parts = ["netweld", "merge", lab.recipe.name, "--preset", lab.recipe.preset]
    parts += ["--seed", str(seed)]
    changed = [f"{key}={value}" for key, value in changes(lab).items()]
    for setting in [*changed, *settings_of(lab, cell)]:
        parts += ["--set", setting]
    return shlex.join(parts)


def metric_word(recipe: Experiment) -> str:
    """What scores are, and which are better."""
    better = "higher" if recipe.metric == "accuracy" else "lower"
    return f"held-out {recipe.metric}, {better} is better"


def findings(now: LabNow) -> str:
    """The best schedule so far beside the paper's, as a sentence; empty without any."""
    lab, best = now.lab, best_cells(now.lab, now.rows)
    if not best:
        return ""
    values = landscape(lab, now.rows, "tuned_heldout")
    test = landscape(lab, now.rows, "tuned_test")
    metric = lab.recipe.metric
    done = f"{len(best)} of {lab.shape[0] * lab.shape[1]} schedules are finished."
    said = (
        f"The best held-out {metric} after fine-tuning is **{values[best[0]]:.4g}**, at "
        f"**{cell_text(lab, best[0])}** (test {test[best[0]]:.4g})."
    )
    paper = lab.paper
    if paper is not None and paper != best[0] and not np.isnan(values[paper]):
        said += (
            f" The paper's schedule has {values[paper]:.4g} (test {test[paper]:.4g}): it is number "
            f"{best.index(paper) + 1} of {len(best)}."
        )
    elif paper == best[0]:
        said += " That is the paper's schedule."
    return f"{said} {done}"


def lab_frame(now: LabNow) -> pd.DataFrame:
    """A line for each finished schedule, the best held-out score first; means over seeds."""
    lab = now.lab
    columns = {
        f"Held-out {lab.recipe.metric} after fine-tuning": "tuned_heldout",
        f"Test {lab.recipe.metric} after fine-tuning": "tuned_test",
        f"Held-out {lab.recipe.metric} after the cut": "cut_heldout",
        f"Test {lab.recipe.metric} after the cut": "cut_test",
        MEASURES["open_before"]: "open_before",
        MEASURES["open_at_cut"]: "open_at_cut",
        MEASURES["undecided"]: "undecided",
    }
    found = {title: landscape(lab, now.rows, key) for title, key in columns.items()}
    titles = [axis.title for axis in lab.axes]
    lines = []
    for cell in best_cells(lab, now.rows):
        numbers = dict(zip(titles, lab.numbers(cell), strict=True))
        scores = {title: float(values[cell]) for title, values in found.items()}
        lines.append({**numbers, "Seeds": len(now.of(cell)), **scores})
    return pd.DataFrame(lines, columns=[*titles, "Seeds", *columns])


def mean_curves(now: LabNow, cell: Cell) -> dict[str, np.ndarray]:
    """Space → mean P[open] after each epoch, the mean over the cell's seeds; `(epochs,)` each."""
    rows = now.of(cell)
    if not rows:
        return {}
    return {space: np.mean([row.means[space] for row in rows], 0) for space in rows[0].means}


def lambda_curve(lab: Lab, cell: Cell) -> np.ndarray:
    """λ in the first step of each epoch of the gate stage, `(epochs,)`."""
    return lab.curve(cell).over(lab.recipe.gating.epochs)
