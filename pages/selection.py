"""The selected channel: one for all pages, in the address, drawn where it is shown."""

from collections.abc import Mapping

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from merge_core.views.channels import TEACHERS
from merge_core.views.selection import Channel, SelectionError, parse, require_known

CHANNEL = "channel"
"""The selected channel in the address and in the session, as text."""
_CLICKED = "clicked"
"""The chart in which it was clicked, and what that chart shows as selected since before."""
_PAGE = "selection-page"


def follow_address(page: StreamlitPage) -> None:
    """Bring the session and the address together; `app.py` does so before every page.

    The address decides. Streamlit empties it when somebody goes to another page, and it is
    written again then.
    """
    asked = st.query_params.get(CHANNEL)
    if asked:
        if asked != st.session_state.get(CHANNEL):
            st.session_state[CHANNEL] = asked
            st.session_state.pop(_CLICKED, None)
    elif held := st.session_state.get(CHANNEL):
        st.query_params[CHANNEL] = held
    if st.session_state.get(_PAGE) != page.url_path:
        st.session_state[_PAGE] = page.url_path
        st.session_state.pop(_CLICKED, None)


def selected(sizes: Mapping[str, int]) -> Channel | None:
    """The selected channel; a bad one is a sentence on the page and selects nothing.

    Args:
        sizes: the spaces of the networks that the page shows, and how many channels each has;
            empty where they are not known yet.
    """
    text = st.session_state.get(CHANNEL)
    if not text:
        return None
    try:
        channel = parse(text)
        if sizes:
            require_known(channel, sizes)
    except SelectionError as error:
        st.warning(str(error), icon=":material/near_me_disabled:")
        return None
    return channel


def select(text: str | None) -> None:
    """Select a channel, or none; in a callback, before the page is drawn."""
    if text:
        st.session_state[CHANNEL] = st.query_params[CHANNEL] = text
    else:
        st.session_state.pop(CHANNEL, None)
        st.query_params.pop(CHANNEL, None)
    st.session_state.pop(_CLICKED, None)


def box(space: str, size: int, channel: Channel | None, *, teachers: str = TEACHERS) -> None:
    """The choice of a channel of a space for those who do not click, and what is selected.

    Args:
        space: the space that the page shows.
        size: its channels in one teacher.
        channel: the selected one.
        teachers: whose channels can be chosen.
    """
    options = [f"{space}:{teacher}:{index}" for teacher in teachers for index in range(size)]
    key = f"box-{space}"
    here = channel is not None and channel.space == space
    st.session_state[key] = str(channel) if here and str(channel) in options else None
    st.selectbox(
        f"Selected channel of {space}",
        options,
        index=None,  # what is selected can be cleared
        format_func=lambda text: parse(text).label,
        key=key,
        on_change=lambda: select(st.session_state[key]),
        placeholder="none: choose one, or click it",
        help="The same channel is marked on Filters, Gates, Channels, Similarity and Matching. "
        "It is in the address, so a link or a reload brings it back.",
        width=260,
    )
    if channel is not None and not here:
        st.caption(f"Channel {channel.label} of the space {channel.space} is selected.")


def drawn(place: str, variant: str, channel: Channel | None) -> Channel | None:
    """The channel that a chart is to draw as selected.

    A click is drawn by the browser, and a figure that changed would be mounted anew and lose its
    zoom: so a chart that was clicked goes on as it was.

    Args:
        place: the chart.
        variant: what else decides how it looks; another one is mounted anew in any case.
        channel: the selected channel.
    """
    clicked = st.session_state.get(_CLICKED)
    if clicked is not None and clicked[:2] == (place, variant):
        return clicked[2]
    if clicked is not None and clicked[0] == place:
        del st.session_state[_CLICKED]
    return channel


def clicked(key: str, variant: str, before: Channel | None) -> None:
    """Select the channel of the mark that was clicked in a Plotly chart; its callback.

    The channel is the first of the mark's custom data.

    Args:
        key: of the chart, and its place as given to `drawn`.
        variant, before: as given to `drawn`, and what it gave back.
    """
    points = st.session_state[key]["selection"]["points"]
    if not points:
        return  # a double click that brings back the whole chart
    data = points[-1].get("customdata")
    select(data if isinstance(data, str) else data[0])
    st.session_state[_CLICKED] = (key, variant, before)
