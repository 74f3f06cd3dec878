"""The processes that compute beside the dashboard: how they are started, counted and ended.

No torch is loaded here. Each of them is in a session of its own: it goes on when the terminal or
the browser that started it is closed.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from merge_core import places
from merge_core.errors import StoreError
from merge_core.store import Store, Turn, Turns

WORKER = ("-P", "-m", "merge_core.worker")
"""How Python starts a worker. Without -P it would import a file called random.py where it runs."""

GPUS = "NETWELD_GPUS"
"""All GPUs of the queue, for a worker that sees only one and lets the next run begin."""


def start(store: Store, turn: Turn, gpu: int | None = None) -> subprocess.Popen[bytes]:
    """Start the worker of a run.

    Args:
        store: where the run is.
        turn: what was asked for.
        gpu: which of the visible GPUs it sees; None for all.

    Raises:
        StoreError: the run is gone, or no process can be started.
    """
    directory = store.directory(turn.run)
    with store.open(turn.run) as reader:
        # The number of threads decides in which order sums are taken, so a resumed run needs the
        # number it started with.
        threads = reader.facts().get("threads") or turn.threads
    extra = {"NETWELD_HOME": str(store.home), "NETWELD_DATA": turn.data} | only(gpu)
    try:
        with (directory / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *WORKER, turn.run, "--after", str(turn.after)],
                env=environment(threads) | extra,
                cwd=store.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(
            f"The worker of run {turn.run} could not be started ({error}); mend that, then "
            f"`netweld resume {turn.run}`."
        ) from error
    # Somebody must wait for a child, or it stays behind as a zombie that looks alive.
    threading.Thread(target=process.wait, name=f"reap {turn.run}", daemon=True).start()
    return process


def only(gpu: int | None) -> dict[str, str]:
    """What a process that shall see one GPU has in its environment; nothing where it sees all."""
    if gpu is None:
        return {}
    names = visible_gpus()
    return {"CUDA_VISIBLE_DEVICES": names[gpu], GPUS: ",".join(names)}


def is_worker(pid: int, run: str) -> bool:
    """Whether the process is there and works, or is about to work, on that run."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and run in process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


_KEPT = 2**32  # bytes, more than any tensor
HEAP = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (("hugetlb", 1), ("mmap_threshold", _KEPT), ("trim_threshold", _KEPT))
)
"""For the C library of Linux (glibc, from 2.35): memory in huge pages, kept for the next step.

Every step of a training asks for the same large tensors. A process that gives their memory back
asks for it again page by page; with this ResNet20 learns 1.1 times as fast on a processor, and the
process holds on to the most that it ever had. Other systems pass it over.
"""

WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""How threads wait for one another: they sleep, after some microseconds of trying.

Threads that spin until it is their turn would starve the dashboard and other runs; threads that
sleep at once lose time in each of a step's hundreds of operations. With so many tries (of GNU's
OpenMP, torch's on Linux) ResNet20 takes a tenth less time for an epoch where two cores are free,
and a tenth more where another program keeps one of them busy.
"""


def environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a process that computes beside the dashboard.

    Args:
        threads: how many it may use; as many as are available by default.
    """
    made = {
        "GLIBC_TUNABLES": HEAP,
        **os.environ,
        "NETWELD_HOME": str(places.home()),
        "OMP_NUM_THREADS": str(threads or available_threads()),
        **WAITS,
        "PYTHONUNBUFFERED": "1",
    }
    if places.dashboard() == places.PACKAGE.parent:  # a checkout, perhaps not installed
        paths = [str(places.PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
        made["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return made


def available_threads() -> int:
    """How many threads a worker uses: `OMP_NUM_THREADS`, or the cores at its disposal."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdecimal() and int(wish) > 0:
        return int(wish)
    return available_cores()


def available_cores() -> int:
    """How many physical cores netweld may use."""
    limits = [psutil.cpu_count(logical=False) or os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _container_quota()
    if quota is not None:
        limits.append(quota)
    return max(min(limits), 1)


def _container_quota() -> int | None:
    """Whole CPUs that a Linux container may use (control groups v2); None when not limited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(int(quota) // int(period), 1)


def visible_gpus() -> list[str]:
    """The names under which a process may ask for the GPUs of this machine, without loading torch.

    They are those of `CUDA_VISIBLE_DEVICES`, or numbers; Apple's GPU is one without a choice.
    """
    asked = os.environ.get(GPUS, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if asked is not None:
        return [name.strip() for name in asked.split(",") if name.strip() not in ("", "-1")]
    if sys.platform == "darwin":
        return ["0"] if os.uname().machine == "arm64" else []
    found = [path.name for path in Path("/dev").glob("nvidia*")]
    return sorted(name[6:] for name in found if name[6:].isdecimal())


def computing(store: Store) -> list[psutil.Process]:
    """Every process that computes for the runs, tables and networks of a home directory.

    They are what `environment` is given to: modules of merge_core that Python runs by name.
    """
    found = {each.pid: each for each in psutil.process_iter() if _computes_for(each, store.home)}
    for turn in Turns(store.home).all():
        if turn.pid is not None and turn.pid not in found and is_worker(turn.pid, turn.run):
            with suppress(psutil.NoSuchProcess):
                found[turn.pid] = psutil.Process(turn.pid)
    return list(found.values())


def _computes_for(process: psutil.Process, home: Path) -> bool:
    try:
        words = process.cmdline()
        if "-m" not in words or not words[words.index("-m") + 1].startswith("merge_core."):
            return False
        place = process.environ().get("NETWELD_HOME") or Path.home() / ".netweld"
        return Path(place).expanduser().resolve() == home and process.pid != os.getpid()
    except (psutil.Error, IndexError, OSError):
        return False


def end(store: Store, seconds: float) -> tuple[int, int]:
    """End every process of a home directory: ask first, and after some time make them.

    Whoever started others is asked before them, so that it can write down how it ended.

    Args:
        store: the home directory.
        seconds: how long they may take over it.

    Returns:
        How many were asked, and how many of all had to be killed.
    """
    found = computing(store)
    pids = {process.pid for process in found}
    first = []
    for process in found:
        with suppress(psutil.Error):
            if process.ppid() not in pids:
                first.append(process)
                process.terminate()
    psutil.wait_procs(first, timeout=seconds)
    left = computing(store)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=seconds)
    return len(first), len(left)
