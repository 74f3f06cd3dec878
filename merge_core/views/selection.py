"""One selected channel: how an address writes it, and which channels a run has to select."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from merge_core.errors import NetweldError
from merge_core.store import RunReader
from merge_core.views.channels import TEACHERS

_TEXT = re.compile(r"(?P<space>\S{1,200}):(?P<teacher>[AB]):(?P<index>0|[1-9]\d{0,6})")


class SelectionError(NetweldError):
    """An address names a channel that does not exist."""


@dataclass(frozen=True)
class Channel:
    """A channel of a teacher.

    Attributes:
        space: its channel space.
        teacher: "A" or "B".
        index: its number in that teacher, from 0.
    """

    space: str
    teacher: str
    index: int

    def __str__(self) -> str:
        """As an address writes it: "conv1:A:3"."""
        return f"{self.space}:{self.teacher}:{self.index}"

    @property
    def label(self) -> str:
        """Its name inside its space: "A 3"."""
        return f"{self.teacher} {self.index}"


def parse(text: str) -> Channel:
    """The channel that an address names.

    Raises:
        SelectionError: the text is not of the form "conv1:A:3".
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise SelectionError(
            f"The address selects the channel {text[:80]!r}, but a channel is written as its "
            f"space, its teacher and its number, such as conv1:A:3; nothing is selected."
        )
    return Channel(found["space"], found["teacher"], int(found["index"]))


def require_known(channel: Channel, sizes: Mapping[str, int]) -> None:
    """Check that a network has a channel.

    Args:
        channel: the channel.
        sizes: the network's spaces and how many channels each has.

    Raises:
        SelectionError: the space does not exist, or has fewer channels.
    """
    if channel.space not in sizes:
        raise SelectionError(
            f"The channel {channel} is selected, but these networks have no space "
            f"{channel.space!r}; select one of theirs, or pick the run it belongs to."
        )
    size = sizes[channel.space]
    if channel.index >= size:
        raise SelectionError(
            f"The channel {channel} is selected, but the channels of {channel.space} run from 0 "
            f"to {size - 1} here; select one of them, or pick the run it belongs to."
        )


def space_sizes(reader: RunReader) -> dict[str, int]:
    """The spaces of a run's teachers that are known so far, in order, with their sizes."""
    aligned = {row["stage"]: row["facts"] for row in reader.stages()}.get("alignment") or {}
    if "spaces" in aligned:
        return {space["name"]: space["size"] for space in aligned["spaces"]}
    kept = {row["space"]: len(row["gate"]) // row["teachers"] for row in reader.kept()}
    if kept:
        return kept
    return {row["space"]: len(row["probabilities"]) // len(TEACHERS) for row in reader.openness()}
