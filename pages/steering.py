"""Steering the picked run: what its worker is told while it works, and what it answers."""

import dataclasses
from collections.abc import Callable
from functools import partial

import streamlit as st

from merge_core import commanding, forking, launch, queue
from merge_core.errors import NetweldError, StoreError
from merge_core.recipes import Recipe
from merge_core.schedules import Schedule
from merge_core.steering import rate_in, schedule_in, words
from merge_core.store import RunReader, Store
from merge_core.views.runs import stage_title
from merge_core.views.steerable import Steerable, past_until, sent_words, steerable
from merge_core.views.steering import marker_frame
from pages import identity, living, picking, precedents, showing
from pages.schedule_editor import edit_schedule

MADE = "made-fork"
"""The name of a fork that a button has just started."""
SERIAL = "fork-serial"
"""How many forks this browser has asked for; a button counts for one of them."""
_ASKED = "change-asked"
"""The run and the change whose button was clicked just now."""
_LATEST = 3
"""Answers that are shown beside the buttons."""


def _told(action: Callable[[], object]) -> None:
    """Do what a button asks for; an error is a sentence that stays for a while."""
    try:
        action()
    except NetweldError as error:
        st.toast(str(error), icon=":material/error:", duration="long")


def send(name: str, verb: str, give: Callable[[Store, str], object]) -> None:
    """Give a run a command, unless it is given already; a button's callback.

    Args:
        name: the run.
        verb: the command's.
        give: puts it into the queue.
    """

    def action() -> None:
        store = Store()
        with store.open(name) as reader:
            found = steerable(store, reader)
        if found is not None and (why := found.refusal(verb)):
            raise StoreError(why)
        give(store, name)

    _told(action)


def make_fork(serial: int, make: Callable[[], tuple[str, object]]) -> None:
    """Start a fork, once for each button that was drawn.

    Args:
        serial: of the button.
        make: starts the fork; gives its name.
    """

    def action() -> None:
        st.session_state[MADE] = make()[0]

    if serial == st.session_state.get(SERIAL, 0):
        st.session_state[SERIAL] = serial + 1
        _told(action)


def go_to_fork() -> None:
    """Show the fork that a button has just started."""
    if made := st.session_state.pop(MADE, None):
        picking.show_run(made)


def panel(reader: RunReader, found: Steerable | None) -> None:
    """How far the picked run is, the buttons that steer it, and what became of each command."""
    if found is None or not found.alive or (found.at == "after" and found.state != "paused"):
        living.state_note(picking.picked_summary())
        return
    refusal = identity.refusal(reader.name)
    with st.container(border=True, key="steering"):
        _progress(found, reader)
        if refusal:
            st.caption(refusal)
        _buttons(found, reader.name, refusal)
        _log(found, reader)


def _progress(found: Steerable, reader: RunReader) -> None:
    """Where the run is now, in one line and a bar."""
    steps = {row["stage"]: row["steps"] for row in reader.plan()}
    if living.preparing(reader) or found.stage is None:
        return
    total = steps.get(found.stage, 0)
    parts = [f"**{stage_title(found.stage)}**"]
    if found.at == "gates":
        parts.append(f"epoch {max(found.begun, 1)} of {found.recipe.gate_epochs}")
    if total:
        parts.append(f"step {found.step:,} of {total:,}")
    if found.at == "gates" and found.done:
        weight = reader.latest("gates", "lambda")
        rate = rate_in(found.recipe.gates.learning_rate, found.recipe.steering, found.begun)
        parts.append(f"λ {weight:.3g} · gate learning rate {rate:g}")
    if found.state == "paused":
        parts.insert(0, "‖ **Paused**: the run computes nothing until it is told to go on")
    elif found.stepping:
        parts.append("pauses at the end of this epoch")
    st.progress(min(found.step / total, 1.0) if total else 0.0, text=" · ".join(parts))


def _buttons(found: Steerable, name: str, refusal: str) -> None:
    """Every command; those that would be of no use now say why.

    Args:
        found: the run.
        name: of the run.
        refusal: why the visitor may not command it; empty where they may.
    """
    serial = st.session_state.get(SERIAL, 0)
    paused = found.state == "paused"
    with st.container(horizontal=True):
        for verb, label, icon, give, what in (
            (
                "pause",
                "Pause",
                "pause",
                commanding.pause,
                f"Computes nothing until told to go on. After {queue.PAUSE_SECONDS:g} s of pauses "
                f"its place on the processor is free for others.",
            ),
            (
                "step",
                "One epoch",
                "skip_next",
                commanding.step,
                "Goes on until an epoch is over, then pauses.",
            ),
            ("go", "Go on", "play_arrow", commanding.go_on, "Ends the pause."),
            (
                "cut",
                "Cut now",
                "content_cut",
                commanding.cut_now,
                "Ends the gate stage after this epoch and keeps the most open half.",
            ),
            (
                "stop",
                "Stop",
                "stop",
                launch.stop,
                "Ends the worker. Resume on the page Merge goes on from the last checkpoint.",
            ),
        ):
            why = refusal or found.refusal(verb)
            sent = any(each.verb == verb for each in found.pending)
            st.button(
                f"{label} …" if sent else label,
                icon=f":material/{icon}:",
                key=f"steer-{verb}",
                help=why or what,
                disabled=bool(why),
                type="primary" if verb == "go" and paused else "secondary",
                on_click=partial(send, name, verb, give),
            )
        steers = found.recipe.steering
        st.button(
            "Undo",
            icon=":material/undo:",
            key=f"undo-{serial}",
            disabled=not steers or bool(refusal),
            help=f"Returns to before “{words(steers[-1])}”: stops this run, which can be resumed, "
            f"and forks it from its checkpoint before the change."
            if steers
            else "Nothing has been changed in this run.",
            on_click=partial(make_fork, serial, partial(forking.undo, Store(), name)),
        )


