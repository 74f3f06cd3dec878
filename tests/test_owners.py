"""Whose a run is: tokens cannot be made up, and an old instructor's is worth nothing."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core import owners
from merge_core.errors import StoreError
from merge_core.owners import INSTRUCTOR_KEY, Visitor

KEY = {INSTRUCTOR_KEY: "chalk"}


def test_a_token_brings_its_owner_back(tmp_path: Path):
    who = owners.new_browser()
    token = owners.token(tmp_path, who, {})
    assert owners.known(tmp_path, token, {}) == who
    assert owners.known(tmp_path / "other", token, {}) is None, "another home, another key"
    assert owners.new_browser() != who


@given(at=st.integers(0, 200), other=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_changed_token_is_nobodys(tmp_path_factory: pytest.TempPathFactory, at: int, other: str):
    home = tmp_path_factory.getbasetemp() / "owners"
    token = owners.token(home, Visitor(owner="browser:00ff"), {})
    at %= len(token)
    changed = token[:at] + other + token[at + 1 :]
    if changed != token:
        assert owners.known(home, changed, {}) is None


@pytest.mark.parametrize(
    "text", [None, "", ".", "browser:1", "user:ada.user.0", "a.b.c.d", "é.ü.ß"]
)
def test_what_is_no_token_is_nobodys(tmp_path: Path, text: str | None):
    assert owners.known(tmp_path, text, {}) is None


def test_an_instructor_is_one_until_the_key_changes(tmp_path: Path):
    who = Visitor(owner="browser:0a", commands_all=True, instructor=True)
    token = owners.token(tmp_path, who, KEY)
    assert owners.known(tmp_path, token, KEY) == who
    assert owners.known(tmp_path, token, {INSTRUCTOR_KEY: "other"}) is None
    assert owners.known(tmp_path, token.replace(".instructor.", ".user."), KEY) is None
    plain = owners.token(tmp_path, Visitor(owner="browser:0a"), KEY)
    assert owners.known(tmp_path, plain.replace(".user.", ".instructor."), KEY) is None


def test_only_the_key_makes_an_instructor():
    assert owners.may_instruct("chalk", KEY)
    assert not owners.may_instruct("Chalk", KEY)
    assert not owners.may_instruct("", {})
    assert not owners.may_instruct("", {INSTRUCTOR_KEY: ""})


def test_only_its_user_reads_the_key(tmp_path: Path):
    owners.token(tmp_path, owners.new_browser(), {})
    assert stat.S_IMODE((tmp_path / "owners.key").stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 1


def test_who_may_command():
    ada, terminal = Visitor(owner="browser:a"), owners.of_the_terminal()
    assert ada.may_command("browser:a")
    assert not ada.may_command("browser:b")
    assert not ada.may_command(None), "a run of an older netweld is of whoever has the machine"
    assert terminal.may_command("browser:a")
    assert terminal.may_command(None)
    with pytest.raises(StoreError, match="somebody else's"):
        ada.require("r", "browser:b")


def test_a_process_acts_for_whom_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(owners, "_source", owners.of_the_terminal)
    assert owners.acting().commands_all
    ada = Visitor(owner="browser:a")
    owners.tell_who_acts(lambda: ada)
    assert owners.acting() == ada
