"""Compare: an experiment repeated with every strategy, at one budget; or stored runs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from merge_core import carriers, launch, places, tabled
from merge_core.plots.compare import boxes, forest, score_against_flops, stage_lines
from merge_core.plots.learned import class_dots, overlaid_curves, repeated_lines
from merge_core.presets import PRESETS, find_preset, merge_names
from merge_core.recipes import Comparison
from merge_core.repetitions import STRATEGIES, Budget, Results
from merge_core.views.compare import (
    BUDGETS,
    SPLITS,
    TITLES,
    Table,
    class_frame,
    class_summaries,
    command,
    conditions,
    curves,
    label,
    published_text,
    readable,
    score_frame,
    spreads,
    stage_ways,
    table_files,
    when,
)
from merge_core.views.evidence import (
    caution,
    difference_frame,
    differences,
    finding,
    summary_frame,
)
from merge_core.views.latex import latex_table
from merge_core.views.repeated import repeated, repeated_conditions, repeated_frame
from merge_core.views.runs import duration, flops_text
from pages import carried, deleting, navigation, picking, showing

WHAT = {"tables": "Repeated experiments", "runs": "Stored runs"}
VIEWS = {
    "flops": "Score against FLOPs",
    "stages": "After each stage",
    "curves": "Learned curves",
    "classes": "Accuracy of each class",
}
MOST_RUNS = 12
DEVICES = launch.DEVICES[1:]


@st.cache_data(max_entries=32, show_spinner=False)
def stored(path: str, sample: bool, stamp: int) -> list[Table]:
    """The table in a file as it was at a moment; none where it cannot be read."""
    return readable([(Path(path), sample)])


def every_table() -> dict[str, Table]:
    """Name → table, the one that changed last first, then those that came with netweld."""
    found = {}
    for path, sample in table_files(places.home(), places.samples()):
        for table in stored(str(path), sample, path.stat().st_mtime_ns):
            found[table.name] = replace(table, progress=carriers.progress_of(path))
    return found


def show_tables() -> None:
    """Pick a table and see it; start one."""
    found = every_table()
    wanted = st.session_state.pop("next_table", None)
    if wanted in found:
        st.session_state["table"] = wanted
    if not found:
        st.info(
            "No experiment has been repeated yet. Start with *Sine*, preset quick, 5 repetitions: "
            "that takes some minutes, and what is finished shows here at once.",
            icon=":material/rocket_launch:",
        )
    else:
        if st.session_state.get("table") not in (None, *found):
            st.session_state.pop("table")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox(
                "Experiment", list(found), key="table", bind="query-params",
                persist_state="session", width=360,
                help="Recipe, preset, budget, and a mark of the settings.",
            )  # fmt: skip
            st.markdown(label(found[name]), width="content")
        st.fragment(partial(show_table, name), run_every=1 if found[name].running else None)()
        deleting.offer_carried(found[name])
    with st.expander("Repeat an experiment", expanded=not found, icon=":material/repeat:"):
        st.fragment(start)()


def show_table(name: str) -> None:
    """One table: how far it is, the answer, charts, figures, exports."""
    with showing.errors_as_sentences():
        table = every_table().get(name)
        if table is None:
            st.rerun(scope="app")
        work(table)
        if not table.rows:
            st.caption("The first repetitions are on their way; every finished strategy shows.")
            return
        first, split, picture = choices(table)
        st.markdown(finding(table, first, split))
        words = conditions(table, split)
        spread, pairs = st.columns(2)
        found, against = spreads(table, split), differences(table, first, split)
        with spread:
            st.subheader("Every repetition", anchor=False)
            showing.plotly(
                boxes(found, split, table.metric), key="boxes", picture=picture,
                alt=f"Scores of every strategy. {words}",
            )  # fmt: skip
            st.caption(
                f"Points are repetitions; a box holds the middle half of them. {words} "
                f"{published_text(table) if split == 'test' else ''}"
            )
        with pairs:
            st.subheader(f"{TITLES[first].capitalize()}, minus each other", anchor=False)
            if against:
                showing.plotly(
                    forest(against, table.metric), key="forest", picture=picture,
                    alt=finding(table, first, split).replace("*", ""),
                )  # fmt: skip
            st.caption(
                f"Differences of the same seed; bars are intervals of their mean. {words} "
                f"{caution(table, split)}"
            )
        more(table, split, picture, words)
        figures(table, first, split, words)


def choices(table: Table) -> tuple[str, str, showing.Picture]:
    """Which strategy is compared with the others, on which split; what the cameras save."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = st.selectbox(
            "Compare", table.strategies, format_func=TITLES.__getitem__, key="first", width=260,
            help="This strategy minus each of the others, repetition by repetition.",
        )  # fmt: skip
        split = st.segmented_control(
            "Scores on", SPLITS, format_func=SPLITS.__getitem__, default="test", required=True,
            key="compare-split",
        )  # fmt: skip
        as_png = st.toggle(
            "Save pictures as PNG", key="png",
            help="The camera above each chart saves a picture: SVG, or PNG for slides.",
        )  # fmt: skip
    return first, split, "png" if as_png else "svg"


