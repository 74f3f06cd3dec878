"""The browser that `netweld bench crowd` has thirty of, against the real server."""

import pytest

from merge_core.bench_browser import Record, opened
from merge_core.errors import NetweldError
from merge_core.store import Store

pytestmark = pytest.mark.browser


def finished(store: Store) -> str:
    """A run that nothing comes of any more."""
    return next(run.name for run in store.runs(samples=False) if run.state == "finished")


def test_it_sees_and_fills_in_what_is_on_a_page(address: str, store: Store) -> None:
    record = Record()
    with opened(address, record) as browser:
        browser.visit("merge", f"run={finished(store)}")
        assert browser.can("Network")
        browser.pick("Recipe", "Sine")
        assert not browser.can("Network"), "sine has one network only"
        assert not browser.can("Reset"), "nothing was changed"
        browser.type("λ₀", 7.5)
        assert browser.can("Reset")
        browser.press("Reset")
        assert not browser.can("Reset")
    assert record.errors == []
    assert len(record.answers) == 4


def test_it_stays_on_its_page_when_all_of_that_is_drawn_again(address: str, store: Store) -> None:
    record = Record()
    with opened(address, record) as browser:
        browser.visit("gates", f"run={finished(store)}")
        before = set(browser.widgets)
        assert {"Order", "Channel space", "Fork this run"} & before
        browser.choose("Order", "by index")
        assert set(browser.widgets) == before
        assert browser.widgets["Run"].id
        with pytest.raises(NetweldError, match="has no 'Start the merge' that can be used; it has"):
            browser.press("Start the merge")
    assert record.errors == []


def test_nobody_answers() -> None:
    with pytest.raises(NetweldError, match="broke off"), opened("http://127.0.0.1:9", Record()):
        raise AssertionError("nobody answers there")
