"""Runs on disk: what was written comes back, and nothing else does harm."""

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_up_run import PLAN, SPACE, kept, made_up, metrics_at, recipe

from merge_core.errors import RecipeError, StoreError
from merge_core.events import EpochFinished, StageFinished
from merge_core.recipes import Comparison
from merge_core.store import Answer, Store, held
from merge_core.store.databases import RunLock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", samples=tmp_path / "samples")


def write_all(store: Store, name: str) -> None:
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
        writer.finish("finished")


def test_empty_home_has_no_runs_and_stays_untouched(store: Store):
    assert store.runs() == []
    with pytest.raises(StoreError, match="no runs yet"):
        store.find("latest")
    assert not store.home.exists()


def test_new_run_is_queued(store: Store):
    name = store.create(recipe(), "auto")
    (summary,) = store.runs()
    assert (summary.name, summary.state, summary.fraction) == (name, "queued", 0.0)
    with store.open(name) as reader:
        assert reader.recipe == recipe()
        assert reader.device == "auto"
        assert reader.status()["state"] == "queued"
        assert reader.stages() == reader.metrics() == reader.scores() == reader.kept() == []


def comparison() -> Comparison:
    of = recipe()
    return Comparison(
        name="compare-textures",
        preset="quick",
        data=of.data,
        model=of.model,
        teachers=("mine", "yours"),
        gates=of.gates,
        gating=of.gating,
        fine_tune=of.fine_tune,
    )


def test_a_comparison_keeps_copies_of_its_teachers_files(store: Store, tmp_path: Path):
    paths = [tmp_path / "a.th", tmp_path / "elsewhere" / "a.th"]
    paths[1].parent.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    name = store.create(comparison(), "cpu", paths)
    for path in paths:
        path.unlink()
    with store.open(name) as reader:
        assert reader.recipe == reader.comparison == comparison()
        assert [path.read_bytes() for path in reader.inputs()] == [b"\0", b"\1"]
        assert [path.name for path in reader.inputs()] == ["a.th", "a.th"]
        with pytest.raises(StoreError, match="a comparison, but a merge was expected"):
            _ = reader.merge
    with store.writer(name), store.open(name) as reader:
        assert all(path.exists() for path in reader.inputs()), "a worker's start sweeps none away"


def test_merges_and_comparisons_lie_in_one_list(store: Store):
    names = [store.create(recipe(), "cpu"), store.create(comparison(), "cpu")]
    assert [(run.name, run.recipe.kind) for run in store.runs()] == [
        (names[1], "comparison"),
        (names[0], "merge"),
    ]
    with store.open(names[0]) as reader:
        assert reader.inputs() == []
        with pytest.raises(StoreError, match=f"netweld compare {names[0]}"):
            _ = reader.comparison


def test_a_missing_input_leaves_no_run(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match=r"gone\.th. cannot be read"):
        store.create(comparison(), "cpu", [tmp_path / "gone.th"])
    assert store.runs() == []


