"""Methods: the same networks merged by every method, score against cost."""

import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from merge_core import compared, launch
from merge_core.architectures import SHAPES, architectures_for
from merge_core.catalogue import METHOD_BY_KEY, METHODS, Knob
from merge_core.plots.methods import by_method, by_seconds
from merge_core.recipes import Comparison, MethodSettings, as_text
from merge_core.store import RunSummary, Store
from merge_core.views.methods import (
    about,
    chance_text,
    conditions,
    findings,
    networks_text,
    offered,
    quick,
)
from merge_core.views.outcomes import Outcomes, outcome_table, outcomes
from merge_core.views.runs import ALIVE, recipe_title
from pages import deleting, living, navigation, picking, showing

SUFFIXES = ("th", "pt", "pth", "safetensors")
LARGEST = 500  # megabytes of an upload, which the server holds in memory until the start
MOST_EPOCHS = 5
COST = {"flops": "work of a prediction", "seconds": "seconds to make"}
SPLITS = {"heldout": "held-out (chooses)", "test": "test (never chooses)"}
COLOURS = {"data": "of the data set", "imagenet": "of ImageNet"}


def results(name: str) -> None:
    """A comparison: how far it is, and all that it has found."""
    summary = picking.comparison_now(name)
    with picking.open_run(summary) as reader:
        with st.container():  # always there, so that what follows keeps its place: see `live`
            if summary.state != "finished":
                living.progress(summary, reader)
        found, words = outcomes(reader), conditions(reader)
        networks = networks_text(reader.comparison)
        facts = {row["stage"]: row["facts"] for row in reader.stages()}
        cards = [card for card in METHODS if card.key in reader.comparison.methods]
    st.markdown(networks)
    if not found.methods:
        if summary.state in ALIVE:
            st.caption(
                "First the teachers are judged, aligned and joined by a line; the first method "
                "follows."
            )
    else:
        charts(found, words)
        table(found, summary)
    for key, sentence in found.failed.items():
        st.warning(f"**{METHOD_BY_KEY[key].title}** failed. {sentence}", icon=":material/error:")
    st.subheader("What each method does")
    half = (len(cards) + 1) // 2
    for column, part in zip(st.columns(2), (cards[:half], cards[half:]), strict=True):
        with column:
            for card in part:
                explain(found, card.key, facts.get(card.key, {}))


def charts(found: Outcomes, words: str) -> None:
    """Score against cost, in one of two views."""
    st.markdown(findings(found))
    with st.container(horizontal=True):
        cost = st.segmented_control(
            "Score against", COST, format_func=COST.__getitem__, default="flops", required=True,
            key="cost", bind="query-params", persist_state="session",
        )  # fmt: skip
        split = st.segmented_control(
            "Scores on", SPLITS, format_func=SPLITS.__getitem__, default="test", required=True,
            key="split", bind="query-params", persist_state="session",
        )  # fmt: skip
    draw = by_method if cost == "flops" else by_seconds
    alt = findings(found).replace("*", "") or "Scores of the teachers and of every method"
    showing.plotly(draw(found, split), key=f"methods-{cost}", alt=alt)
    if cost == "flops":
        st.caption(
            "From grey over blue to green: the network after the merge, repaired (its norm "
            "statistics or activations set right, without training), and fine-tuned. The best "
            "method on held-out examples stands first."
        )
    else:
        st.caption(
            "Seconds on this machine, logarithmic: merging, then repair, then fine-tuning. Named "
            "are those that no other of their size beats on held-out examples in less time; hover "
            "for the others."
        )
    st.caption(words)


def table(found: Outcomes, summary: RunSummary) -> None:
    """The same numbers; a click on a head sorts by it."""
    frame = outcome_table(found).dropna(axis="columns", how="all")
    formats = {"Seconds to make": "%.2f", "MFLOP of a prediction": "%.2f"}
    st.dataframe(
        frame,
        hide_index=True,
        key="methods-table",
        alt="Scores and costs of every teacher and of every network that a method leads to",
        placeholder="",
        column_config={
            name: st.column_config.NumberColumn(format=formats.get(name, "%.4f"))
            for name in frame.columns[2:]
        },
    )
    if sure := chance_text(found, summary.recipe.data.test):
        st.caption(sure)
    showing.download(frame, key="methods-csv", file=f"{summary.name}-methods.csv")


