"""Steering a real merge while its gates learn, and forking it, in a real Chromium."""

import re
import time

import fake_runs
import pytest
from playwright.sync_api import Page, expect
from waiting import settled

from merge_core import launch
from merge_core.events import EpochFinished
from merge_core.presets import find_preset
from merge_core.store import RunReader, Store

pytestmark = pytest.mark.browser
MINUTE = 60_000
SHORT = {"teacher.epochs": "1", "gating.epochs": "8", "fine_tune.epochs": "1", "data.train": "1280"}
STEPS = 10  # of an epoch: 1280 examples in batches of 128


@pytest.fixture
def page(page: Page) -> Page:
    page.set_viewport_size({"width": 1400, "height": 1800})
    return page


def press(page: Page, name: str) -> None:
    """Click a button as soon as it can be clicked."""
    page.get_by_role("button", name=name).click()


def reached(store: Store, name: str, state: str, stage: str, step: int) -> bool:
    """Wait until a run is in a state at a step of a stage."""
    for _ in range(600):
        with store.open(name) as reader:
            status = reader.status()
        if (status["state"], status["stage"], status["step"]) == (state, stage, step):
            return True
        time.sleep(0.1)
    return False


def test_steer_a_running_merge_fork_it_and_compare_the_two(
    page: Page, address: str, store: Store
) -> None:
    recipe = find_preset("sine", "quick").recipe.changed(SHORT)
    name, _ = launch.begin(store, recipe, "cpu")
    store.command(name, "pause")  # it waits for us, however slow the browser is
    page.goto(f"{address}/gates?run={name}")
    panel = page.locator(".st-key-steering")
    expect(panel).to_contain_text("Paused", timeout=MINUTE)
    for stage in ("teacher_a", "teacher_b", "gates"):
        press(page, "One epoch")
        assert reached(store, name, "paused", stage, STEPS)
    expect(panel).to_contain_text("epoch 1 of 8")
    expect(page.locator(".st-key-evolution canvas").first).to_be_visible(timeout=MINUTE)
    page.get_by_text("Change λ or the learning rate of the gates").click()
    expect(page.get_by_text("λ goes from")).to_be_visible(timeout=MINUTE)
    settled(page)  # or the list of schedules may close as what was opened is drawn
    page.get_by_role("combobox", name="λ schedule").click()
    page.get_by_role("option", name="Constant").click()
    expect(page.get_by_text("λ goes from 0.378 to 0.378")).to_be_visible(timeout=MINUTE)
    press(page, "Send: from the next epoch on")
    expect(panel).to_contain_text(
        f"λ from epoch 2 on: Constant, 0.378 to 0.378 · took effect at step {STEPS} of"
    )
    press(page, "Go on")
    expect(page.get_by_text("✓ finished")).to_be_visible(timeout=MINUTE)
    expect(panel).to_have_count(0)

    page.wait_for_timeout(1500)  # a canvas does not tell when it has been painted
    chart = page.locator(".st-key-evolution canvas").first.bounding_box()
    assert chart is not None
    left, right, row = 64, 84, 613  # of the chart's time axis; where the marks of forks are
    place = left + 4 / 8 * (chart["width"] - left - right)
    page.mouse.click(chart["x"] + place, chart["y"] + row)
    epoch = page.get_by_role("combobox", name="From", exact=True)
    expect(epoch).to_have_value(re.compile("after epoch 4"))
    page.locator(f".st-key-fork-what-{name}-4").get_by_text("Seed").click()
    press(page, "Start the fork")
    expect(page.get_by_role("combobox", name="Run")).not_to_have_value(name)
    expect(page.locator(".st-key-beside canvas").first).to_be_visible(timeout=MINUTE)
    expect(page.get_by_text("They parted after epoch 4 of the gates")).to_be_visible()
    expect(page.get_by_text("✓ finished")).to_be_visible(timeout=MINUTE)
    expect(page.get_by_text("One run each (n = 1)")).to_be_visible()
    fork = page.get_by_role("combobox", name="Run").input_value()
    with store.open(name) as parent, store.open(fork) as child:
        verbs = [(each.verb, each.refused) for each in parent.answers()]
        assert verbs == [(v, False) for v in ("pause", *["step"] * 3, "lambda", "go")]
        assert used(parent)[1:] == pytest.approx([used(parent)[-1]] * 7)
        assert used(parent)[0] != pytest.approx(used(parent)[-1])
        assert used(child) == used(parent)
        means = [
            [row["probabilities"].mean() for row in each.openness()] for each in (parent, child)
        ]
        assert means[0][:4] == means[1][:4]
        assert means[0][4:] != means[1][4:]
    expect(page.get_by_test_id("stException")).to_have_count(0)


