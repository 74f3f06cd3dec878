"""Looking at runs never loads torch: checked by what a fresh interpreter really imports."""

import os
import subprocess
import sys
from pathlib import Path

from made_up_run import made_up, recipe

from merge_core.store import Store

SCRIPT = """
import contextlib, sys
import merge_core.errors, merge_core.schedules, merge_core.recipes, merge_core.presets
import merge_core.events, merge_core.stages, merge_core.places, merge_core.progress
import merge_core.store, merge_core.launch, merge_core.export, merge_core.cli

for arguments in (["runs"], ["show", "latest"], ["export", "latest"], ["merge", "--help"]):
    sys.argv = ["netweld", *arguments]
    try:
        merge_core.cli.main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
heavy = {"torch", "torchvision", "sklearn", "scipy", "streamlit", "plotly", "merge_core.worker"}
print("LOADED", sorted(heavy & set(sys.modules)))
"""


def test_looking_loads_nothing_heavy(tmp_path: Path):
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
        writer.finish("finished")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={
            **os.environ,
            "NETWELD_HOME": str(store.home),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"
