"""The command with real workers: a killed merge, its export, and the served dashboard."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from merge_core import launch, queue
from merge_core.presets import find_preset
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
JUDGE = """
import json, runpy, sys
from pathlib import Path
from safetensors import safe_open
from merge_core.data import load
from merge_core.recipes import Recipe

program = Path(sys.argv[1])
network = runpy.run_path(str(program))["network"]
with safe_open(program.with_suffix(".safetensors"), framework="numpy") as file:
    metadata = file.metadata()
recipe = Recipe.from_json(metadata["recipe"])
test = load(recipe.data, recipe.seed, Path("nowhere")).test
right = (network(test.inputs).argmax(1) == test.targets).double().mean().item()
print(json.dumps([right, json.loads(metadata["scores"])["test"]["accuracy"]]))
"""


def start(code: str, *arguments: str, **options) -> subprocess.Popen:
    """Python with some code in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, text=True, **options)


def netweld(*arguments: str, **options) -> subprocess.Popen:
    """The command in a process of its own."""
    return start("from merge_core.cli import main; main()", *arguments, **options)


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

    exported = netweld("export", name, "--to", str(tmp_path))
    assert exported.wait(60) == 0
    judged = start(JUDGE, str(tmp_path / f"{name}.py"), stdout=subprocess.PIPE)
    out, _ = judged.communicate(timeout=120)
    assert judged.returncode == 0
    measured, told = json.loads(out.splitlines()[-1])
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
