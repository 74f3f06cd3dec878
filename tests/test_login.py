"""A shared server that asks for a login: who is let in, what is theirs, and what may be missing."""

from pathlib import Path
from typing import Any

import fake_runs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from merge_core import owners, places
from merge_core.owners import Visitor
from merge_core.store import Store
from pages import identity

APP = Path(__file__).parent.parent / "app.py"
ADA = {"is_logged_in": True, "iss": "https://a.example", "sub": "17"}
ONE = {"client_id": "netweld"}
CLAIMS = st.fixed_dictionaries(
    {}, optional={"iss": st.sampled_from(["https://a", "https://b"]), "sub": st.text(max_size=3)}
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(places, "samples", lambda: tmp_path / "no samples")
    monkeypatch.setattr(owners, "_source", owners.of_the_terminal)
    install(monkeypatch)
    return Store()


def install(monkeypatch: pytest.MonkeyPatch, without: str = "") -> None:
    """Let it look as if what a login needs were installed, but for one package."""
    monkeypatch.setattr(identity, "find_spec", lambda name: None if name == without else object())


def opened(
    user: dict[str, Any] | None = None, auth: dict[str, Any] = ONE, page: str = "overview"
) -> AppTest:
    """What somebody with a login sees."""
    app = AppTest.from_file(str(APP), default_timeout=60)
    app.secrets["auth"] = auth
    app.user = user or {"is_logged_in": False}
    app.run()
    if page != "overview":
        app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


@given(first=CLAIMS, second=CLAIMS)
def test_without_an_address_owners_are_one_only_where_issuer_and_sub_are(
    first: dict[str, str], second: dict[str, str]
) -> None:
    a, b = owners.of_login(first), owners.of_login(second)
    assert bool(a) == bool(first.get("sub"))
    if a and b:
        same = (first.get("iss"), first["sub"]) == (second.get("iss"), second["sub"])
        assert (a == b) == same


def test_an_address_counts_unless_the_provider_says_that_it_is_unverified() -> None:
    mail = {**ADA, "email": "ada@example.org"}
    assert owners.of_login(mail) == "mail:ada@example.org"
    assert owners.of_login({**mail, "email_verified": True}) == "mail:ada@example.org"
    assert owners.of_login({**mail, "email_verified": False}) == owners.of_login(ADA)


def test_whoever_has_not_signed_in_sees_only_where_to(store: Store) -> None:
    fake_runs.make(store, "sine")
    app = opened()
    assert [button.label for button in app.button] == ["Sign in"]
    assert not app.error
    two = opened(auth={"cookie_secret": "c", "hub": ONE, "campus": ONE})
    assert [button.label for button in two.button] == ["Sign in with hub", "Sign in with campus"]


@pytest.mark.parametrize("package", ["authlib", "httpx"])
def test_what_is_not_installed_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    install(monkeypatch, without=package)
    app = opened()
    assert [error.value.count("with its extra `login`") for error in app.error] == [1]
    assert not app.button


def test_a_login_that_names_nobody_owns_nothing(store: Store) -> None:
    app = opened({"is_logged_in": True, "name": "Ada"})
    assert [button.label for button in app.button] == ["Sign out"]
    assert "neither an e-mail address nor a `sub`" in app.error[0].value


def test_runs_are_commanded_by_the_login_that_began_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = Visitor(owner=owners.of_login(ADA))
    monkeypatch.setattr(owners, "_source", lambda: ada)
    fake_runs.make(store, "sine", state="stopped", stop="gates")
    for user, refused in ((ADA, False), ({**ADA, "iss": "https://b.example"}, True)):
        app = opened(user, page="merge")
        said = " ".join(each.value for each in [*app.caption, *app.info, *app.warning, *app.error])
        assert ("is somebody else's" in said) == refused
