"""The dashboard as people use it: in a real Chromium, against a real server."""

import json
import re
from typing import Literal

import fake_runs
import pytest
from playwright.sync_api import Browser, Page, expect
from waiting import settled

from merge_core import bench_pages
from merge_core.bench_pages import DRAWN, measure_at, table
from merge_core.presets import find_preset
from merge_core.store import RunSummary, Store

pytestmark = pytest.mark.browser
MINUTE = 60_000


def go_to(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def path(name: str) -> str:
    """Where a page is below the address of the dashboard."""
    return "" if name == "Overview" else name.lower()


def pick(page: Page, run: str) -> None:
    """Pick a run with the picker that is on every page."""
    picker = page.get_by_role("combobox", name="Run", exact=True)
    picker.click()
    picker.fill(run)
    page.get_by_role("option", name=run, exact=True).click()


def finished(store: Store, recipe: str) -> RunSummary:
    """The made-up finished run of a recipe."""
    runs = [run for run in store.runs(samples=False) if run.state == "finished"]
    return next(run for run in reversed(runs) if run.recipe.name == recipe)


def assert_no_error(page: Page, *, failed: bool = False) -> None:
    """No traceback on the page, and no error but the one of a failed run."""
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(int(failed))


def test_start_a_merge_watch_it_finish_and_find_the_outlined_filters(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/merge")
    start = page.get_by_role("button", name="Start the merge")
    expect(start).to_be_visible()
    page.get_by_role("combobox", name="Recipe").click()
    page.get_by_role("option", name="Sine").click()
    expect(page.get_by_text(find_preset("sine", "quick").story)).to_be_visible()
    settled(page)
    for label, value in (("each teacher", 10), ("gates", 8), ("fine-tuning", 2)):
        field = page.get_by_role("spinbutton", name=label, exact=True)
        expect(field).to_have_count(1)  # the one of the recipe before is gone
        field.fill(str(value))
        field.press("Tab")
    expect(page.get_by_text("over 8 epochs of gates")).to_be_visible()
    start.click()
    expect(page.get_by_text("of the work")).to_be_visible(timeout=MINUTE)
    run = page.url.partition("run=")[2]
    assert run.startswith("sine-quick-s0-")
    expect(page.get_by_text("This run is finished")).to_be_visible(timeout=MINUTE)
    expect(page.get_by_text("Sine · seed 0 · ✓ finished")).to_be_visible()
    expect(page.locator(".st-key-curves canvas")).to_be_visible()
    go_to(page, "Filters")
    expect(page.get_by_text("100 are kept")).to_be_visible()
    expect(page.locator(".st-key-hinges").get_by_text("Teacher A, kept ✓")).to_be_visible()
    outlined = page.locator(".st-key-hinges .trace .points path").evaluate_all(
        "marks => marks.filter(m => getComputedStyle(m).stroke === 'rgb(227, 0, 27)').length"
    )
    assert 0 < outlined <= 100
    assert page.url.partition("run=")[2] == run
    assert_no_error(page)


def test_kept_filters_are_outlined_and_ticked(page: Page, address: str, store: Store) -> None:
    name = finished(store, "textures").name
    page.goto(f"{address}/filters?run={name}")
    expect(page.locator(".st-key-tiles").get_by_text("✓")).to_have_count(16)
    expect(page.get_by_text("16 are kept")).to_be_visible()


def test_hovering_tells_index_teacher_and_gate(page: Page, address: str, store: Store) -> None:
    name = finished(store, "textures").name
    page.goto(f"{address}/filters?run={name}")
    tick = page.locator(".st-key-tiles").get_by_text("✓").first
    box = tick.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] - 12, box["y"] + 20)
    hover = page.locator(".st-key-tiles .hoverlayer")
    for words in ("Teacher A, channel", "P[open] at the cut", "✓ kept"):
        expect(hover).to_contain_text(words)


def test_the_address_names_the_run_from_the_start(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("combobox", name="Run")).not_to_have_value("")
    name = page.get_by_role("combobox", name="Run").input_value()
    expect(page).to_have_url(f"{address}/?run={name}")