def _log(found: Steerable, reader: RunReader) -> None:
    """What was sent, and what became of it; the newest first."""
    lines = [f"◌ **sent** · {sent_words(each)}" for each in reversed(found.pending)]
    answered = marker_frame(reader)
    for row in answered[answered["command"] > 0].iloc[::-1].to_dict("records")[:_LATEST]:
        if row["refused"]:
            lines.append(f"✗ **refused** · {row['words']}")
        else:
            where = (
                f"at step {row['step']:,} of {stage_title(row['stage'])}" if row["stage"] else ""
            )
            lines.append(f"✓ **{row['words']}** · took effect {where or 'before the first stage'}")
    if lines:
        st.markdown("\n".join(f"- {line}" for line in lines))


def change() -> None:
    """The part of the page that changes λ or the learning rate from an epoch on."""
    summary = picking.picked_summary()
    name, store = summary.name, Store()
    asked = st.session_state.pop(_ASKED, None)
    fold = st.expander(
        "Change λ or the learning rate of the gates",
        icon=":material/tune:",
        on_change="rerun",
        key=f"change-{name}",
    )
    if not fold.open:
        return
    with fold, showing.errors_as_sentences(), store.open(name) as reader:
        found = steerable(store, reader)
        if found is None or not found.learning:
            st.caption("The last epoch of the gates has begun; fork the run instead.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom"):
            what = st.segmented_control(
                "What to change",
                {"lambda": "λ schedule", "rate": "Learning rate"},
                format_func={"lambda": "λ schedule", "rate": "Learning rate"}.__getitem__,
                default="lambda",
                required=True,
                key=f"what-{name}",
            )
            epoch = _beginning(found, name)
        late = epoch is not None and epoch <= found.begun
        if late:
            st.caption(f"Epoch {epoch} has begun; choose epoch {found.begun + 1} or a later one.")
        give = (_schedule if what == "lambda" else _rate)(found, reader, epoch)
        why = identity.refusal(name) or found.refusal(what)
        if not why and late:
            why = "What has been trained stays as it is."
        if not why and give is None:
            why = "This is what holds already; change something first."
        # A callback would send what was drawn before: a number that is typed just before the click
        # arrives together with it, and is known only here.
        if asked == (name, what) and give is not None and not why:
            send(name, what, give)
            st.rerun(scope="app")
        since = "the next epoch" if epoch is None else f"epoch {epoch}"
        st.button(
            f"Send: from {since} on",
            type="primary",
            icon=":material/send:",
            key=f"send-{what}",
            disabled=bool(why),
            help=why or "The worker answers within a second, and training goes on meanwhile.",
            on_click=partial(ask, _ASKED, (name, what)),
        )


def ask(key: str, what: object) -> None:
    """Remember a click until the page has come to what it is about; a button's callback."""
    st.session_state[key] = what


def _beginning(found: Steerable, name: str) -> int | None:
    """The first epoch that a change holds for; None for the next that begins."""
    since = st.segmented_control(
        "From",
        ["the next epoch", "a later epoch"],
        default="the next epoch",
        required=True,
        key=f"since-{name}",
    )
    if since == "the next epoch":
        return None
    last = found.recipe.gate_epochs
    return int(
        st.number_input(
            "Epoch", 1, last, min(found.begun + 2, last), key=f"since-epoch-{name}", width=140
        )
    )


def _schedule(
    found: Steerable, reader: RunReader, epoch: int | None
) -> Callable[[Store, str], object] | None:
    """The editor of λ; what gives the change, None where nothing is changed."""
    recipe = found.recipe
    now = schedule_in(recipe.gates.schedule, recipe.steering, epoch or found.begun + 1)
    chosen = edit_from(recipe, reader, now, found.done, f"steer-{reader.name}")
    if chosen == now:
        return None
    return lambda store, name: commanding.change_schedule(store, name, chosen, epoch)


def edit_from(recipe: Recipe, reader: RunReader, now: Schedule, done: int, key: str) -> Schedule:
    """The editor of a schedule for a stage of which some epochs are over.

    Args:
        recipe: of the run.
        reader: the run.
        now: the schedule that holds; it stays in sight.
        done: epochs that are over.
        key: of the editor, which begins anew when the run was steered meanwhile.
    """
    return edit_schedule(
        dataclasses.replace(recipe.gates, schedule=now),
        key=f"{key}-{len(recipe.steering)}",
        epochs=recipe.gating.epochs,
        known=precedents.known_gates(recipe, recipe.model, reader),
        past=past_until(reader, done) if done else None,
        ghost=now,
    )


def _rate(
    found: Steerable, reader: RunReader, epoch: int | None
) -> Callable[[Store, str], object] | None:
    """The field for the learning rate; what gives the change, None where nothing is changed."""
    recipe = found.recipe
    now = rate_in(recipe.gates.learning_rate, recipe.steering, epoch or found.begun + 1)
    rate = float(
        st.number_input(
            "Learning rate of the gates",
            1e-6,
            100.0,
            now,
            0.01,
            "%.4g",
            key=f"rate-{reader.name}-{len(recipe.steering)}",
            width=220,
            help="Of the gates alone; that of the weights stays as it is.",
        )
    )
    if rate == now:
        return None
    return lambda store, name: commanding.change_rate(store, name, rate, epoch)
