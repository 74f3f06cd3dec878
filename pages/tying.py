"""The settings of trainings that tie networks together, as the page Merge offers them."""

from collections.abc import Mapping, Sequence

import streamlit as st

from merge_core.presets import LAYERS
from merge_core.recipes import Averaging, Coupling, as_text

WHERE = {
    Coupling.kind: "**Where to look:** here, how the teachers learn and how far apart they are; on "
    "the page Overview, the average beside the ensemble and one network trained on everything; on "
    "the page Methods, the two teachers merged by every other method, which opens Similarity and "
    "Matching to them, too.",
    Averaging.kind: "**Where to look:** here, how the workers learn; on the page Overview, their "
    "average beside one worker alone and one network trained on everything.",
}
"""Kind → where its result is shown."""
DISTANCES = {
    Coupling.kind: "How far apart the teachers' weights are, over the geometric mean of their "
    "lengths: √2 for weights that have nothing to do with each other, 0 for the same.",
    Averaging.kind: "How far the workers' weights were from their average when they last met, over "
    "the average's length.",
}
"""Kind → what its distance is."""
_STARTS = {"same": "the same", "own": "its own"}
_HALVES = {"disjoint": "one half each", "shared": "all, each"}


def settings(recipe: Coupling | Averaging, seed: int) -> Coupling | Averaging:
    """The few settings that matter most, and where the result will be shown.

    Raises:
        RecipeError: a value does not fit; the sentence is the command line's.
    """
    tail = f"{recipe.name}-{recipe.preset}"
    chosen = _pulled(recipe, tail) if isinstance(recipe, Coupling) else _averaged(recipe, tail)
    made = recipe.changed({"seed": str(seed), **chosen})
    if isinstance(made, Coupling):
        made.pull.by_layer(LAYERS[made.model])
    st.caption(WHERE[recipe.kind])
    return made


def _pulled(recipe: Coupling, tail: str) -> dict[str, str]:
    layers = LAYERS[recipe.model]
    with st.container(horizontal=True):
        epochs = _number("Epochs of each teacher", 1, 100_000, recipe.teacher.epochs, tail)
        halves = _choice("Examples of each teacher", _HALVES, recipe.data.halves, tail)
        start = _choice("First weights", _STARTS, recipe.start, tail)
    with st.container(horizontal=True):
        strength = st.text_input(
            "Strength of the pull", as_text(recipe.pull.strength), key=f"strength-{tail}",
            persist_state="session", width=320,
            help="w of the term Σ w ‖A − B‖² over the layers: one number for all, or one for each "
            "in their order, such as 1,1,0.1,0. With 0 the teachers learn as if they were alone.",
        )  # fmt: skip
        firsts = ["", *layers[1:]]
        heads = st.selectbox(
            "Shared layers", firsts, index=firsts.index(recipe.pull.heads_from),
            format_func=lambda layer: f"all before {layer}" if layer else "none",
            key=f"heads-{tail}", persist_state="session", width=240,
            help="Shared layers are the same in both teachers, as if the pull there were infinite; "
            "the others each teacher has for itself.",
        )  # fmt: skip
    st.caption(f"Layers in their order: {', '.join(layers)}.")
    return {
        "teacher.epochs": epochs,
        "data.halves": halves,
        "start": start,
        "pull.strength": strength,
        "pull.heads_from": heads or "",
    }


def _averaged(recipe: Averaging, tail: str) -> dict[str, str]:
    with st.container(horizontal=True):
        workers = _number("Workers", 2, 20, recipe.workers, tail)
        epochs = _number("Epochs of each worker", 1, 100_000, recipe.training.epochs, tail)
        every = _number(
            "Steps between averages", 0, 1_000_000, recipe.every, tail,
            "0 averages once per epoch, when all workers have gone through their parts.",
        )  # fmt: skip
    with st.container(horizontal=True):
        words = {"plain": "plain", "matched": "matched"}
        average = _choice(
            "Average", words, recipe.average, tail,
            "Matched: every worker's channels are first brought to the order of the first one's.",
        )  # fmt: skip
        start = _choice("First weights", _STARTS, recipe.start, tail)
    return {
        "workers": workers,
        "training.epochs": epochs,
        "every": every,
        "average": average,
        "start": start,
    }


def _number(label: str, low: int, high: int, value: int, tail: str, about: str = "") -> str:
    number = st.number_input(
        label, low, high, value, key=f"{label}-{tail}", persist_state="session", width=220,
        help=about or None,
    )  # fmt: skip
    return str(number)


def _choice(label: str, words: Mapping[str, str], value: str, tail: str, about: str = "") -> str:
    options: Sequence[str] = list(words)
    return st.segmented_control(
        label, options, format_func=words.__getitem__, default=value, required=True,
        key=f"{label}-{tail}", persist_state="session", help=about or None,
    )  # fmt: skip
