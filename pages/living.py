"""What moves while a run works: parts that are drawn again, its state, its progress."""

import time
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from merge_core import launch, places, queue
from merge_core.recipes import Comparison
from merge_core.store import RunReader, RunSummary, Store
from merge_core.views import queued
from merge_core.views.runs import ALIVE, duration, reading_text, stage_title
from pages import identity, pace
from pages.picking import FRESH, drawn_state, picked_summary, read_anew
from pages.showing import errors_as_sentences

RESUMABLE = ("stopped", "lost", "failed")
MOMENT = 10
"""Seconds after which a run that was made is surely in the queue."""


def live(
    body: Callable[[], None],
    *,
    every: float,
    summary: Callable[[], RunSummary] = picked_summary,
) -> None:
    """Draw a part of a page again and again while its run is alive, once otherwise.

    When the run ends, or begins, the whole page is drawn again. A widget that is bound to the
    address must then stand where it stood: the browser mounts one that moved a second time before
    it drops the first, and the second one no longer writes the address. So what comes and goes
    above such a widget stands in a container that is always there.

    Args:
        body: draws the part.
        every: seconds from one drawing to the next; more where many look on.
        summary: the run as it is now.
    """
    before = drawn_state(summary())
    pause = pace.interval(every) if before in ALIVE else None

    def part() -> None:
        with errors_as_sentences():
            now = summary()
            body()
        if now.state != before or (pause and pace.interval(every) != pause):
            st.rerun(scope="app")

    st.fragment(part, run_every=pause)()


def never_started(summary: RunSummary) -> bool:
    """Whether a run neither waits for its turn nor has a worker that is about to begin."""
    new = 0 <= time.time() - summary.created < MOMENT
    return summary.state == "queued" and not new and not queue.waits(Store(), summary.name)


def state_note(summary: RunSummary) -> None:
    """Say what state a run is in and what to do about it; nothing for a finished one."""
    page = "Methods" if isinstance(summary.recipe, Comparison) else "Merge"
    match summary.state:
        case "queued":
            if never_started(summary):
                st.warning(f"This run never started: start it on the page {page} with Resume.")
            else:
                st.info(_waiting(summary.name), icon=":material/hourglass:")
        case "running":
            st.info(
                f"This run is working ({100 * summary.fraction:.0f} % done). What it has so far "
                f"is shown and grows.",
                icon=":material/play_arrow:",
            )
        case "paused":
            st.info(
                "This run is paused and computes nothing until it is told to go on.",
                icon=":material/pause:",
            )
        case "stopped":
            st.warning(
                f"This run was stopped. Resume it on the page {page}: it goes on from its last "
                f"checkpoint and ends with the same numbers.",
                icon=":material/stop:",
            )
        case "lost":
            st.warning(
                f"This run's worker is gone, perhaps because the machine was switched off. Nothing "
                f"acknowledged is lost: resume it on the page {page}.",
                icon=":material/help:",
            )
        case "failed":
            st.error(f"This run failed. {summary.message}", icon=":material/error:")


@st.cache_data(ttl=FRESH, max_entries=8, show_spinner=False)
def _places(home: str) -> dict[str, queued.Place]:
    """Run → where it is in the queue; all viewers of a moment share one reading of it.

    In a workshop most of them look at runs that wait, and the queue is played through for it.
    """
    return {found.run: found for found in queued.places(Store(Path(home)))}


def queue_place(name: str) -> queued.Place | None:
    """Where a run or something else is in the queue; None when it does not wait."""
    return _places(str(places.home())).get(name)


def _waiting(name: str) -> str:
    """Where a run is that has not begun."""
    found = queue_place(name)
    if found is None:
        return "This run waits for its worker to start; that takes a few seconds."
    return (
        f"{found.words}. Runs begin as places on this machine become free, and nobody's runs go "
        f"before those of somebody who has fewer."
    )


def preparing(reader: RunReader) -> bool:
    """How far a run is that works and has no stage yet; whether that is so."""
    reading = reader.reading()
    if reading is not None:
        st.progress(reading.done / reading.of, text=reading_text(reading))
    elif reader.status()["stage"] is None:
        st.progress(0.0, text="Getting ready")
    else:
        return False
    return True


def progress(summary: RunSummary, reader: RunReader) -> None:
    """How far an unfinished run is, in one line and a bar, and the buttons that steer it."""
    refusal = "" if summary.sample else identity.refusal(summary.name)
    if refusal:
        st.caption(refusal)
    if summary.state not in ("running", "paused"):
        state_note(summary)
        if summary.state == "queued" and not never_started(summary):
            if st.button(
                "Take out of the queue",
                icon=":material/playlist_remove:",
                key="withdraw",
                disabled=bool(refusal),
            ):
                launch.stop(Store(), summary.name)
                read_anew()
                st.rerun(scope="app")
        elif (summary.state in RESUMABLE or never_started(summary)) and st.button(
            "Resume",
            type="primary",
            icon=":material/resume:",
            key="resume",
            disabled=bool(refusal),
        ):
            launch.resume(Store(), summary.name)
            st.session_state.pop("stopping", None)
            read_anew()
            st.rerun(scope="app")
        return
    if not preparing(reader):
        _headway(summary, reader)
    asked = st.session_state.get("stopping") == summary.name
    if st.button(
        "Stopping …" if asked else "Stop",
        icon=":material/stop:",
        key="stop",
        disabled=asked or bool(refusal),
    ):
        launch.stop(Store(), summary.name)
        st.session_state["stopping"] = summary.name
        st.rerun(scope="app")


def _headway(summary: RunSummary, reader: RunReader) -> None:
    """How far a run is in its stages."""
    status, headway = reader.status(), reader.headway()
    steps = {row["stage"]: row["steps"] for row in reader.plan()}
    where = stage_title(status["stage"])
    if steps.get(status["stage"]):
        unit = "example" if isinstance(summary.recipe, Comparison) else "step"
        where += f", {unit} {status['step']:,} of {steps[status['stage']]:,}"
    left = "" if headway.left is None else f" · about {duration(headway.left)} left"
    if summary.state == "paused":
        left += " once it goes on"
        state_note(summary)
    st.progress(
        min(headway.fraction, 1.0),
        text=f"**{100 * headway.fraction:.0f} %** of the work · {where} · "
        f"{duration(headway.elapsed)} so far{left}",
    )
