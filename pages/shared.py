"""What all pages share: the picked run, how charts and tables are shown, what errors look like."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.navigation.page import StreamlitPage

from merge_core import launch, places, queue
from merge_core.errors import NetweldError, StoreError
from merge_core.recipes import Comparison, Recipe
from merge_core.store import RunReader, RunSummary, Store
from merge_core.views import queued
from merge_core.views.comparisons import comparison_label, comparisons_of, pickable
from merge_core.views.runs import ALIVE, duration, run_label, stage_title
from pages import identity, pace

RUN = "run"
"""Key of the picker, in the session and in the address."""
COMPARISON = "comparison"
"""Likewise of the picker among several comparisons of one run."""
FIRST_SAMPLE = "textures"
RESUMABLE = ("stopped", "lost", "failed")
MOMENT = 10
"""Seconds after which a run that was made is surely in the queue."""
FRESH = 0.7
"""Seconds for which a list of runs is good enough."""
_CHART_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
Picture = Literal["svg", "png"]
"""What the camera of a chart saves."""


def navigation() -> StreamlitPage:
    """Announce the pages; returns the one that the address asks for."""
    return st.navigation(
        [
            st.Page(
                "pages/overview.py",
                title="Overview",
                icon=":material/home:",
                default=True,
                help="What a run achieved, stage by stage, and all runs.",
            ),
            st.Page(
                "pages/merge.py",
                title="Merge",
                icon=":material/merge:",
                help="Choose a recipe, start a merge, watch it, stop it, resume it.",
            ),
            st.Page(
                "pages/filters.py",
                title="Filters",
                icon=":material/grid_view:",
                help="The first layers of both teachers and of the merged network.",
            ),
            st.Page(
                "pages/gates.py",
                title="Gates",
                icon=":material/toggle_on:",
                help="How the gates learned which channels to keep.",
            ),
            st.Page(
                "pages/channels.py",
                title="Channels",
                icon=":material/account_tree:",
                help="Which teacher each channel of the merged network comes from.",
            ),
            st.Page(
                "pages/similarity.py",
                title="Similarity",
                icon=":material/grid_on:",
                help="How alike the channels and the layers of two teachers are.",
            ),
            st.Page(
                "pages/matching.py",
                title="Matching",
                icon=":material/conversion_path:",
                help="Which channel of one teacher belongs to which of the other.",
            ),
            st.Page(
                "pages/methods.py",
                title="Methods",
                icon=":material/compare_arrows:",
                help="The same networks merged by every method: score against cost.",
            ),
            st.Page(
                "pages/compare.py",
                title="Compare",
                icon=":material/leaderboard:",
                help="An experiment repeated with every strategy: does merging pay, how sure is "
                "that?",
            ),
            st.Page(
                "pages/lab.py",
                title="Lab",
                icon=":material/science:",
                help="One recipe under a whole grid of λ schedules at once, as a landscape.",
            ),
            st.Page(
                "pages/network.py",
                title="Network",
                icon=":material/schema:",
                help="A network's layers by channel space, and what merging it costs.",
            ),
        ],
        position="top",
    )


@contextmanager
def inside_app() -> Iterator[None]:
    """Around the page that `app.py` runs."""
    st.session_state["inside_app"] = True
    try:
        yield
    finally:
        del st.session_state["inside_app"]


def require_app() -> None:
    """The first line of every page: run again by way of `app.py` where that was left out.

    Streamlit runs files in a folder called pages by themselves, without `app.py`, until a server
    has met `st.navigation` once. The first visitor who follows a link to a page, or reloads it,
    would find it without its picker.
    """
    if "inside_app" not in st.session_state:
        navigation()
        st.rerun()


@st.cache_data(ttl=FRESH, max_entries=8, show_spinner=False)
def _runs(home: str, samples: str) -> list[RunSummary]:
    """The list of runs; all viewers of a moment share one reading of it.

    Whoever looks lets runs begin whose turn it is.
    """
    store = Store(Path(home), Path(samples))
    queue.dispatch(store)
    return store.runs()


def _every() -> list[RunSummary]:
    """All runs of all kinds, newest first, then the samples; at most `FRESH` seconds old."""
    return _runs(str(places.home()), str(places.samples()))


def runs() -> list[RunSummary]:
    """What can be picked: merges, and comparisons of no merge that is here; newest first."""
    return pickable(_every())


def comparisons() -> list[RunSummary]:
    """The comparisons of the picked run's networks, newest first."""
    picked = st.session_state.get(RUN)
    return comparisons_of(_every(), picked) if picked else []


