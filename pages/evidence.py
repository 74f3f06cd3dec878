"""Page Compare: the same charts, figures and exports for tables and for picked runs."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from merge_core.plots.compare import boxes, forest, score_against_flops, stage_lines
from merge_core.plots.learned import class_dots, overlaid_curves
from merge_core.views.compare import Table
from merge_core.views.evidence import (
    begun,
    caution,
    difference_frame,
    differences,
    finding,
    summary_file,
    summary_frame,
)
from merge_core.views.latex import latex_table
from merge_core.views.learned import (
    class_frame,
    class_split,
    class_summaries,
    curves,
    unrecorded,
)
from merge_core.views.repeated import RETURNED, Picked
from merge_core.views.scored import SPLITS, score_frame, spreads
from pages import showing

VIEWS = {
    "flops": "Score against FLOPs",
    "stages": "After each stage",
    "curves": "Learned curves",
    "classes": "Accuracy of each class",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the visitor looks at.

    Attributes:
        first: the kind of networks that is compared with the others.
        split: "test" or "heldout".
        picture: what the cameras save.
    """

    first: str
    split: str
    picture: showing.Picture


def choices(scored: Table | Picked) -> Choice:
    """Which kind is compared with the others, on which split; what the cameras save."""
    keys = scored.strategies
    returned = [number for number, key in enumerate(keys) if key.endswith(f":{RETURNED}")]
    # With other choices it is another widget: a browser keeps showing what was chosen before.
    mark = "first" if isinstance(scored, Table) else f"first-{'-'.join(keys)}"
    if st.session_state.get(mark) not in keys:
        st.session_state.pop(mark, None)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first = st.selectbox(
            "Compare", keys, index=returned[0] if returned else 0, key=mark, width=260,
            format_func=scored.titles.__getitem__,
            help="This one minus each of the others, repetition by repetition.",
        )  # fmt: skip
        split = st.segmented_control(
            "Scores on", SPLITS, format_func=SPLITS.__getitem__, default="test", required=True,
            key="compare-split",
        )  # fmt: skip
        as_png = st.toggle(
            "Save pictures as PNG", key="png",
            help="The camera above each chart saves a picture: SVG, or PNG for slides.",
        )  # fmt: skip
    return Choice(first=first, split=split, picture="png" if as_png else "svg")


def show(scored: Table | Picked, seen: Choice, told: str = "") -> None:
    """The answer, then charts, then figures.

    Args:
        scored: what is compared.
        seen: what the visitor looks at.
        told: put below the chart of the scores.
    """
    first, split = seen.first, seen.split
    st.markdown(finding(scored, first, split))
    words = scored.conditions(split)
    spread, pairs = st.columns(2)
    found, against = spreads(scored, split), differences(scored, first, split)
    with spread:
        st.subheader("Every repetition", anchor=False)
        showing.plotly(
            boxes(found, split, scored.metric, words), key="boxes", picture=seen.picture,
            alt=f"Scores of every kind of network. {words}",
        )  # fmt: skip
        st.caption(f"Points are repetitions; a box holds the middle half of them. {told}")
    with pairs:
        st.subheader(f"{begun(scored.titles[first])}, minus each other", anchor=False)
        if against:
            showing.plotly(
                forest(against, scored.metric, words), key="forest", picture=seen.picture,
                alt=finding(scored, first, split).replace("*", ""),
            )  # fmt: skip
            st.caption(
                f"Differences of the same seed; bars are intervals of their mean. "
                f"{caution(scored, split)}"
            )
        else:
            st.caption(
                "Nothing else here has the same seeds on the same data, so there are no pairs."
            )
    more(scored, seen, words)
    figures(scored, seen, words)


