"""Time that does not jump: what a process writes down keeps its order and distances (no torch)."""

import time


class SteadyClock:
    """Looks at the machine's clock once; when that is set afterwards, no time gets lost."""

    def __init__(self) -> None:
        self._began, self._steady = time.time(), time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch by a clock that nobody can set."""
        return self._began + time.monotonic() - self._steady
