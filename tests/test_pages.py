"""Pages as Streamlit runs them, without a browser."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_runs
import pytest
from streamlit.navigation.page import StreamlitPage
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test

from merge_core import launch, owners, places
from merge_core.presets import find_preset, preset_of
from merge_core.progress import Reading
from merge_core.recipes import Recipe
from merge_core.schedules import GrowthLaw
from merge_core.store import Store
from merge_core.views.advice import advice
from merge_core.views.losses import loss, size_text
from merge_core.views.runs import flops_text
from pages import identity, picking, selection

ROOT = Path(__file__).parent.parent
PAGES = (
    "overview",
    "merge",
    "filters",
    "gates",
    "channels",
    "similarity",
    "matching",
    "methods",
    "compare",
    "lab",
    "network",
)
OF_THEIR_OWN = {"compare": "No experiment has been repeated yet", "lab": "There is no lab yet"}
"""Pages that are not about the picked run, and what they say where there is nothing."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store that the pages read, without samples."""
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "no samples")
    monkeypatch.setattr(app_test, "PagesManager", MetNavigation)
    return Store()


class MetNavigation(PagesManager):
    """The pages of a server that has met `st.navigation` before, as all but the first visitor do.

    AppTest forgets that before every run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        PagesManager.uses_pages_directory = False


def opened(page: str, run: str = "") -> AppTest:
    """A page of the dashboard, as a person finds it who follows a link to it."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    if run:
        app.query_params["run"] = run
    app.run()
    if page != "overview":
        app.switch_page(f"pages/{page}.py").run()
    return app


def words(app: AppTest) -> str:
    """All text of a page."""
    elements = [*app.markdown, *app.caption, *app.info, *app.warning, *app.success, *app.error]
    return "\n".join(str(e.value) for e in [*elements, *app.header, *app.subheader])


def shown(app: AppTest) -> str:
    """The picked run; in a browser, the address follows it."""
    name = app.selectbox(key="run").value
    assert name is not None
    return name


def test_all_pages_are_looked_at() -> None:
    files = (ROOT / "pages").glob("*.py")
    begun = {path.stem for path in files if "\nnavigation.require_app()\n" in path.read_text()}
    assert begun == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_with_nothing_at_all_every_page_says_what_to_do(store: Store, page: str) -> None:
    app = opened(page)
    assert not app.exception
    assert not app.error
    if page == "merge":
        assert app.button(key="go").label == "Start the merge"
    else:
        assert OF_THEIR_OWN.get(page, "Start your first merge") in words(app)


@pytest.mark.parametrize("name", ["textures", "sine", "digits"])
@pytest.mark.parametrize("page", PAGES)
def test_a_finished_run_on_every_page(store: Store, page: str, name: str) -> None:
    app = opened(page, fake_runs.make(store, name))
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize("state", ["queued", "running", "stopped", "failed", "lost"])
@pytest.mark.parametrize("page", [page for page in PAGES if page not in OF_THEIR_OWN])
def test_an_unfinished_run_on_every_page(store: Store, page: str, state: fake_runs.State) -> None:
    app = opened(page, fake_runs.make(store, "textures", state=state, stop="gates"))
    assert not app.exception
    text = words(app)
    said = {
        "queued": "waits for its worker",
        "running": "% ",
        "stopped": "Resume it",
        "failed": "This run failed. The loss of stage 'gates' became NaN at step 7.",
        "lost": "resume it",
    }[state]
    if page == "merge" and state == "running":
        assert "of the work" in app.progress[0].text
    elif page == "gates" and state == "running":
        assert "epoch 3 of" in app.progress[0].text
    else:
        assert said in text
    assert bool(app.error) == (state == "failed")


@pytest.mark.parametrize("page", ["merge", "gates"])
def test_a_run_that_reads_its_images_says_how_far_it_is(store: Store, page: str) -> None:
    run = store.create(find_preset("textures", "quick").recipe, "cpu")
    with store.writer(run) as writer:
        assert opened(page, run).progress[0].text == "Getting ready"
        writer.reading(Reading(done=3000, of=9025, left=70.0))
        app = opened(page, run)
        assert app.progress[0].text == "Reads its images: 3,000 of 9,025, about 1 min 10 s left"
        assert not next(button for button in app.button if button.label == "Stop").disabled


