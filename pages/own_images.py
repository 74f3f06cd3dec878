"""Which images of one's own a merge learns from: what lies in the data directory, as choices."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from merge_core import places
from merge_core.folders import Source, described, sources
from merge_core.recipes import Data


@st.cache_data(ttl=30, max_entries=8, show_spinner=False)
def _sources(directory: str) -> list[str]:
    return sources(Path(directory))


@st.cache_data(ttl=300, max_entries=32, show_spinner="Counting classes and images…")
def _described(directory: str, name: str) -> Source:
    return described(Path(directory) / name)


def choose(data: Data, tail: str) -> Data | None:
    """The data of a recipe with the images that the visitor chooses; None where there are none.

    Args:
        data: of a preset that learns from a person's own images.
        tail: tells the widgets of presets apart.

    Raises:
        DataError: what was chosen cannot be read, or is not ordered by classes.
    """
    directory = places.data_directory()
    there = _sources(str(directory))
    if not there:
        st.info(
            f"There are no images in the data directory {str(directory)!r} yet. Put a folder there "
            f"in which every class has a folder, a zip file of one, or an .npz file.",
            icon=":material/folder_open:",
        )
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Images", there, index=there.index(data.place) if data.place in there else 0,
            key=f"source-{tail}", persist_state="session", width=320,
            help=f"Folders with a folder of images for each class, zip files of such, and .npz "
            f"files in {directory}.",
        )  # fmt: skip
        side = st.number_input(
            "Pixels along a side", 8, 1024, data.shape.side, key=f"side-{tail}",
            persist_state="session", width=180, help="Images are cropped to squares and resized.",
        )  # fmt: skip
    found = _described(str(directory), name)
    own = f"{found.test:,} for the test" if found.test else "the test takes a fifth of them"
    st.caption(f"{found.classes} classes, {found.train:,} images to learn from; {own}.")
    # Sizes of a preset are those of its own data set.
    return replace(
        data, source=name, side=int(side), classes=found.classes, train=0, heldout=0, test=0
    )