def more(scored: Table | Picked, seen: Choice, words: str) -> None:
    """One further view of the same repetitions."""
    split, picture = seen.split, seen.picture
    ways, learned = scored.ways(split), curves(scored)
    there = {
        "flops": True,
        "stages": bool(ways),
        "curves": bool(learned),
        "classes": any(row.classes for row in scored.rows),
    }
    views = [key for key, has in there.items() if has]
    chosen = st.segmented_control(
        "More of the same repetitions", views, format_func=VIEWS.__getitem__, default="flops",
        required=True, key="view",
    )  # fmt: skip
    missing = unrecorded(scored)
    if missing and (chosen in ("curves", "classes") or not (there["curves"] or there["classes"])):
        st.caption(missing)
    metric, alt = scored.metric, f"{VIEWS[chosen]}. {words}"
    if chosen == "flops":
        showing.plotly(
            score_against_flops(spreads(scored, split), split, metric, words), key="flops",
            alt=alt, picture=picture,
        )  # fmt: skip
        st.caption("Marks are means, bars reach from the worst to the best repetition.")
    elif chosen == "stages":
        showing.plotly(
            stage_lines(ways, split, metric, words), key="stages", alt=alt, picture=picture
        )
        st.caption(
            "A thin line is one repetition, the thick one the mean of those that recorded their "
            "stages; teachers and controls stand by themselves."
        )
    elif chosen == "curves":
        showing.plotly(
            overlaid_curves(learned, scored.titles, words), key="learned", alt=alt, picture=picture
        )
        st.caption(
            "Every learned curve over the target, as in the paper's Figs. 9 and 10. A peak counts "
            "as missed where a curve does not reach half of it."
        )
    else:
        classes(scored, seen)


def classes(scored: Table | Picked, seen: Choice) -> None:
    """The accuracy of each class."""
    known = [key for key in scored.strategies if any(row.classes for row in scored.of(key))]
    chosen = st.multiselect(
        "Shown", known, default=taught(scored, known), format_func=scored.titles.__getitem__,
        key=f"class-strategies-{'-'.join(known)}",
    )  # fmt: skip
    split = class_split(scored, seen.split)
    found = class_summaries(scored, chosen, split) if chosen else {}
    if not found:
        st.caption("Choose networks that tell the same classes apart, one or more.")
        return
    words = scored.conditions(split)
    showing.plotly(
        class_dots(found, scored.titles, split, words), key="classes", picture=seen.picture,
        alt=f"{VIEWS['classes']}. {words}",
    )  # fmt: skip
    always = "" if split == seen.split else "; this table kept only test"
    st.caption(f"Marks are means, bars reach from the worst to the best repetition{always}.")
    showing.download(class_frame(scored, split), key="class-csv", file=f"{scored.name}-classes.csv")


def taught(scored: Table | Picked, known: list[str]) -> list[str]:
    """Teachers and students among some networks, as far as they tell the same classes apart."""
    usual = [
        key
        for key in known
        if (stage := key.rpartition(":")[2]).startswith("teacher")
        or stage in ("student", "ours", RETURNED)
    ] or known[:2]
    names = scored.class_names(usual[0])
    return [key for key in usual if scored.class_names(key) == names]


def figures(scored: Table | Picked, seen: Choice, words: str) -> None:
    """The same as tables, and the exports."""
    st.subheader("In figures", anchor=False)
    st.caption(words)
    first, split = seen.first, seen.split
    summary, against = summary_frame(scored, split), difference_frame(scored, first, split)
    numbers(summary, "summary", f"Spread of everything compared. {words}")
    if len(against):
        st.caption(f"{begun(scored.titles[first])} minus each of the others, pair by pair:")
        numbers(against, "differences", f"Paired differences. {words}")
    with st.container(horizontal=True):
        showing.download(
            summary_file(scored, split), key="summary-csv", file=f"{scored.name}-summary.csv"
        )
        st.download_button(
            "CSV of every repetition", score_frame(scored).to_csv(index=False),
            f"{scored.name}.csv", "text/csv", key="rows-csv", icon=":material/download:",
            on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "LaTeX", latex_table(summary, words), f"{scored.name}.tex", "text/x-tex",
            key="latex", icon=":material/download:", on_click="ignore",
        )  # fmt: skip


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
