"""How fast the dashboard's pages are, measured in a real Chromium through Playwright.

Two goals on a running server: first content within 1.5 s of navigating there, with an empty browser
cache; a switch to another page, with its chart drawn, within 0.5 s.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merge_core import places
from merge_core.errors import NetweldError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FIRST_CONTENT_GOAL = 1.5
SWITCH_GOAL = 0.5
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DRAWN = {
    "Overview": ".st-key-strip .main-svg .trace",
    "Merge": ".st-key-curves canvas",
    "Filters": ".st-key-tiles image, .st-key-hinges .trace",
    "Gates": ".st-key-evolution canvas",
    "Channels": ".st-key-origins .bars",
    "Similarity": ".st-key-map .main-svg .trace, .st-key-align",
    "Matching": "[class*='st-key-bands-'] canvas, .st-key-lines .main-svg .trace, .st-key-align",
    "Methods": ".st-key-methods-flops .main-svg .trace, .st-key-compare",
    "Compare": ".st-key-boxes .main-svg .trace, .st-key-start-table",
    "Lab": ".st-key-landscape canvas, .st-key-start-lab",
    "Network": "[class*='st-key-spaces-'] .main-svg .trace",
}
"""What must be on each page before its chart counts as drawn."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One line of the result, in seconds."""

    what: str
    median: float
    worst: float
    goal: float | None


@contextmanager
def dashboard(
    home: Path | None = None,
    extra: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run the dashboard on a free port; yields its address.

    Args:
        home: where the runs are; by default those of this user.
        extra: further arguments for `streamlit run`.
        environment: further variables of the server's environment.

    Raises:
        NetweldError: the server does not come up within 30 seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"NETWELD_HOME": str(home)} if home else {}
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    options = [f"--server.port={port}", "--server.headless=true", *extra]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command + options,
            cwd=places.dashboard(),
            env=os.environ | own | dict(environment or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_healthy(server, address)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=20)


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise NetweldError(
        "The dashboard's server did not come up within 30 seconds; run `netweld` to see why."
    )


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless Chromium: the machine's own, or else the one that Playwright installed.

    Raises:
        NetweldError: Playwright or a Chromium is missing.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise NetweldError(
            "Measuring pages needs Playwright, which is not installed; "
            'install it with `pip install "netweld[test]"`.'
        ) from error
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=own, args=list(CHROMIUM_ARGUMENTS))
        except Error as error:
            raise NetweldError(
                "No Chromium was found; install one, or run `playwright install chromium`."
            ) from error
        try:
            yield browser
        finally:
            browser.close()


def measure(repeats: int = 5, home: Path | None = None) -> list[Timing]:
    """Measure first content and page switches with the newest run, or the first sample.

    Args:
        repeats: how often everything is measured; medians are reported.
        home: where the runs are; by default those of this user.

    Raises:
        NetweldError: the server, Playwright or Chromium is missing or does not start.
    """
    with dashboard(home) as address, chromium() as browser:
        return measure_at(address, browser, repeats)


def measure_at(address: str, browser: "Browser", repeats: int) -> list[Timing]:
    """Measure a dashboard that runs already, in a Chromium that is open already."""
    first: list[float] = []
    drawn: list[float] = []
    switches: dict[str, list[float]] = {page: [] for page in DRAWN}
    for turn in range(repeats + 1):
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        page = context.new_page()
        content, chart = _first_visit(page, address)
        _tour(page)  # the charts' code is in the browser from here on
        times = _tour(page)
        context.close()
        if turn == 0:
            continue  # the server's own first visit
        first.append(content)
        drawn.append(chart)
        for name, seconds in times.items():
            switches[name].append(seconds)
    return [
        _timing("first content, empty cache", first, FIRST_CONTENT_GOAL),
        _timing("first chart, empty cache", drawn, None),
        *(_timing(f"switch to {name}", times, SWITCH_GOAL) for name, times in switches.items()),
    ]


def _first_visit(page: "Page", address: str) -> tuple[float, float]:
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("[data-testid=stMainBlockContainer] [data-testid=stMarkdown]")
    content = time.perf_counter() - start
    page.wait_for_selector(DRAWN["Overview"], state="attached")
    return content, time.perf_counter() - start


def _tour(page: "Page") -> dict[str, float]:
    """Switch to every page in turn; seconds until each one's chart is drawn."""
    times = {}
    for name in [*list(DRAWN)[1:], "Overview"]:
        link = page.get_by_role("link", name=name, exact=True).first
        start = time.perf_counter()
        link.click()
        page.wait_for_selector(DRAWN[name], state="attached")
        times[name] = time.perf_counter() - start
    return times


def _timing(what: str, seconds: list[float], goal: float | None) -> Timing:
    return Timing(what=what, median=statistics.median(seconds), worst=max(seconds), goal=goal)


def table(timings: list[Timing]) -> str:
    """The timings as lines of text."""
    lines = [f"{'':32} {'median':>8} {'worst':>8} {'goal':>8}"]
    for timing in timings:
        goal = "" if timing.goal is None else f"{timing.goal:.1f} s"
        verdict = "" if timing.goal is None or timing.median <= timing.goal else "  missed"
        lines.append(
            f"{timing.what:32} {timing.median:6.2f} s {timing.worst:6.2f} s {goal:>8}{verdict}"
        )
    return "\n".join(lines)
