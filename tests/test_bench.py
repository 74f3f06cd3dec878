"""`netweld bench`: what it offers and what it says; the browser tests measure for real."""

import sys

import pytest

from merge_core import bench_pages
from merge_core.bench_pages import Timing
from merge_core.cli import main
from merge_core.errors import NetweldError


def netweld(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["netweld", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", ["pages", "graph"])
def test_every_benchmark_has_help_with_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert netweld(monkeypatch, "bench", command, "--help") == 0
    assert f"Example: netweld bench {command}" in capsys.readouterr().out


def test_pages_are_measured_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(repeats: int) -> list[Timing]:
        return [Timing(what="switch to Gates", median=repeats, worst=9.0, goal=0.5)]

    monkeypatch.setattr(bench_pages, "measure", measured)
    assert netweld(monkeypatch, "bench", "pages", "--repeats", "3") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == ["switch", "to", "Gates", "3.00", "s", "9.00", "s", "0.5", "s", "missed"]


def test_a_missing_chromium_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(repeats: int) -> list[Timing]:
        raise NetweldError("No Chromium was found; install one.")

    monkeypatch.setattr(bench_pages, "measure", refused)
    assert netweld(monkeypatch, "bench", "pages") == 2
    assert capsys.readouterr().err == "No Chromium was found; install one.\n"
