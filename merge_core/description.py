"""What a trace found in a network, as plain values that can be stored and looked at (no torch)."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.errors import GraphError, StoreError

LAW_TOLERANCES = {"float32": 1e-4, "float64": 1e-11}
"""Largest relative error of the channel graph's laws that is rounding; above it nothing starts."""


def require_lawful(name: str, worst: float, most: float) -> None:
    """Refuse a network whose channel graph breaks its laws, also by what is no number.

    Raises:
        GraphError: its largest error is above the tolerance.
    """
    if not worst <= most:
        raise GraphError(
            f"The channel graph of {name!r} breaks its laws by {worst:.1e} (at most {most:.0e} is "
            f"expected), so this network cannot be merged; please report it."
        )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module that holds parameters or computes on channels.

    Attributes:
        name: its path in the network; "" for the network itself.
        kind: its class.
        shape: of its weight; () without one.
        parameters: its own, those of modules inside left out.
        flops: of one example's forward pass, two per multiply-accumulate.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Space:
    """A channel space; layers by name, in order of execution.

    Attributes:
        name: the first layer that writes it, or "input" or "output".
        size: its units: channels, groups of channels, or attention heads.
        free: whether its units may be permuted, gated and cut.
        writers, readers: layers whose weights create it and read it.
        through: layers that hold parameters of it and pass it on, such as norms.
    """

    name: str
    size: int
    free: bool
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    through: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters of a network, and FLOPs of one example's forward pass."""

    parameters: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """A network as its channel graph sees it.

    Attributes:
        name: of the architecture.
        input: shape of one example.
        layers: in order of execution.
        spaces: in order of first write.
        teacher, big, student: what one teacher, the big student of two and the half cut of that
            big student cost.
        laws: measured relative error of each law of the channel graph.
        precision: in which the laws were measured, "float32" or "float64".
        trace_seconds: how long the trace took.
        torch: the version that measured it.
    """

    name: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    spaces: tuple[Space, ...]
    teacher: Cost
    big: Cost
    student: Cost
    laws: Mapping[str, float]
    trace_seconds: float
    torch: str
    precision: str = "float32"

    @property
    def tolerance(self) -> float:
        """The largest error of a law that rounding explains."""
        return LAW_TOLERANCES[self.precision]

    @property
    def worst_law(self) -> float:
        """The largest error of any law; NaN where one of them is not a number."""
        errors = list(self.laws.values())
        return max(errors) if all(error == error for error in errors) else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Description":
        """The inverse of `to_dict`, also after a round trip through JSON.

        Raises:
            StoreError: these are not the values of a description.
        """
        try:
            return cls(
                **{
                    **values,
                    "input": tuple(values["input"]),
                    "layers": tuple(_layer(each) for each in values["layers"]),
                    "spaces": tuple(_space(each) for each in values["spaces"]),
                    **{key: Cost(**values[key]) for key in ("teacher", "big", "student")},
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise StoreError(
                f"The description of a network is damaged or of another version of netweld "
                f"({error}); inspect the network again."
            ) from error

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """The description that `json.dumps(description.to_dict())` wrote.

        Raises:
            StoreError: the text is no such JSON.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise StoreError(
                f"The description of a network is not readable ({error}); inspect it again."
            ) from error
        return cls.from_dict(values)


def _layer(values: Mapping[str, Any]) -> Layer:
    return Layer(**{**values, "shape": tuple(values["shape"])})


def _space(values: Mapping[str, Any]) -> Space:
    lists = {key: tuple(values[key]) for key in ("writers", "readers", "through")}
    return Space(**{**values, **lists})
