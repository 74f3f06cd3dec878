"""What a worker hears between two steps: commands from the queue, signals (no torch).

Commands are carried out in the order in which they were given, and each is answered in the run's
database: with the step at which it takes effect, or with the sentence that says why it does not.
What changes numbers becomes a part of the recipe in the same transaction, before it acts.
"""

import math
import signal
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from merge_core.errors import RecipeError
from merge_core.events import EpochFinished, Event, StagePlanned
from merge_core.recipes import Experiment, Recipe, with_article
from merge_core.recipes.reading import build
from merge_core.schedules import Schedule
from merge_core.steering import CutEarly, NewRate, NewSchedule, Steer, words
from merge_core.store import Answer, Command, RunWriter, Store

POLL_SECONDS = 0.2
"""At most one look at the command queue in this time."""

_TOO_LATE = "The worker ended before it could hear this; give it again once the run goes on."
_FORK_INSTEAD = "fork it from an epoch of the gate stage instead"


class Stopped(Exception):
    """Somebody asked the run to stop; the message is the sentence for its status."""


class _Refused(Exception):
    """A command cannot be carried out; the message is the answer."""


class Ears:
    """Hears and obeys.

    Attributes:
        recipe: of the run, as steered so far.
        signal: the last signal that was caught.

    Args:
        store: where the commands are.
        writer: the run.
        name: its name.
        recipe: its recipe.
        after: commands up to this id were meant for an earlier worker.
        keep: called at the end of an epoch, when the run pauses there or what follows was changed.
        check: called while the run is paused; it raises what must not wait.
    """

    def __init__(
        self,
        store: Store,
        writer: RunWriter,
        name: str,
        recipe: Experiment,
        after: int,
        *,
        keep: Callable[[EpochFinished], None],
        check: Callable[[], None],
    ) -> None:
        self._store = store
        self._writer = writer
        self._name = name
        self._heard = after
        self._answered: Collection[int] = ()
        self._keep = keep
        self._check = check
        self._next_look = 0.0
        self._paused = self._one_epoch = self._stopping = False
        self._planned: dict[str, StagePlanned] = {}
        self._epoch: EpochFinished | None = None
        self.recipe = recipe
        self.signal: int | None = None

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: only remember."""
        self.signal = number

    def begin(self, answered: Collection[int]) -> None:
        """The worker begins: refuse what an earlier one should have heard.

        Args:
            answered: ids of the commands that earlier workers have answered.

        Raises:
            Stopped: the run shall stop; already acknowledged.
        """
        self._answered = answered
        for command in self._store.commands(self._name):
            if command.id <= self._heard and command.id not in answered:
                self._answer(command, _TOO_LATE, refused=True)
        self._hear_stop()
        self._end()

    def heed_stop(self) -> None:
        """Before anything is planned, hear only that the run shall stop.

        Raises:
            Stopped: it shall; already acknowledged.
        """
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + POLL_SECONDS
            self._hear_stop()
        self._end()

    def _hear_stop(self) -> None:
        for command in self._store.commands(self._name, after=self._heard):
            if command.verb == "stop" and command.id not in self._answered:
                self._obey(command)

    def close(self) -> None:
        """The run is over: refuse what can no longer be heard."""
        for command in self._store.commands(self._name, after=self._heard):
            self._heard = command.id
            self._answer(command, _TOO_LATE, refused=True)

    def obey(self, event: Event | None = None) -> None:
        """Carry out what was asked for; wait while the run is paused.

        Args:
            event: what has just happened; None in the middle of a long computation.

        Raises:
            Stopped: the run shall stop; already acknowledged.
            StoreError: the run is no longer in the index.
        """
        if isinstance(event, StagePlanned):
            self._planned[event.stage] = event
            return
        self._epoch = event if isinstance(event, EpochFinished) else None
        if self._epoch and self._one_epoch:
            self._one_epoch, self._paused = False, True
        self._listen()
        if not self._paused:
            return
        if self._epoch:
            self._keep(self._epoch)
        self._writer.pause()
        while self._paused:
            time.sleep(POLL_SECONDS)
            self._check()
            self._listen()
        self._writer.go_on()

    def _listen(self) -> None:
        self._end()
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + POLL_SECONDS
        for command in self._store.commands(self._name, after=self._heard):
            self._obey(command)
        self._end()

    def _end(self) -> None:
        if self.signal is not None:
            raise Stopped(f"Stopped by the signal {signal.Signals(self.signal).name}.")
        if self._stopping:
            raise Stopped("Stopped as asked.")

    def _obey(self, command: Command) -> None:
        self._heard = command.id
        if command.id in self._answered:
            return
        try:
            match command.verb:
                case "stop":
                    self._stopping = True
                    self._answer(command, "stopped")
                case "pause":
                    self._paused, self._one_epoch = True, False
                    self._answer(command, "paused")
                case "step":
                    self._paused, self._one_epoch = False, True
                    self._answer(command, "goes on to the end of an epoch")
                case "go":
                    if not (self._paused or self._one_epoch):
                        raise _Refused("The run was not paused, so it cannot go on.")
                    self._paused = self._one_epoch = False
                    self._answer(command, "goes on")
                case "cut" | "lambda" | "rate":
                    self._steer(command)
                case other:
                    raise _Refused(
                        f"There is no command {other!r}; expected pause, step, go, stop, cut, "
                        f"lambda or rate."
                    )
        except (_Refused, RecipeError) as error:
            self._answer(command, str(error), refused=True)

    def _answer(self, command: Command, text: str, *, refused: bool = False) -> None:
        self._writer.answer(
            Answer(
                command=command.id,
                verb=command.verb,
                arguments=command.arguments,
                stage=self._writer.stage,
                epoch=None,
                step=self._writer.step,
                refused=refused,
                words=text,
                time=self._writer.now(),
            )
        )

    def _steer(self, command: Command) -> None:
        """Change what comes; raises _Refused or RecipeError where that cannot be."""
        recipe = self.recipe
        if not isinstance(recipe, Recipe) or "gates" not in self._planned:
            raise _Refused(
                f"The run is {with_article(recipe.kind)} without a gate stage, so there is no λ to "
                f"steer; only pause, step, go and stop are for all runs."
            )
        plan = self._planned["gates"]
        per_epoch = plan.steps // plan.epochs
        steer = self._asked(command, self._next_epoch(recipe, per_epoch))
        steered = recipe.steered(steer)
        self._writer.answer(
            Answer(
                command=command.id,
                verb=command.verb,
                arguments=command.arguments,
                stage="gates",
                epoch=steer.epoch,
                step=(steer.epoch - 1) * per_epoch,
                refused=False,
                words=words(steer),
                time=self._writer.now(),
            ),
            steered,
        )
        self.recipe = steered
        if self._epoch and (self._epoch.stage, self._epoch.epoch + 1) == ("gates", steer.epoch):
            self._keep(self._epoch)

    def _next_epoch(self, recipe: Recipe, per_epoch: int) -> int:
        """The first epoch of the gate stage that has not begun."""
        stages, now = list(self._planned), self._writer.stage
        if now is None or stages.index(now) < stages.index("gates"):
            return 1
        begun = math.ceil(self._writer.step / per_epoch)
        if now != "gates" or begun >= recipe.gate_epochs:
            raise _Refused(
                f"The gates have begun the last of their {recipe.gate_epochs} epochs or have "
                f"learned already, so nothing can be changed in this run; {_FORK_INSTEAD}."
            )
        return begun + 1

    def _asked(self, command: Command, earliest: int) -> Steer:
        given = dict(command.arguments)
        if command.verb == "cut":
            return CutEarly(epoch=max(earliest, 2))
        epoch: Any = given.get("epoch")
        if epoch is None:
            epoch = earliest
        epoch = build(int, epoch, "epoch")
        if epoch < earliest:
            raise _Refused(
                f"Epoch {epoch} has begun or is over, and what has been trained stays as it is; "
                f"give epoch {earliest} or a later one, or {_FORK_INSTEAD}."
            )
        if command.verb == "rate":
            rate = build(float, given.get("rate"), "rate")
            return NewRate(epoch=epoch, learning_rate=rate)
        schedule = build(Schedule, given.get("schedule"), "schedule")
        return NewSchedule(epoch=epoch, schedule=schedule)