def pick_run() -> None:
    """Draw the run picker; the address follows it, and it the address, on every page."""
    notice = st.container()  # it comes and goes, and the picker must keep its place: see `live`
    with errors_as_sentences():
        wanted = st.session_state.pop("next_run", None)
        asked = wanted or st.query_params.get(RUN) or None
        if asked is not None and asked not in {run.name for run in runs()}:
            _runs.clear()  # it may be newer than the list
        by_name = {run.name: run for run in runs()}
        if not by_name:
            return
        if asked is not None and asked not in by_name:
            notice.error(
                f"There is no run {asked!r} here: it may have been deleted, or belong to another "
                f"machine. Pick one of the runs below."
            )
        if wanted in by_name:
            st.session_state[RUN] = wanted
        elif RUN not in st.session_state and asked not in by_name:
            # The picker writes the address only when it changes, not when it begins.
            st.session_state[RUN] = st.query_params[RUN] = _first(list(by_name.values()))
        elif asked is None and st.session_state.get(RUN) in by_name:
            # A click faster than the picker drops the run from the address: tell the picker again.
            st.session_state[RUN] = st.session_state[RUN]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox(
                "Run",
                list(by_name),
                index=None,
                key=RUN,
                bind="query-params",
                help="All pages show this run. Its name is in the address, so a link or a reload "
                "brings you back to it.",
                width=360,
            )
            if name not in by_name:
                show_run(_first(list(by_name.values())))
            st.markdown(run_label(by_name[name]), width="content")


def show_run(name: str) -> NoReturn:
    """Make a run the picked one and draw the page again."""
    _runs.clear()
    st.session_state["next_run"] = name
    st.rerun(scope="app")


def show_another(than: str) -> NoReturn:
    """Show the newest other run, after one was deleted, and draw the page again."""
    _runs.clear()
    if left := [run for run in runs() if run.name != than]:
        show_run(_first(left))
    st.rerun(scope="app")


def show_comparison(name: str, run: str) -> NoReturn:
    """Show a new comparison with the run whose networks it compares; draw the page again."""
    st.session_state["next_comparison"] = name
    show_run(run)


def _first(found: list[RunSummary]) -> str:
    """The newest run; without one the sample to show first."""
    own = [run for run in found if not run.sample]
    samples = sorted(found, key=lambda run: run.recipe.name != FIRST_SAMPLE)
    return (own + samples)[0].name


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Show a user's error as its sentence; the page ends there."""
    try:
        yield
    except NetweldError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def picked_run() -> RunSummary:
    """The picked run as one line of the list; a page without any run ends with what to do."""
    name = st.session_state.get(RUN)
    found = [run for run in runs() if run.name == name]
    if not found:
        st.info(
            "There is no run yet. Start your first merge: the recipe *Textures* takes about a "
            "minute.",
            icon=":material/rocket_launch:",
        )
        st.page_link("pages/merge.py", label="Start a merge", icon=":material/merge:")
        st.stop()
    return found[0]


def picked_training() -> RunSummary:
    """The picked run where it trains networks; the page ends with where to go otherwise."""
    run = picked_run()
    if isinstance(run.recipe, Comparison):
        st.info(
            "This run compares trained networks from files; it has no gates and no cut of its own. "
            "Its results are on the page Methods.",
            icon=":material/compare_arrows:",
        )
        st.page_link("pages/methods.py", label="See the methods", icon=":material/compare_arrows:")
        st.stop()
    return run


def picked_summary() -> RunSummary:
    """The picked run where it is a merge; a page about merges ends with where to go otherwise."""
    run = picked_training()
    if not isinstance(run.recipe, Recipe):
        st.info(
            "This run ties networks together while they train; it has no gates and no cut, which "
            "this page is about. Its stages are on the page Overview.",
            icon=":material/link:",
        )
        st.page_link("pages/overview.py", label="See its stages", icon=":material/home:")
        st.stop()
    return run


