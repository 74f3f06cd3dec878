"""A network's description as sentences, tables and a diagram of its channel spaces."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from merge_core.description import Description, Layer, Space
from merge_core.store import RunReader
from merge_core.views.runs import flops_text

LAW_WORDS = {
    "permute": "Permuting channels leaves the output as it was",
    "concatenate": "The fresh big student computes the teachers' mean",
    "select": "A teacher selected from the big student is that teacher",
    "identity": "Selecting every channel changes nothing",
}
_LONGEST_LABEL = 30
_SHORT = 2
"""Rows that a space inside a block lives at most."""
_FEW = 4


def network_of(reader: RunReader) -> Description | None:
    """The network of a run; None before its channels were checked, or in a run of old."""
    facts = {row["stage"]: row["facts"] for row in reader.stages()}.get("big") or {}
    return Description.from_dict(facts["network"]) if "network" in facts else None


def spaces_text(network: Description) -> str:
    """How many channel spaces there are and how many of them a merge changes."""
    free = sum(space.free for space in network.spaces)
    fixed = len(network.spaces) - free
    return f"{free} channel {'space' if free == 1 else 'spaces'} to merge, {fixed} fixed."


def law_badge(network: Description) -> str:
    """What was measured, in a few words."""
    return f"permuting any channel changes the output by {network.laws['permute']:.0e}"


def law_sentence(network: Description) -> str:
    """What was measured, in one sentence."""
    badge = law_badge(network)
    return (
        f"{badge[0].upper()}{badge[1:]}, relative to its largest value; the worst error of all "
        f"laws is {network.worst_law:.0e}."
    )


def law_table(network: Description) -> pd.DataFrame:
    """One row per law: Law, Relative error."""
    return pd.DataFrame(
        {
            "Law": [LAW_WORDS.get(law, law) for law in network.laws],
            "Relative error": list(network.laws.values()),
        }
    )


def cost_table(network: Description) -> pd.DataFrame:
    """One row per network: Network, Parameters, FLOPs of one example, as text with a prefix."""
    costs = {
        "A teacher": network.teacher,
        "Big student": network.big,
        "Student": network.student,
    }
    return pd.DataFrame(
        {
            "Network": list(costs),
            "Parameters": [cost.parameters for cost in costs.values()],
            "Forward pass": [flops_text(cost.flops) for cost in costs.values()],
        }
    )


def space_table(network: Description, few: int = 1_000_000) -> pd.DataFrame:
    """One row per space: Space, Size, Fixed, Written by, Read by, Passed on by.

    Args:
        network: the network.
        few: so many layers of a list are named, the others counted.
    """
    return pd.DataFrame(
        [
            {
                "Space": space.name,
                "Size": space.size,
                "Fixed": "" if space.free else "fixed",
                "Written by": _listed(space.writers, few),
                "Read by": _listed(space.readers, few),
                "Passed on by": _listed(space.through, few),
            }
            for space in network.spaces
        ]
    )


def _listed(names: Sequence[str], few: int) -> str:
    """Layers in words; the network itself has no name."""
    words = [name or "(the network)" for name in names]
    more = f" and {len(words) - few} more" if len(words) > few else ""
    return ", ".join(words[:few]) + more


def layer_table(network: Description) -> pd.DataFrame:
    """One row per layer, in order of execution, with the spaces that it touches."""
    touched = _touched(network)
    return pd.DataFrame(
        [
            {
                "Layer": layer.name or "(the network)",
                "Kind": layer.kind,
                "Weight": "×".join(map(str, layer.shape)),
                "Parameters": layer.parameters,
                "Forward FLOPs": layer.flops,
                "Writes": ", ".join(touched["writes"].get(layer.name, ())),
                "Reads": ", ".join(touched["reads"].get(layer.name, ())),
                "Passes on": ", ".join(touched["passes"].get(layer.name, ())),
            }
            for layer in network.layers
        ]
    )


def _touched(network: Description) -> dict[str, dict[str, list[str]]]:
    """How → layer → the spaces it touches like that."""
    found: dict[str, dict[str, list[str]]] = {"writes": {}, "reads": {}, "passes": {}}
    for space in network.spaces:
        for how, layers in zip(found, (space.writers, space.readers, space.through), strict=True):
            for layer in layers:
                found[how].setdefault(layer, []).append(space.name)
    return found


@dataclass(frozen=True)
class Lane:
    """A space as an upright line of the diagram.

    Attributes:
        lane: its place from left to right; spaces that are not alive at once may share one.
        first, last: rows of its first and its last layer.
        colour: a running number; None for a fixed space.
        stream: whether several layers write it, as they do a residual stream.
    """

    name: str
    size: int
    lane: int
    first: int
    last: int
    colour: int | None
    stream: bool


@dataclass(frozen=True)
class Diagram:
    """Layers as rows from top to bottom, spaces as lanes, and a mark where they meet.

    Attributes:
        labels: one per row.
        lanes: the spaces.
        marks: columns row, lane, colour (NaN for fixed spaces), how ("writes", "reads", "passes"),
            text (for hovering, HTML).
        hidden: how many layers stand behind those of repeated blocks.
    """

    labels: list[str]
    lanes: list[Lane]
    marks: pd.DataFrame
    hidden: int


@dataclass(frozen=True)
class _Row:
    label: str
    layer: Layer


def diagram(network: Description, *, fold: bool) -> Diagram:
    """The diagram of a network.

    A row is a layer that writes or reads a space or computes on one; norms have none.

    Args:
        network: the network.
        fold: blocks that repeat the one before them are left out.
    """
    touched = _touched(network)
    weighty = {*touched["writes"], *touched["reads"]}
    shown = [each for each in network.layers if each.name in weighty or each.flops]
    shown = [each for each in shown if any(each.name in layers for layers in touched.values())]
    rows = [_Row(each.name, each) for each in shown]
    if fold:
        rows = _folded(rows, 0)
    at = {row.layer.name: number for number, row in enumerate(rows)}
    lanes = _lanes(network.spaces, at)
    by_name = {space.name: space for space in network.spaces}
    marks = []
    for how, layers in touched.items():
        for row in rows:
            for name in layers.get(row.layer.name, ()):
                text = _hover(row, how, by_name[name], touched)
                lane = lanes[name]
                marks.append((at[row.layer.name], lane.lane, lane.colour, how, text))
    columns = ["row", "lane", "colour", "how", "text"]
    return Diagram(
        labels=_labels(rows),
        lanes=list(lanes.values()),
        marks=pd.DataFrame(marks, columns=columns).astype({"colour": float}),
        hidden=len(shown) - len(rows),
    )


def _lanes(spaces: Iterable[Space], at: dict[str, int]) -> dict[str, Lane]:
    """From left to right: streams, spaces inside a block, spaces that live longer.

    Colours are counted in each of these groups by itself, so that neighbours differ.
    """
    groups: list[list[tuple[int, int, Space]]] = [[], [], []]
    for space in spaces:
        here = [at[n] for n in (*space.writers, *space.readers, *space.through) if n in at]
        if here:
            first, last = min(here), max(here)
            group = 0 if len(space.writers) > 1 else 1 if last - first <= _SHORT else 2
            groups[group].append((first, last, space))
    taken: list[list[tuple[int, int]]] = []
    lanes = {}
    for number, group in enumerate(groups):
        left, colour = len(taken), number
        for first, last, space in sorted(group, key=lambda life: life[0]):
            lane = left
            while lane < len(taken) and any(a <= last and first <= b for a, b in taken[lane]):
                lane += 1
            if lane == len(taken):
                taken.append([])
            taken[lane].append((first, last))
            shown = colour if space.free else None
            lanes[space.name] = Lane(
                space.name, space.size, lane, first, last, shown, stream=number == 0
            )
            colour += space.free
    return lanes


def _hover(row: _Row, how: str, space: Space, touched: dict[str, dict[str, list[str]]]) -> str:
    layer = row.layer
    shape = "×".join(map(str, layer.shape)) or "no weight"
    verb = {"writes": "writes", "reads": "reads", "passes": "works within"}[how]
    others = len(touched[how][layer.name]) - 1
    lines = [
        f"<b>{html.escape(row.label)}</b> · {html.escape(layer.kind)} · {shape}",
        f"{layer.parameters:,} parameters, {flops_text(layer.flops)} per example",
        f"{verb} <b>{html.escape(space.name)}</b>: {space.size} "
        f"{'units' if space.free else 'units, fixed'}"
        + (f" (and {others} other {'space' if others == 1 else 'spaces'})" if others else ""),
    ]
    for word, names in (
        ("written by", space.writers),
        ("read by", space.readers),
        ("passed on by", space.through),
    ):
        if names:
            lines.append(f"{word} {html.escape(_listed(names, _FEW))}")
    return "<br>".join(lines)


def _folded(rows: list[_Row], depth: int) -> list[_Row]:
    """Rows without the blocks that repeat the block before them; the label tells them."""
    kept: list[_Row] = []
    blocks: list[tuple[str, list[_Row]]] = [
        (key, list(group))
        for key, group in groupby(
            rows, lambda row: ".".join(row.layer.name.split(".")[: depth + 1])
        )
    ]
    number = 0
    while number < len(blocks):
        name, block = blocks[number]
        last = number
        while last + 1 < len(blocks) and _repeats(blocks[last + 1], blocks[number]):
            last += 1
        if len(block) > 1:
            block = _folded(block, depth + 1)
        if last > number:
            end = re.findall(r"\d+$", blocks[last][0])[0]
            block = [_Row(f"{name}–{end}{row.label[len(name) :]}", row.layer) for row in block]
        kept += block
        number = last + 1
    return kept


def _repeats(block: tuple[str, list[_Row]], before: tuple[str, list[_Row]]) -> bool:
    """Whether two blocks differ by their number alone; single layers are no blocks."""

    def form(block: tuple[str, list[_Row]]) -> list[tuple[str, str, tuple[int, ...]]]:
        name, rows = block
        return [(r.layer.name[len(name) :], r.layer.kind, r.layer.shape) for r in rows]

    stem, other = (re.sub(r"\d+$", "", name) for name in (block[0], before[0]))
    numbered = stem == other and stem != block[0]
    return numbered and len(block[1]) > 1 and form(block) == form(before)


def _labels(rows: list[_Row]) -> list[str]:
    """Short names that are different from each other: the end of each path."""
    labels = []
    for row in rows:
        parts = (row.label or "(the network)").split(".")
        while len(parts) > 1 and len(".".join(parts)) > _LONGEST_LABEL:
            parts = parts[1:]
        short = ".".join(parts)
        labels.append(short if len(short) == len(row.label or short) else f"…{short}")
    return labels
