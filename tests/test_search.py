"""A search: the same trials each time, however often it stops; the held-out split decides."""

import json
import math
from dataclasses import replace
from pathlib import Path

import fake_searches
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small

from merge_core import carriers, search_work
from merge_core.errors import DivergedError, NetweldError, RecipeError, StoreError
from merge_core.events import Resume, StageFinished
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.schedules import Closing, GrowthLaw, Linear, Schedule
from merge_core.search import Search, SearchFile, Trial, best_so_far, best_trial
from merge_core.search_trials import Scores, judged, propose, searched, teachers_of
from merge_core.store import Store
from merge_core.strategies import merge

TRIALS = 16


def search(schedule: Schedule | None = None, *, name: str = "sine", seed: int = 0) -> Search:
    recipe = find_preset(name, "quick").recipe
    if schedule is not None:
        recipe = replace(recipe, gates=replace(recipe.gates, schedule=schedule))
    return Search(recipe=recipe, seed=seed)


def bowl(recipe: Recipe) -> Scores:
    """A score with one best place; test scores say the opposite."""
    schedule = recipe.gates.schedule
    assert isinstance(schedule, GrowthLaw)
    far = math.log10(schedule.start / 0.2) ** 2 + math.log10(schedule.growth / 0.5) ** 2
    score = far if recipe.metric == "loss" else 1 - far
    return Scores(score, score, -score)


def steep(recipe: Recipe) -> Scores:
    """Fails where λ starts high."""
    schedule = recipe.gates.schedule
    assert isinstance(schedule, GrowthLaw)
    if schedule.start > 0.1:
        raise DivergedError(f"λ₀ = {schedule.start} is too much.")
    return bowl(recipe)


def without_times(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


def tried(some: Search, done: tuple[Trial, ...] = (), judge=bowl, count=TRIALS) -> list[Trial]:
    made = searched(some, done, judge, trials=count)
    return without_times([*done, *made])


@pytest.mark.parametrize("judge", [bowl, steep])
@pytest.mark.parametrize("name", ["sine", "digits"])
def test_a_search_that_stops_goes_on_as_if_it_had_not(name: str, judge, tmp_path: Path) -> None:
    some = search(name=name)
    whole = tried(some, judge=judge)
    assert [trial.number for trial in whole] == list(range(TRIALS))
    assert whole[0].numbers == some.own
    for stop in (1, 12):
        file = SearchFile(some, tmp_path / str(stop))
        file.append(tried(some, judge=judge, count=stop))
        assert tried(some, tuple(SearchFile.at(file.path).trials()), judge) == whole
    others = tried(search(name=name, seed=1), judge=judge)
    assert others[0] == whole[0]
    assert all(a.numbers != b.numbers for a, b in zip(others[1:], whole[1:], strict=True))


@pytest.mark.parametrize("name", ["sine", "digits"])
def test_held_out_decides(name: str) -> None:
    some = search(name=name)
    whole = tried(some)
    known = [trial.heldout for trial in whole if trial.heldout is not None]
    best = best_trial(some, whole)
    assert best is not None
    assert best.heldout == (max if name == "digits" else min)(known)
    assert best_so_far(some, whole)[-1] == best.heldout
    assert best_so_far(some, whole)[0] == whole[0].heldout
    ours = [replace(trial, test=7.0, cut_heldout=7.0) for trial in whole]
    assert best_trial(some, ours) == replace(best, test=7.0, cut_heldout=7.0)
    assert propose(some, ours) == propose(some, whole)
    # Later trials, which know of earlier ones, are better than the first ten, which are spread out.
    far = [1 - score if name == "digits" else score for score in known]
    assert sum(far[10:]) / 6 < sum(far[1:10]) / 9


def test_a_trial_that_fails_is_told_and_ends_nothing() -> None:
    some = search()
    made = tried(some, judge=steep)
    failed = [trial for trial in made if trial.failed]
    assert 0 < len(failed) < TRIALS
    for trial in failed:
        assert trial.numbers is not None
        assert trial.failed == f"λ₀ = {trial.numbers[0]} is too much."
        assert trial.heldout is trial.test is trial.cut_heldout is None
    best = best_trial(some, made)
    assert best is not None
    assert not best.failed
    assert best_trial(some, failed) is None
    assert best_so_far(some, failed) == [None] * len(failed)


def test_no_trial_begins_that_would_end_too_late() -> None:
    now = 0.0

    def slow(recipe: Recipe) -> Scores:
        nonlocal now
        now += 25.0
        return bowl(recipe)

    for minutes, count in {0.1: 1, 1.0: 2, 1.25: 3, 0.0: 9}.items():
        made = searched(search(), (), slow, trials=9, minutes=minutes, clock=lambda: now)
        assert len(list(made)) == count


def test_the_own_schedule_of_another_kind_comes_first() -> None:
    some = search(Closing())
    first, second = tried(some, judge=lambda recipe: Scores(1, 1, 1), count=2)
    assert first.numbers is None
    assert some.recipe_of(first.numbers) == some.recipe
    assert second.numbers is not None
    assert isinstance(some.schedule(second.numbers), GrowthLaw)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1e-6, 900),
    st.floats(1e-6, 900),
    st.sampled_from(["growth", "linear", "exponential", "cosine"]),
)
def test_what_is_tried_is_a_schedule_within_the_ranges(
    first: float, second: float, family: str
) -> None:
    own = GrowthLaw(start=first, growth=second, epochs=70)
    some = replace(search(own if family == "growth" else Linear(start=1, end=2)), family=family)
    done = [Trial(number=0, numbers=some.own, heldout=1.0)]
    numbers = propose(some, done)
    assert numbers is not None
    for value, (low, high) in zip(numbers, some.ranges, strict=True):
        assert low <= value <= high
    made = some.schedule(numbers)
    assert made.kind == family
    assert isinstance(made, GrowthLaw) == (family == "growth")
    if isinstance(made, GrowthLaw):
        assert (made.start, made.growth, made.epochs) == (*numbers, 70)
        for value, (low, high) in zip((first, second), some.ranges, strict=True):
            assert low <= value <= high


