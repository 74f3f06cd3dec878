"""The README says what is there: commands, modules, recipes, files, the sample's table."""

import json
import re
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path

import numpy as np
import pytest

from merge_core import bench, places
from merge_core.catalogue import METHODS
from merge_core.cli import results
from merge_core.cli.commands import app
from merge_core.presets import recipe_names
from merge_core.store import Store
from merge_core.views.compare import Table, command, read_table
from merge_core.views.evidence import difference
from merge_core.views.scored import TITLES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = sorted(places.samples().glob("tables/*.jsonl"))
MAP = README[README.index("## Map") : README.index("## How to add")]


def test_every_command_is_there() -> None:
    commands = {
        each.name or each.callback.__name__ for each in app.registered_commands if each.callback
    }
    for each in bench.app.registered_commands:
        commands |= {f"bench {each.callback.__name__}"} if each.callback else set()
    assert "merge" in commands
    named = set(re.findall(r"`netweld ((?:bench )?[a-z]+)", README))
    assert commands == named


def test_every_recipe_is_there() -> None:
    assert all(f"`{name}`" in README for name in recipe_names())


def test_the_map_is_complete() -> None:
    modules = {path for path in (ROOT / "merge_core").glob("*.py") if path.stem != "__init__"}
    packages = {path.parent for path in (ROOT / "merge_core").glob("*/__init__.py")}
    expected = {path.relative_to(ROOT).as_posix() for path in modules}
    expected |= {f"{path.relative_to(ROOT).as_posix()}/" for path in packages}
    assert set(re.findall(r"`(merge_core/[^`]+)`", MAP)) == expected


def test_every_file_that_it_names_is_there() -> None:
    names = re.findall(r"[`(]([\w./]*(?:/|\.py|\.toml|\.png|LICENSE|\.ci/run))[`)]", README)
    assert len(names) > 40
    missing = {name for name in names if "NAME" not in name and not (ROOT / name).exists()}
    assert not missing


def test_the_table_is_the_sample_s(capsys: pytest.CaptureFixture[str]) -> None:
    with Store(Path("no home"), places.samples()).open("textures-quick-s0-0000") as reader:
        results.show_result(reader)
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    told = [line.rstrip() for line in README.splitlines()]
    assert len(said) > 10
    end = said[0].index("Work") + len("Work")  # the time is another one on every machine
    for line in said[:-2]:
        assert line[:end].rstrip() in told
    for sentence in said[-2:]:  # the verdict, which the README breaks into lines
        assert sentence in " ".join(told)


@pytest.mark.parametrize("file", TABLES, ids=lambda path: path.stem)
def test_a_table_that_comes_along_stands_below_its_command(file: Path) -> None:
    """Figures from the file's own lines; the differences as the page Compare has them."""
    scores: dict[str, list[float]] = {}
    for line in filter(None, file.read_text().splitlines()):
        row = json.loads(line)
        if "strategy" in row:
            scores.setdefault(row["strategy"], []).append(row["test"])
    table = read_table(file)
    _, found, after = re.sub(r" \\\n +", " ", README).partition(command(table))
    assert found, f"the README lacks {command(table)}"
    told = {title: figures for title, *figures in map(cells, first_table(after))}
    assert told.keys() == {"strategy", *(TITLES[key] for key in scores)}
    compared = {
        each: column for column, each in enumerate(told["strategy"]) if each.endswith(" minus it")
    }
    assert compared
    for key, values in scores.items():
        assert len(values) == len(table.seeds)
        figures = (np.min, np.max, np.median, np.mean, partial(np.std, ddof=1))
        mine = told[TITLES[key]]
        assert mine[:5] == [f"{figure(values):.3f}" for figure in figures]
        for first, column in compared.items():
            assert mine[column] == minus(table, first.removesuffix(" minus it"), key)


def minus(table: Table, first: str, other: str) -> str:
    """What the README says of a paired difference: mean, interval, wins; of itself nothing."""
    found = difference(table, first, other, "test")
    if first == other or found is None:
        return ""
    figures = (found.mean.value, found.mean.low, found.mean.high)
    points = table.metric == "accuracy"
    mean, low, high = (f"{100 * x:+.1f}" if points else f"{x:+.3f}" for x in figures)
    return f"{mean} ({low} to {high}), {found.wins}".replace("-", "−")


def first_table(text: str) -> list[str]:
    """The lines of the first table in a text, without its rule."""
    lines = (line.strip() for line in text.splitlines())
    rows = takewhile(lambda line: line.startswith("|"), dropwhile(lambda x: x[:1] != "|", lines))
    return [row for row in rows if not row.startswith("| ---")]


def test_the_table_of_methods_names_only_methods() -> None:
    _, _, section = README.partition("### Averaging networks without training")
    heads = [cells(row)[0] for row in first_table(section)[1:]]
    titles = {card.title.lower() for card in METHODS}
    named = [re.sub(r" \(.*\)$", "", head).lower() for head in heads]
    assert named.pop(0) == "teachers"
    assert len(named) > 5
    assert set(named) <= titles


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip("|").split("|")]
