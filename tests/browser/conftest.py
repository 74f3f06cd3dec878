"""One server and one Chromium for all browser tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from merge_core.bench_pages import chromium, dashboard
from merge_core.errors import NetweldError
from merge_core.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent))  # fake_runs lives there

import fake_runs

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=20_000)  # a busy machine is slow, not wrong


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as found:
            yield found
    except NetweldError as error:
        pytest.skip(str(error))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A wide window of its own."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(60_000)  # a busy machine is slow, not wrong
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Runs to look at: one of each kind of first layer, and one of each state."""
    made = Store(tmp_path_factory.mktemp("home"))
    for state in ("queued", "failed", "stopped", "lost"):
        fake_runs.make(made, "textures", state=state, stop="gates")
    for name in ("digits", "sine", "textures"):
        fake_runs.make(made, name)
    return made


@pytest.fixture(scope="session")
def address(store: Store) -> Iterator[str]:
    with dashboard(store.home) as found:
        yield found