def work(table: Table) -> None:
    """How far a table is, and the buttons that steer it."""
    told = table.progress
    if table.sample:
        st.caption(f"This table came with netweld; it was made on {when(table)}.")
    elif told is not None and table.running:
        left = "" if told.left is None else f" · about {duration(told.left)} left"
        carried.at_work(
            table,
            f"**{100 * told.fraction:.0f} %** of {told.asked.n} repetitions of every strategy "
            f"on {told.asked.device}{left}. It goes on when this page is closed.",
            "table",
        )
    elif told is not None and told.state != "finished":
        words = {
            "stopped": "was stopped",
            "lost": "has lost its process, perhaps because the machine was switched off",
            "failed": f"failed. {told.message}",
        }[told.state]
        st.warning(f"This table {words}. What is finished stays; the rest can follow.")
        go_on(table, "Go on")
    elif any(missing(table).values()):
        st.caption("Some strategies are not in this table yet.")
        go_on(table, "Add what is missing")
    carried.follow(table, "table")


def missing(table: Table) -> dict[str, list[int]]:
    """What a table lacks of the repetitions that it has or was asked for."""
    asked = table.progress.asked if table.progress is not None else None
    seeds = range(asked.seed, asked.seed + asked.n) if asked is not None else table.seeds
    return tabled.missing(table.rows, list(seeds))


def go_on(table: Table, words: str) -> None:
    """The button that does what is missing."""
    if why := carried.refusal(table):
        st.caption(why)
    if not st.button(
        words, type="primary", icon=":material/resume:", key="go-on", disabled=bool(why)
    ):
        return
    asked = table.progress.asked if table.progress is not None else None
    seeds = table.seeds
    seed = asked.seed if asked is not None else seeds[0]
    tabled.begin(
        replace(table.recipe, seed=seed),
        table.budget,
        asked.n if asked is not None else seeds[-1] - seed + 1,
        device=asked.device if asked is not None else "cpu",
        data=Path(asked.data) if asked is not None else None,
    )
    st.rerun(scope="app")


