"""A shared dashboard with room for one: three people in three real browsers, two runs, a lab."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from merge_core import owners, processes
from merge_core.bench_pages import dashboard
from merge_core.store import Store

pytestmark = pytest.mark.browser
MINUTE = 60_000
KEY = "chalk"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.end(Store(tmp_path), 20.0)


@pytest.fixture
def shared_address(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A dashboard of its own, which knows an instructor's key and has room for one run."""
    monkeypatch.setenv("NETWELD_SLOTS", "1")
    monkeypatch.setenv(owners.INSTRUCTOR_KEY, KEY)
    with dashboard(home) as found:
        yield found


def visit(browser: Browser, address: str) -> Page:
    """Somebody with a browser of their own."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(MINUTE)
    page = context.new_page()
    page.goto(address)
    return page


def start_a_merge(page: Page) -> str:
    """Start the recipe that the page Merge offers first, which takes a minute; returns the run."""
    before = page.get_by_role("combobox", name="Run").input_value()
    page.get_by_role("button", name="Start the merge").click()
    run = page.get_by_role("combobox", name="Run")
    expect(run).not_to_have_value(before, timeout=MINUTE)
    return run.input_value()


def start_a_lab(page: Page) -> str:
    """Start the lab that the page Lab offers first; returns its name."""
    page.get_by_role("button", name="Start", exact=True).click()
    lab = page.get_by_role("combobox", name="Lab", exact=True)
    expect(lab).to_have_value(re.compile("sine-quick"), timeout=MINUTE)
    return lab.input_value()


def refused_to(page: Page, name: str, kind: str = "Run") -> None:
    """Somebody looks at what is not theirs, and reads why no button helps."""
    expect(page.get_by_text(f"{kind} {name} is somebody else's")).to_be_visible(timeout=MINUTE)


def test_three_people_one_place_and_an_instructor(browser: Browser, shared_address: str) -> None:
    first, second = (visit(browser, f"{shared_address}/merge") for _ in range(2))
    running = start_a_merge(first)
    expect(first.get_by_text("of the work")).to_be_visible(timeout=MINUTE)
    expect(first.locator(".st-key-stop button")).to_be_enabled()

    waiting = start_a_merge(second)
    expect(second.get_by_text("Waits for its turn (next")).to_be_visible(timeout=MINUTE)
    second.reload()  # a new session, known by its cookie
    expect(second.get_by_role("button", name="Take out of the queue")).to_be_enabled()
    second.goto(f"{shared_address}/gates?run={running}")
    refused_to(second, running)
    for verb in ("pause", "step", "cut", "stop"):
        expect(second.locator(f".st-key-steer-{verb} button").last).to_be_disabled()
    first.goto(f"{shared_address}/merge?run={waiting}")
    refused_to(first, waiting)
    expect(first.get_by_role("button", name="Take out of the queue")).to_be_disabled()

    second.goto(f"{shared_address}/lab")
    lab = start_a_lab(second)
    expect(second.get_by_text("Waits for its turn (1 before it")).to_be_visible(timeout=MINUTE)
    expect(second.get_by_role("button", name="Take out of the queue")).to_be_enabled()
    other = first.context.new_page()
    other.goto(f"{shared_address}/lab?lab={lab}")
    refused_to(other, lab, "Lab")
    expect(other.get_by_role("button", name="Take out of the queue")).to_be_disabled()

    instructor = visit(browser, f"{shared_address}/merge?run={running}")
    refused_to(instructor, running)
    instructor.get_by_text("Instructor", exact=True).click()
    key = instructor.get_by_label("Key", exact=True)
    key.fill("cheese")
    key.press("Enter")
    expect(instructor.get_by_text("That is not the key of this server.")).to_be_visible()
    key.fill(KEY)
    key.press("Enter")
    expect(instructor.get_by_text("You may command everyone's runs.")).to_be_visible()
    expect(instructor.get_by_text("1 with a worker, 2 waiting.")).to_be_visible()
    instructor.get_by_role("button", name="Clear the queue").click()
    expect(first.get_by_text("This run was stopped")).to_be_visible(timeout=MINUTE)
    expect(second.get_by_text("This lab was stopped")).to_be_visible(timeout=MINUTE)
    instructor.locator(".st-key-stop button").click()
    expect(instructor.get_by_text("This run was stopped")).to_be_visible(timeout=MINUTE)
    for page in (first, second, other, instructor):
        expect(page.get_by_test_id("stException")).to_have_count(0)
    for page in (first, second, instructor):
        page.context.close()
