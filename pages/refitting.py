"""The settings of a merge without gates, as the page Merge offers them."""

import streamlit as st

from merge_core.recipes import Refit
from merge_core.recipes.refit import MOST_TEACHERS


def settings(recipe: Refit, seed: int) -> Refit:
    """The few settings that matter most.

    Args:
        recipe: a preset's, with the data and the network that were chosen.
        seed: decides every draw.

    Raises:
        RecipeError: a value does not fit; the sentence is the command line's.
    """
    tail = f"{recipe.name}-{recipe.preset}"
    with st.container(horizontal=True):
        teachers = st.number_input(
            "Teachers", 2, MOST_TEACHERS, recipe.teachers, key=f"teachers-{tail}",
            persist_state="session", width=150,
        )  # fmt: skip
        epochs = st.number_input(
            "Epochs of each teacher", 1, 100_000, recipe.teacher.epochs, key=f"teacher-{tail}",
            persist_state="session", width=200,
        )  # fmt: skip
        tuning = st.number_input(
            "Epochs of fine-tuning", 0, 100_000, recipe.fine_tune.epochs,
            key=f"fine-tune-{tail}", persist_state="session", width=200,
            help="Where it imitates its teachers, an epoch goes through every mixed example.",
        )  # fmt: skip
        labels = recipe.labels
        if recipe.mixes:
            labels = st.number_input(
                "Share of the classes", 0.0, 1.0, recipe.labels, 0.1, key=f"labels-{tail}",
                persist_state="session", width=200,
                help="Of what the student learns from mixed examples: 0 is only what the teachers "
                "give for them, 1 only the classes of the two examples.",
            )  # fmt: skip
    st.caption(
        "**Where to look:** here, how teachers and student learn; on the page Overview, what was "
        "returned beside the ensemble and the controls; on the page Methods, its first two "
        "teachers merged in every other way."
    )
    changed = {"seed": str(seed), "teachers": str(teachers)}
    changed |= {"teacher.epochs": str(epochs), "fine_tune.epochs": str(tuning)}
    changed |= {"labels": str(labels)}
    return recipe.changed(changed)
