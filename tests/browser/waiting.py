"""Waiting for the dashboard in a real Chromium."""

from playwright.sync_api import Page, expect


def settled(page: Page) -> None:
    """Wait until the server has nothing more to tell for the moment."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