def test_every_event_comes_back(store: Store):
    name = store.create(recipe(), "cpu")
    write_all(store, name)
    events = list(made_up())
    with store.open(name) as reader:
        assert [(s["stage"], s["epochs"], s["flops"]) for s in reader.stages()] == [
            (stage, epochs, 1000.0 * epochs) for stage, epochs in PLAN.items()
        ]
        stored = {
            (m["stage"], m["epoch"], m["step"], m["name"]): m["value"] for m in reader.metrics()
        }
        assert stored == {
            (e.stage, e.epoch, e.step, key): value
            for e in events
            if isinstance(e, EpochFinished)
            for key, value in e.metrics.items()
        }
        ends = {e.stage: e for e in events if isinstance(e, StageFinished)}
        assert {(s["stage"], s["split"], s["metric"]): s["value"] for s in reader.scores()} == {
            (stage, split, metric): value
            for stage, end in ends.items()
            for split, scores in end.scores.items()
            for metric, value in scores.items()
        }
        for stage, end in ends.items():
            if end.arrays:
                np.testing.assert_array_equal(reader.artifact(stage)["w"], end.arrays["w"])
        openness = reader.openness("hidden")
        assert [row["epoch"] for row in openness] == list(range(1, PLAN["gates"] + 1))
        assert all(row["probabilities"].shape == (2 * SPACE,) for row in openness)
        assert reader.openness("elsewhere") == []
        (row,) = reader.kept()
        for key in ("kept", "open_probability", "gate"):
            np.testing.assert_array_equal(row[key], getattr(kept(), key))
        assert row["kept"].dtype == np.int64
        np.testing.assert_array_equal(
            reader.provenance()["hidden"],
            [[0, 0], [0, 2], [0, 4], [0, 6], [1, 1], [1, 3], [1, 5], [1, 7]],
        )
        facts = reader.facts()
        assert facts["returned"] == "fine_tune"
        assert facts["first_layer"] == {"weight": "w", "bias": None}
        assert facts["parameters"] == 6 * len("teacher_a"), "the first stage that knows gives it"
        assert reader.status()["state"] == "finished"
        assert reader.headway().fraction == 1.0
        test_score = reader.score("fine_tune", "test", "accuracy")
    (summary,) = store.runs()
    assert summary.returned == "fine_tune"
    assert summary.score == test_score == ends["fine_tune"].scores["test"]["accuracy"]


def test_arrays_of_any_shape_layout_and_type_come_back(store: Store):
    name = store.create(recipe(), "cpu")
    arrays = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(10)[::3],
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "bytes": np.arange(256, dtype=np.uint8),
        "half": np.array([0.5, -2], np.float16),
        "yes": np.array([True, False]),
    }
    with store.writer(name) as writer:
        writer.checkpoint("gates", 1, arrays)
        with store.open(name) as reader:
            back = reader.artifact("checkpoint")
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array, strict=True)


def test_nan_and_infinity_come_back(store: Store):
    name = store.create(recipe(), "cpu")
    values = {"a": float("nan"), "b": float("inf"), "c": -0.1}
    with store.writer(name) as writer:
        for event in made_up():
            if isinstance(event, EpochFinished):
                event = EpochFinished(
                    stage=event.stage, epoch=1, step=1, metrics=values, checkpoint=dict
                )
                writer.write(event)
                break
            writer.write(event)
    with store.open(name) as reader:
        np.testing.assert_equal({m["name"]: m["value"] for m in reader.metrics()}, values)


def test_fraction_counts_flops_of_whole_stages_and_steps(store: Store):
    name = store.create(recipe(), "cpu")
    total = 1000.0 * sum(PLAN.values())
    seen = []
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
            if isinstance(event, EpochFinished):
                before = list(PLAN).index(event.stage)
                done = 1000.0 * (sum(list(PLAN.values())[:before]) + event.epoch)
                seen.append(store.runs()[0].fraction)
                assert seen[-1] == pytest.approx(done / total)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_checkpoint_leaves_one_file_and_none_after_the_stage(store: Store):
    name = store.create(recipe(), "cpu")
    directory = store.directory(name)
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
            if isinstance(event, EpochFinished):
                writer.checkpoint(event.stage, event.epoch, event.checkpoint())
                files = [path.name for path in directory.glob("checkpoint*")]
                assert files == [f"checkpoint-{event.stage}-{event.epoch}.safetensors"]
                with store.open(name) as reader:
                    resume = reader.resume()
                assert resume.stage == event.stage
                assert int(resume.checkpoint["epoch"]) == event.epoch
            if isinstance(event, StageFinished):
                assert not list(directory.glob("checkpoint*"))
                with store.open(name) as reader:
                    assert reader.resume().stage is None
                    assert event.stage in reader.resume().finished


