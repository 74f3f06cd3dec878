"""The first layers of the teachers and the student, side by side."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from merge_core.errors import StoreError
from merge_core.store import RunReader
from merge_core.views.channels import TEACHERS
from merge_core.views.selection import Channel


@dataclass(frozen=True, kw_only=True)
class FirstLayer:
    """The first layers that a run has stored so far.

    Attributes:
        space: the channel space of the layer's outputs.
        weights: of teacher A, of teacher B and, after the cut, of the student; each
            `(channels, inputs)` for a linear layer, `(channels, inputs, height, width)` for a
            convolution.
        biases: likewise `(channels,)`; zeros for a layer without a bias.
        kept: indices into the big student's space, in the student's order; empty before the cut.
        probability: P[open] of the big student's channels, `(2 * channels,)`; NaN before the cut.
        gate: their gate values likewise.
    """

    space: str
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    kept: np.ndarray
    probability: np.ndarray
    gate: np.ndarray

    @property
    def size(self) -> int:
        """Channels of one teacher."""
        return len(self.weights[0])

    @property
    def is_convolution(self) -> bool:
        """Whether there are pictures to look at."""
        return self.weights[0].ndim == 4

    def channel(self, band: int, row: int) -> Channel:
        """The teacher's channel that a row shows; of the student the one that it comes from."""
        index = int(self.kept[row]) if band == len(TEACHERS) else band * self.size + row
        return Channel(self.space, TEACHERS[index // self.size], index % self.size)

    def hover(self, band: int, row: int) -> str:
        """What is known about a channel, in lines for a hover text."""
        if band < len(TEACHERS):
            index = band * self.size + row
            lines = [f"<b>Teacher {TEACHERS[band]}, channel {row}</b>"]
        else:
            index = int(self.kept[row])
            origin = f"teacher {TEACHERS[index // self.size]}, channel {index % self.size}"
            lines = [f"<b>Merged network, channel {row}</b>", f"comes from {origin}"]
        if len(self.kept):
            lines.append(f"P[open] at the cut {self.probability[index]:.3f}")
            lines.append(f"gate {self.gate[index]:.3f}")
            lines.append("✓ kept" if index in self.kept else "cut away")
        return "<br>".join(lines)


def first_layer(reader: RunReader, stage: str) -> FirstLayer | None:
    """Read the first layers of a run.

    Args:
        reader: the run.
        stage: where the student's row is taken from, e.g. "cut" or "fine_tune"; it is left out
            when the run has not got there.

    Returns:
        None before teacher A is trained.

    Raises:
        StoreError: a weights file is missing or damaged.
    """
    place = reader.facts().get("first_layer")
    stored = {row["name"] for row in reader.artifacts()}
    if place is None or "teacher_a" not in stored:
        return None
    stages = [key for key in ("teacher_a", "teacher_b", stage) if key in stored]
    weights, biases = [], []
    for key in stages:
        arrays = reader.artifact(key)
        if place["weight"] not in arrays:
            raise StoreError(
                f"The weights of stage {key!r} of run {reader.name!r} lack {place['weight']!r}; "
                f"this run was written by another version of netweld: run its recipe again."
            )
        weights.append(np.asarray(arrays[place["weight"]], float))
        bias = place.get("bias")
        biases.append(np.asarray(arrays[bias], float) if bias else np.zeros(len(weights[-1])))
    size = len(weights[0])
    row = {row["space"]: row for row in reader.kept()}.get(place["space"])
    unknown = np.full(2 * size, np.nan)
    return FirstLayer(
        space=place["space"],
        weights=weights,
        biases=biases,
        kept=row["kept"] if row else np.empty(0, np.int64),
        probability=row["open_probability"] if row else unknown,
        gate=row["gate"] if row else unknown,
    )


def tile_frame(layer: FirstLayer, order: str) -> pd.DataFrame:
    """One row per filter in drawing order.

    Columns: band, row, kept (only in the teachers' bands), channel (its address),
    hover.

    Args:
        layer: the first layers.
        order: "original", or "gate": most open first.
    """
    rows = []
    for band in range(len(layer.weights)):
        places = np.arange(layer.size)
        index = layer.kept if band == len(TEACHERS) else places + band * layer.size
        if order == "gate" and len(layer.kept):
            places = np.argsort(-layer.probability[index], kind="stable")
        rows += [
            {
                "band": band,
                "row": int(row),
                "kept": band < len(TEACHERS) and bool(np.isin(index[row], layer.kept)),
                "channel": str(layer.channel(band, int(row))),
                "hover": layer.hover(band, int(row)),
            }
            for row in places
        ]
    return pd.DataFrame(rows)


def channel_table(layer: FirstLayer) -> pd.DataFrame:
    """One row per channel of the big student: what hovering tells, as a table."""
    index = np.arange(2 * layer.size)
    return pd.DataFrame(
        {
            "Teacher": [TEACHERS[i // layer.size] for i in index],
            "Channel": index % layer.size,
            "P[open]": layer.probability,
            "Gate": layer.gate,
            "Kept": np.isin(index, layer.kept),
        }
    )


def hinge_frame(layer: FirstLayer) -> tuple[pd.DataFrame, list[int]]:
    """Where the hidden neurons of a one-input network bend: at x = −bias / weight.

    Returns:
        One row per neuron that bends inside the data, in [0, 1]: lane, index, size, bend, right,
        kept, channel (its address), hover; and for each lane how many neurons bend outside.
    """
    rows, outside = [], []
    for lane, (weight, bias) in enumerate(zip(layer.weights, layer.biases, strict=True)):
        slope = weight[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = -bias / slope
        inside = (bend >= 0) & (bend <= 1)
        outside.append(int((~inside).sum()))
        index = layer.kept if lane == len(TEACHERS) else np.arange(layer.size) + lane * layer.size
        rows += [
            {
                "lane": lane,
                "index": int(row),
                "size": len(slope),
                "bend": float(bend[row]),
                "right": bool(slope[row] > 0),
                "kept": bool(np.isin(index[row], layer.kept)),
                "channel": str(layer.channel(lane, int(row))),
                "hover": f"{layer.hover(lane, int(row))}<br>bends at x = {bend[row]:.3f}",
            }
            for row in np.flatnonzero(inside)
        ]
    columns = ["lane", "index", "size", "bend", "right", "kept", "channel", "hover"]
    return pd.DataFrame(rows, columns=columns), outside


def sine_target() -> pd.DataFrame:
    """The curve of the sine problem without its noise: y = sin(10πx) for x in [0, 1]."""
    x = np.linspace(0, 1, 501)
    return pd.DataFrame({"x": x, "y": np.sin(10 * np.pi * x)})
