"""How far images are read from files, told while it happens.

Reading many takes minutes, before a run has its first stage. Whoever waits for it listens here,
rather than through an argument of every strategy that loads data.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""Told how many images are read, and of how many; what it raises ends the reading."""


def _nobody(done: int, of: int) -> None:
    """Does not listen."""


_LISTENER: ContextVar[Listener] = ContextVar("listener", default=_nobody)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Have everything that is read inside told to `listener`."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def tell(done: int, of: int) -> None:
    """Tell that so many images are read."""
    _LISTENER.get()(done, of)
