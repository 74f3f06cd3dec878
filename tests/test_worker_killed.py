"""Real merges, killed with SIGKILL over and over: the same numbers as if nothing had happened.

The sessions are forks of one process that has imported torch, so that only one waits for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from merge_core.presets import find_preset
from merge_core.store import Store

TINY = {
    "sine": {
        "data.train": "512",
        "data.heldout": "128",
        "data.test": "128",
        "teacher.epochs": "3",
        "teacher.milestones": "2",
        "gating.epochs": "3",
        "fine_tune.epochs": "3",
        "fine_tune.milestones": "2",
    },
    "digits": {
        "data.train": "256",
        "data.heldout": "64",
        "data.test": "64",
        "teacher.epochs": "3",
        "gating.epochs": "3",
        "fine_tune.epochs": "2",
    },
}

HARNESS = """
import json, os, signal, sys
from pathlib import Path
from merge_core import worker
from merge_core.events import EpochFinished, StageFinished
from merge_core.store import Store

store = Store(Path(sys.argv[1]))

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def mortal(lives, how):
    # Dies at its `lives`th epoch or stage: before the rows are written, after the rows but before
    # the checkpoint, or with the checkpoint half written.
    def strategy(work):
        left = lives
        for event in worker.carry_out(work):
            if isinstance(event, EpochFinished | StageFinished):
                left -= 1
                if left == 0:
                    if how == 0 or isinstance(event, StageFinished):
                        die()
                    elif how == 1:
                        object.__setattr__(event, "checkpoint", die)
                    else:
                        Path.replace = lambda path, target: die()
            yield event
    return strategy

worker.CHECKPOINT_SECONDS = 0.0
whole, killed, without = sys.argv[2:]
# The first run is not forked: it imports everything once for all.
ends = {whole: [worker.run(store, whole, worker.carry_out)]}
for name, lives, seconds in ((killed, 3, 0.0), (without, 8, 1e9)):
    worker.CHECKPOINT_SECONDS = seconds
    ends[name] = []
    while not ends[name] or (ends[name][-1] == -signal.SIGKILL and len(ends[name]) < 50):
        child = os.fork()
        if child == 0:
            os._exit(worker.run(store, name, mortal(lives, len(ends[name]) % 3)))
        ends[name].append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sessions are forked")


def execute(store: Store, *names: str) -> dict[str, list[int]]:
    """Execute three runs as `HARNESS` does; returns the exit statuses of their sessions."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(store.home), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(store: Store, name: str) -> dict[str, Any]:
    """Everything that must not depend on how often a run was killed."""
    with store.open(name) as reader:
        return {
            "metrics": reader.metrics(),
            "scores": reader.scores(),
            "openness": [
                (r["epoch"], r["space"], r["probabilities"].tolist()) for r in reader.openness()
            ],
            "kept": [(r["space"], r["kept"].tolist(), r["gate"].tolist()) for r in reader.kept()],
            "arrays": [(r["name"], r["sha256"]) for r in reader.artifacts()],
            "returned": reader.facts()["returned"],
        }


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_killed_merge_ends_with_the_same_numbers(tmp_path: Path, name: str):
    recipe = find_preset(name, "quick").recipe.changed(TINY[name])
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    whole, killed, without = (store.create(recipe, "cpu") for _ in range(3))
    ends = execute(store, whole, killed, without)
    assert all(statuses[-1] == 0 for statuses in ends.values())

    expected = rows(store, whole)
    assert len(expected["metrics"]) > 50
    assert {"teacher_a", "gates", "cut", "random_half"} <= {s["stage"] for s in expected["scores"]}

    assert ends[killed].count(-9) >= 6
    assert rows(store, killed) == expected
    with store.open(killed) as reader:
        interrupted = {s["resumed_from"].split(",")[0] for s in reader.sessions()[1:]}
    assert {"teacher_b", "gates"} <= interrupted, "it was not killed where it matters"

    assert -9 in ends[without]
    assert rows(store, without) == expected, "stages that start again give the same numbers"