WATCHED = {
    "evolution": ".st-key-evolution canvas",
    "histogram": ".st-key-histogram canvas",
    "commands": ".st-key-steer-pause button",
    "table": ".st-key-gate-table-fold canvas",
    "schedule": ".schedule svg",
    "number": "input[aria-label='growth g']",
}
"""What must not be made anew while the chart moves: its name → where it is."""
WATCH = """watched => {
    window.remounts = [];
    window.nodes = {};
    for (const [name, place] of Object.entries(watched)) {
        const inside = (root) => root.querySelector(place) ?? [...root.querySelectorAll("*")]
            .filter(each => each.shadowRoot).map(each => inside(each.shadowRoot)).find(Boolean);
        window.nodes[name] = inside(document);
        if (!window.nodes[name]) window.remounts.push(`${name} is not there`);
    }
    const told = changes => changes.forEach(change => change.removedNodes.forEach(gone => {
        for (const [name, node] of Object.entries(window.nodes))
            if (gone.contains(node)) window.remounts.push(`${name} was removed`);
    }));
    new MutationObserver(told).observe(document.body, { childList: true, subtree: true });
}"""


def test_updates_disturb_nothing(page: Page, address: str, store: Store) -> None:
    """Zoom, selection, an open table and a number that is being typed survive five epochs."""
    with fake_runs.running(store, "textures", "gates") as (name, writer):
        events = fake_runs.events(find_preset("textures", "quick").recipe)
        epochs = [e for e in events if isinstance(e, EpochFinished) and e.stage == "gates"]
        page.goto(f"{address}/gates?run={name}&channel=conv1:A:3")
        panel = page.locator(".st-key-steering")
        expect(panel).to_contain_text("epoch 3 of 8", timeout=MINUTE)
        first = page.get_by_role("slider", name="Epochs shown").first
        first.press("ArrowRight")
        expect(first).to_have_value("2")
        settled(page)
        page.get_by_text("The gates as a table").click()
        expect(page.locator(".st-key-gate-table-fold canvas").first).to_be_visible()
        page.get_by_text("Change λ or the learning rate of the gates").click()
        start, growth = (page.get_by_role("spinbutton", name=each) for each in ("λ₀", "growth g"))
        course = page.get_by_text("over 8 epochs of gates.")
        before = course.inner_text()
        start.fill("7.5")
        start.press("Enter")
        expect(course).not_to_have_text(before)
        settled(page)
        growth.fill("0.35")  # and not yet entered
        page.evaluate(WATCH, WATCHED)
        for event in epochs[2:7]:
            writer.write(event)
            expect(panel).to_contain_text(f"epoch {event.epoch} of 8")
        assert page.evaluate("window.remounts") == []
        connected = "Object.values(window.nodes).map(each => each.isConnected)"
        assert page.evaluate(connected) == [True] * len(WATCHED)
        expect(growth).to_be_focused()
        expect(growth).to_have_value("0.35")
        expect(start).to_have_value("7.5")
        expect(page.get_by_text("The selected channel A 3 stands at")).to_be_visible()
        expect(first).to_have_value("2")
        before = course.inner_text()
        growth.press("Enter")
        expect(course).not_to_have_text(before)
        move_a_point(page)
        writer.finish("stopped")


def move_a_point(page: Page) -> None:
    """Any kind of schedule has points to take hold of; the others stay where the curve was."""
    kind = page.get_by_role("combobox", name="λ schedule")
    expect(kind).to_have_value("Growth law")
    points = page.get_by_role("slider", name=re.compile(r"^Point \d of 6$"))
    expect(points).to_have_count(6)
    before = weights_of(page)
    points.nth(3).press("Shift+ArrowDown")
    expect(kind).to_have_value("Points")
    expect(points).to_have_count(6)
    after = weights_of(page)
    assert after[3] < 0.9 * before[3]
    assert [*after[:3], *after[4:]] == pytest.approx([*before[:3], *before[4:]])


def weights_of(page: Page) -> list[float]:
    """λ at the points of the editor."""
    points = page.get_by_role("slider", name=re.compile(r"^Point \d of 6$"))
    return points.evaluate_all("all => all.map(each => Number(each.ariaValueNow))")


def used(reader: RunReader) -> list[float]:
    """λ in each epoch of the gates."""
    return [row["value"] for row in reader.metrics("gates") if row["name"] == "lambda"]


def means(reader: RunReader) -> list[float]:
    """The mean P[open] after each epoch of the gates."""
    return [float(row["probabilities"].mean()) for row in reader.openness()]
