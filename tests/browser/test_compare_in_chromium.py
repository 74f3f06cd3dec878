"""The page Compare in a real Chromium."""

import fake_tables
import pytest
from playwright.sync_api import Page, expect

from merge_core.store import Store

pytestmark = pytest.mark.browser


def test_a_table_is_drawn_and_the_address_names_it(page: Page, address: str, store: Store) -> None:
    name = fake_tables.make(store.home).path.stem
    page.goto(f"{address}/compare?table={name}")
    expect(page.get_by_text("clearly better than")).to_be_visible(timeout=60_000)
    for chart in ("boxes", "forest"):
        marks = page.locator(f".st-key-{chart} .main-svg .points path")
        expect(marks.first).to_be_visible(timeout=60_000)
        whole, note, above = (
            page.locator(f".st-key-{chart} {part}").bounding_box()
            for part in (".js-plotly-plot", ".gtitle", ".xtitle")
        )
        assert whole
        assert note
        assert above
        assert above["y"] + above["height"] <= note["y"]
        assert note["y"] + note["height"] <= whole["y"] + whole["height"]
    page.get_by_role("radio", name="Learned curves").click()
    expect(page.locator(".st-key-learned .main-svg .lines path").first).to_be_visible(
        timeout=60_000
    )
    expect(page.get_by_test_id("stException")).to_have_count(0)
