"""One selected channel on all pages about channels, in the address wherever one goes."""

import fake_comparisons
import fake_runs
import pytest
from streamlit.testing.v1 import AppTest
from test_pages import opened, store, words

from merge_core.store import Store

__all__ = ["store"]  # the fixture

PAGES = ("filters", "gates", "channels", "similarity", "matching")
SAYS = {"channels": "The selected channel **B 3**", "matching": "is matched with **B 3**"}
SAYS["similarity"] = "**B 3 of conv1** is matched with"
"""Where the channel's fate is told in a sentence, too."""


@pytest.fixture
def run(store: Store) -> str:
    """A finished run whose teachers have been compared."""
    name = fake_runs.make(store, "textures")
    fake_comparisons.make(store, name, fake_runs.SIZES["textures"])
    return name


def go_to(app: AppTest, page: str) -> None:
    """Follow a link to another page, which empties the address, as in a browser."""
    app.query_params.clear()
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    assert not app.error
    assert not app.warning


def assert_selected(app: AppTest, channel: str) -> None:
    assert app.selectbox(key="box-conv1").value == channel
    assert app.query_params["channel"] == channel


def test_the_address_selects_a_channel_on_every_page(run: str) -> None:
    app = opened("overview", run)
    app.query_params["channel"] = "conv1:B:3"
    app.run()
    for page in PAGES:
        go_to(app, page)
        assert_selected(app, "conv1:B:3")
        assert SAYS.get(page, "") in words(app)


def test_a_channel_that_is_chosen_on_one_page_is_selected_on_the_others(run: str) -> None:
    app = opened("overview", run)
    for number, page in enumerate(PAGES):
        go_to(app, page)
        if number:
            assert_selected(app, f"conv1:A:{number - 1}")
        app.selectbox(key="box-conv1").set_value(f"conv1:A:{number}").run()
        assert_selected(app, f"conv1:A:{number}")


def test_a_channel_that_is_selected_no_more_leaves_the_address(run: str) -> None:
    app = opened("overview", run)
    app.query_params["channel"] = "conv1:A:5"
    app.run()
    go_to(app, "filters")
    app.selectbox(key="box-conv1").set_value(None).run()
    assert app.selectbox(key="box-conv1").value is None
    assert "channel" not in app.query_params


def test_another_space_opens_with_its_channel(run: str) -> None:
    app = opened("overview", run)
    app.query_params["channel"] = "conv3:B:60"
    app.run()
    for page in PAGES[1:]:
        go_to(app, page)
        assert app.selectbox(key="box-conv3").value == "conv3:B:60"
    go_to(app, "filters")
    assert app.selectbox(key="box-conv1").value is None
    assert "Channel B 60 of the space conv3 is selected." in words(app)
