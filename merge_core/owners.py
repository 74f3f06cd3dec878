"""Whose a run, a table, a lab or a search is, and who may command it (no torch, no Streamlit).

An owner is a word: "user:ada" for whoever uses the terminal of this machine, "browser:1f2e…" for a
browser that a shared dashboard has given a signed token, "mail:ada@example.org" for somebody who
has signed in, or "login:https://example.org#17" where their login has no e-mail address.
"""

import getpass
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merge_core.errors import StoreError

INSTRUCTOR_KEY = "NETWELD_INSTRUCTOR_KEY"
"""The environment variable with the word that makes an instructor of whoever knows it."""


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at the dashboard, or uses a terminal.

    Attributes:
        owner: the owner of the runs that they start.
        commands_all: whether they may command everyone's runs: an instructor, whoever uses the
            terminal, and everyone where a dashboard is for one person.
        instructor: whether they may limit others and clear the queue.
    """

    owner: str
    commands_all: bool = False
    instructor: bool = False

    def may_command(self, owner: str | None) -> bool:
        """Whether they may stop, steer, resume and delete a run of that owner."""
        return self.commands_all or owner == self.owner

    def require(self, name: str, owner: str | None, kind: str = "run") -> None:
        """Refuse what is not theirs.

        Args:
            name: what they would command.
            owner: whose it is.
            kind: "run", "table", "lab" or "search".

        Raises:
            StoreError: it is somebody else's.
        """
        if self.may_command(owner):
            return
        own = "start or fork a run of your own"
        if kind != "run":
            own = f"start a {kind} of your own, with other settings,"
        raise StoreError(
            f"{kind.capitalize()} {name.rpartition('/')[2]} is somebody else's; look at it as you "
            f"like, and {own} to command one."
        )


def of_the_terminal() -> Visitor:
    """Whoever uses this machine's terminal; in their own home directory they may command all."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return Visitor(owner=f"user:{name}", commands_all=True, instructor=True)


_source: Callable[[], Visitor] = of_the_terminal


def acting() -> Visitor:
    """Whoever this process acts for at this moment."""
    return _source()


def tell_who_acts(source: Callable[[], Visitor]) -> None:
    """Where a process acts for many people, let it say for whom at the moment of asking.

    A dashboard does; every other process acts for whoever started it.
    """
    global _source
    _source = source


def new_browser() -> Visitor:
    """A browser that comes for the first time."""
    return Visitor(owner=f"browser:{secrets.token_hex(8)}")


def of_login(claims: Mapping[str, object]) -> str:
    """The owner that an OpenID login stands for; empty for one that names nobody.

    An address that the provider says it has not verified might be anybody's. `sub` is one person
    at one issuer only (OpenID Connect Core 1.0, section 2), so it goes with the issuer.

    Args:
        claims: of the identity token.
    """
    mail, sub = claims.get("email"), claims.get("sub")
    if mail and claims.get("email_verified") is not False:
        return f"mail:{mail}"
    return f"login:{claims.get('iss') or ''}#{sub}" if sub else ""


def may_instruct(word: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a word is the instructor's key; never where no key is set."""
    key = environment.get(INSTRUCTOR_KEY, "")
    return bool(key) and hmac.compare_digest(word.encode(), key.encode())


def token(home: Path, visitor: Visitor, environment: Mapping[str, str] = os.environ) -> str:
    """What a browser keeps to be known again: owner, role and signature.

    Raises:
        StoreError: the key that signs cannot be written.
    """
    role = "instructor" if visitor.instructor else "user"
    return f"{visitor.owner}.{role}.{_signature(home, visitor.owner, role, environment)}"


def known(
    home: Path, text: str | None, environment: Mapping[str, str] = os.environ
) -> Visitor | None:
    """Who shows a token; None for one that was not given here, or an instructor's of another key.

    Raises:
        StoreError: the key that signs cannot be read.
    """
    owner, _, rest = (text or "").partition(".")
    role, _, signature = rest.partition(".")
    if not owner.startswith("browser:") or role not in ("user", "instructor"):
        return None
    right = _signature(home, owner, role, environment)
    if not hmac.compare_digest(signature.encode(), right.encode()):
        return None
    instructor = role == "instructor"
    return Visitor(owner=owner, commands_all=instructor, instructor=instructor)


def _signature(home: Path, owner: str, role: str, environment: Mapping[str, str]) -> str:
    # Whoever was made an instructor with an old key is none with the next.
    key = environment.get(INSTRUCTOR_KEY, "") if role == "instructor" else ""
    return hmac.new(_key(home), f"{owner}\n{role}\n{key}".encode(), hashlib.sha256).hexdigest()


def _key(home: Path) -> bytes:
    """The key of a home directory, made when it is first needed; only its owner can read it."""
    path = home / "owners.key"
    try:
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            draft.touch(0o600, exist_ok=False)
            draft.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):  # another dashboard was faster, and its key counts
                path.hardlink_to(draft)
            draft.unlink()
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"The key {path} cannot be used ({error.strerror}); set NETWELD_HOME to a directory "
            f"that can be written."
        ) from error
