"""Steering and forking on the page Gates, with made-up runs whose worker is this process."""

import time
from collections.abc import Iterator

import fake_runs
import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_pages import ROOT, store, words

from merge_core import forking
from merge_core.recipes import Recipe
from merge_core.schedules import Constant
from merge_core.steering import NewSchedule, Steer
from merge_core.store import Answer, ForkPoint, RunWriter, Store
from merge_core.views.family import differences, gate_course, relatives, scores_beside
from merge_core.views.steerable import Steerable, past_until, sent_words, steerable

__all__ = ["store"]
BUTTONS = ("pause", "step", "go", "cut", "stop")


@pytest.fixture
def learning(store: Store) -> Iterator[tuple[str, RunWriter]]:
    """A run in the third epoch of its gates, of which two can be forked from."""
    with fake_runs.running(store, "sine", "gates") as (name, writer):
        for epoch in (1, 2):
            writer.checkpoint("gates", epoch, {"w": np.full(2, epoch, np.float32)}, kept=True)
        yield name, writer


def gates(run: str, **state: object) -> AppTest:
    """The page of a run, with some of its parts open."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["run"] = run
    for key, value in state.items():
        app.session_state[key.replace("RUN", run)] = value
    app.run()
    app.switch_page("pages/gates.py").run()
    assert not app.exception
    return app


def keys(app: AppTest) -> set[str]:
    return {button.key for button in app.button if button.key}


def answer(
    store: Store, run: str, writer: RunWriter, said: str, *, steer: Steer | None = None, **more: int
) -> None:
    """What a worker does with the newest command."""
    command = store.commands(run)[-1]
    with store.open(run) as reader:
        recipe = reader.merge
    writer.answer(
        Answer(
            command=command.id,
            verb=command.verb,
            arguments=command.arguments,
            stage="gates",
            epoch=more.get("epoch"),
            step=99,
            refused=bool(more.get("refused")),
            words=said,
            time=time.time(),
        ),
        recipe.steered(steer) if steer else None,
    )


def standing(store: Store, run: str) -> Steerable:
    with store.open(run) as reader:
        found = steerable(store, reader)
    assert found is not None
    return found


def test_a_click_sends_one_command_and_shows_it(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, writer = learning
    app = gates(name)
    assert not app.button(key="steer-pause").disabled
    app.button(key="steer-pause").click().run()
    assert "◌ **sent** · pause" in words(app)
    assert app.button(key="steer-pause").disabled
    assert app.button(key="steer-pause").help == (
        "It is sent already; the worker answers within a second."
    )
    app.run()
    assert [each.verb for each in store.commands(name)] == ["pause"]
    answer(store, name, writer, "paused")
    writer.pause()
    app.run()
    assert "✓ **paused** · took effect at step 99 of" in words(app)
    assert app.button(key="steer-pause").help == "The run is paused already."
    assert not app.button(key="steer-go").disabled
    assert "Paused" in app.progress[0].text
    app.button(key="steer-go").click().run()
    assert [each.verb for each in store.commands(name)] == ["pause", "go"]


def test_a_refusal_is_its_sentence(store: Store, learning: tuple[str, RunWriter]) -> None:
    name, writer = learning
    app = gates(name)
    app.button(key="steer-cut").click().run()
    answer(store, name, writer, "The gates have begun their last epoch.", refused=1)
    app.run()
    assert "✗ **refused** · The gates have begun their last epoch." in words(app)
    assert not app.button(key="steer-cut").disabled


def test_a_command_that_another_browser_has_given_is_not_given_twice(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, _ = learning
    app = gates(name)
    store.command(name, "pause")
    app.button(key="steer-pause").click().run()
    assert len(store.commands(name)) == 1
    assert "sent already" in app.toast[0].value


def test_the_learning_rate_is_sent_once_it_is_another(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, writer = learning
    app = gates(name, **{"change-RUN": True, "what-RUN": "rate"})
    assert app.button(key="send-rate").disabled
    app.number_input(key=f"rate-{name}-0").set_value(0.25).run()
    app.button(key="send-rate").click().run()
    (command,) = store.commands(name)
    assert (command.verb, command.arguments) == ("rate", {"rate": 0.25, "epoch": None})
    assert "◌ **sent** · gate learning rate from the next epoch on: 0.25" in words(app)
    assert app.button(key="send-rate").disabled
    answer(store, name, writer, "gate learning rate from epoch 4 on: 0.25", epoch=4)
    app.run()
    assert "✓ **gate learning rate from epoch 4 on: 0.25**" in words(app)


def test_a_schedule_is_sent_for_a_later_epoch(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, _ = learning
    app = gates(name, **{"change-RUN": True, "since-RUN": "a later epoch"})
    app.selectbox(key=f"steer-{name}-0-kind-0").select("constant").run()
    app.number_input(key=f"since-epoch-{name}").set_value(2).run()
    assert app.button(key="send-lambda").disabled
    assert "Epoch 2 has begun; choose epoch 4 or a later one." in words(app)
    app.number_input(key=f"since-epoch-{name}").set_value(7).run()
    app.button(key="send-lambda").click().run()
    (command,) = store.commands(name)
    assert command.arguments["epoch"] == 7
    assert command.arguments["schedule"]["kind"] == "constant"
    assert "◌ **sent** · λ from epoch 7 on: Constant" in words(app)


def test_undo_says_what_it_undoes_and_happens_once(
    store: Store, learning: tuple[str, RunWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, writer = learning
    other = fake_runs.make(store, "sine", seed=5)
    undone: list[str] = []
    monkeypatch.setattr(forking, "undo", lambda _, run: (undone.append(run) or other, None))
    app = gates(name)
    assert app.button(key="undo-0").disabled
    store.command(name, "lambda")
    steer = NewSchedule(epoch=4, schedule=Constant(weight=0.5))
    answer(store, name, writer, "λ from epoch 4 on: Constant", steer=steer, epoch=4)
    app.run()
    assert "λ from epoch 4 on: Constant, 0.5 to 0.5" in app.button(key="undo-0").help
    app.button(key="undo-0").click().run()
    assert undone == [name]
    assert app.selectbox(key="run").value == other
    app.run()
    assert undone == [name]


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "lost"])
def test_a_run_that_is_over_offers_only_forks(store: Store, state: fake_runs.State) -> None:
    app = gates(fake_runs.make(store, "textures", state=state, stop="gates"))
    assert not {f"steer-{verb}" for verb in BUTTONS} & keys(app)
    labels = [each.label for each in app.expander]
    assert "Change λ or the learning rate of the gates" not in labels
    assert "Fork: go on otherwise from an epoch" in labels
    assert not app.progress


def test_before_the_gates_a_run_can_be_paused_and_planned_but_not_cut(store: Store) -> None:
    with fake_runs.running(store, "sine", "teacher_b") as (name, _):
        app = gates(name)
        assert not app.button(key="steer-pause").disabled
        assert "have not begun" in app.button(key="steer-cut").help
        assert "The gates have not started to learn" in words(app)
        assert "Change λ or the learning rate of the gates" in [e.label for e in app.expander]
        assert standing(store, name).refusal("lambda") == ""


def test_after_the_gates_nothing_can_be_steered(store: Store) -> None:
    with fake_runs.running(store, "sine", "fine_tune") as (name, writer):
        app = gates(name)
        assert not {f"steer-{verb}" for verb in BUTTONS} & keys(app)
        assert "fork the run instead" in standing(store, name).refusal("rate")
        writer.pause()
        app.run()
        assert not app.button(key="steer-go").disabled


def test_a_step_is_known_until_the_run_pauses(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, writer = learning
    store.command(name, "step")
    assert "sent already" in standing(store, name).refusal("step")
    answer(store, name, writer, "goes on to the end of an epoch")
    found = standing(store, name)
    assert (found.stepping, found.begun, found.done) == (True, 3, 2)
    assert "end of this epoch" in found.refusal("step")
    assert found.refusal("go") == ""
    writer.pause()
    assert standing(store, name).refusal("step") == ""


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("stop", {}, "stop"),
        ("rate", {"rate": 0.5, "epoch": 3}, "gate learning rate from epoch 3 on: 0.5"),
        ("lambda", {"schedule": {"kind": "closing"}}, "λ from the next epoch on: Controlled"),
    ],
)
def test_what_was_sent_is_words(
    store: Store, verb: str, arguments: dict[str, object], said: str
) -> None:
    name = fake_runs.make(store, "sine", state="stopped", stop="gates")
    store.command(name, verb, **arguments)
    assert sent_words(store.commands(name)[-1]) == said


def test_a_fork_is_started_once_with_what_was_chosen(
    store: Store, learning: tuple[str, RunWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = learning
    other = fake_runs.make(store, "sine", seed=5)
    made: list[tuple[object, ...]] = []

    def fork(_: Store, run: str, point: ForkPoint, **changes: object) -> tuple[str, None]:
        made.append((run, point, {key: value for key, value in changes.items() if value}))
        return other, None

    monkeypatch.setattr(forking, "fork", fork)
    app = gates(
        name,
        **{
            "fork-RUN": True,
            "fork-at-RUN": "gates@2",
            "fork-what-RUN-4": ["seed", "selection"],
        },
    )
    app.number_input(key=f"fork-seed-{name}").set_value(9).run()
    app.selectbox(key=f"fork-selection-{name}").select("largest weights").run()
    app.button(key="fork-go-0").click().run()
    chosen = {"seed": 9, "settings": {"gates.selection": "largest weights"}}
    assert made == [(name, ForkPoint(stage="gates", epoch=2), chosen)]
    assert app.selectbox(key="run").value == other
    app.run()
    assert len(made) == 1


def test_an_equal_fork_is_not_offered(store: Store, learning: tuple[str, RunWriter]) -> None:
    app = gates(learning[0], **{"fork-RUN": True})
    assert app.button(key="fork-go-0").disabled
    assert "same run again" in app.button(key="fork-go-0").help


def test_what_is_expected_comes_from_the_run_itself_or_the_newest_like_it(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    name, _ = learning
    assert "not known before a run" in words(gates(name, **{"change-RUN": True}))
    older, newest = (fake_runs.make(store, "sine", seed=seed) for seed in (1, 2))
    fake_runs.make(store, "textures")
    st.cache_data.clear()  # a list of runs may be a moment old
    assert f"fitted to {newest}" in words(gates(name, **{"change-RUN": True}))
    app = gates(older, **{"fork-RUN": True})
    assert f"fitted to {older}" in words(app)


def branched(store: Store, parent: str, writer: RunWriter) -> str:
    """A fork of a run after two epochs of its gates, with another λ."""
    with store.open(parent) as reader:
        recipe = reader.merge
    steered = recipe.steered(NewSchedule(epoch=3, schedule=Constant(weight=2.0)))
    return store.fork(parent, steered, ForkPoint(stage="gates", epoch=2))


def test_a_fork_and_its_parent_lead_to_each_other(
    store: Store, learning: tuple[str, RunWriter]
) -> None:
    parent, writer = learning
    assert "Beside its family" not in [each.value for each in gates(parent).subheader]
    child, second = branched(store, parent, writer), branched(store, parent, writer)
    app = gates(child)
    assert app.selectbox(key=f"relative-{child}").value == parent
    said = words(app)
    assert "after epoch 2 of the gates" in said
    assert "this run: λ from epoch 3 on: Constant, 2 to 2" in said
    app.button(key="go-to-relative").click().run()
    assert app.selectbox(key="run").value == parent
    assert app.selectbox(key=f"relative-{parent}").value == second
    with store.open(child) as reader:
        kinds = [(each.relation, each.run) for each in relatives(store, reader)]
    assert kinds == [("parent", parent), ("sibling", second)]


def test_the_shared_past_is_the_same_in_both(store: Store, learning: tuple[str, RunWriter]) -> None:
    parent, writer = learning
    child = branched(store, parent, writer)
    with store.open(parent) as here, store.open(child) as there:
        one, other = gate_course(here), gate_course(there)
        assert one.epochs.tolist() == other.epochs.tolist() == [1, 2]
        assert {k: v.tolist() for k, v in one.means.items()} == {
            k: v.tolist() for k, v in other.means.items()
        }
        opened = {row["space"]: row["probabilities"] for row in here.openness()}
        past = past_until(here, 1)
        assert [len(past.weights), *map(len, past.means.values())] == [1, 1]
        assert past.means["hidden"][0] == pytest.approx(one.means["hidden"][0])
        assert past.opened["hidden"].shape == opened["hidden"].shape
        assert scores_beside(here, there).empty
        assert differences(here.merge, here.merge) == []


def test_scores_are_side_by_side_once_there_are_some(store: Store) -> None:
    one, other = fake_runs.make(store, "sine"), fake_runs.make(store, "sine", seed=1)
    with store.open(one) as here, store.open(other) as there:
        frame = scores_beside(here, there)
    assert frame["title"].tolist()[0] != "Teacher A"
    assert (frame["here"] - frame["there"]).tolist() == frame["difference"].tolist()
    assert len(frame) >= 3


def test_differences_tell_whose_they_are(store: Store) -> None:
    with store.open(fake_runs.make(store, "sine")) as reader:
        plain: Recipe = reader.merge
    other = plain.changed({"gates.selection": "largest weights"})
    assert differences(plain, other) == [
        "this run: the cut keeps the 'most open' channels",
        "the other: the cut keeps the 'largest weights' channels",
    ]