@pytest.mark.parametrize("page", ["overview", "merge", "filters", "gates", "channels"])
def test_a_run_that_ends_while_a_page_is_drawn_is_shown_as_ended(
    store: Store, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the picker, which says what state it is in, and the page below."""
    with fake_runs.running(store, "sine", "gates") as (name, writer):
        app = opened(page, name)
        assert "▶ running" in words(app)
        follow = selection.follow_address

        def end(page: StreamlitPage) -> None:
            monkeypatch.setattr(selection, "follow_address", follow)
            writer.finish("stopped")
            picking.read_anew()
            follow(page)

        monkeypatch.setattr(selection, "follow_address", end)
        app.run()
    assert not app.exception
    assert "■ stopped" in words(app)
    assert "▶ running" not in words(app)


def test_the_newest_run_is_shown_and(store: Store) -> None:
    fake_runs.make(store, "textures")
    newest = fake_runs.make(store, "sine")
    app = opened("overview")
    assert shown(app) == newest
    assert "Sine, seed 0" in words(app)


def test_the_address_decides_and_is_kept_over_the_pages(store: Store) -> None:
    older = fake_runs.make(store, "textures")
    fake_runs.make(store, "sine")
    app = opened("overview", older)
    assert "Textures, seed 0" in words(app)
    app.switch_page("pages/gates.py").run()
    assert shown(app) == older


def test_the_first_visitor_of_a_server_finds_every_page_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit runs a file in `pages` without `app.py` until it has met `st.navigation`."""
    monkeypatch.setattr(app_test, "PagesManager", PagesManager)
    name = fake_runs.make(store, "textures")
    app = opened("gates", name)
    assert not app.exception
    assert app.selectbox(key="run").value == name
    assert app.header[0].value == "Gates"


def test_picking_a_run_shows_it(store: Store) -> None:
    older = fake_runs.make(store, "textures")
    fake_runs.make(store, "sine")
    app = opened("channels")
    app.selectbox(key="run").set_value(older).run()
    assert shown(app) == older
    assert "112 channels" in words(app)


def test_an_unknown_run_in_the_address_is_a_sentence(store: Store) -> None:
    fake_runs.make(store, "sine")
    app = opened("overview", "../../etc/passwd")
    assert not app.exception
    assert "There is no run '../../etc/passwd' here" in app.error[0].value


def test_samples_alone_are_shown_and_cannot_be_resumed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Store(tmp_path / "elsewhere", tmp_path / "none")
    name = fake_runs.make(elsewhere, "textures")
    with elsewhere.open(name):  # the last connection takes the write-ahead log along
        pass
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "elsewhere" / "runs")
    app = opened("overview")
    assert not app.exception
    assert shown(app) == name
    assert "It beats" in words(app)
    app.switch_page("pages/merge.py").run()
    assert not app.exception
    assert "This sample is finished" in words(app)
    assert "another machine" in words(app)


def test_a_damaged_file_is_a_sentence(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    (store.directory(name) / "norms.safetensors").write_bytes(b"rubbish")
    app = opened("filters", name)
    assert not app.exception
    assert "norms.safetensors" in app.error[0].value
    assert "damaged" in app.error[0].value


def test_filters_of_sine_are_hinges_and_of_pictures_are_tiles(store: Store) -> None:
    tiles = opened("filters", fake_runs.make(store, "textures"))
    assert "16 are kept" in words(tiles)
    image, _, ticks, over = json.loads(tiles.get("plotly_chart")[0].proto.spec)["data"]
    assert image["type"] == "image"
    assert ticks["text"] == ["✓"] * 16
    assert sum("✓ kept" in text for _, text in over["customdata"]) == 32  # with the student's own
    bends = opened("filters", fake_runs.make(store, "sine"))
    assert "100 are kept" in words(bends)
    assert "triangle-right" in bends.get("plotly_chart")[0].proto.spec


@pytest.fixture
def begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, str]]:
    """What the page asked to begin; the run is entered, but no worker starts."""
    asked = []

    def begin(store: Store, recipe: Recipe, device: str) -> tuple[str, None]:
        asked.append((recipe, device))
        return store.create(recipe, device), None

    monkeypatch.setattr(launch, "begin", begin)
    return asked


