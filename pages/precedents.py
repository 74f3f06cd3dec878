"""What finished runs of the same networks on the same data tell about one to come or under way."""

from collections.abc import Iterator
from pathlib import Path

import streamlit as st

from merge_core import places
from merge_core.recipes import Data, Recipe
from merge_core.store import RunReader, Store
from merge_core.views.advice import advice
from merge_core.views.expectations import NOTHING_KNOWN, Known, known_from
from pages import picking


def known_gates(recipe: Recipe, model: str, own: RunReader | None = None) -> Known:
    """What is known of the gates of such networks.

    Args:
        recipe: the merge that is to come, or the run's.
        model: the architecture, where it is another than the recipe's.
        own: the run itself, which tells more than others once its gates have learned.
    """
    names = _alike(recipe, model)
    if own is not None and any(row["stage"] == "gates" and row["finished"] for row in own.stages()):
        names = iter([own.name, *names])
    for name in names:
        found = _gates_of(str(places.home()), name)
        if found.run:
            return found
    return NOTHING_KNOWN


def advice_before(recipe: Recipe) -> tuple[str, str] | None:
    """Whether a merge pays with such a network: a sentence, and the finished run that tells.

    None where there is no such run, or its teacher learned for too short.
    """
    for name in _alike(recipe, recipe.model):
        if told := _advice_of(str(places.home()), name):
            return told, name
    return None


def _alike(recipe: Recipe, model: str) -> Iterator[str]:
    """The finished merges of a recipe with a network that learned from the same, newest first."""
    wanted = (recipe.name, model, _lesson(recipe.data))
    for run in picking.runs():
        other = run.recipe
        if not isinstance(other, Recipe) or run.state != "finished":
            continue
        if (other.name, other.model, _lesson(other.data)) == wanted:
            yield run.name


def _lesson(data: Data) -> tuple[object, ...]:
    """What of the data decides how networks learn: all but how many examples judge them."""
    examples = (data.name, data.place, data.shape, data.train, data.noise)
    return (*examples, data.augment, data.halves, data.normalise)


@st.cache_data(max_entries=64, show_spinner=False)
def _gates_of(home: str, name: str) -> Known:
    """What a run tells whose gates have learned; they do not change any more."""
    with Store(Path(home), places.samples()).open(name) as reader:
        return known_from(reader)


@st.cache_data(max_entries=64, show_spinner=False)
def _advice_of(home: str, name: str) -> str:
    """What the first teacher of a finished run advises; empty for nothing."""
    with Store(Path(home), places.samples()).open(name) as reader:
        told = advice(reader.recipe, reader.metrics("teacher_a"))
    return "" if told is None else told.sentence
