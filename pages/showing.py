"""How every page shows charts, tables and errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from merge_core.errors import NetweldError

_CHART_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
Picture = Literal["svg", "png"]
"""What the camera of a chart saves."""


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Show a user's error as its sentence; the page ends there."""
    try:
        yield
    except NetweldError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


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
