"""The picked run and the picked comparison: the same on every page, and in the address."""

from pathlib import Path
from typing import NoReturn

import streamlit as st

from merge_core import places, queue
from merge_core.errors import StoreError
from merge_core.recipes import Comparison, Recipe, Refit
from merge_core.store import RunReader, RunSummary, Store
from merge_core.views.comparisons import comparison_label, comparisons_of, pickable
from merge_core.views.runs import run_label
from pages.showing import errors_as_sentences

RUN = "run"
"""Key of the picker, in the session and in the address."""
COMPARISON = "comparison"
"""Likewise of the picker among several comparisons of one run."""
FIRST_SAMPLE = "textures"
FRESH = 0.7
"""Seconds for which a list of runs is good enough."""
_DRAWN = "drawn-states"
"""Name of every run → its state in the list that the page was last drawn from."""


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


def read_anew() -> None:
    """Forget the list of runs: something has just become of one of them."""
    _runs.clear()


def runs() -> list[RunSummary]:
    """What can be picked: merges, and comparisons of no merge that is here; newest first."""
    return pickable(_every())


def comparisons() -> list[RunSummary]:
    """The comparisons of the picked run's networks, newest first."""
    picked = st.session_state.get(RUN)
    return comparisons_of(_every(), picked) if picked else []


def pick_run() -> None:
    """Draw the run picker; the address follows it, and it the address, on every page."""
    notice = st.container()  # comes and goes; the picker must keep its place: see `living.live`
    with errors_as_sentences():
        wanted = st.session_state.pop("next_run", None)
        asked = wanted or st.query_params.get(RUN) or None
        if asked is not None and asked not in {run.name for run in runs()}:
            _runs.clear()  # it may be newer than the list
        every = _every()
        st.session_state[_DRAWN] = {run.name: run.state for run in every}
        by_name = {run.name: run for run in pickable(every)}
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


def drawn_state(run: RunSummary) -> str:
    """The state of a run that the page shows above, which may have changed while it was drawn."""
    return st.session_state[_DRAWN].get(run.name, run.state)


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


STAGES = ("pages/overview.py", "See its stages", ":material/home:")
"""Where the stages of any run are: a page, its link's words and icon."""


def _elsewhere(why: str, icon: str, link: tuple[str, str, str]) -> NoReturn:
    """End the page: say why it has nothing to show of the picked run, and where there is something.

    Args:
        why: in sentences.
        icon: of what is said.
        link: a page, the words and the icon of the link to it.
    """
    st.info(why, icon=icon)
    page, label, mark = link
    st.page_link(page, label=label, icon=mark)
    st.stop()


def picked_training() -> RunSummary:
    """The picked run where it trains networks; the page ends with where to go otherwise."""
    run = picked_run()
    if isinstance(run.recipe, Comparison):
        _elsewhere(
            "This run compares trained networks from files; it has no gates and no cut of its own. "
            "Its results are on the page Methods.",
            ":material/compare_arrows:",
            ("pages/methods.py", "See the methods", ":material/compare_arrows:"),
        )
    return run


def picked_summary() -> RunSummary:
    """The picked run where it is a merge; a page about merges ends with where to go otherwise."""
    run = picked_training()
    if isinstance(run.recipe, Refit):
        how = (
            "its student starts from random channels of its teachers and imitates them"
            if run.recipe.start == "random"
            else "channels of its teachers were chosen by least squares and their readers refitted"
        )
        _elsewhere(
            f"This run merges without gates: {how}. This page is about merges whose gates learned "
            f"what to keep. Its stages are on the page Overview; its first two teachers, merged in "
            f"every way, on the page Methods.",
            ":material/link:",
            STAGES,
        )
    if not isinstance(run.recipe, Recipe):
        _elsewhere(
            "This run ties networks together while they train; it has no gates and no cut, which "
            "this page is about. Its stages are on the page Overview.",
            ":material/link:",
            STAGES,
        )
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
