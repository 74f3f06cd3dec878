"""How much netweld survives: real processes are killed, a real disk is filled, files are damaged.

Everything happens in a directory of its own. What counts as survived: the final numbers (metrics,
scores, kept channels, hashes of all networks) are those of a run that nothing happened to.
"""

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from merge_core import lab_work, launch, processes, queue
from merge_core.bench_pages import dashboard
from merge_core.errors import NetweldError, StoreError
from merge_core.lab import Lab, LabFile
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.store import Store, held

TINY = {
    "data.train": "1024",
    "data.heldout": "128",
    "data.test": "128",
    "teacher.epochs": "20",
    "teacher.milestones": "10",
    "gating.epochs": "20",
    "fine_tune.epochs": "20",
    "fine_tune.milestones": "10",
}
DISK_BYTES = 8 * 2**20
LOOK_SECONDS = 0.002
ALONE = 45.0
"""Seconds in which a worker must notice that nobody needs it: a step, which may take 30 s."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """One line of the result: how often something was done, and how often it was survived."""

    what: str
    tried: int
    survived: int
    note: str = ""


def recipe() -> Recipe:
    """A merge of a few seconds."""
    made = find_preset("sine", "quick").recipe.changed(TINY)
    assert isinstance(made, Recipe)
    return made


def numbers(store: Store, name: str) -> dict[str, Any]:
    """Everything about a run that must not depend on what happened to it."""
    with store.open(name) as reader:
        return {
            "state": reader.status()["state"],
            "metrics": reader.metrics(),
            "scores": reader.scores(),
            "kept": [(row["space"], row["kept"].tolist()) for row in reader.kept()],
            "arrays": [
                (row["name"], row["sha256"]) for row in reader.artifacts() if row["epoch"] is None
            ],
        }


def whole(store: Store) -> str:
    """A run that nothing happens to; returns its name."""
    name, _ = launch.begin(store, recipe(), "cpu")
    queue.wait(store, name)
    with store.open(name) as reader:
        status = reader.status()
    if status["state"] != "finished":
        raise StoreError(f"Run {name} is {status['state']}; {status['message']}")
    return name


def kill_workers(store: Store, reference: str, kills: int, draw: random.Random) -> Count:
    """SIGKILL the worker at a random moment of every stage in turn, resume, and compare."""
    expected = numbers(store, reference)
    with store.open(reference) as reader:
        lasts = {row["stage"]: row["seconds"] or 0.0 for row in reader.stages()}
    order = list(lasts)
    hit: Counter[str] = Counter()
    runs = equal = 0
    while sum(hit.values()) < kills:
        name, _ = launch.begin(store, recipe(), "cpu")
        for stage in order[: kills - sum(hit.values())]:
            at = _wait_for_stage(store, name, order, stage)
            time.sleep(draw.uniform(0.0, lasts[stage]))
            if at is None or not _kill(store, name):
                break
            with store.open(name) as reader:
                hit[reader.status()["stage"] or "the start"] += 1
            launch.resume(store, name)
        queue.wait(store, name)
        runs += 1
        equal += numbers(store, name) == expected
    where = ", ".join(f"{stage} {count}" for stage, count in hit.items())
    killed = sum(hit.values())
    return Count(
        what="worker killed",
        tried=killed,
        survived=killed if equal == runs else 0,
        note=f"{equal} of {runs} runs ended with the numbers of an uninterrupted one; in {where}",
    )


def _wait_for_stage(store: Store, name: str, order: list[str], stage: str) -> str | None:
    """Wait until a run has come to a stage or past it; None when it is over."""
    with store.open(name) as reader:
        while True:
            status = reader.status()
            if status["state"] == "running" and status["stage"] is not None:
                if order.index(status["stage"]) >= order.index(stage):
                    return status["stage"]
            elif queue.ended(store, name):
                return None
            time.sleep(LOOK_SECONDS)


def _kill(store: Store, name: str) -> bool:
    """SIGKILL whoever works on a run; False when nobody does."""
    with store.open(name) as reader:
        status = reader.status()
    if status["state"] not in ("running", "paused"):
        return False
    try:
        psutil.Process(status["pid"]).kill()
    except psutil.NoSuchProcess:
        return False
    while held(store.directory(name)):
        time.sleep(LOOK_SECONDS)
    with store.open(name) as reader:
        return reader.status()["state"] == "lost"


def kill_dashboards(store: Store, reference: str, kills: int, draw: random.Random) -> Count:
    """Two dashboards on one store; one of them is killed while a run goes on."""
    expected = numbers(store, reference)
    survived = 0
    for _ in range(kills):
        with dashboard(store.home), dashboard(store.home):
            name, _ = launch.begin(store, recipe(), "cpu")
            with store.open(name) as reader:
                while not reader.stages():
                    time.sleep(LOOK_SECONDS)
            time.sleep(draw.uniform(0.0, 1.0))
            servers = [p for p in psutil.Process().children() if "streamlit" in p.cmdline()]
            servers[0].kill()
            queue.wait(store, name)
            lives = servers[1].is_running() and servers[1].status() != psutil.STATUS_ZOMBIE
            survived += lives and numbers(store, name) == expected
    return Count(
        what="one of two dashboards killed",
        tried=kills,
        survived=survived,
        note="the run went on to the same numbers, and the other dashboard too",
    )


@contextmanager
def small_disk(size: int = DISK_BYTES) -> Iterator[Path]:
    """A file system of its own that can be filled.

    Raises:
        NetweldError: this user may not mount one.
    """
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NetweldError("Only an administrator on Linux can mount a small disk.") from error
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True, capture_output=True)


def fill_disks(
    expected: dict[str, Any],
    times: int,
    draw: random.Random,
    start: Callable[[Store], str] | None = None,
) -> Count:
    """Fill the disk of a run that works, see it end, make room, resume, and compare.

    Args:
        expected: `numbers` of a run that nothing happened to.
        times: how often.
        draw: decides the moments.
        start: begins a run and returns its name; by default that of `recipe`.
    """
    survived = 0
    with small_disk() as disk:
        for number in range(times):
            store = Store(disk / f"home{number}")
            name = start(store) if start else launch.begin(store, recipe(), "cpu")[0]
            with store.open(name) as reader:
                while reader.status()["stage"] is None:
                    time.sleep(LOOK_SECONDS)
            time.sleep(draw.uniform(0.0, 0.5))
            filler = disk / "filler"
            fill(filler)
            while held(store.directory(name)):
                fill(filler)
                time.sleep(LOOK_SECONDS)
            filler.unlink()
            with store.open(name) as reader:
                state = reader.status()["state"]
            if state in ("failed", "lost"):
                launch.resume(store, name)
            queue.wait(store, name)
            survived += state in ("failed", "lost") and numbers(store, name) == expected
    return Count(
        what="disk full (a tmpfs) while a run works",
        tried=times,
        survived=survived,
        note="the run ended; with room again it went on to the same numbers",
    )


def fill(path: Path) -> None:
    """Take all the room there is on the file system of a file."""
    with path.open("ab", buffering=0) as file:
        for size in (2**16, 2**12):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def damage_files(store: Store, reference: str, times: int, draw: random.Random) -> Count:
    """Cut off or change a byte of a stored file: it is named, and the others can be read."""
    survived = 0
    with store.open(reference) as reader:
        rows = [row for row in reader.artifacts() if row["epoch"] is None]
        for number in range(times):
            row = draw.choice(rows)
            path = reader.directory / row["file"]
            content = path.read_bytes()
            at = draw.randrange(len(content))
            changed = bytes([content[at] ^ (1 << draw.randrange(8))])
            path.write_bytes(
                content[:at] if number % 2 else content[:at] + changed + content[at + 1 :]
            )
            try:
                reader.artifact(row["name"])
            except StoreError as error:
                others = [other for other in rows if other["file"] != row["file"]]
                readable = all(reader.artifact(other["name"]) for other in others)
                survived += row["file"] in str(error) and readable and bool(reader.metrics())
            finally:
                path.write_bytes(content)
    return Count(
        what="stored file cut off or a bit changed",
        tried=times,
        survived=survived,
        note="the file was named, everything else could be read",
    )


def orphan_workers(
    home: Path,
    times: int,
    draw: random.Random,
    begin: Callable[[Store], subprocess.Popen[bytes]] | None = None,
) -> Count:
    """Take away what workers work for, and see them end by themselves.

    In turn: the process that listens to a lab's workers, the files of a run, the whole store.

    Args:
        home: where stores are made.
        times: how often.
        draw: decides the moments.
        begin: starts the process that listens; by default that of a lab.
    """
    ended, longest = 0, 0.0
    for number in range(times):
        store = Store(home / f"left-alone-{number}")
        if number % 3 == 0:
            gone, listener = None, psutil.Process((begin or _lab)(store).pid)
            while not listener.children():
                time.sleep(LOOK_SECONDS)
            time.sleep(draw.uniform(0.0, 0.5))
            orphans = [listener, *listener.children()]
            listener.kill()
        else:
            name, _ = launch.begin(store, recipe(), "cpu")
            with store.open(name) as reader:
                while reader.status()["stage"] is None:
                    time.sleep(LOOK_SECONDS)
            time.sleep(draw.uniform(0.0, 0.5))
            gone = store.directory(name) if number % 3 == 1 else store.home
            orphans = processes.computing(store)
            shutil.rmtree(gone, ignore_errors=True)
        began = time.monotonic()
        while (left := [p for p in orphans if _lives(p)]) and time.monotonic() < began + ALONE:
            time.sleep(LOOK_SECONDS)
        longest = max(longest, time.monotonic() - began)
        for each in left:
            each.kill()
        ended += bool(orphans) and not left and (gone is None or not gone.exists())
    return Count(
        what="worker left alone: its listener killed, or its run or store removed",
        tried=times,
        survived=ended,
        note=f"it ended by itself, the last after {longest:.1f} s, and nothing came back",
    )


def _lab(store: Store) -> subprocess.Popen[bytes]:
    return lab_work.begin(LabFile(Lab.usual(recipe(), "growth", (4, 4)), store.home))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def measure(kills: int, seed: int = 0) -> Iterator[Count]:
    """Do everything, `kills` times for workers and files, a quarter as often for the rest."""
    draw = random.Random(seed)
    few = max(kills // 4, 1)
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        reference = whole(store)
        yield kill_workers(store, reference, kills, draw)
        yield orphan_workers(Path(home), max(few, 3), draw)
        yield damage_files(store, reference, kills, draw)
        try:
            yield fill_disks(numbers(store, reference), few, draw)
        except NetweldError as error:
            yield Count(what="disk full", tried=0, survived=0, note=str(error))
        yield kill_dashboards(store, reference, few, draw)


def line(count: Count) -> str:
    """A count as a line of a Markdown table."""
    return f"| {count.what} | {count.survived} of {count.tried} | {count.note} |"
