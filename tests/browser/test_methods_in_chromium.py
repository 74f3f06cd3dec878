"""The page Methods in a real Chromium: files of weights are uploaded, compared and looked at."""

import re
from collections.abc import Iterator
from pathlib import Path

import fake_comparisons
import fake_runs
import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import save_file

from merge_core import compared
from merge_core.architectures import SHAPES
from merge_core.bench_pages import dashboard
from merge_core.models import build
from merge_core.store import Store

pytestmark = pytest.mark.browser
MINUTES = 180_000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A dashboard of its own: what is compared here would be the newest run of other tests."""
    with dashboard(tmp_path / "home") as found:
        yield found


def upload(page: Page, address: str, files: list[Path]) -> None:
    """Give files to the form and start, for the data set digits."""
    page.goto(f"{address}/methods")
    page.get_by_text("Compare checkpoint files of your own").click()
    page.locator(".st-key-files input[type=file]").set_input_files(files)
    start = page.locator(".st-key-compare-files").get_by_role("button")
    expect(start).to_be_enabled()  # both files are there
    page.get_by_role("combobox", name="Data set that they are judged on").click()
    page.get_by_role("option", name="digits", exact=True).click()
    architecture = page.get_by_role("combobox", name="Architecture")
    expect(architecture).to_have_value("digits-cnn")
    start.click()
    expect(page).to_have_url(re.compile("run=compare-digits-cnn-files-s0-"))


def test_two_networks_from_files_are_compared(page: Page, address: str, tmp_path: Path) -> None:
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for seed, file in enumerate(files):
        save_file(build("digits-cnn", seed, SHAPES["digits"]).state_dict(), file)
    upload(page, address, files)
    expect(page.get_by_text("✓ finished").first).to_be_visible(timeout=MINUTES)
    chart = page.locator(".st-key-methods-flops")
    expect(chart.get_by_text("Weight matching")).to_be_visible()
    expect(chart.locator(".legendtext", has_text="output ensemble")).to_be_visible()
    page.get_by_text("held-out (chooses)", exact=True).click()
    expect(chart.get_by_text("held-out accuracy (higher is better)")).to_be_visible()
    expect(page).to_have_url(re.compile("split=held-out"))
    page.reload()
    expect(chart.get_by_text("held-out accuracy (higher is better)")).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)


def test_a_choice_after_the_end_of_a_comparison_is_in_the_address(
    page: Page, address: str, tmp_path: Path
) -> None:
    store, methods = Store(tmp_path / "home"), ("uniform", "weight_matching")
    run = fake_runs.make(store, "textures")
    sizes, random = fake_runs.SIZES["textures"], np.random.default_rng(0)
    with store.open(run) as reader:
        comparison, inputs = compared.of_run(reader, methods, fine_tune=1)
    with store.writer(store.create(comparison, "cpu", inputs)) as writer:
        for event in fake_comparisons.events(sizes, random, methods):
            writer.write(event)
        page.goto(f"{address}/methods?run={run}")
        expect(page.get_by_text("of the work")).to_be_visible()
        chart = page.locator(".st-key-methods-flops")
        expect(chart.get_by_text("test accuracy (higher is better)")).to_be_visible()
        writer.finish("finished")
    expect(page.get_by_text("Compare again, with other methods")).to_be_visible()
    expect(page.get_by_text("of the work")).to_have_count(0)
    for choice, there in (("held-out (chooses)", True), ("test (never chooses)", False)):
        page.get_by_text(choice, exact=True).click()
        axis = f"{choice.split()[0]} accuracy (higher is better)"
        expect(chart.get_by_text(axis)).to_be_visible()
        address_now = re.compile(r"split=held-out" if there else r"methods\?run=[^&]*$")
        expect(page).to_have_url(address_now)


def test_a_file_that_is_no_checkpoint_is_the_workers_sentence(
    page: Page, address: str, tmp_path: Path
) -> None:
    files = [tmp_path / "first.th", tmp_path / "second.th"]
    for file in files:
        torch.save({"weights": 3}, file)
    upload(page, address, files)
    failed = page.get_by_test_id("stAlertContentError")
    expect(failed).to_contain_text("'first.th' holds no state dict", timeout=MINUTES)
    expect(page.get_by_test_id("stException")).to_have_count(0)
