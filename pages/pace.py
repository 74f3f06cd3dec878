"""How often what moves is drawn again: as often as it is asked for, less where many look on."""

import time

import streamlit as st

DRAWING = 0.045
"""Seconds of a core that the server takes to draw the moving part of a page."""
SHARE = 0.75
"""Of a core: what all who look on may cost together."""
_GONE = 10.0
"""Seconds without a look after which somebody counts as gone."""
_MINE = "looker"


@st.cache_resource
def _lookers() -> dict[object, float]:
    """Who looks at something that moves, and when last; shared by all sessions."""
    return {}


def interval(every: float) -> float:
    """Seconds from one drawing to the next for this session, which counts as looking on.

    Args:
        every: seconds where few look on.
    """
    seen, now = _lookers(), time.monotonic()
    seen[st.session_state.setdefault(_MINE, object())] = now
    here = 0
    for who, last in list(seen.items()):
        if now - last > _GONE:
            seen.pop(who, None)
        else:
            here += 1
    return shared_by(here, every)


def shared_by(here: int, every: float) -> float:
    """Seconds that are doubled until all who look on cost no more than `SHARE`.

    What is drawn twice a second is so for eight of them, and every two seconds for thirty.

    Args:
        here: how many look on.
        every: seconds where few do.
    """
    while here * DRAWING / every > SHARE:
        every *= 2
    return every
