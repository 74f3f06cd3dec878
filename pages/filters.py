"""Filters: the first layers of both teachers and of the merged network (the paper's Fig. 2)."""

from functools import partial

import streamlit as st

from merge_core.plots.filters import Normalise, filter_bands, hinges
from merge_core.stages import RETURNABLE, STAGE_BY_KEY
from merge_core.views.filters import (
    FirstLayer,
    channel_table,
    first_layer,
    hinge_frame,
    sine_target,
    tile_frame,
)
from merge_core.views.selection import Channel, space_sizes
from pages import living, navigation, picking, selection, showing

NORMALISE: dict[Normalise, str] = {
    "filter": "each filter by itself",
    "layer": "each network's layer",
    "globally": "all together",
}
ORDER = {"original": "as in the networks", "gate": "most open first"}


def pictures(layer: FirstLayer, channel: Channel | None) -> None:
    """Tiles of convolution filters."""
    with st.container(horizontal=True):
        order = st.segmented_control(
            "Order",
            ORDER,
            format_func=ORDER.__getitem__,
            default="original",
            required=True,
            key="order",
        )
        normalise: Normalise = st.segmented_control(
            "Contrast",
            tuple(NORMALISE),
            format_func=NORMALISE.__getitem__,
            default="filter",
            wrap=True,
            required=True,
            key="contrast",
            help="What the brightest colour stands for. Zero is always mid-grey.",
        )
    variant = f"{order}-{normalise}-{len(layer.weights)}"
    before = selection.drawn("tiles", variant, channel)
    tiles = tile_frame(layer, order)
    figure = filter_bands(tiles, layer.weights, normalise, str(before))
    clicked = partial(selection.clicked, "tiles", variant, before)
    showing.plotly(figure, key="tiles", alt=_alt(layer), on_select=clicked)
    inputs, *size = layer.weights[0].shape[1:]
    colours = {3: "in the colours they look for", 1: "light where they want light"}.get(
        inputs, "as the mean over their inputs"
    )
    st.caption(
        f"{layer.size} filters of {size[0]}×{size[1]} per network, {colours}; mid-grey is zero. "
        f"Hover over a filter for its gate; click it to select it on all pages (a ring)."
    )


def bends(layer: FirstLayer, channel: Channel | None) -> None:
    """Hinges of a network with one input."""
    neurons, outside = hinge_frame(layer)
    before = selection.drawn("hinges", "", channel)
    figure = hinges(neurons, sine_target(), str(before))
    clicked = partial(selection.clicked, "hinges", "", before)
    showing.plotly(figure, key="hinges", alt=_alt(layer), on_select=clicked)
    names = ["A", "B", "the merged network"]
    counts = ", ".join(f"{n} of {name}" for n, name in zip(outside, names, strict=False))
    st.caption(
        f"Each hidden neuron is a hinge: it bends at x = −bias / weight, and the triangle points "
        f"to the side on which it is active. Filled with a red edge: kept. Hollow: cut away. "
        f"Neurons that bend outside the data are not drawn: {counts}, of {layer.size} each. "
        f"Click a neuron to select it on all pages; it is drawn large then."
    )


def _alt(layer: FirstLayer) -> str:
    if not len(layer.kept):
        return "First layers of both teachers; the cut has not been made yet"
    from_a = int((layer.kept < layer.size).sum())
    return (
        f"First layers of teacher A, teacher B and the merged network; {from_a} channels are kept "
        f"from A and {len(layer.kept) - from_a} from B"
    )


def content() -> None:
    """The page for the picked run."""
    summary = picking.picked_summary()
    living.state_note(summary)
    with picking.open_run(summary) as reader:
        stored = [row["name"] for row in reader.artifacts()]
        there = [key for key in RETURNABLE if key in stored]
        stage = ""
        if there:
            start = summary.returned if summary.returned in there else there[-1]
            stage = st.segmented_control(
                "The merged network's row, after the stage",
                there,
                format_func=lambda key: (
                    STAGE_BY_KEY[key].title + (" ★ returned" if key == summary.returned else "")
                ),
                default=start,
                required=True,
                key=f"stage-{summary.name}",
            )
        layer = first_layer(reader, stage)
        sizes = space_sizes(reader)
    if layer is None:
        st.info("Teacher A is not trained yet, so there are no filters to look at; wait a little.")
        return
    if len(layer.kept):
        from_a = int((layer.kept < layer.size).sum())
        mark = "red outline and ✓" if layer.is_convolution else "filled, with a red edge"
        st.markdown(
            f"Of the two teachers' {2 * layer.size} first-layer channels, **{len(layer.kept)} are "
            f"kept** ({mark}): {from_a} from teacher A, {len(layer.kept) - from_a} "
            f"from teacher B."
        )
    else:
        st.info("The cut has not been made yet: kept filters get a red outline and a ✓ then.")
    channel = selection.selected(sizes)
    selection.box(layer.space, layer.size, channel)
    if layer.is_convolution:
        pictures(layer, channel)
    else:
        bends(layer, channel)
    showing.table(
        channel_table(layer),
        key="filter-table",
        title="The channels as a table",
        alt="Gate and fate of every first-layer channel",
        file=f"{summary.name}-first-layer.csv",
    )


navigation.require_app()
st.header("First layer")
living.live(content, every=2)
