"""The page Lab in a real Chromium: a landscape that is clicked, and a search."""

import fake_labs
import fake_searches
import pytest
from playwright.sync_api import Page, expect

from merge_core.store import Store
from merge_core.views.lab import cell_text
from merge_core.views.search import SearchNow, findings, read_search

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page: Page) -> Page:
    page.set_viewport_size({"width": 1400, "height": 1400})
    return page


def sees_search(page: Page, now: SearchNow) -> None:
    """The picked search is there with all its parts."""
    picked = page.get_by_role("combobox", name="Search", exact=True)
    expect(picked).to_have_value(now.name, timeout=60_000)
    for chart in ("trial-scores", "trial-map"):
        expect(page.locator(f".st-key-{chart} canvas").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text(findings(now).replace("**", ""))).to_be_visible()
    expect(page.get_by_text("These schedules failed")).to_be_visible()
    expect(page.get_by_role("button", name="Start a full merge")).to_be_enabled()
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_a_clicked_schedule_is_shown_and_both_tabs_see_the_lab(
    page: Page, address: str, store: Store
) -> None:
    file = fake_labs.make(store.home)
    lab = file.lab
    assert lab.paper is not None
    page.goto(f"{address}/lab?lab={file.path.stem}")
    heading = page.locator("h3")
    expect(heading).to_have_text(cell_text(lab, lab.paper), timeout=60_000)
    drawn = page.locator(".st-key-landscape canvas").first
    expect(drawn).to_be_visible(timeout=60_000)
    page.wait_for_timeout(1000)  # a canvas does not tell when it has been painted
    box = drawn.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.15, box["y"] + box["height"] * 0.87)
    expect(heading).to_have_text(cell_text(lab, (0, 0)), timeout=60_000)
    page.get_by_role("radio", name="Undecided at the cut").click()
    expect(page.get_by_text("the cut decides about them")).to_be_visible(timeout=60_000)
    expect(heading).to_have_text(cell_text(lab, (0, 0)))
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("h3")).to_have_text(cell_text(lab, lab.paper), timeout=60_000)
    for each in (page, other):
        expect(each.get_by_test_id("stException")).to_have_count(0)


def test_a_search_is_drawn_and_a_reload_shows_it_again(
    page: Page, address: str, store: Store
) -> None:
    now = read_search(fake_searches.make(store.home).path)
    page.goto(f"{address}/lab?how=Search+the+schedule&search={now.name}")
    sees_search(page, now)
    page.reload()
    sees_search(page, now)
