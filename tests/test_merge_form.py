"""The form of the page Merge: images of one's own, and the preset `ours`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_pages import begun, opened, store, words

from merge_core.data import load
from merge_core.errors import DataError
from merge_core.folders import described, sources
from merge_core.presets import preset_of
from merge_core.recipes import Recipe
from merge_core.store import Store

__all__ = ["begun", "store"]  # the fixtures


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a tree of three classes, arrays of two, and things that are neither."""
    directory = tmp_path / "data"
    for part, count in (("train", 4), ("val", 1)):
        for name in ("cat", "dog", "owl"):
            folder = directory / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    np.savez(
        directory / "shapes.npz",
        train_images=np.zeros((10, 8, 8), np.uint8),
        train_labels=np.arange(10) % 2,
    )
    (directory / "notes").mkdir()
    (directory / "notes" / "a.txt").write_text("no images")
    (directory / "broken.zip").write_text("no zip file")
    monkeypatch.setenv("NETWELD_DATA", str(directory))
    return directory


def test_what_lies_in_the_data_directory_is_counted_as_it_is_read(data: Path) -> None:
    assert sources(data) == ["broken.zip", "pets", "shapes.npz"]
    assert sources(data / "nowhere") == []
    recipe = preset_of("images", "quick").recipe.data
    for name, classes, train, test in (("pets", 3, 12, 3), ("shapes.npz", 2, 10, 0)):
        found = described(data / name)
        assert (found.classes, found.train, found.test) == (classes, train, test)
        changed = {"source": name, "classes": classes, "side": 8}
        read = load(type(recipe)(**{**vars(recipe), **changed}), 0, data)
        assert sum(map(len, read.splits)) == found.train + found.test
    with pytest.raises(DataError, match=r"'broken.zip' is not a readable zip file"):
        described(data / "broken.zip")


def test_images_of_one_s_own_are_choices(
    data: Path, store: Store, begun: list[tuple[Recipe, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("images").run()
    picker = app.selectbox(key="source-images-quick")
    assert list(picker.options) == sources(data)
    assert "not a readable zip file" in app.error[0].value
    picker.set_value("pets").run()
    assert "3 classes, 12 images to learn from; 3 for the test" in words(app)
    app.number_input(key="side-images-quick").set_value(16).run()
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    assert (recipe.data.source, recipe.data.classes, recipe.data.side) == ("pets", 3, 16)


def test_without_images_the_form_says_where_to_put_them(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETWELD_DATA", str(tmp_path / "empty"))
    app = opened("merge")
    app.selectbox(key="recipe").set_value("images").run()
    assert "There are no images in the data directory" in words(app)
    assert not app.exception
    assert "go" not in [button.key for button in app.button]


def test_ours_starts_with_settings(store: Store, begun: list[tuple[Recipe, str]]) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("textures").run()
    app.segmented_control(key="preset-textures").set_value("ours").run()
    app.number_input(key="teachers-textures-ours").set_value(2)
    app.number_input(key="fine-tune-textures-ours").set_value(3)
    app.number_input(key="labels-textures-ours").set_value(0.3)
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    expected = {"teachers": "2", "fine_tune.epochs": "3", "labels": "0.3"}
    assert recipe == preset_of("textures", "ours").recipe.changed(expected)


@pytest.mark.parametrize(("name", "how"), [("sine", "least squares"), ("textures", "imitates")])
def test_a_page_about_gates_says_what_is_true_of_ours(store: Store, name: str, how: str) -> None:
    run = store.create(preset_of(name, "ours").recipe, "cpu")
    said = words(opened("gates", run))
    assert "This run merges without gates" in said
    assert how in said
    assert "ties networks" not in said