def explain(found: Outcomes, key: str, facts: dict[str, object]) -> None:
    """A method in a fold of its own."""
    card = METHOD_BY_KEY[key]
    mark = "✗ " if key in found.failed else "" if facts else "◌ "
    with st.expander(f"{mark}{card.title}", key=f"about-{key}"):
        for paragraph in about(card, facts):
            st.markdown(paragraph)
        if key in found.failed:
            st.warning(found.failed[key], icon=":material/error:")


def form(
    teachers: int, chosen: Sequence[str] | None, epochs: int, told: MethodSettings, key: str
) -> tuple[list[str], int, str, dict[str, str]]:
    """The widgets of a comparison: methods, epochs of fine-tuning, device, settings of methods."""
    names = offered(teachers)
    default = [k for k in names if k in (quick(names) if chosen is None else chosen)]
    methods = st.pills(
        "Methods", list(names), format_func=names.__getitem__, selection_mode="multi",
        default=default, key=f"methods-{key}",
    )  # fmt: skip
    st.caption(
        "⏳ These train networks or weights of their own, for minutes to hours; learned gates take "
        "longest. The others take seconds. What each of them does stands beside its result."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        tuned = st.number_input(
            "Epochs of fine-tuning after every method", 0, MOST_EPOCHS, min(epochs, MOST_EPOCHS),
            key=f"tuned-{key}", width=300,
            help="0 compares without any training. Every method gets the same.",
        )  # fmt: skip
        device = st.segmented_control(
            "Device", launch.DEVICES, default="auto", required=True, key=f"device-{key}",
            help="auto takes CUDA, then MPS, then the CPU.",
        )  # fmt: skip
    return methods, int(tuned), device, knobs(methods, told, key)


def knobs(methods: Sequence[str], told: MethodSettings, key: str) -> dict[str, str]:
    """The settings that the chosen methods have, in a fold; as the command line takes them."""
    having = [card for card in METHODS if card.key in methods and card.knobs]
    if not having:
        return {}
    found = {}
    with st.expander("Settings of the methods", icon=":material/tune:", key=f"knobs-{key}"):
        for card in having:
            st.markdown(f"**{card.title}**")
            with st.container(horizontal=True):
                for knob in card.knobs:
                    found[knob.key] = widget(knob, getattr(told, knob.key), f"{knob.key}-{key}")
    return found


def widget(knob: Knob, value: object, key: str) -> str:
    """What a person wants a setting to be; what it may be, the recipe says at the start."""
    if isinstance(value, int | float):
        number = st.number_input(
            knob.title, value=value, step=1 if isinstance(value, int) else value / 2, key=key,
            format=None if isinstance(value, int) else "%g", help=knob.about, width=220,
        )  # fmt: skip
        return as_text(number)
    return st.text_input(knob.title, as_text(value), key=key, help=knob.about, width=220)


def compare(run: RunSummary, again: RunSummary | None) -> None:
    """The form that compares a run's teachers, or those of an earlier comparison once more."""
    with showing.errors_as_sentences():
        source = again or run
        recipe = source.recipe
        if isinstance(recipe, Comparison):
            count, chosen, epochs = len(recipe.teachers), recipe.methods, recipe.fine_tune.epochs
            told: MethodSettings = recipe
        else:
            count, chosen, epochs, told = len(compared.TEACHERS), None, 1, MethodSettings()
        methods, tuned, device, settings = form(count, chosen, epochs, told, source.name)
        if st.button(
            "Start the comparison", type="primary", icon=":material/play_arrow:", key="compare",
            disabled=not methods,
        ):  # fmt: skip
            with picking.open_run(source) as reader:
                comparison, files = compared.of_run(
                    reader, methods, fine_tune=tuned, settings=settings
                )
            begin(comparison, device, files, run)


def begin(
    comparison: Comparison, device: str, files: Sequence[Path], run: RunSummary | None
) -> None:
    """Start a comparison and show it: with the run that it is of, or as a run of its own."""
    name, _ = launch.begin(Store(), comparison, device, inputs=files)
    picking.show_comparison(name, run.name if run and comparison.of else name)


def upload() -> None:
    """The form that compares checkpoint files; what is in them is found out by the worker."""
    with showing.errors_as_sentences():
        st.caption(
            "Two or more trained networks of one architecture, as files of weights (a state dict). "
            "Only numbers are read from them; nothing in a file is run."
        )
        files = st.file_uploader(
            "Checkpoint files", SUFFIXES, accept_multiple_files=True, max_upload_size=LARGEST,
            key="files",
        )  # fmt: skip
        first, second, third = st.columns(3)
        data = first.selectbox("Data set that they are judged on", list(SHAPES), index=5, key="on")
        fitting = architectures_for(SHAPES[data])
        model = second.selectbox(
            "Architecture", fitting, key=f"architecture-{data}",
            index=fitting.index("cifar-resnet20") if "cifar-resnet20" in fitting else 0,
        )  # fmt: skip
        settings = {}
        if SHAPES[data].channels == 3 and data not in ("photos", "textures"):
            colours = third.selectbox(
                "Mean and deviation of the colours", list(COLOURS), key="colours",
                format_func=COLOURS.__getitem__,
                help="Those that the networks were trained with. If every teacher scores a little "
                "too low, try the other.",
            )  # fmt: skip
            settings["data.normalise"] = colours
        count = max(len(files), 2)
        methods, tuned, device, told = form(count, None, 0, MethodSettings(), f"files-{count}")
        ready = len(files) >= 2 and bool(methods)
        if st.button(
            "Start the comparison", type="primary", icon=":material/play_arrow:",
            key="compare-files", disabled=not ready,
            help=None if ready else "Give two files or more, and a method.",
        ):  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                paths = written(files, Path(folder))
                comparison = compared.of_files(
                    paths,
                    methods,
                    model=model,
                    data=data,
                    fine_tune=tuned,
                    settings=settings | told,
                )
                begin(comparison, device, paths, None)


def written(files: Sequence[UploadedFile], folder: Path) -> list[Path]:
    """Put uploads into a folder, from where the run copies them; a browser may send any name."""
    paths = []
    for number, file in enumerate(files):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", file.name).lstrip("._-")[-80:]
        path = folder / str(number) / (name or "teacher")
        path.parent.mkdir()
        path.write_bytes(file.getbuffer())
        paths.append(path)
    return paths


def content() -> None:
    """The picked run's comparison, or the form that starts one."""
    run = picking.picked_run()
    shown = picking.pick_comparison()
    if shown is None:
        living.state_note(run)
        st.subheader(f"Compare the methods on {recipe_title(run.recipe)}, seed {run.recipe.seed}")
        st.markdown(
            "This run's two teachers have not been compared yet. A comparison merges them with "
            "every method below, beside the ensemble of their outputs, and judges what comes out."
        )
        st.fragment(partial(compare, run, None))()
        return
    living.live(
        partial(results, shown.name), every=1, summary=partial(picking.comparison_now, shown.name)
    )
    if shown.state not in ALIVE:
        with st.expander("Compare again, with other methods", icon=":material/replay:"):
            st.fragment(partial(compare, run, shown))()
    deleting.offer(
        shown,
        "Delete this comparison",
        picking.show_another if shown.name == run.name else lambda _: picking.show_run(run.name),
    )


navigation.require_app()
st.header("Methods")
st.markdown(
    "The **same networks merged by every method**, side by side: how good is one network made out "
    "of them, and what does it cost? Plain averaging fails; matching and repair mend much of it."
)
with showing.errors_as_sentences():
    content()
with st.expander("Compare checkpoint files of your own", icon=":material/upload_file:"):
    st.fragment(upload)()
