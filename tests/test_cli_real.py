"""The command with real workers: a killed merge, its export, and the served dashboard."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from safetensors import safe_open

from merge_core import launch, queue
from merge_core.cli import main
from merge_core.data import load
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import Store, held

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "data.train": "256",
    "data.heldout": "64",
    "data.test": "128",
    "teacher.epochs": "8",
    "gating.epochs": "2",
    "fine_tune.epochs": "2",
}


def judged(program: Path) -> tuple[float, float]:
    """The test accuracy of an exported network, as measured here and as told in its file."""
    network = runpy.run_path(str(program))["network"]
    with safe_open(program.with_suffix(".safetensors"), framework="numpy") as file:
        metadata = file.metadata()
    recipe = Recipe.from_json(metadata["recipe"])
    assert isinstance(recipe, Recipe)
    test = load(recipe.data, recipe.seed, Path("nowhere")).test
    right = (network(test.inputs).argmax(1) == test.targets).double().mean().item()
    return right, json.loads(metadata["scores"])["test"]["accuracy"]


def netweld(*arguments: str, **options) -> subprocess.Popen:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", "from merge_core.cli import main; main()", *arguments]
    return subprocess.Popen(command, env=environment, text=True, **options)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_killed_merge_is_resumed_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    store = Store()
    name, started = launch.begin(store, find_preset("digits", "quick").recipe.changed(TINY), "cpu")
    assert started == [name]
    with store.open(name) as reader:
        deadline = time.monotonic() + 120
        while not any(row["stage"] == "teacher_b" for row in reader.metrics()):
            assert not queue.ended(store, name), (store.directory(name) / "worker.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(reader.status()["pid"], signal.SIGKILL)
        while held(store.directory(name)):
            time.sleep(0.002)
        assert reader.status()["state"] == "lost"
        acknowledged = reader.metrics()

        resumed = netweld("resume", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = resumed.communicate(timeout=200)
        assert resumed.returncode == 0, out
        assert "★ returned" in out
        assert all(row in reader.metrics() for row in acknowledged)
        facts = reader.facts()
        assert facts["device"] == "cpu"
        assert {"python", "torch", "netweld"} <= facts["versions"].keys()

    monkeypatch.setattr("sys.argv", ["netweld", "export", name, "--to", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    measured, told = judged(tmp_path / f"{name}.py")
    assert measured == pytest.approx(told, abs=1e-6)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_dashboard_is_served_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Beside a file and a configuration of the user's that must not get in the way."""
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = netweld("--port", str(port), "--no-browser", cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health") as answer:
                    assert answer.read() == b"ok"
                    break
            except urllib.error.URLError:
                time.sleep(0.1)
    finally:
        server.terminate()
        out, _ = server.communicate(timeout=30)
    assert f"127.0.0.1:{port}" in out