def test_resume_from_any_event_gives_the_same_run(store: Store):
    """Cut the run off after each of its events; the rest from the store must be the same."""
    whole = store.create(recipe(), "cpu")
    write_all(store, whole)
    with store.open(whole) as reader:
        expected = reader.metrics(), reader.scores(), len(reader.openness()), len(reader.kept())
    for cut in range(len(list(made_up()))):
        name = store.create(recipe(), "cpu")
        with store.writer(name) as writer:
            for i, event in enumerate(made_up()):
                if i == cut:
                    break
                writer.write(event)
                if isinstance(event, EpochFinished) and event.epoch % 2:
                    writer.checkpoint(event.stage, event.epoch, event.checkpoint())
        with store.open(name) as reader:
            acknowledged = {
                (m["stage"], m["epoch"], m["name"]): m["value"] for m in reader.metrics()
            }
            resume = reader.resume()
        with store.writer(name) as writer:
            assert writer.resumed
            for event in made_up(resume):
                writer.write(event)
            writer.finish("finished")
        with store.open(name) as reader:
            got = reader.metrics(), reader.scores(), len(reader.openness()), len(reader.kept())
            assert got == expected
            rows = {(m["stage"], m["epoch"], m["name"]): m["value"] for m in reader.metrics()}
            assert acknowledged.items() <= rows.items()
            first, second = reader.sessions()
            assert first["resumed_from"] is None
            assert second["resumed_from"] is not None
        store.delete(name)


