"""A browser without its drawing: a WebSocket session that speaks Streamlit's protocol.

It asks for pages, has their parts drawn again as the server wishes, and fills in and presses what
is on them, as somebody at a screen would. How long every answer took is written down.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from merge_core.errors import NetweldError

PATIENCE = 60.0
"""Seconds after which an answer of the server, or what somebody waits to see, is an error."""
_LOOK_SECONDS = 0.02
_KINDS = ("button", "number_input", "selectbox", "button_group")
_COOKIES = "netweld_owner"
"""The component that lets a browser keep who it is."""


@dataclass(frozen=True, kw_only=True)
class Widget:
    """Something on a page that can be pressed or filled in.

    Attributes:
        id: what the server knows it by.
        part: the part of the page that is drawn anew when it changes; empty for the whole page.
        disabled: whether it is greyed out.
        value: what a list that drops down was set to by the page; else empty.
    """

    id: str
    part: str
    disabled: bool
    value: str = ""


@dataclass(kw_only=True)
class Record:
    """What a browser met with.

    Attributes:
        answers: seconds from asking for a page, or a part of one, to its last element.
        errors: what went wrong, in the server's or our words.
    """

    answers: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Browser:
    """One session; see `opened`.

    Attributes:
        widgets: label → what is on the page now.
        cookies: name → what the pages asked to be kept.
    """

    def __init__(self, server: ClientConnection, record: Record) -> None:
        self._server = server
        self._record = record
        self._page = self._hash = self._query = ""
        self._due: dict[str, float] = {}
        self._every: dict[str, float] = {}
        self.widgets: dict[str, Widget] = {}
        self.cookies: dict[str, str] = {}

    def visit(self, page: str, query: str = "") -> None:
        """Ask for a page."""
        self._page, self._hash, self._query = page, "", query
        self._ask("")

    def can(self, label: str) -> bool:
        """Whether there is such a widget that is not greyed out."""
        return label in self.widgets and not self.widgets[label].disabled

    def press(self, label: str) -> None:
        """Press a button."""
        widget = self.require(label)
        self._ask(widget.part, WidgetState(id=widget.id, trigger_value=True))

    def unfold(self, label: str) -> None:
        """Open a fold that is drawn only when it is open."""
        widget = self.require(label)
        self._ask(widget.part, WidgetState(id=widget.id, bool_value=True))

    def choose(self, label: str, option: str) -> None:
        """Choose one of a row of buttons."""
        widget = self.require(label)
        state = WidgetState(id=widget.id)
        state.string_array_value.data.append(option)
        self._ask(widget.part, state)

    def pick(self, label: str, option: str) -> None:
        """Pick an option from a list that drops down."""
        widget = self.require(label)
        self._ask(widget.part, WidgetState(id=widget.id, string_value=option))

    def type(self, label: str, number: float) -> None:
        """Type a number into a field."""
        widget = self.require(label)
        self._ask(widget.part, WidgetState(id=widget.id, double_value=number))

    def watch(self, until: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Look on, and have the parts of the page drawn again as often as the server wishes.

        Raises:
            NetweldError: it did not come about in so many seconds.
        """
        latest = time.monotonic() + patience
        while not until():
            if time.monotonic() > latest:
                raise NetweldError(
                    f"The page {self._page} was looked at for {patience:g} s in vain; it has "
                    f"{', '.join(sorted(self.widgets))}."
                )
            now = time.monotonic()
            part = next((part for part, at in self._due.items() if at <= now), None)
            if part is None:
                time.sleep(_LOOK_SECONDS)
            else:
                self._ask(part)
                self._due[part] = time.monotonic() + self._every.get(part, 0.0)
                self._due = {part: at for part, at in self._due.items() if part in self._every}

    def require(self, label: str) -> Widget:
        """The widget of a label.

        Raises:
            NetweldError: there is none, or it is greyed out.
        """
        if not self.can(label):
            raise NetweldError(
                f"The page {self._page} has no {label!r} that can be used; it has "
                f"{', '.join(sorted(self.widgets))}."
            )
        return self.widgets[label]

    def _ask(self, part: str, *states: WidgetState) -> None:
        """Ask for the page, or a part of it, and take in what comes."""
        begun = time.monotonic()
        message = BackMsg()
        message.rerun_script.query_string = self._query
        if self._hash:
            message.rerun_script.page_script_hash = self._hash
        else:
            message.rerun_script.page_name = self._page
        message.rerun_script.fragment_id = part
        message.rerun_script.is_auto_rerun = bool(part) and not states
        message.rerun_script.widget_states.widgets.extend(states)
        self._server.send(message.SerializeToString())
        over = False
        while not over:
            told = ForwardMsg()
            received = self._server.recv(timeout=PATIENCE)
            assert isinstance(received, bytes)
            told.ParseFromString(received)
            match told.WhichOneof("type"):
                case "navigation":
                    self._hash = told.navigation.page_script_hash
                case "new_session":
                    self._forget(list(told.metadata.run.fragment_ids))
                case "auto_rerun":
                    every = told.auto_rerun.interval
                    self._every[told.auto_rerun.fragment_id] = every
                    self._due.setdefault(told.auto_rerun.fragment_id, begun + every)
                case "page_info_changed":
                    self._query = told.page_info_changed.query_string
                case "delta":
                    self._take(told.delta)
                case "script_finished":
                    # Where the page starts over at once, it has not answered yet.
                    over = told.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN
        self._record.answers.append(time.monotonic() - begun)

    def _forget(self, parts: list[str]) -> None:
        """What is drawn anew: parts of the page, or all of it where none is named."""
        if parts:
            self.widgets = {
                label: each for label, each in self.widgets.items() if each.part not in parts
            }
        else:
            self.widgets, self._every, self._due = {}, {}, {}

    def _take(self, delta: Delta) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        if delta.WhichOneof("type") == "add_block":
            fold = delta.add_block.expandable
            if fold.id:
                self.widgets[fold.label] = Widget(
                    id=fold.id, part=delta.fragment_id, disabled=False
                )
        elif kind == "exception":
            self._record.errors.append(element.exception.message)
        elif kind == "bidi_component" and element.bidi_component.component_name == _COOKIES:
            kept = json.loads(element.bidi_component.json)
            self.cookies[kept["name"]] = kept["token"]
        elif kind in _KINDS:
            drawn = getattr(element, kind)
            value = drawn.raw_value if kind == "selectbox" and drawn.set_value else ""
            self.widgets[drawn.label] = Widget(
                id=drawn.id, part=delta.fragment_id, disabled=drawn.disabled, value=value
            )


@contextmanager
def opened(
    address: str, record: Record, cookies: Mapping[str, str] | None = None
) -> Iterator[Browser]:
    """A session with the dashboard at an address.

    Args:
        address: of the server, with http.
        record: where the answers and the errors of pages are written down.
        cookies: what an earlier session was asked to keep.

    Raises:
        NetweldError: there is no server, or it broke off or did not answer.
    """
    shown = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    try:
        with connect(
            address.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=[Subprotocol("streamlit")],
            additional_headers={"Cookie": shown} if shown else None,
            origin=None,
            max_size=None,
            ping_interval=None,  # a busy server is slow, not gone
            open_timeout=PATIENCE,
        ) as server:
            yield Browser(server, record)
    except (OSError, TimeoutError, ConnectionClosed) as error:
        raise NetweldError(
            f"The session with {address} broke off ({type(error).__name__}: {error}); see whether "
            f"the server is there."
        ) from error
