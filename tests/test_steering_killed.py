"""Real steered merges, killed with SIGKILL: they go on to the numbers that their recipe gives.

The sessions are forks of one process that has imported torch, so that only one waits for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import small
from test_worker_killed import rows

from merge_core.schedules import Constant
from merge_core.steering import CutEarly, NewRate, NewSchedule
from merge_core.store import Store

HARNESS = """
import dataclasses, json, os, signal, sys
from pathlib import Path
from merge_core import commanding, hearing, worker
from merge_core.events import EpochFinished
from merge_core.schedules import Constant
from merge_core.store import Store

store, name = Store(Path(sys.argv[1])), sys.argv[2]
worker.CHECKPOINT_SECONDS = hearing.POLL_SECONDS = 0.0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def high():
    commanding.change_schedule(store, name, Constant(weight=20.0), epoch=4)

def fast():
    commanding.change_rate(store, name, 5.0)

def cut():
    commanding.cut_now(store, name)

# Session → what is commanded after which epoch of the gate stage, and when the worker is killed:
# so many events later. The first dies right after it has heard, the second before its first epoch.
PLANS = [({2: high}, 2, 1), ({}, 3, 0), ({3: fast}, 3, 1), ({5: cut}, 5, 1), ({}, None, 0)]

def mortal(commands, last, later):
    def strategy(work):
        left = None
        for event in worker.carry_out(work):
            gates = isinstance(event, EpochFinished) and event.stage == "gates"
            if gates and event.epoch in commands:
                commands[event.epoch]()
            if gates and event.epoch == last:
                left = later
            if left == 0:
                die()
            left = None if left is None else left - 1
            yield event
    return strategy

import torch, torch._dynamo  # which an optimiser loads at its first step; once for all sessions
from merge_core import strategies
ends = []
for plan in PLANS:
    child = os.fork()
    if child == 0:
        os._exit(worker.run(store, name, mortal(*plan)))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
replay = store.create(store.open(name).merge, "cpu")
ends.append(worker.run(store, replay, worker.carry_out))
print(json.dumps([ends, replay]))
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sessions are forked")


def test_steered_run_that_is_killed_is_what_its_recipe_says(tmp_path: Path):
    store = Store(tmp_path / "home", samples=tmp_path / "samples")
    settings = {"teacher.epochs": "1", "gating.epochs": "8", "fine_tune.epochs": "1"}
    name = store.create(small("sine", **settings), "cpu")
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, str(store.home), name],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        },
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends, replay = json.loads(done.stdout)
    assert ends == [-9, -9, -9, -9, 0, 0]
    with store.open(name) as reader:
        assert reader.merge.steering == (
            NewSchedule(epoch=4, schedule=Constant(weight=20.0)),
            NewRate(epoch=4, learning_rate=5.0),
            CutEarly(epoch=6),
        )
        assert [answer.refused for answer in reader.answers()] == [False] * 3
        assert len(reader.sessions()) == 5
    killed, whole = rows(store, name), rows(store, replay)
    # What is kept depends on when somebody commanded something.
    for found in (killed, whole):
        found["arrays"] = [(file, sha) for file, sha in found["arrays"] if "@" not in file]
    assert killed == whole
