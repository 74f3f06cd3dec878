"""Where the kept channels come from."""

import pandas as pd
import plotly.graph_objects as go

from merge_core.plots.style import NEUTRAL, TEACHER_COLOURS, TEACHER_NAMES, frame


def origins(shares: pd.DataFrame) -> go.Figure:
    """How many kept channels of each space come from each teacher, as parts of the whole.

    Args:
        shares: `merge_core.views.channels.share_frame`: `space`, `size`, `from_a`, `from_b`.
    """
    figure = go.Figure()
    for name, colour, column in zip(
        TEACHER_NAMES, TEACHER_COLOURS, ("from_a", "from_b"), strict=True
    ):
        figure.add_bar(
            y=shares["space"],
            x=shares[column] / shares["size"],
            orientation="h",
            name=f"from teacher {name}",
            marker={"color": colour, "line": {"width": 0}},
            text=[f"{name}: {count}" for count in shares[column]],
            textposition="inside",
            insidetextanchor="middle",
            textfont={"size": 15, "color": "white" if name == "A" else "black"},
            customdata=shares[[column, "size"]].to_numpy(),
            hovertemplate="%{y}: %{customdata[0]} of %{customdata[1]} channels from teacher "
            + f"{name}<extra></extra>",
        )
    figure.add_vline(x=0.5, line={"color": NEUTRAL, "dash": "dash", "width": 2})
    figure.update_xaxes(
        title="share of the kept channels", tickformat=".0%", range=[0, 1], dtick=0.25
    )
    figure.update_yaxes(autorange="reversed", type="category")
    frame(figure, height=110 + 58 * len(shares))
    return figure.update_layout(
        barmode="stack",
        legend_traceorder="normal",
        margin_r=32,  # room for the last tick's "100%"
    )
