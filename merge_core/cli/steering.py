"""`netweld steer`, `netweld fork` and `netweld undo`: a run that changes course."""

import dataclasses
import time
from typing import Annotated, Literal, get_args

import typer

from merge_core import commanding, forking
from merge_core.cli.following import follow
from merge_core.cli.options import DataDirectory, NoWait, RunName, Settings
from merge_core.cli.settings import pairs
from merge_core.errors import RecipeError
from merge_core.schedules import KINDS, Schedule
from merge_core.steering import schedule_in
from merge_core.store import ForkPoint, Store
from merge_core.views.steering import fork_point, gate_stage

ANSWER_SECONDS = 60.0
"""How long to wait for a worker's answer; it may have to finish a step or import torch."""
LOOK_SECONDS = 0.05

Verb = Literal["pause", "step", "go", "cut", "lambda", "rate"]


def steer(
    run: RunName,
    what: Annotated[
        str, typer.Argument(help=f"One of {', '.join(get_args(Verb))}.", metavar="COMMAND")
    ],
    value: Annotated[
        str | None,
        typer.Argument(
            help=f"For lambda: the kind of schedule, one of {', '.join(KINDS)}. For rate: a number."
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            "--from",
            help="The first epoch that it holds for; by default the next.",
            metavar="EPOCH",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the λ schedule.", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Pause a run, take it epoch by epoch, cut it now, or change λ or the gates' learning rate.

    What has been trained stays as it is; what changes becomes a part of the run's recipe.
    """
    store = Store()
    name = store.find(run)
    if what not in get_args(Verb):
        raise RecipeError(
            f"There is no command {what!r}; choose one of {', '.join(get_args(Verb))}, or use "
            f"`netweld stop`."
        )
    if what != "lambda" and settings:
        raise RecipeError(f"--set is for the λ schedule, but {what} was given; leave it out.")
    if what not in ("lambda", "rate") and (value is not None or epoch is not None):
        raise RecipeError(f"The command {what} takes neither a value nor --from; leave them out.")
    match what:
        case "pause":
            command = commanding.pause(store, name)
        case "step":
            command = commanding.step(store, name)
        case "go":
            command = commanding.go_on(store, name)
        case "cut":
            command = commanding.cut_now(store, name)
        case "rate":
            command = commanding.change_rate(store, name, _number(value), epoch)
        case _:
            schedule = _schedule(store, name, value, pairs(settings or []), epoch)
            command = commanding.change_schedule(store, name, schedule, epoch)
    raise typer.Exit(_wait_for_answer(store, name, command))


def _number(value: str | None) -> float:
    try:
        return float(value or "")
    except ValueError as error:
        raise RecipeError(
            f"The gates' learning rate got {value!r}, but a number was expected; write for example "
            f"`netweld steer latest rate 0.5`."
        ) from error


def _schedule(
    store: Store, name: str, kind: str | None, settings: dict[str, str], epoch: int | None
) -> Schedule:
    """The schedule that holds at an epoch, with what was asked for."""
    with store.open(name) as reader:
        recipe = commanding.merge_of(reader)
        stage = gate_stage(reader)
    if epoch is None:
        epoch = stage.done + 1 if stage else 1
    now = schedule_in(recipe.gates.schedule, recipe.steering, epoch)
    changes = {f"gates.schedule.{key}": text for key, text in settings.items()}
    if kind is not None:
        changes["gates.schedule.kind"] = kind
    if not changes:
        raise RecipeError(
            "The λ schedule got nothing to change; write for example "
            "`netweld steer latest lambda linear --set start=1 --set end=30`."
        )
    gates = dataclasses.replace(recipe.gates, schedule=now)
    return dataclasses.replace(recipe, gates=gates).changed(changes).gates.schedule


def _wait_for_answer(store: Store, name: str, command: int) -> int:
    """Print what the worker makes of a command; returns 0 when it obeys."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while (answer := commanding.answer(store, name, command)) is None:
        if time.monotonic() > deadline:
            typer.echo(
                f"Run {name} was told so but has not answered yet; `netweld show {name}` will say "
                f"what became of it.",
                err=True,
            )
            return 1
        time.sleep(LOOK_SECONDS)
    if answer.refused:
        typer.echo(answer.words, err=True)
        return 1
    typer.echo(f"Run {name}: {answer.words}, at step {answer.step} of stage {answer.stage}.")
    return 0


def fork(
    run: RunName,
    epoch: Annotated[
        int | None,
        typer.Option(min=0, help="After so many epochs of the gate stage.", metavar="EPOCH"),
    ] = None,
    stage: Annotated[
        str | None, typer.Option("--after", help="At the end of a stage instead.", metavar="STAGE")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Another seed for all draws from there.", metavar="N")
    ] = None,
    settings: Settings = None,
    data: DataDirectory = None,
    no_wait: NoWait = False,
) -> None:
    """Start a run that shares another one's past and goes on otherwise.

    In the gate stage λ (gates.schedule) and gates.learning_rate can change from there on; later
    stages' settings, such as gates.selection and fine_tune, can change as well. Without a change
    the fork gives its parent's numbers.
    """
    store = Store()
    parent = store.find(run)
    if (epoch is None) == (stage is None):
        raise RecipeError(
            "Say where to fork: --epoch for an epoch of the gate stage, or --after for the end of "
            "a stage."
        )
    if stage is not None:
        point = ForkPoint(stage=stage)
    else:
        with store.open(parent) as reader:
            point = fork_point(reader, epoch or 0)
    name, _ = forking.fork(
        store, parent, point, seed=seed, settings=pairs(settings or []), data=data
    )
    typer.echo(f"Run {name} goes on from {point}, of {parent}.")
    if no_wait:
        typer.echo(f"Look at it with `netweld show {name}`, or in the dashboard.")
        return
    raise typer.Exit(follow(store, name))


def undo(run: RunName, data: DataDirectory = None, no_wait: NoWait = False) -> None:
    """Return to before the last change of a steered run: a fork without that change."""
    store = Store()
    parent = store.find(run)
    name, _ = forking.undo(store, parent, data)
    with store.open(name) as reader:
        branch = reader.branch()
    assert branch is not None
    typer.echo(f"Run {name} goes on from {branch.point}, of {parent}.")
    if no_wait:
        typer.echo(f"Look at it with `netweld show {name}`, or in the dashboard.")
        return
    raise typer.Exit(follow(store, name))
