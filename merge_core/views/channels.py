"""Channels of a run: gates over time, which survive, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from merge_core.store import RunReader

TEACHERS = "AB"


@dataclass(frozen=True, kw_only=True)
class Openness:
    """How the gates of one space moved.

    Attributes:
        space: the channel space.
        epochs: epochs of the gate stage that are over, `(epochs,)` int64, from 1.
        probability: P[gate > 0] after each of them, `(epochs, channels)` float32.
        weights: λ in each of them, `(epochs,)` float64; NaN where the run did not say.
        planned: epochs that the gate stage will have.
    """

    space: str
    epochs: np.ndarray
    probability: np.ndarray
    weights: np.ndarray
    planned: int

    @property
    def labels(self) -> list[str]:
        """Each channel's name: its teacher and its index there, e.g. "A 5"."""
        size = self.probability.shape[1] // len(TEACHERS)
        return [channel_label(index, size) for index in range(self.probability.shape[1])]

    def order(self, by: str) -> np.ndarray:
        """Channels from least to most open at the last epoch, or by index from last to first."""
        if by == "index":
            return np.arange(self.probability.shape[1])[::-1]
        return np.argsort(self.probability[-1], kind="stable")

    def table(self) -> pd.DataFrame:
        """One row per channel, one column per epoch: "epoch 1", "epoch 2", ..."""
        columns = {
            f"epoch {epoch}": row for epoch, row in zip(self.epochs, self.probability, strict=True)
        }
        return pd.DataFrame({"channel": self.labels, **columns})


def channel_label(index: int, size: int) -> str:
    """The name of a big student's channel: "A 5" for channel 5 of teacher A."""
    return f"{TEACHERS[index // size]} {index % size}"


def gated_spaces(reader: RunReader) -> list[str]:
    """The channel spaces whose gates have a history, in the order in which they were written."""
    return list(dict.fromkeys(row["space"] for row in reader.openness()))


def openness(reader: RunReader, space: str) -> Openness | None:
    """The gates' history of a space; None before the first epoch of gates is over."""
    rows = sorted(reader.openness(space), key=lambda row: row["epoch"])
    if not rows:
        return None
    epochs = np.array([row["epoch"] for row in rows])
    weights = {
        row["epoch"]: row["value"] for row in reader.metrics("gates") if row["name"] == "lambda"
    }
    planned = [row["epochs"] for row in reader.stages() if row["stage"] == "gates"]
    return Openness(
        space=space,
        epochs=epochs,
        probability=np.stack([row["probabilities"] for row in rows]),
        weights=np.array([weights.get(int(epoch), np.nan) for epoch in epochs]),
        planned=max(planned, default=int(epochs[-1])),
    )


def provenance(reader: RunReader) -> pd.DataFrame:
    """One row per kept channel of every space, in the student's order.

    Columns: space, position (in the student), teacher ("A" or "B"), index (in that teacher),
    probability (P[open] at the cut), gate (its deterministic value at the cut).
    """
    frames = []
    for space, row in _kept(reader).items():
        kept = row["kept"]
        size = len(row["gate"]) // row["teachers"]
        frames.append(
            pd.DataFrame(
                {
                    "space": space,
                    "position": np.arange(len(kept)),
                    "teacher": [TEACHERS[index // size] for index in kept],
                    "index": kept % size,
                    "probability": row["open_probability"][kept].astype(float),
                    "gate": row["gate"][kept].astype(float),
                }
            )
        )
    if not frames:
        columns = ["space", "position", "teacher", "index", "probability", "gate"]
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True)


def share_frame(reader: RunReader) -> pd.DataFrame:
    """One row per space: size, from_a, from_b, lowest_kept and highest_cut (in P[open]).

    A highest_cut above lowest_kept would mean that the cut did not go by P[open] alone.
    """
    rows = []
    for space, row in _kept(reader).items():
        kept, probability = row["kept"], row["open_probability"]
        size = len(probability) // row["teachers"]
        cut = np.setdiff1d(np.arange(len(probability)), kept)
        rows.append(
            {
                "space": space,
                "size": len(kept),
                "from_a": int((kept < size).sum()),
                "from_b": int((kept >= size).sum()),
                "lowest_kept": float(probability[kept].min()),
                "highest_cut": float(probability[cut].max()) if len(cut) else np.nan,
            }
        )
    columns = ["space", "size", "from_a", "from_b", "lowest_kept", "highest_cut"]
    return pd.DataFrame(rows, columns=columns)


def _kept(reader: RunReader) -> Mapping[str, Mapping[str, Any]]:
    return {row["space"]: row for row in reader.kept()}
