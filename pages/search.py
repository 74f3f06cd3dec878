"""A part of the page Lab: one λ schedule after the other, each proposed by those before."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from merge_core import carriers, launch, places, search_work
from merge_core.lab import AXES
from merge_core.plots.search import trial_map, trial_scores
from merge_core.presets import PRESETS, find_preset, merge_names
from merge_core.recipes import Recipe
from merge_core.schedules import TITLES
from merge_core.search import MOST_TRIALS, Search, SearchFile
from merge_core.store import Store
from merge_core.views.estimates import comparable
from merge_core.views.runs import duration, run_label
from merge_core.views.search import (
    CAUTION,
    SearchNow,
    cost_text,
    failures,
    findings,
    merge_command,
    readable_search,
    schedule_text,
    search_command,
    search_files,
    search_label,
    trial_frame,
)
from pages import carried, picking, showing

SOURCES = {"recipe": "A recipe", "run": "The recipe of a run"}
_WORDS = {
    "finished": "has used its budget",
    "stopped": "was stopped",
    "lost": "has lost its process, perhaps because the machine was switched off",
}
_PICKED = carried.Words(
    kind="search",
    title="Search",
    name="Recipe, preset, seed, kind of schedules, a mark of settings.",
    nothing="There is no search yet. It trains the teachers of a recipe once, or takes those of a "
    "run, and tries one λ schedule after the other on them; each is proposed from how those before "
    "it fared on the held-out examples.",
    begin="A new search",
    icon=":material/search:",
)


@st.cache_data(max_entries=32, show_spinner=False)
def stored(path: str, stamp: int) -> SearchNow | None:
    """The search in a file as it was at a moment; None where it cannot be read."""
    return readable_search(Path(path))


def every_search() -> dict[str, SearchNow]:
    """Name → search, the one that changed last first."""
    found = {}
    for path in search_files(places.home()):
        now = stored(str(path), path.stat().st_mtime_ns)
        if now is not None:
            found[now.name] = replace(now, progress=carriers.progress_of(path))
    return found


def show_searches() -> None:
    """Pick a search and see it; start one."""
    carried.pick(_PICKED, every_search(), search_label, show_search, start)


def show_search(name: str) -> None:
    """One search: how far it is, its trials, the best schedule and the way to a full merge."""
    with showing.errors_as_sentences():
        now = every_search().get(name)
        if now is None:
            st.rerun(scope="app")
        work(now)
        if not now.trials:
            return
        st.markdown(findings(now))
        charts(now)
        if failed := failures(now.trials):
            st.warning(f"These schedules failed; the search goes on without them.\n\n{failed}")
        best(now)
        showing.table(
            trial_frame(now),
            key="trials",
            title="Every trial",
            alt="Numbers and scores of every trial, in their order",
            file=f"{now.name}.csv",
        )
        with st.expander("The same search from a terminal", icon=":material/terminal:"):
            st.code(search_command(now), language="bash", wrap_lines=True)


def work(now: SearchNow) -> None:
    """How far a search is, and the buttons that steer it."""
    told = now.progress
    if told is not None and now.running:
        left = "" if told.left is None else f" · at most about {duration(told.left)} left"
        limit = f" or {told.asked.minutes:g} minutes" if told.asked.minutes else ""
        if waiting := waits_for(told):
            st.caption(waiting)
        carried.at_work(
            now,
            f"**{len(now.trials)}** of {told.asked.n} trials{limit}, teachers of run "
            f"{told.asked.run}{left}. It goes on when this page is closed.",
            "search",
        )
    else:
        go_on(now)
    carried.follow(now, "search")


def waits_for(told: carriers.Progress) -> str:
    """That the run with the teachers goes first, while it does."""
    if told.fraction > 0:
        return ""
    with Store().open(told.asked.run) as reader:
        state, done = reader.status()["state"], reader.headway().fraction
    if state not in ("queued", "running", "paused"):
        return ""
    return (
        f"Run {told.asked.run} goes first and trains the teachers; it is {100 * done:.0f} % done."
    )


def go_on(now: SearchNow) -> None:
    """What became of a search that nobody works on, and more trials for it."""
    told = now.progress
    words = "is not finished"
    if told is not None:
        words = _WORDS.get(told.state, f"failed. {told.message}")
    trials = told.asked.n if told is not None else len(now.trials)
    full = len(now.trials) >= trials
    st.caption(f"This search {words}, with {len(now.trials)} trials. They stay; more can follow.")
    if why := carried.refusal(now):
        st.caption(why)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.number_input(
            "Trials in all", 1, MOST_TRIALS, min(trials + 10 if full else trials, MOST_TRIALS),
            key=f"more-trials-{len(now.trials)}", width=140,
        )  # fmt: skip
        minutes = st.number_input(
            "Minutes (0: no limit)", 0.0, None,
            told.asked.minutes if told is not None else 0.0, format="%g", key="more-minutes",
            width=170,
        )  # fmt: skip
        if st.button("Go on", icon=":material/resume:", key="search-go-on", disabled=bool(why)):
            file = SearchFile(now.search)
            asked = search_work.asked_for(
                file, int(wanted), minutes=minutes,
                device=told.asked.device if told is not None else "auto",
                data=Path(told.asked.data) if told is not None else None,
            )  # fmt: skip
            search_work.begin(file, asked)
            st.rerun(scope="app")


def charts(now: SearchNow) -> None:
    """The trials one after the other, and where they lie."""
    search, metric = now.search, now.search.recipe.metric
    scores = [trial.heldout for trial in now.trials if trial.heldout is not None]
    if not scores:
        return
    told = (
        f"{len(scores)} trials with held-out {metric} from {min(scores):.3g} to {max(scores):.3g}"
    )
    left, right = st.columns(2)
    with left:
        showing.echarts(
            trial_scores(search, now.trials),
            key="trial-scores",
            height=400,
            alt=f"{told}, one after the other; {findings(now)}",
        )
    with right:
        first, second = search.axes
        showing.echarts(
            trial_map(search, now.trials),
            key="trial-map",
            height=400,
            alt=f"{told}, over {first.title} and {second.title}",
        )
    better = "higher" if metric == "accuracy" else "lower"
    st.caption(
        f"Held-out {metric} after fine-tuning, {better} is better; it decides what is tried next "
        f"and which is best. Test scores are only shown. ★: the best so far; own, a diamond: the "
        f"recipe's own schedule, the first trial."
    )


def best(now: SearchNow) -> None:
    """The way from the best trial to a full merge."""
    found = now.best
    if found is None:
        return
    st.caption(f":material/warning: {CAUTION}")
    recipe = now.search.recipe_of(found.numbers)
    if st.button(
        "Start a full merge with the best schedule", type="primary", icon=":material/merge:",
        key="run-best",
        help=f"With {schedule_text(now.search, found)} and seed {recipe.seed}: the numbers of the "
        f"trial, the controls, and all that can be looked at.",
    ):  # fmt: skip
        device = now.progress.asked.device if now.progress is not None else "auto"
        name, _ = launch.begin(Store(), recipe, device)
        picking.show_run(name)
    with st.expander("The same merge from a terminal", icon=":material/terminal:"):
        st.code(merge_command(now.search, found), language="bash", wrap_lines=True)


def start() -> None:
    """The form that starts a search."""
    with showing.errors_as_sentences():
        recipe = chosen_recipe()
        if recipe is None:
            return
        with st.container(horizontal=True, vertical_alignment="bottom"):
            own = recipe.gates.schedule.kind
            families = list(AXES)
            family = st.selectbox(
                "λ schedule", families, families.index(own) if own in families else 0,
                format_func=TITLES.__getitem__, key=f"search-family-{own}", width=190,
                help="The kind of the schedules that are tried; two numbers of it are searched.",
            )  # fmt: skip
            trials = st.number_input(
                "Trials", 1, MOST_TRIALS, 20, key="search-trials", width=120,
                help="The first is the recipe's own schedule, the next nine are spread out.",
            )  # fmt: skip
            minutes = st.number_input(
                "Minutes (0: no limit)",
                0.0,
                None,
                0.0,
                format="%g",
                key="search-minutes",
                width=170,
            )
            seed = st.number_input(
                "Seed of the search", 0, 2**31 - 1, 0, key="search-sampler", width=170,
                help="Another number tries other schedules.",
            )  # fmt: skip
            device = st.segmented_control(
                "Device", launch.DEVICES, default="auto", required=True, key="search-device"
            )
        file = SearchFile(Search(recipe=recipe, family=family, seed=int(seed)))
        store, runs = Store(), picking.runs()
        st.markdown(
            cost_text(
                file.search,
                trials=max(int(trials) - len(file.trials()), 0),
                minutes=minutes,
                device=device,
                measured=comparable(store, runs, recipe),
                run=search_work.teachers_run(store, runs, recipe),
            )
        )
        if st.button("Search the schedule", type="primary", icon=":material/search:",
                     key="start-search"):  # fmt: skip
            asked = search_work.asked_for(file, int(trials), minutes=minutes, device=device)
            search_work.begin(file, asked)
            st.session_state["next_search"] = file.path.stem
            st.rerun(scope="app")


def chosen_recipe() -> Recipe | None:
    """The recipe of the form: of a preset, or of a run; None where there is no run."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = st.segmented_control(
            "Search for", SOURCES, format_func=SOURCES.__getitem__, default="recipe",
            required=True, key="search-source",
        )  # fmt: skip
        if source == "run":
            runs = {
                run.name: run
                for run in picking.runs()
                if run.state == "finished" and isinstance(run.recipe, Recipe)
            }
            if not runs:
                st.caption("There is no finished merge yet.")
                return None
            name = st.selectbox(
                "Run", list(runs), key="search-run", width=320,
                format_func=lambda name: run_label(runs[name]).replace("**", "") + f" · {name}",
                help="Its teachers are used, and its settings; λ as it was set before the run.",
            )  # fmt: skip
            return replace(runs[name].merge, steering=())
        titles = {
            name: next(p.title for p in PRESETS if p.recipe.name == name) for name in merge_names()
        }
        name = st.selectbox(
            "Recipe", list(titles), format_func=titles.__getitem__, key="search-recipe", width=240
        )
        presets = [p.recipe.preset for p in PRESETS if p.recipe.name == name]
        preset = st.segmented_control(
            "Preset", presets, default=presets[0], required=True, key=f"search-preset-{name}"
        )
        seed = st.number_input("Seed of the recipe", 0, 2**31 - 1, 0, key="search-seed", width=170)
    return replace(find_preset(name, preset).recipe, seed=int(seed))
