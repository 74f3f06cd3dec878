"""The selected channel in a real Chromium: clicked, carried to another page, reloaded."""

import re

import pytest
from playwright.sync_api import Page, expect
from waiting import settled

from merge_core.store import Store

pytestmark = pytest.mark.browser
MINUTE = 60_000


@pytest.fixture(scope="module")
def run(store: Store) -> str:
    return next(
        run.name
        for run in store.runs(samples=False)
        if run.state == "finished" and run.recipe.name == "textures"
    )


def go_to(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def test_a_clicked_filter_is_selected_on_other_pages_and_then_a_pair_of_the_table(
    page: Page, address: str, run: str
) -> None:
    page.goto(f"{address}/filters?run={run}")
    selected = page.get_by_role("combobox", name="Selected channel of conv1")
    expect(selected).to_have_value("", timeout=MINUTE)  # the first page of a new server
    tick = page.locator(".st-key-tiles").get_by_text("✓").first
    expect(tick).to_be_visible()
    settled(page)
    box = tick.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] - 12, box["y"] + 20)
    expect(selected).to_have_value(re.compile(r"[AB] \d+"))
    label = selected.input_value()
    address_now = re.compile(rf"channel=conv1(:|%3A){label.replace(' ', '(:|%3A)')}(&|$)")
    expect(page).to_have_url(address_now)
    told = page.get_by_text(f"The selected channel {label} ")
    go_to(page, "Channels")
    expect(told).to_be_visible()
    expect(page).to_have_url(address_now)
    page.reload()
    expect(told).to_be_visible()
    expect(selected).to_have_value(label)
    expect(page).to_have_url(address_now)
    page.get_by_text("The pairs as a table").click()
    grid = page.locator(".st-key-pairs").get_by_test_id("stDataFrame")
    expect(grid).to_be_visible()
    grid.click(position={"x": 30, "y": 52})  # the first cell below the heads: a channel of A
    expect(page).not_to_have_url(address_now)
    expect(selected).not_to_have_value(label)
    expect(selected).to_have_value(re.compile(r"A \d+"))