def more(table: Table, split: str, picture: showing.Picture, words: str) -> None:
    """One further view of the same repetitions."""
    ways, learned = stage_ways(table, split), curves(table)
    there = {
        "flops": True,
        "stages": any(len(way) for way in ways),
        "curves": bool(learned),
        "classes": any(row.classes for row in table.rows),
    }
    views = [key for key, has in there.items() if has]
    chosen = st.segmented_control(
        "More of the same repetitions", views, format_func=VIEWS.__getitem__, default="flops",
        required=True, key="view",
    )  # fmt: skip
    metric, alt = table.metric, f"{VIEWS[chosen]}. {words}"
    if chosen == "flops":
        showing.plotly(
            score_against_flops(spreads(table, split), split, metric), key="flops", alt=alt,
            picture=picture,
        )  # fmt: skip
        st.caption(f"Marks are means, bars reach from the worst to the best repetition. {words}")
    elif chosen == "stages":
        showing.plotly(stage_lines(ways, split, metric), key="stages", alt=alt, picture=picture)
        st.caption(f"A thin line is one repetition, the thick one their mean. {words}")
    elif chosen == "curves":
        showing.plotly(overlaid_curves(learned), key="learned", alt=alt, picture=picture)
        st.caption(
            "Every learned curve over the target, as in the paper's Figs. 9 and 10. A peak counts "
            f"as missed where a curve does not reach half of it. {words}"
        )
    else:
        classes(table, picture, alt, words)


def classes(table: Table, picture: showing.Picture, alt: str, words: str) -> None:
    """The accuracy of each class."""
    known = [key for key in table.strategies if any(row.classes for row in table.of(key))]
    usual = [key for key in ("teacher", "student", "ours") if key in known] or known[:2]
    chosen = st.multiselect(
        "Strategies", known, default=usual, format_func=TITLES.__getitem__, key="class-strategies"
    )
    found = class_summaries(table, chosen) if chosen else {}
    if not found:
        st.caption("Choose one strategy or more.")
        return
    showing.plotly(class_dots(found), key="classes", alt=alt, picture=picture)
    st.caption(
        f"Marks are means, bars reach from the worst to the best repetition; always on test. "
        f"{conditions(table, 'test') if 'held' in words else words}"
    )
    showing.download(class_frame(table), key="class-csv", file=f"{table.name}-classes.csv")


def figures(table: Table, first: str, split: str, words: str) -> None:
    """The same as tables, the exports, and what to type."""
    st.subheader("In figures", anchor=False)
    summary, against = summary_frame(table, split), difference_frame(table, first, split)
    numbers(summary, "summary", f"Spread of every strategy. {words}")
    if len(against):
        st.caption(f"{TITLES[first].capitalize()} minus each other strategy, pair by pair:")
        numbers(against, "differences", f"Paired differences. {words}")
    with st.container(horizontal=True):
        showing.download(summary, key="summary-csv", file=f"{table.name}-summary.csv")
        st.download_button(
            "CSV of every repetition", score_frame(table).to_csv(index=False),
            f"{table.name}.csv", "text/csv", key="rows-csv", icon=":material/download:",
            on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "LaTeX", latex_table(summary, words), f"{table.name}.tex", "text/x-tex",
            key="latex", icon=":material/download:", on_click="ignore",
        )  # fmt: skip
    st.markdown("The same from a terminal:")
    st.code(command(table), language="bash")
    with st.expander("What each strategy is", key="strategies"):
        costs = {each.key: each for each in spreads(table, split)}
        for strategy in STRATEGIES:
            if strategy.key in costs:
                cost = costs[strategy.key]
                st.markdown(
                    f"**{strategy.title}** · {cost.epochs} epochs, {flops_text(cost.flops)}: "
                    f"{strategy.note}"
                )


def numbers(frame: pd.DataFrame, key: str, alt: str) -> None:
    """A frame whose numbers have three or four digits."""
    st.dataframe(
        frame,
        hide_index=True,
        key=key,
        alt=alt,
        placeholder="",
        height="content",
        column_config={
            str(name): st.column_config.NumberColumn(format="%.1f" if name == "GFLOP" else "%.4f")
            for name in frame.columns
            if frame[name].dtype.kind == "f"
        },
    )