def test_files_of_a_killed_worker_are_swept(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        writer.checkpoint("gates", 1, {"w": np.ones(3)})
    directory = store.directory(name)
    (directory / "checkpoint-gates-2.safetensors").write_bytes(b"whole, but no row names it")
    (directory / ".cut.safetensors.part").write_bytes(b"half")
    with store.writer(name):
        pass
    assert [path.name for path in directory.glob("*.safetensors")] == [
        "checkpoint-gates-1.safetensors"
    ]
    assert not list(directory.glob(".*.part"))


@pytest.mark.parametrize("harm", ["flip", "shorten", "remove"])
def test_damaged_artifact_is_named(store: Store, harm: str):
    name = store.create(recipe(), "cpu")
    write_all(store, name)
    file = store.directory(name) / "cut.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif harm == "shorten":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with store.open(name) as reader:
        with pytest.raises(StoreError, match=r"cut\.safetensors"):
            reader.artifact("cut")
        with pytest.raises(StoreError, match=r"cut\.safetensors"):
            reader.resume()
        assert reader.artifact("big").keys() == {"w"}


def test_damaged_checkpoint_only_costs_its_stage(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
            if isinstance(event, EpochFinished) and event.stage == "teacher_b":
                writer.checkpoint(event.stage, event.epoch, event.checkpoint())
                break
    (file,) = store.directory(name).glob("checkpoint*")
    file.write_bytes(b"")
    with store.open(name) as reader:
        resume = reader.resume()
    assert resume.stage is None
    assert set(resume.finished) == {"teacher_a"}


def test_unknown_artifact_lists_what_there_is(store: Store):
    name = store.create(recipe(), "cpu")
    write_all(store, name)
    with store.open(name) as reader, pytest.raises(StoreError, match=r"'norms'.*fine_tune"):
        reader.artifact("norms")


def test_only_one_writer_at_a_time(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name):
        with pytest.raises(StoreError, match="another process"):
            store.writer(name)
        with pytest.raises(StoreError, match="stop it"):
            store.delete(name)
    with store.writer(name):
        pass


def test_readers_never_block_the_writer(store: Store):
    """A reader in the middle of a read transaction, and a run that is written to meanwhile."""
    name = store.create(recipe(), "cpu")
    database = store.directory(name) / "run.sqlite"
    with store.writer(name) as writer:
        looking = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, isolation_level=None)
        looking.execute("BEGIN")
        looking.execute("SELECT * FROM status").fetchall()
        for event in made_up():
            writer.write(event)
        looking.execute("COMMIT")
        looking.close()
        writer.finish("finished")
    with store.open(name) as reader:
        assert reader.status()["state"] == "finished"


def test_readers_cannot_write(store: Store):
    name = store.create(recipe(), "cpu")
    with store.open(name) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._database.execute("DELETE FROM facts")


def test_writes_from_two_threads_do_not_mix(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        over = threading.Event()

        def beat() -> None:
            while not over.is_set():
                writer.heartbeat()

        thread = threading.Thread(target=beat)
        thread.start()
        for event in made_up():
            writer.write(event)
        over.set()
        thread.join()
        writer.finish("finished")
    with store.open(name) as reader:
        assert len(reader.metrics()) == sum(PLAN.values()) * len(metrics_at("", 0, 1))


def test_a_run_is_lost_when_nobody_holds_it_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    name = store.create(recipe(), "cpu")
    real = time.time
    with store.open(name) as reader:
        with store.writer(name) as writer:
            for jump in (0.0, 1e6, -1e6, 3e9):
                monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
                assert reader.status()["state"] == "running"
                writer.heartbeat()
                monkeypatch.setattr(time, "time", lambda jump=jump: real() - jump)
                assert reader.status()["state"] == "running"
                assert reader.headway().elapsed >= 0
        assert reader.status()["state"] == "lost"


def test_looking_whether_a_run_is_held_does_not_keep_a_worker_out(store: Store):
    name = store.create(recipe(), "cpu")
    directory = store.directory(name)
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            held(directory)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(50):
            RunLock(directory).release()
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_writer_notices_that_its_run_was_removed(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        (store.directory(name) / "run.sqlite").unlink()
        with pytest.raises(StoreError, match="deleted while it ran"):
            writer.heartbeat()
        (store.directory(name) / "run.sqlite").write_bytes(b"")
        with pytest.raises(StoreError, match="deleted while it ran"):
            writer.fact("a", 1)


def test_a_failed_write_leaves_nothing_and_the_next_succeeds(store: Store):
    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer, store.open(name) as reader:
        for event in made_up():
            writer.write(event)
            if isinstance(event, EpochFinished):
                break
        before = reader.metrics()
        bad = EpochFinished(
            stage="teacher_a",
            epoch=2,
            step=20,
            metrics={"good": 1.0, "bad": "x"},  # pyright: ignore[reportArgumentType]
            checkpoint=dict,
        )
        with pytest.raises(ValueError, match="x"):
            writer.write(bad)
        assert reader.metrics() == before
        assert reader.status()["step"] == 10
        writer.heartbeat()


def test_full_disk_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    name = store.create(recipe(), "cpu")
    with store.writer(name) as writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            writer.checkpoint("gates", 1, {"w": np.ones(2)})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs file permissions")
def test_home_that_cannot_be_written_is_one_sentence(store: Store):
    store.home.mkdir()
    store.home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="NETWELD_HOME"):
        store.create(recipe(), "cpu")


def test_home_that_is_a_file_is_one_sentence(tmp_path: Path):
    (tmp_path / "home").write_text("not a directory")
    with pytest.raises(StoreError, match="NETWELD_HOME"):
        Store(tmp_path / "home").create(recipe(), "cpu")


def test_store_of_another_version_is_refused(store: Store):
    name = store.create(recipe(), "cpu")
    for path in (store.home / "index.sqlite", store.directory(name) / "run.sqlite"):
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    with pytest.raises(StoreError, match="version 99"):
        store.runs()


def test_a_damaged_run_does_not_hide_the_others(store: Store):
    damaged, good = (store.create(recipe(), "cpu") for _ in range(2))
    write_all(store, good)
    (store.directory(damaged) / "run.sqlite").write_bytes(b"not a database" * 100)
    states = {run.name: run.state for run in store.runs()}
    assert states == {damaged: "failed", good: "finished"}
    with pytest.raises(StoreError, match=r"run\.sqlite"):
        store.open(damaged)


def test_runs_are_listed_newest_first(store: Store):
    names = [store.create(recipe(), "cpu") for _ in range(5)]
    assert [run.name for run in store.runs()] == names[::-1]
    assert store.find("latest") == names[-1]


def test_delete_removes_the_run_only(store: Store):
    first, second = (store.create(recipe(), "cpu") for _ in range(2))
    store.command(first, "stop")
    directory = store.directory(first)
    store.delete(first)
    assert [run.name for run in store.runs()] == [second]
    assert not directory.exists()
    with pytest.raises(StoreError, match="no run"):
        store.commands(first)


def test_find_takes_names_and_unique_beginnings(store: Store):
    sine = store.create(recipe().changed({"name": "sine"}), "cpu")
    one, two = (store.create(recipe(), "cpu") for _ in range(2))
    assert store.find("si") == sine
    assert store.find(one) == one
    with pytest.raises(StoreError, match="could mean 2 runs"):
        store.find("textures")
    with pytest.raises(StoreError, match=f"did you mean .*{two}"):
        store.find(two[:-1] + "x")
    with pytest.raises(StoreError, match="no run ''"):
        store.find("")


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "a/b", "..", "textures-quick-s0-0000"]
)
def test_names_never_become_paths(store: Store, name: str):
    store.create(recipe(), "cpu")
    for ask in (store.open, store.writer, store.delete, store.directory, store.commands):
        with pytest.raises(StoreError, match="no run"):
            ask(name)
    with pytest.raises(RecipeError, match="hyphens"):
        store.create(recipe().changed({"name": "../x"}), "cpu")


