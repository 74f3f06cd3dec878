"""Network: a network's layers by channel space, how exact its graph is, and what merging costs."""

import math

import streamlit as st

from merge_core import inspected
from merge_core.architectures import TORCHVISION
from merge_core.description import Description
from merge_core.errors import NetweldError
from merge_core.plots.network import spaces_diagram
from merge_core.views.network import (
    cost_table,
    diagram,
    law_badge,
    law_table,
    layer_table,
    network_of,
    space_table,
    spaces_text,
)
from merge_core.views.runs import flops_text
from pages import living, navigation, picking, showing

OF_RUN = "the network of this run"
PICKED = "network"
ON_ITS_WAY = "inspection"
BLOCKS = {True: "repeated blocks once", False: "every block"}


def choice() -> str | None:
    """Let a person pick what to look at; None is the network of the run."""
    ready = st.session_state.pop("inspected_now", None)
    if ready is not None:
        st.session_state[PICKED] = ready
    known = inspected.names()
    picked = st.selectbox(
        "Network",
        [OF_RUN, *known],
        key=PICKED,
        bind="query-params",
        help="The networks that have been inspected here, on this page or with `netweld inspect`.",
        width=360,
    )
    return None if picked == OF_RUN else picked


def ask() -> None:
    """Offer to inspect a network of torchvision, and wait for it without holding up the page."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Inspect a torchvision network", TORCHVISION, index=TORCHVISION.index("resnet18"),
            key="model", width=360,
        )  # fmt: skip
        busy = ON_ITS_WAY in st.session_state
        if st.button("Inspect", icon=":material/search:", key="inspect", disabled=busy):
            with showing.errors_as_sentences():
                st.session_state[ON_ITS_WAY] = inspected.start(name)
            st.rerun()
    if busy:
        st.fragment(wait, run_every=1)()
    st.caption("A network in a file of your own: `netweld inspect package.module:factory`.")


def wait() -> None:
    """Look after the inspection on its way."""
    inspection = st.session_state.get(ON_ITS_WAY)
    if inspection is None:
        return
    if inspection.running:
        st.info(
            f"{inspection.model} is being traced and its laws are measured; that takes from ten "
            f"seconds to a few minutes.",
            icon=":material/hourglass_top:",
        )
        return
    del st.session_state[ON_ITS_WAY]
    try:
        st.session_state["inspected_now"] = inspection.result().name
    except NetweldError as error:
        st.session_state["inspection_failed"] = str(error)
    st.rerun(scope="app")


def of_run() -> Description | None:
    """The network of the picked run; says so where it is not known."""
    summary = picking.picked_summary()
    living.state_note(summary)
    with picking.open_run(summary) as reader:
        network = network_of(reader)
        model = reader.recipe.model
    if network is None:
        st.info(
            f"What this run's network ({model}) looks like is not known: its channels are checked "
            f"after both teachers are trained. You can inspect a network above."
        )
    return network


def show(network: Description, measured: str) -> None:
    """One network; `measured` says on what its laws were measured."""
    width = " × ".join(map(str, network.input))
    st.subheader(f"{network.name}, input {width}")
    exact = network.worst_law <= network.tolerance
    st.badge(
        law_badge(network),
        icon=":material/verified:" if exact else ":material/error:",
        color="green" if exact else "red",
    )
    st.caption(
        f"The worst error of all laws is {network.worst_law:.0e} of the largest output, measured "
        f"on {measured} in {network.precision}. The trace took {network.trace_seconds:.2g} s."
    )
    if not exact:
        st.error(
            f"That is more than rounding (at most {network.tolerance:.0e}): this network cannot be "
            f"merged; please report it."
        )
    with st.container(horizontal=True):
        for words, cost in (
            ("A teacher", network.teacher),
            ("Big student of two", network.big),
            ("Student", network.student),
        ):
            st.metric(
                words,
                parameters_text(cost.parameters),
                flops_text(cost.flops) + " a forward pass",
                delta_color="off",
                delta_arrow="off",
                width="content",
            )
    fold = st.segmented_control(
        "Show", list(BLOCKS), format_func=BLOCKS.__getitem__, default=True, required=True,
        key="blocks",
    )  # fmt: skip
    drawn = diagram(network, fold=fold)
    st.caption(
        f"{spaces_text(network)} Layers run from top to bottom. Each upright line is a channel "
        f"space, its size at its head: ● writes it, ○ reads it, □ works within it. A thick line is "
        f"written by several layers, as a residual stream is; grey lines are fixed. Norms are left "
        f"out"
        + (f", and {drawn.hidden} layers of blocks like the one before." if drawn.hidden else ".")
    )
    showing.plotly(
        spaces_diagram(drawn),
        key=f"spaces-{network.name}-{fold}",
        alt=f"Diagram of {network.name}: {len(drawn.labels)} layers and {len(drawn.lanes)} "
        f"channel spaces. {spaces_text(network)}",
    )
    tables(network)


def parameters_text(count: int) -> str:
    """A number of parameters with a prefix: "25.6 M parameters"."""
    power = min(int(math.log10(max(count, 1)) // 3), 3)
    return f"{count / 1000**power:.3g}{('', ' k', ' M', ' G')[power]} parameters"


def tables(network: Description) -> None:
    """The numbers behind the diagram."""
    file = network.name.replace(":", "-")
    showing.table(
        layer_table(network),
        key="layers",
        title="The layers as a table",
        alt="Every layer with its weight, its cost and the spaces it writes and reads",
        file=f"{file}-layers.csv",
    )
    showing.table(
        space_table(network),
        key="spaces-table",
        title="The channel spaces as a table",
        alt="Every channel space with its size and the layers that write and read it",
        file=f"{file}-spaces.csv",
    )
    showing.table(
        law_table(network),
        key="laws",
        title="The laws and their errors as a table",
        alt="Measured relative error of every law of the channel graph",
        file=f"{file}-laws.csv",
        columns={"Relative error": st.column_config.NumberColumn(format="%.1e")},
    )
    showing.table(
        cost_table(network),
        key="costs",
        title="What the networks cost as a table",
        alt="Parameters and forward FLOPs of a teacher, the big student and the student",
        file=f"{file}-costs.csv",
    )


navigation.require_app()
st.header("Network")
st.markdown(
    "A network is merged by its **channel spaces**: all channels that must be permuted, joined, "
    "gated and cut together. They are found by running the network once on channel identities."
)
with showing.errors_as_sentences():
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = choice()
    ask()
    if failure := st.session_state.pop("inspection_failed", None):
        st.error(failure, icon=":material/error:")
    network = of_run() if wanted is None else inspected.read(wanted)
    if network is not None:
        show(network, "this run's teacher A" if wanted is None else "random weights")