def test_a_file_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file = fake_searches.make(tmp_path)
    whole = file.trials()
    text = file.path.read_text()
    file.path.write_text(text[: text.rindex('"heldout"')])
    there = SearchFile.at(file.path)
    assert there.search == file.search
    assert there.trials() == whole[:-1]
    there.append([whole[-1], replace(whole[0], heldout=9.0)])
    assert there.trials() == whole
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"recipe": 1}))
    with pytest.raises(StoreError, match="does not begin as a search"):
        SearchFile.at(other)


def test_what_no_search_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    with pytest.raises(RecipeError, match="family='points'"):
        replace(search(), family="points")
    with pytest.raises(RecipeError, match="seed -1"):
        replace(search(), seed=-1)
    file = SearchFile(search(), tmp_path)
    with pytest.raises(RecipeError, match="0 trials"):
        search_work.asked_for(file, 0)
    with pytest.raises(RecipeError, match="minutes"):
        search_work.asked_for(file, 5, minutes=math.inf)
    monkeypatch.setattr(search_work, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install"):
        search_work.asked_for(file, 5)
    assert not Store(tmp_path).names(samples=False)


def test_a_trial_is_the_full_merge_with_its_schedule(tmp_path: Path) -> None:
    recipe = small("sine")
    finished = {}
    for event in merge(recipe, "cpu", data_dir=tmp_path):
        if isinstance(event, StageFinished):
            finished[event.stage] = event
            if event.stage == "big":
                break
    some = Search(recipe=recipe)
    chosen = some.recipe_of((0.3, 2.0))
    shares: list[float] = []
    scores = judged(
        chosen, Resume(finished=finished), device="cpu", data_dir=tmp_path, report=shares.append
    )
    full = {
        event.stage: {split: event.scores[split]["loss"] for split in ("heldout", "test")}
        for event in merge(chosen, "cpu", data_dir=tmp_path)
        if isinstance(event, StageFinished) and event.scores
    }
    tuned = full["fine_tune"]
    assert scores == (full["cut"]["heldout"], tuned["heldout"], tuned["test"])
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_search_in_a_process_takes_the_teachers_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    store, epochs = Store(), {"gating.epochs": "1", "fine_tune.epochs": "1"}
    recipe = find_preset("sine", "quick").recipe.changed(epochs)
    there = search_work.teachers_run(store, store.runs(), recipe)
    assert there == "sine-quick-s0-0000"
    otherwise = recipe.changed({"seed": "1"})
    assert search_work.teachers_run(store, store.runs(), otherwise) is None
    waiting = store.create(otherwise, "cpu")
    assert search_work.teachers_run(store, store.runs(), otherwise) == waiting

    file = SearchFile(Search(recipe=recipe))
    asked = search_work.asked_for(file, 2, device="cpu", data=tmp_path)
    assert asked.run == there
    *_, last = search_work.carry_out(file, asked)
    assert last.rows == 2
    own, other = file.trials()
    teachers = teachers_of(store, there)
    scores = judged(recipe, teachers, device="cpu", data_dir=tmp_path)
    assert (own.cut_heldout, own.heldout, own.test) == pytest.approx(scores)
    assert other.numbers == propose(file.search, [own])
    told = carriers.progress_of(file.path)
    assert told is not None
    assert (told.state, told.fraction) == ("finished", 1.0)
    assert store.names(samples=False) == [waiting]


def test_without_teachers_a_search_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path))
    store, file = Store(), SearchFile(search())
    run = store.create(file.search.recipe, "cpu")
    with store.writer(run) as writer:
        writer.finish("stopped", "It was asked to stop.")
    asked = carriers.Asked(seed=0, n=2, device="cpu", data="", workers=1, run=run)
    with pytest.raises(NetweldError, match=f"netweld resume {run}"):
        list(search_work.carry_out(file, asked))
    told = carriers.progress_of(file.path)
    assert told is not None
    assert told.state == "failed"