def start() -> None:
    """The form that repeats an experiment."""
    with showing.errors_as_sentences():
        titles = {
            name: next(p.title for p in PRESETS if p.recipe.name == name) for name in merge_names()
        }
        with st.container(horizontal=True, vertical_alignment="bottom"):
            name = st.selectbox(
                "Recipe", list(titles), format_func=titles.__getitem__, key="table-recipe",
                index=list(titles).index("sine"), width=260,
            )  # fmt: skip
            presets = [p.recipe.preset for p in PRESETS if p.recipe.name == name]
            preset = st.segmented_control(
                "Preset", presets, default=presets[0], required=True, key=f"table-preset-{name}"
            )
            n = st.number_input("Repetitions", 1, 1000, 5, key="table-n", width=140)
            seed = st.number_input("First seed", 0, 2**31 - 1001, 0, key="table-seed", width=140)
            budget = st.segmented_control(
                "The same for all", list(BUDGETS), format_func=BUDGETS.__getitem__, default="flops",
                required=True, key="table-budget",
                help="The paper counts epochs, though gates learn on a network of double width, "
                "which costs more for each of them.",
            )  # fmt: skip
            device = st.segmented_control(
                "Device", DEVICES, default="cpu", required=True, key="table-device"
            )
        chosen = find_preset(name, preset)
        st.caption(
            f"{chosen.story} Every strategy is trained {n} times, which takes as long as many "
            f"merges; it can be stopped at any time and goes on later."
        )
        if st.button("Start", type="primary", icon=":material/play_arrow:", key="start-table"):
            recipe = replace(chosen.recipe, seed=int(seed))
            kind: Budget = "epochs" if budget == "epochs" else "flops"
            tabled.begin(recipe, kind, int(n), device=device)
            st.session_state["next_table"] = Results(recipe, kind).path.stem
            st.rerun(scope="app")


def show_runs() -> None:
    """Stored runs side by side."""
    every = {run.name: run for run in picking.runs() if not isinstance(run.recipe, Comparison)}
    if not every:
        st.info("There is no run yet. Start your first merge on the page Merge.")
        st.page_link("pages/merge.py", label="Start a merge", icon=":material/merge:")
        return
    over = [name for name, run in every.items() if run.returned]
    names = st.multiselect(
        "Runs", list(every), default=over[:MOST_RUNS], key="compared-runs",
        persist_state="session",
        help="Runs of one recipe with different seeds count as its repetitions.",
    )  # fmt: skip
    split = st.segmented_control(
        "Scores on", SPLITS, format_func=SPLITS.__getitem__, default="test", required=True,
        key="runs-split",
    )  # fmt: skip
    if not names:
        st.caption("Choose one run or more.")
        return
    readers = [picking.open_run(every[name]) for name in names]
    try:
        groups = repeated(readers, split)
    finally:
        for reader in readers:
            reader.close()
    words = repeated_conditions(groups, split)
    for metric in dict.fromkeys(group.recipe.metric for group in groups):
        showing.plotly(
            repeated_lines(groups, metric, split), key=f"runs-{metric}",
            alt=f"Scores of the runs after each stage. {words}",
        )  # fmt: skip
    st.caption(
        f"Open marks are runs, filled ones the mean of a recipe's runs. Recipes differ in budget "
        f"and data; for a comparison at one budget repeat an experiment. {words}"
    )
    frame = repeated_frame(groups)
    numbers(frame, "runs-figures", f"Scores of the runs. {words}")
    with st.container(horizontal=True):
        showing.download(frame, key="runs-csv", file="netweld-runs.csv")
        st.download_button(
            "LaTeX", latex_table(frame, words), "netweld-runs.tex", "text/x-tex", key="runs-latex",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip


navigation.require_app()
st.header("Compare")
st.markdown(
    "**Does merging pay, and how sure is that?** Every strategy gets the same budget and the same "
    "seeds, many times, so that chance shows."
)
with showing.errors_as_sentences():
    what = st.segmented_control(
        "Compare what", WHAT, format_func=WHAT.__getitem__, default="tables", required=True,
        key="what", bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    (show_tables if what == "tables" else show_runs)()
