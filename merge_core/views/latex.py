"""Frames as LaTeX tables."""

import math
from collections.abc import Sequence

import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "×": r"$\times$", "λ": r"$\lambda$", "½": r"$\frac12$",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def latex_table(frame: pd.DataFrame, caption: str, digits: int = 3) -> str:
    r"""A `table` for a document that loads booktabs.

    Args:
        frame: a line for each row; numbers are aligned to the right, NaN becomes a dash.
        caption: what the figures rest on.
        digits: places after the point.
    """
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    numbers = [all(isinstance(cell, int | float) for cell in cells) for cells in columns.values()]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers)}}}",
        r"\toprule",
        _line([escaped(name) for name in columns]),
        r"\midrule",
        *(
            _line([_cell(cell, digits) for cell in cells])
            for cells in zip(*columns.values(), strict=True)
        ),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: object, digits: int) -> str:
    if not isinstance(value, int | float):
        return escaped(str(value))
    if isinstance(value, int):
        return str(value)
    return "--" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "$-$")
