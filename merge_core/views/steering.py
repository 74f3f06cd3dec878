"""How a run was steered: λ over its epochs with ghosts, markers, and its family of forks."""

import pandas as pd

from merge_core.store import Branch, ForkPoint, RunReader, Store


def lambda_frame(reader: RunReader) -> pd.DataFrame:
    """λ at the end of every epoch of the gate stage, as steered so far.

    Columns: epoch (from 1), value (NaN where a controller will set it), part: "past" for an epoch
    that is over, "future" for one that is planned, "left out" after an early cut.
    """
    raise NotImplementedError


def ghost_frame(reader: RunReader) -> pd.DataFrame:
    """λ as it would have gone on without each change of the schedule.

    Columns: change (index into the recipe's steering), epoch, value, words (the change). The rows
    of a change begin one epoch before it, where both curves still touch.
    """
    raise NotImplementedError


def marker_frame(reader: RunReader) -> pd.DataFrame:
    """What was asked of the run, in order, and what became of it.

    Columns: command (id; 0 for a change that came with the recipe), verb, stage, epoch (of the
    gate stage, may be fractional; NaN elsewhere), step, words, refused, time (NaN with the recipe).
    """
    raise NotImplementedError


def fork_frame(reader: RunReader) -> pd.DataFrame:
    """The moments that the run can be forked from, in order.

    Columns: stage, epoch (-1 at the end of a stage), words, bytes.
    """
    raise NotImplementedError


def fork_point(reader: RunReader, epoch: int) -> ForkPoint:
    """The latest moment of the gate stage with a checkpoint at or before an epoch.

    Raises:
        StoreError: there is none; the gates have not begun.
    """
    raise NotImplementedError


def parent(reader: RunReader) -> Branch | None:
    """Where the run was forked from; None when it was not."""
    raise NotImplementedError


def children(store: Store, name: str) -> list[Branch]:
    """The forks of a run, oldest first."""
    raise NotImplementedError