def test_starting_a_merge_with_settings(store: Store, begun: list[tuple[Recipe, str]]) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("sine").run()
    app.number_input(key="teacher-sine-quick").set_value(3)
    app.number_input(key="seed").set_value(11)
    app.number_input(key="schedule-sine-quick-0-growth").set_value(0.2)
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, device),) = begun
    assert (recipe.name, recipe.preset, recipe.seed, device) == ("sine", "quick", 11, "auto")
    assert recipe.teacher.epochs == 3
    assert recipe.gating == find_preset("sine", "quick").recipe.gating
    schedule = recipe.gates.schedule
    assert isinstance(schedule, GrowthLaw)
    assert schedule.growth == 0.2
    (run,) = store.runs()
    assert shown(app) == run.name
    assert "waits for its worker" in words(app)


def test_teachers_that_are_pulled_together_start_with_settings(
    store: Store, begun: list[tuple[Recipe, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("digits-coupled").run()
    tail = "digits-coupled-quick"
    assert "Where to look" in words(app)
    app.text_input(key=f"strength-{tail}").set_value("1,0.1").run()
    assert "3 layers (features.0.0, features.2.0, classifier)" in app.error[0].value
    app.text_input(key=f"strength-{tail}").set_value("1,0.1,0").run()
    app.selectbox(key=f"heads-{tail}").set_value("features.2.0").run()
    app.number_input(key="seed").set_value(11)
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    expected = {
        "seed": "11", "pull.strength": "1,0.1,0", "pull.heads_from": "features.2.0",
    }  # fmt: skip
    assert recipe == preset_of("digits-coupled", "quick").recipe.changed(expected)


def test_workers_that_are_averaged_start_with_settings(
    store: Store, begun: list[tuple[Recipe, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("digits-averaged").run()
    tail = "digits-averaged-quick"
    app.number_input(key=f"Workers-{tail}").set_value(4)
    app.number_input(key=f"Steps between averages-{tail}").set_value(10)
    app.button_group(key=f"Average-{tail}").set_value("matched")
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    expected = {"workers": "4", "every": "10", "average": "matched"}
    assert recipe == preset_of("digits-averaged", "quick").recipe.changed(expected)


def test_colour_images_take_any_torchvision_network(
    store: Store, begun: list[tuple[Recipe, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("photos").run()
    app.selectbox(key="network-photos").set_value("resnet18").run()
    assert "there is no estimate yet" in words(app)
    app.button(key="go").click().run()
    assert not app.exception
    assert [recipe.model for recipe, _ in begun] == ["resnet18"]


def test_the_estimate_comes_from_a_finished_run(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    app = opened("merge")
    assert "It will take about" in words(app)
    with store.open(name) as reader:
        work = sum(row["flops"] for row in reader.stages())
    assert flops_text(work) in words(app)
    app.selectbox(key="recipe").set_value("digits").run()
    assert "there is no estimate yet" in words(app)


def test_a_form_tells_whether_a_merge_paid_before(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    with store.open(name) as reader:
        told = advice(reader.recipe, reader.metrics("teacher_a"))
    assert told is not None
    app = opened("merge")
    assert f"{told.sentence} (Seen in {name}.)" in words(app)
    app.selectbox(key="recipe").set_value("digits").run()
    assert f"(Seen in {name}.)" not in words(app)


@pytest.mark.parametrize(("stop", "told"), [("teacher_a", False), ("teacher_b", True)])
def test_a_run_tells_whether_a_merge_pays_once_teacher_a_is_trained(
    store: Store, stop: str, told: bool
) -> None:
    name = fake_runs.make(store, "textures", state="running", stop=stop)
    said = words(opened("merge", name))
    assert ("Merge, or train one network on?" in said) is told
    assert ("After 12 epochs a teacher gets" in said) is told


def test_stop_sends_a_command(store: Store) -> None:
    name = fake_runs.make(store, "textures", state="running", stop="gates")
    app = opened("merge", name)
    app.button(key="stop").click().run()
    assert not app.exception
    assert [command.verb for command in store.commands(name)] == ["stop"]
    assert app.button(key="stop").label == "Stopping …"


def test_resume_starts_a_worker(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed = []
    monkeypatch.setattr(launch, "resume", lambda store, name: resumed.append(name))
    name = fake_runs.make(store, "textures", state="stopped", stop="gates")
    app = opened("merge", name)
    app.button(key="resume").click().run()
    assert not app.exception
    assert resumed == [name]


def asked_to_delete(run: str, page: str = "merge") -> AppTest:
    """A page on which somebody has clicked on Delete, and is asked whether they mean it."""
    app = opened(page, run)
    app.session_state[f"delete-{run}"] = True
    app.run()
    assert not app.exception
    return app


def test_deleting_a_run_says_what_is_lost_and_shows_another(store: Store) -> None:
    other = fake_runs.make(store, "sine")
    name = fake_runs.make(store, "textures")
    directory = store.directory(name)
    app = asked_to_delete(name)
    assert store.names() == [name, other]
    assert f"Delete {name}?" in words(app)
    assert "files, which frees" in words(app)
    app.button(key=f"delete-{name}-now").click().run()
    assert not app.exception
    assert not app.error
    assert store.names() == [other]
    assert not directory.exists()
    assert shown(app) == other


def test_the_last_run_can_be_deleted_even_a_damaged_one(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    (store.directory(name) / "run.sqlite").write_bytes(b"rubbish" * 1000)
    app = asked_to_delete(name)
    app.button(key=f"delete-{name}-now").click().run()
    assert not app.exception
    assert not app.error
    assert store.names() == []
    app.switch_page("pages/overview.py").run()
    assert "Start your first merge" in words(app)


@pytest.mark.parametrize("whose", ["worked on", "somebody else's"])
def test_a_run_is_deleted_by_those_who_may_and_not_while_it_is_worked_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    if whose == "worked on":
        name = fake_runs.make(store, "textures", state="running", stop="gates")
    else:
        name = fake_runs.make(store, "textures")
        visitor = owners.new_browser()
        monkeypatch.setattr(identity, "visitor", lambda: visitor)
    app = asked_to_delete(name)
    assert whose in words(app)
    assert app.button(key=f"delete-{name}-now").disabled


def test_what_is_lost_and_what_stays(store: Store) -> None:
    name = fake_runs.make(store, "textures")
    (run,) = store.runs()
    before = loss(store, run)
    with store.open(name) as reader:
        (stage,) = [point for point in reader.fork_points() if point.stage == "big"]
        store.fork(name, reader.merge, stage)
        shared = {row["file"] for row in reader.artifacts()}
    after = loss(store, run)
    assert (before.forks, after.forks) == (0, 1)
    assert after.files == before.files
    linked = [path for path in store.directory(name).iterdir() if path.stat().st_nlink > 1]
    assert linked
    assert {path.name for path in linked} <= shared
    assert before.size - after.size == sum(path.stat().st_size for path in linked)
    assert "Its 1 fork stays whole." in after.words()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 kB"), (34_400, "34 kB"), (1_240_000, "1.2 MB"), (31e9, "31 GB")]
)
def test_sizes_are_in_units_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


def test_looking_never_loads_torch(store: Store) -> None:
    """A fresh interpreter runs every page; what it really loaded decides."""
    name = fake_runs.make(store, "textures")
    script = f"""
import sys
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test
app = AppTest.from_file({str(ROOT / "app.py")!r}, default_timeout=60)
app.query_params["run"] = {name!r}
app.run()
assert not app.exception and not app.error, app.error
for page in {PAGES[1:]!r}:
    app.switch_page(f"pages/{{page}}.py").run()
    assert not app.exception and not app.error, (page, app.error)
print(sorted({{"torch", "torchvision", "sklearn"}} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
