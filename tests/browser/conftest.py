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


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    """The one tab: a new one would compile all the code of the pages again, for seconds."""
    context = browser.new_context()
    context.set_default_timeout(60_000)  # a busy machine is slow, not wrong
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """A wide window with nothing in it."""
    tab.set_viewport_size({"width": 1400, "height": 1000})
    tab.emulate_media(color_scheme="light")
    tab.mouse.move(0, 0)
    yield tab
    for other in tab.context.pages:
        if other is not tab:
            other.close()
    tab.goto("about:blank")
    tab.context.clear_cookies()


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