def pick_comparison() -> RunSummary | None:
    """Which comparison of the picked run's networks to show; None where there is none.

    Where there are several, a picker is drawn; the address follows it. The newest comes first.
    """
    place = st.container(horizontal=True, vertical_alignment="bottom")
    found = {run.name: run for run in comparisons()}
    wanted = st.session_state.pop("next_comparison", None)
    if len(found) < 2:
        return next(iter(found.values()), None)
    if wanted in found:
        st.session_state[COMPARISON] = wanted
    elif st.session_state.get(COMPARISON) not in found:
        st.session_state.pop(COMPARISON, None)
    with place:
        name = st.selectbox(
            "Comparison",
            list(found),
            key=COMPARISON,
            bind="query-params",
            persist_state="session",
            help="The networks of this run have been compared more than once; the newest comes "
            "first.",
            width=360,
        )
        st.markdown(comparison_label(found[name]), width="content")
    return found[name]


def comparison_now(name: str) -> RunSummary:
    """A comparison as it is now, for a part of a page that is drawn again and again.

    Raises:
        StoreError: it has been deleted.
    """
    for run in _every():
        if run.name == name:
            return run
    raise StoreError(f"The comparison {name} is no longer here; reload the page.")


def open_run(summary: RunSummary) -> RunReader:
    """Open the picked run for looking."""
    return Store().open(summary.name)


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
    before = summary()
    pause = pace.interval(every) if before.state in ALIVE else None

    def part() -> None:
        with errors_as_sentences():
            now = summary()
            body()
        if now.state != before.state or (pause and pace.interval(every) != pause):
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
                _runs.clear()
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
            _runs.clear()
            st.rerun(scope="app")
        return
    status, headway = reader.status(), reader.headway()
    steps = {row["stage"]: row["steps"] for row in reader.stages()}
    where = "Getting ready"
    if status["stage"]:
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


def plotly(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    on_select: Callable[[], None] | None = None,
    picture: Picture = "svg",
) -> None:
    """Show a Plotly figure in the theme of the page; `on_select` is called when a mark is clicked.

    Clicks on pictures, heat maps and lines are not told: put invisible marks over them.
    """
    saved = {"format": picture, "filename": f"netweld-{key}", "scale": 2 if picture == "png" else 1}
    config = _CHART_CONFIG | {"toImageButtonOptions": saved}
    if on_select is None:
        st.plotly_chart(figure, key=key, alt=alt, config=config)
    else:
        figure.update_layout(dragmode="zoom")  # Streamlit would let a drag move the chart
        st.plotly_chart(
            figure,
            key=key,
            alt=alt,
            config=config,
            on_select=on_select,
            selection_mode="points",
        )


def echarts(
    option: dict[str, Any],
    *,
    key: str,
    alt: str,
    height: int,
    on_select: Callable[[], None] | None = None,
) -> None:
    """Show an ECharts option in the theme of the page; it stays in place when it changes.

    `on_select` is called when an item of a series with a `selectedMode` is clicked.
    """
    st.echarts_chart(option, key=key, alt=alt, height=height, on_select=on_select or "ignore")


def table(
    frame: pd.DataFrame,
    *,
    key: str,
    title: str,
    alt: str,
    file: str,
    columns: dict[str, Any] | None = None,
    on_cell: Callable[[], None] | None = None,
) -> None:
    """The numbers behind a chart, folded away, with a download of the same frame.

    A click on a cell calls `on_cell`.
    """
    fold = st.expander(title, icon=":material/table:", on_change="rerun", key=f"{key}-fold")
    if fold.open:
        with fold:
            st.dataframe(
                frame,
                hide_index=True,
                key=key,
                alt=alt,
                column_config=columns,
                placeholder="",
                on_select=on_cell or "ignore",
                selection_mode="single-cell",
            )
            download(frame, key=f"{key}-csv", file=file)


def download(frame: pd.DataFrame, *, key: str, file: str) -> None:
    """A button that saves a frame as CSV."""
    st.download_button(
        "Download CSV",
        frame.to_csv(index=False),
        file,
        "text/csv",
        key=key,
        icon=":material/download:",
        on_click="ignore",
    )