def test_reload_second_tab_and_back_show_the_same_run(
    page: Page, address: str, store: Store
) -> None:
    older, newer = finished(store, "digits"), finished(store, "textures")
    page.goto(f"{address}/?run={older.name}")
    expect(page.get_by_role("combobox", name="Run")).to_have_value(older.name)
    go_to(page, "Gates")
    expect(page).to_have_url(f"{address}/gates?run={older.name}")
    page.go_back()
    expect(page).to_have_url(f"{address}/?run={older.name}")
    page.go_forward()
    expect(page.get_by_role("heading", name="Gates", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("combobox", name="Run")).to_have_value(older.name)
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.get_by_role("combobox", name="Run")).to_have_value(older.name)
    second.close()
    page.get_by_role("combobox", name="Run").click()
    page.get_by_role("option", name=newer.name).click()
    expect(page).to_have_url(f"{address}/gates?run={newer.name}")
    go_to(page, "Channels")
    expect(page).to_have_url(f"{address}/channels?run={newer.name}")
    page.go_back()
    expect(page.get_by_role("heading", name="Gates", exact=True)).to_be_visible()
    expect(page).to_have_url(f"{address}/gates?run={newer.name}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_shows_every_run(
    page: Page, address: str, store: Store, theme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=theme)
    # A failed run and samples in the one; in the other what every page draws in its colours.
    names = {finished(store, "textures").name}
    if theme == "light":
        names = {run.name for run in store.runs() if run.state == "failed" or run.sample}
    runs = [run for run in store.runs() if run.name in names][:3]
    shown = list(DRAWN)  # there and back again, so that the code of the pages is loaded once
    page.goto(address)
    for run in runs:
        pick(page, run.name)
        for name in shown:
            if name != shown[0]:
                go_to(page, name)
            address_now = rf"{address}/{path(name)}\?(.*&)?run={run.name}(&|$)"
            expect(page).to_have_url(re.compile(address_now))
            if run.state == "finished":
                page.wait_for_selector(DRAWN[name], state="attached")
            settled(page)
            of_run = name not in ("Compare", "Lab")
            assert_no_error(page, failed=run.state == "failed" and of_run)
        shown.reverse()


def test_a_narrow_screen_needs_no_sideways_scrolling(
    page: Page, address: str, store: Store
) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    page.goto(f"{address}/?run={finished(store, 'textures').name}")
    widths = {}
    for name, drawn in DRAWN.items():
        if name != "Overview":
            menu = page.get_by_role("link", name=name, exact=True).first
            menu.dispatch_event("click")  # wherever a narrow screen hides the menu
            expect(page).to_have_url(re.compile(rf"{address}/{path(name)}\?"))
        page.wait_for_selector(drawn, state="attached")
        settled(page)
        widths[name] = page.get_by_test_id("stMain").evaluate("main => main.scrollWidth")
    assert max(widths.values()) <= 420, widths


def test_nothing_leaves_the_machine(page: Page, address: str) -> None:
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector(DRAWN["Overview"], state="attached")
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:", "ws:"))]
    assert outside == []


def test_the_benchmark_measures_every_page(
    browser: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ("Overview", "Filters")  # two of them: each is drawn four times
    monkeypatch.setattr(bench_pages, "DRAWN", {name: DRAWN[name] for name in pages})
    timings = measure_at(address, browser, repeats=1)
    assert [timing.what for timing in timings][2:] == [f"switch to {name}" for name in pages]
    assert all(0 < timing.median <= timing.worst < 30 for timing in timings)
    lines = table(timings).splitlines()
    assert len(lines) == 1 + len(timings)


def test_the_picked_network_is_in_the_address(page: Page, address: str, store: Store) -> None:
    (store.home / "inspections").mkdir(exist_ok=True)
    (store.home / "inspections" / "resnet18.json").write_text(json.dumps(fake_runs.TINY.to_dict()))
    page.goto(f"{address}/network")
    page.get_by_role("combobox", name="Network", exact=True).click()
    page.get_by_role("option", name="resnet18", exact=True).click()
    expect(page.get_by_text("resnet18, input 4")).to_be_visible()
    expect(page.get_by_text("permuting any channel changes the output by 3e-07")).to_be_visible()
    expect(page.locator(DRAWN["Network"]).first).to_be_attached()
    assert "network=resnet18" in page.url
    page.reload()
    expect(page.get_by_text("resnet18, input 4")).to_be_visible()
    assert_no_error(page)
