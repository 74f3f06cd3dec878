"""The `netweld` command: what it says, what it does, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up_run import PLAN, made_up, recipe
from safetensors import safe_open

from merge_core import places, processes, queue
from merge_core.cli import dashboard, main
from merge_core.errors import StoreError
from merge_core.recipes import Recipe
from merge_core.schedules import GrowthLaw
from merge_core.store import Store

TESTS = Path(__file__).resolve().parent
FAKE_WORKER = f"""
import sys, time
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
from made_up_run import made_up
from merge_core import worker
from merge_core.errors import DataError

def fake(work):
    for i, event in enumerate(made_up(work.resume)):
        time.sleep(PAUSE)
        yield event
        if FAIL and i == 20:
            raise DataError("The data are gone; bring them back.")

worker.carry_out = fake
sys.exit(worker.main())
"""


def fake_worker(*, pause: float = 0.0, fail: bool = False) -> tuple[str, ...]:
    """What to put in the place of `processes.WORKER`."""
    return ("-c", f"PAUSE, FAIL = {pause}, {fail}\n{FAKE_WORKER}")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return Store()


def netweld(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["netweld", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    code = end.value.code or 0
    assert isinstance(code, int)
    return code


def written(store: Store, until: int | None = None, state: str = "finished") -> str:
    """A made-up run in the store."""
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        for event in list(made_up())[:until]:
            writer.write(event)
        writer.finish(state)  # pyright: ignore[reportArgumentType]
    return name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("merge texture", "did you mean 'textures'"),
        ("merge textures --preset papers", "no preset 'papers'"),
        ("merge textures --preset paper", "no preset 'paper'"),
        ("merge textures --seed one", "seed='one'"),
        ("merge textures --seed -1", "seed=-1"),
        ("merge textures --seed 99999999999", "seed=99999999999"),
        ("merge textures --device tpu", "no device 'tpu'"),
        ("merge textures --set gating.epoch=8", "did you mean 'epochs'"),
        ("merge textures --set gating.epochs=many", "gating.epochs='many'"),
        ("merge textures --set gating.epochs=0", "epochs=0"),
        ("merge textures --set gating", "no value"),
        ("merge textures --set gating=1", "has parts"),
        ("merge textures --set name=../x", "hyphens"),
        ("show nothing", "no run 'nothing'"),
        ("show latest", "no runs yet"),
        ("show ../../etc", "no run"),
        ("resume nothing", "no run 'nothing'"),
        ("stop nothing", "no run 'nothing'"),
        ("export nothing", "no run 'nothing'"),
        ("delete nothing --yes", "no run 'nothing'"),
        ("compare", "Give either a run"),
        ("compare latest --teacher a.th", "Give either a run"),
        ("compare nothing", "no run 'nothing'"),
        ("compare nothing --model lenet", "only with --teacher"),
        ("compare --teacher a.th --teacher b.th", "--model and the --data"),
        ("compare --teacher a.th --model lenet --data mnist", "two or more teachers"),
        ("compare --teacher a.th --teacher b.th --model lenet --data mnits", "'mnist'"),
        ("compare --teacher a.th --teacher b.th --model lenett --data mnist", "'lenet'"),
        ("compare --teacher a.th --teacher b.th --model lenet --data mnist", "cannot be read"),
        (
            "compare --teacher a.th --teacher b.th --model lenet --data mnist --methods unifrom",
            "did you mean 'uniform'",
        ),
        ("compare --device tpu", "no device 'tpu'"),
        ("barrier nothing", "no run 'nothing'"),
    ],
)
def test_user_errors_are_one_sentence(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    words: str,
):
    monkeypatch.setattr(processes, "WORKER", ("-c", "raise SystemExit('must not start')"))
    assert netweld(monkeypatch, *arguments.split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert words in error
    assert error.count("\n") == 1
    assert error.rstrip()[-1] in ".?"
    assert store.names() == []


@pytest.mark.parametrize("arguments", ["--bad", "merge", "merge textures --bad", "brew coffee"])
def test_wrong_usage_ends_with_status_2(
    store: Store, monkeypatch: pytest.MonkeyPatch, arguments: str
):
    assert netweld(monkeypatch, *arguments.split()) == 2


@pytest.mark.parametrize(
    "command",
    ["", "merge", "compare", "barrier", "runs", "show", "resume", "stop", "export", "delete"],
)
def test_every_command_has_help_with_an_example(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    assert netweld(monkeypatch, *command.split(), "--help") == 0
    out = capsys.readouterr().out
    assert f"Example: netweld {command}".strip() in out.replace("Examples:", "Example:")


def test_a_merge_that_has_no_teachers_yet_is_not_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store.create(recipe(), "cpu")
    for command in ("compare", "barrier"):
        assert netweld(monkeypatch, command, "latest") == 2
        assert "has not trained both teachers yet" in capsys.readouterr().err
    assert len(store.names()) == 1


def test_compare_begins_a_comparison_of_the_run_s_teachers(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(processes, "WORKER", ("-c", "pass"))
    run = written(store)
    assert netweld(monkeypatch, "compare", run, "--methods", "uniform", "--no-wait") == 0
    name = store.find("latest")
    assert f"netweld show {name}" in capsys.readouterr().out
    with store.open(name) as reader:
        assert (reader.comparison.of, reader.comparison.methods) == (run, ("uniform",))
        stored = store.directory(run)
        for path, stage in zip(reader.inputs(), ("teacher_a", "teacher_b"), strict=True):
            assert path.read_bytes() == (stored / f"{stage}.safetensors").read_bytes()
    assert netweld(monkeypatch, "runs") == 0
    out = capsys.readouterr().out
    assert name in out
    assert run in out
    assert netweld(monkeypatch, "barrier", name) == 2
    assert "is queued and has no barrier yet" in capsys.readouterr().err
    assert netweld(monkeypatch, "export", name) == 2
    assert "a comparison, but a merge was expected" in capsys.readouterr().err


def test_merge_tells_its_stages_and_the_verdict(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(processes, "WORKER", fake_worker())
    settings = ["--seed", "7", "--set", "gating.epochs=9", "--set", "gates.schedule.start=0.5"]
    assert netweld(monkeypatch, "merge", "textures", *settings) == 0
    out = capsys.readouterr().out
    (run,) = store.runs()
    assert isinstance(run.recipe, Recipe)
    assert (run.state, run.recipe.seed, run.recipe.gating.epochs) == ("finished", 7, 9)
    schedule = run.recipe.gates.schedule
    assert isinstance(schedule, GrowthLaw)
    assert schedule.start == 0.5
    assert run.name in out
    table = out[out.index("Held-out accuracy") :]
    for title in ("Teacher A", "Teacher B", "Output ensemble", "Big student", "Gated", "Cut"):
        assert title in table
    assert "Fine-tuned ★ returned" in table
    assert run.score is not None
    assert f"{run.score:.4g}" in table
    assert "The returned network (fine-tuned) has a test accuracy of" in table


def test_failed_merge_gives_its_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(processes, "WORKER", fake_worker(fail=True))
    assert netweld(monkeypatch, "merge", "digits") == 1
    error = capsys.readouterr().err
    assert "The data are gone; bring them back." in error
    assert "netweld resume digits-quick-s0" in error
    assert store.runs()[0].state == "failed"


def test_worker_that_never_begins_is_reported(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(processes, "WORKER", ("-c", "raise SystemExit('no torch here')"))
    assert netweld(monkeypatch, "merge", "digits") == 1
    assert "worker.log" in capsys.readouterr().err
    (name,) = store.names()
    assert (store.directory(name) / "worker.log").read_text() == "no torch here\n"


def test_second_worker_leaves_the_run_to_the_first(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    name = store.create(recipe(), "cpu")
    with store.writer(name):
        monkeypatch.setattr(processes, "WORKER", fake_worker())
        assert netweld(monkeypatch, "resume", name) == 2
        assert "is running" in capsys.readouterr().err
        with pytest.raises(StoreError, match="being worked on"):
            queue.enqueue(store, name)
        assert store.runs()[0].state == "running"


def test_start_stop_and_resume(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(processes, "WORKER", fake_worker(pause=0.05))
    assert netweld(monkeypatch, "merge", "textures", "--no-wait") == 0
    (name,) = store.names()
    wait_for_stage(store, "teacher_a")
    assert netweld(monkeypatch, "resume", name) == 2
    assert "is running" in capsys.readouterr().err
    assert netweld(monkeypatch, "stop", "latest") == 0
    assert "is stopped" in capsys.readouterr().err
    assert store.runs()[0].state == "stopped"
    assert netweld(monkeypatch, "stop", "latest") == 2
    assert netweld(monkeypatch, "export", "latest") == 2
    capsys.readouterr()
    monkeypatch.setattr(processes, "WORKER", fake_worker())
    assert netweld(monkeypatch, "resume", name[:-1]) == 0
    assert "★ returned" in capsys.readouterr().out
    assert netweld(monkeypatch, "resume", name) == 2
    assert "is finished" in capsys.readouterr().err
    with store.open(name) as reader:
        assert len(reader.metrics()) == 3 * sum(PLAN.values())


def start(store: Store, worker: tuple[str, ...], *arguments: str, **streams) -> subprocess.Popen:
    """The command in a process of its own, with another worker."""
    script = (
        "import signal, sys\n"
        "from merge_core import cli, processes\n"
        # Tests that run in the background have got a SIGINT that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"processes.WORKER = {worker!r}\n"
        f"sys.argv = {['netweld', *arguments]!r}\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "TERM": "xterm"}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, **streams)


def wait_for_stage(store: Store, stage: str) -> None:
    deadline = time.monotonic() + 60
    while not any(run.stage == stage for run in store.runs()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupt_stops_the_run_and_says_how_to_go_on(store: Store):
    process = start(
        store,
        fake_worker(pause=0.1),
        "merge",
        "textures",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_stage(store, "teacher_a")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    (run,) = store.runs()
    assert process.returncode == 1, error
    assert run.state == "stopped"
    assert f"netweld resume {run.name}" in error
    assert "Traceback" not in error
    with store.open(run.name) as reader:
        assert len(reader.answers()) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_run_outlives_the_terminal_it_was_started_from(store: Store):
    process = start(store, fake_worker(pause=0.02), "merge", "textures", stdout=subprocess.DEVNULL)
    wait_for_stage(store, "teacher_a")
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while (state := store.runs()[0].state) != "finished":
        assert state == "running"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_bar_shows_stage_score_and_time_left(store: Store):
    import pty

    ours, theirs = pty.openpty()
    process = start(
        store,
        fake_worker(pause=0.1),
        "merge",
        "textures",
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.wait(60) == 0
    text = seen.decode()
    assert "Teacher B" in text
    assert "held-out accuracy 0." in text
    assert " s left" in text
    assert "%" in text


def test_runs_and_show_name_what_there_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finished = written(store)
    failed = written(store, until=20, state="failed")
    queued = store.create(recipe(), "mps")
    assert netweld(monkeypatch, "runs") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "finished" in lines[finished]
    assert "100%" in lines[finished]
    assert "failed" in lines[failed]
    assert "queued" in lines[queued]
    for name in (finished, failed, queued):
        assert netweld(monkeypatch, "show", name) == 0
        out = capsys.readouterr().out
        assert name in out
        assert f"gating.epochs={recipe().gating.epochs}" in out
    assert netweld(monkeypatch, "show", finished) == 0
    out = capsys.readouterr().out
    (space,) = [line for line in out.splitlines() if line.strip().startswith("hidden")]
    assert space.split() == ["hidden", "8", "4", "4"]


def test_printed_settings_are_what_set_takes(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    name = store.create(recipe().changed({"teacher.milestones": "2,5", "seed": "3"}), "cpu")
    netweld(monkeypatch, "show", name)
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    pairs = dict(line.split("=", 1) for line in lines)
    with store.open(name) as reader:
        assert recipe().changed(pairs) == reader.recipe


def test_empty_store_says_how_to_start(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert netweld(monkeypatch, "runs") == 0
    assert "netweld merge" in capsys.readouterr().out


def test_export_holds_weights_recipe_and_provenance(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    name = written(store)
    assert netweld(monkeypatch, "export", name, "--to", "out/here") == 0
    path = tmp_path / "out" / "here" / f"{name}.safetensors"
    with safe_open(path, framework="numpy") as file, store.open(name) as reader:
        metadata = file.metadata()
        assert (file.get_tensor("w") == reader.artifact("fine_tune")["w"]).all()
        assert json.loads(metadata["scores"])["test"]["accuracy"] == reader.score(
            "fine_tune", "test", "accuracy"
        )
    assert Recipe.from_json(metadata["recipe"]) == recipe()
    origin = json.loads(metadata["provenance"])["hidden"]
    assert origin == [[0, 0], [0, 2], [0, 4], [0, 6], [1, 1], [1, 3], [1, 5], [1, 7]]
    assert (metadata["run"], metadata["stage"]) == (name, "fine_tune")
    compile(path.with_suffix(".py").read_text(), "snippet", "exec")


def test_export_replaces_nothing_unasked(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    name = written(store)
    (tmp_path / f"{name}.py").write_text("mine")
    assert netweld(monkeypatch, "export", name) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / f"{name}.py").read_text() == "mine"
    assert not (tmp_path / f"{name}.safetensors").exists()
    assert netweld(monkeypatch, "export", name, "--force") == 0
    assert "load_student" in (tmp_path / f"{name}.py").read_text()


@pytest.mark.parametrize(("answer", "gone"), [("n\n", False), ("y\n", True)])
def test_delete_asks_first(store: Store, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool):
    name = written(store)
    process = start(
        store,
        (),
        "delete",
        name,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.communicate(answer, timeout=60)
    assert (process.returncode == 0) is gone
    assert (name not in store.names()) is gone


def test_delete_takes_yes(store: Store, monkeypatch: pytest.MonkeyPatch):
    name = written(store)
    assert netweld(monkeypatch, "delete", name, "--yes") == 0
    assert store.names() == []


def test_worker_gets_the_data_directory_and_threads(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    report = (
        "import os; print(*(os.environ[k] for k in ('NETWELD_HOME', 'NETWELD_DATA', "
        "'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')), sep='\\n')"
    )
    monkeypatch.setattr(processes, "WORKER", ("-c", report))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert netweld(monkeypatch, "merge", "cifar100-resnet20", "--data", "sets") == 1
    (name,) = store.names()
    log = (store.directory(name) / "worker.log").read_text().split("\n")
    assert log[:4] == [str(store.home), str(tmp_path / "sets"), "3", "PASSIVE"]
    with store.writer(name) as writer:
        writer.fact("threads", 5)
        writer.finish("stopped")
    netweld(monkeypatch, "resume", name)
    log = (store.directory(name) / "worker.log").read_text().split("\n")
    assert log[6] == "5", "a resumed run takes the number of threads that it began with"


def test_threads_are_at_least_one_and_at_most_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= processes.available_threads() <= (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert 1 <= processes.available_threads() <= (os.cpu_count() or 1)


def test_dashboard_command_names_the_app_and_its_address():
    command = dashboard.streamlit_command(port=8600, address="127.0.0.1", browser=False)
    words = " ".join(command)
    assert str(places.dashboard() / "app.py") in command
    assert "--server.address 127.0.0.1" in words
    assert "--server.port 8600" in words
    assert "--server.headless true" in words
    bare = dashboard.streamlit_command(port=None, address="127.0.0.1", browser=True)
    assert "--server.port" not in bare
    assert "--server.headless" not in bare


def test_installation_without_dashboard_says_so(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    monkeypatch.setattr(places, "dashboard", lambda: tmp_path)
    assert netweld(monkeypatch) == 2
    assert "app.py" in capsys.readouterr().err
