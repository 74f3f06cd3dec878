"""The selected channel in an address: written, read back, checked."""

from contextlib import suppress
from pathlib import Path

import fake_comparisons
import fake_runs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core.store import Store
from merge_core.views.selection import (
    Channel,
    SelectionError,
    parse,
    require_known,
    space_sizes,
)

SPACES = st.text(st.characters(codec="ascii", exclude_categories=("Z", "C")), min_size=1)


@given(SPACES, st.sampled_from("AB"), st.integers(0, 9_999_999))
def test_what_is_written_is_read_back(space: str, teacher: str, index: int) -> None:
    channel = Channel(space, teacher, index)
    assert parse(str(channel)) == channel


@given(st.text())
def test_any_text_is_a_channel_or_refused(text: str) -> None:
    with suppress(SelectionError):
        assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "conv1", "conv1:A", "conv1:C:3", "conv1:A:-1", "conv1:A:03", ":A:3", "a b:A:3"]
)
def test_bad_texts_are_one_sentence(text: str) -> None:
    with pytest.raises(SelectionError, match="such as conv1:A:3; nothing is selected"):
        parse(text)


def test_a_channel_must_be_there() -> None:
    require_known(Channel("conv1", "B", 15), {"conv1": 16})
    with pytest.raises(SelectionError, match="run from 0 to 15"):
        require_known(Channel("conv1", "B", 16), {"conv1": 16})
    with pytest.raises(SelectionError, match="no space 'conv9'"):
        require_known(Channel("conv9", "A", 0), {"conv1": 16})


def test_spaces_are_known_from_gates_cut_and_comparison(tmp_path: Path) -> None:
    store = Store(tmp_path / "home", tmp_path / "none")
    sizes = fake_runs.SIZES["textures"]
    finished = fake_runs.make(store, "textures")
    runs = {
        finished: sizes,
        fake_runs.make(store, "textures", state="stopped", stop="gates"): sizes,
        fake_runs.make(store, "textures", state="stopped", stop="teacher_a"): {},
        fake_comparisons.make(store, finished, {"conv1": 4}): {"conv1": 4},
    }
    for name, known in runs.items():
        with store.open(name) as reader:
            assert space_sizes(reader) == known