def test_commands_are_queued_in_order(store: Store):
    name, other = (store.create(recipe(), "cpu") for _ in range(2))
    first = store.command(name, "stop")
    store.command(other, "stop")
    second = store.command(name, "λ", value=0.5)
    assert [(c.id, c.verb, c.arguments) for c in store.commands(name)] == [
        (first, "stop", {}),
        (second, "λ", {"value": 0.5}),
    ]
    assert [c.id for c in store.commands(name, after=first)] == [second]


def test_answer_says_where_the_command_took_effect(store: Store):
    name = store.create(recipe(), "cpu")
    command = store.command(name, "stop")
    with store.writer(name) as writer:
        for event in made_up():
            writer.write(event)
            if isinstance(event, EpochFinished) and event.epoch == 3:
                break
        writer.answer(
            Answer(
                command=command,
                verb="stop",
                arguments={},
                stage=writer.stage,
                epoch=None,
                step=writer.step,
                refused=False,
                words="stopped",
                time=1.5,
            )
        )
        writer.finish("stopped", "Stopped as asked.")
    with store.open(name) as reader:
        (answer,) = reader.answers()
        assert (answer.command, answer.stage, answer.step) == (command, "teacher_a", 30)
        assert reader.status()["message"] == "Stopped as asked."


def test_ids_of_commands_are_never_used_twice(store: Store):
    name, other = (store.create(recipe(), "cpu") for _ in range(2))
    last = store.command(name, "stop")
    store.delete(name)
    assert store.command(other, "stop") > last


def test_sample_is_looked_at_and_nothing_else(store: Store, tmp_path: Path):
    name = store.create(recipe(), "cpu")
    write_all(store, name)
    directory = tmp_path / "samples" / name
    directory.parent.mkdir()
    store.directory(name).rename(directory)
    database = sqlite3.connect(directory / "run.sqlite")
    database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    elsewhere = Store(tmp_path / "elsewhere", samples=tmp_path / "samples")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    (summary,) = elsewhere.runs()
    assert (summary.name, summary.sample, summary.state) == (name, True, "finished")
    assert summary.score is not None
    assert elsewhere.runs(samples=False) == []
    assert elsewhere.find("textures") == name
    with elsewhere.open(name) as reader:
        assert reader.recipe == recipe()
        assert reader.artifact("fine_tune").keys() == {"w"}
    for ask in (elsewhere.writer, elsewhere.delete):
        with pytest.raises(StoreError, match="sample"):
            ask(name)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert not elsewhere.home.exists()
