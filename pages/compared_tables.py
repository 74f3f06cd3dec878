"""Page Compare, repeated experiments: pick one, steer it, see it; start one."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from merge_core import carriers, launch, places, tabled
from merge_core.presets import PRESETS, find_preset, merge_names
from merge_core.repetitions import STRATEGIES, Budget, Results
from merge_core.views.compare import (
    BUDGETS,
    Table,
    command,
    failures_text,
    label,
    published_text,
    readable,
    table_files,
    when,
)
from merge_core.views.runs import duration, flops_text
from merge_core.views.scored import spreads
from pages import carried, evidence, showing

DEVICES = launch.DEVICES[1:]
_PICKED = carried.Words(
    kind="table",
    title="Experiment",
    name="Recipe, preset, budget, and a mark of the settings.",
    nothing="No experiment has been repeated yet. Start with *Sine*, preset quick, 5 repetitions: "
    "that takes some minutes, and what is finished shows here at once.",
    begin="Repeat an experiment",
    begin_icon=":material/repeat:",
)


@st.cache_data(max_entries=32, show_spinner=False)
def stored(path: str, sample: bool, stamp: int) -> list[Table]:
    """The table in a file as it was at a moment; none where it cannot be read."""
    return readable([(Path(path), sample)])


def every_table() -> dict[str, Table]:
    """Name → table, the one that changed last first, then those that came with netweld.

    One of these whose experiment has been repeated here, too, is told apart from that.
    """
    found: dict[str, Table] = {}
    for path, sample in table_files(places.home(), places.samples()):
        for table in stored(str(path), sample, path.stat().st_mtime_ns):
            name = f"{table.name}-sample" if table.name in found else table.name
            found[name] = replace(table, progress=carriers.progress_of(path))
    return found


def show_tables() -> None:
    """Pick a table and see it; start one."""
    carried.pick(_PICKED, every_table(), label, show_table, start)


def show_table(name: str) -> None:
    """One table: how far it is, the answer, charts, figures, exports."""
    with showing.errors_as_sentences():
        table = every_table().get(name)
        if table is None:
            st.rerun(scope="app")
        work(table)
        if told := failures_text(table):
            st.warning(told if table.rows else f"No strategy has a score. {told}")
        if not table.rows:
            if not told:
                st.caption("The first repetitions are on their way; every finished strategy shows.")
            return
        seen = evidence.choices(table)
        evidence.show(table, seen, published_text(table) if seen.split == "test" else "")
        st.markdown("The same from a terminal:")
        st.code(command(table), language="bash")
        strategies(table, seen.split)


def strategies(table: Table, split: str) -> None:
    """What each strategy is, and what it costs."""
    with st.expander("What each strategy is", key="strategies"):
        costs = {each.key: each for each in spreads(table, split)}
        for strategy in STRATEGIES:
            if strategy.key in costs:
                cost = costs[strategy.key]
                st.markdown(
                    f"**{strategy.title}** · {cost.epochs} epochs, {flops_text(cost.flops)}: "
                    f"{strategy.note}"
                )


def work(table: Table) -> None:
    """How far a table is, and the buttons that steer it."""
    told = table.progress
    if table.sample:
        made = f"; it is of {day}" if (day := when(table)) else ""
        st.caption(f"This table came with netweld{made}.")
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
    return tabled.missing(table.rows, table.failures, list(seeds))


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
