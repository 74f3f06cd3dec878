"""Networks that learn as compiled code: the same training to rounding, and what is refused."""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import small
from test_pages import begun, opened, store
from test_precision import images, learned, small_data
from torch import Tensor, nn

from merge_core import compiling
from merge_core.channels import trace
from merge_core.coupling import couple
from merge_core.data import augmentation
from merge_core.devices import generator
from merge_core.ensembles import fit_together
from merge_core.errors import DeviceError, RecipeError
from merge_core.events import EpochFinished, Progress
from merge_core.methods import LEARNED_GATES, Setting
from merge_core.models import build
from merge_core.presets import find_preset, preset_of
from merge_core.presets.ours import ours
from merge_core.recipes import (
    Code,
    Coupling,
    Experiment,
    Precision,
    Training,
    from_json,
)
from merge_core.repetitions import Results
from merge_core.staging import Stages
from merge_core.store import Store
from merge_core.tables import Block
from merge_core.training import Course, Job, fit, state_arrays
from merge_core.worker import Work, carry_out

__all__ = ["begun", "store"]  # the fixtures

COMPILED = {"code": "compiled"}
needs_compiler = pytest.mark.skipif(
    bool(compiling.missing("cpu")), reason=f"nothing is compiled here: {compiling.missing('cpu')}"
)


class Dropping(nn.Module):
    """As small as can be, with a norm and with draws of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(64, 16), nn.BatchNorm1d(16)
        self.drop, self.output = nn.Dropout(0.5), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.drop(torch.relu(self.norm(self.hidden(x.flatten(1))))))


def job(seed: int = 0, code: Code = "compiled", precision: Precision = "float32") -> Job:
    """Two epochs of two whole batches and a smaller one."""
    torch.manual_seed(seed)
    return Job(
        stage="teacher_a",
        network=Dropping(),
        training=Training(epochs=2, batch_size=32, learning_rate=0.05),
        train=images(80, 0),
        heldout=images(20, 1),
        augment=augmentation("shifts"),
        draws=generator(seed, "order"),
        dropout_seed=seed,
        precision=precision,
        code=code,
    )


def graphs() -> int:
    """How many networks were compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing is compiled yet."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@needs_compiler
@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_it_learns_what_eager_code_learns(precision: Precision, near: float, fresh: None) -> None:
    """Weights, norm statistics and scores to rounding, with the same draws of the dropout."""
    eager, code = job(0, "eager", precision), job(0, "compiled", precision)
    expected, found = learned(eager), learned(code)
    assert graphs() == 1
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.metrics == pytest.approx(theirs.metrics, rel=near, abs=near)
    state = state_arrays(code.network)
    for name, array in state_arrays(eager.network).items():
        assert state[name] == pytest.approx(array, rel=near, abs=near), name


@needs_compiler
def test_networks_of_one_shape_are_compiled_once(fresh: None) -> None:
    jobs = [job(seed) for seed in range(3)]
    events = list(fit_together(jobs, at_once=3))
    assert graphs() == 1
    assert {number for event in events for number in event.networks} == {0, 1, 2}
    alone = job(2)
    learned(alone)
    assert graphs() == 1
    for one, other in zip(jobs[2].network.parameters(), alone.network.parameters(), strict=True):
        assert torch.equal(one, other)


@needs_compiler
def test_a_break_changes_no_number(fresh: None) -> None:
    whole = job()
    expected = learned(whole)
    saved = next(e.checkpoint() for e in fit(job()) if isinstance(e, EpochFinished))
    torch._dynamo.reset()  # as in another process
    second = job(seed=9)
    second = replace(second, dropout_seed=0)  # its other draws are those of the checkpoint
    rest = [e.metrics for e in fit(second, saved) if isinstance(e, EpochFinished)]
    assert rest == [event.metrics for event in expected[1:]]
    state = state_arrays(second.network)
    for key, array in state_arrays(whole.network).items():
        assert (array == state[key]).all()


@needs_compiler
def test_the_rehearsal_leaves_no_trace(fresh: None) -> None:
    mine = job()
    course, before = Course(mine), state_arrays(mine.network)
    drawn, draws = torch.get_rng_state(), mine.draws.get_state()
    course.rehearse()
    assert graphs() == 1
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(mine.draws.get_state(), draws)
    assert all(parameter.grad is None for parameter in mine.network.parameters())
    for name, array in state_arrays(mine.network).items():
        assert (before[name] == array).all()


@needs_compiler
def test_coupled_networks_learn_as_compiled_code(fresh: None, tmp_path: Path) -> None:
    recipe = preset_of("digits-coupled", "quick").recipe
    assert isinstance(recipe, Coupling)
    few = {"data.train": "300", "data.heldout": "60", "data.test": "60", "teacher.epochs": "1"}
    eager, code = (recipe.changed({**few, "code": each}) for each in ("eager", "compiled"))
    expected, found = (list(couple(each, "cpu", data_dir=tmp_path)) for each in (eager, code))
    assert graphs() == 1
    losses = [
        [event.metrics["heldout_loss"] for event in events if isinstance(event, EpochFinished)]
        for events in (expected, found)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_gates_and_small_data_do_without() -> None:
    recipe = find_preset("digits", "quick").recipe.changed(COMPILED)
    setting = Setting(
        recipe=recipe,
        data=small_data(),
        augment=augmentation("none"),
        draws=lambda purpose: generator(0, purpose),
        teachers=2,
    )
    network = build("digits-cnn", 0)
    gated = LEARNED_GATES.job(network, trace(network, setting.example), setting)
    assert gated.code == "eager"
    assert not Course(replace(gated, code="compiled")).compiles
    few = replace(job(), train=images(31, 0))
    assert not Course(few).compiles
    assert Course(job()).compiles
    assert not Course(job(0, "eager")).compiles


def test_who_waits_hears_of_it_and_may_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def rehearse(course: Course) -> None:
        begun.set()
        go_on.wait(60)

    monkeypatch.setattr(Course, "rehearse", rehearse)
    events = fit(job())
    assert isinstance(events, Generator)
    assert [next(events) for _ in range(3)] == [Progress(stage="teacher_a", step=0)] * 3
    assert begun.is_set()
    events.close()  # as when the run is stopped: nobody waits for the compiler
    assert not go_on.is_set()
    go_on.set()


def test_what_cannot_be_compiled_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(network: nn.Module) -> Callable[[Tensor], Tensor]:
        raise ValueError("no such operation\nand many lines more")

    monkeypatch.setattr(compiling, "compiled", lambda network: network)
    course = Course(job())
    monkeypatch.setattr(compiling, "compiled", refuse)
    with pytest.raises(RecipeError) as told:
        list(compiling.meanwhile(course.rehearse))
    assert str(told.value) == (
        "The network could not be compiled (ValueError: no such operation); set code to 'eager' "
        "and start again."
    )


@pytest.mark.parametrize(
    ("device", "words"),
    [("cpu", "C\\+\\+ compiler"), ("cuda", "Triton"), ("mps", "for CPUs and for CUDA")],
)
def test_a_machine_that_cannot_is_refused_before_anything_is_read(
    device: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder
    from torch.utils import _triton

    def nothing() -> str:
        raise RuntimeError

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", nothing)
    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    compiling.require("eager", device)
    with pytest.raises(DeviceError, match=f"'compiled', but .*'{device}'.*{words}.*'eager'"):
        compiling.require("compiled", device)
    recipe = small("digits").changed(COMPILED)
    with pytest.raises(DeviceError, match="code='compiled'"):
        Block(recipe, [0], "epochs", device=device, data_dir=tmp_path)


def test_a_worker_refuses_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "missing", lambda device: "it needs a C++ compiler")
    work = Work(
        recipe=small("digits").changed(COMPILED),
        device="cpu",
        resume=None,
        inputs=(),
        code=None,
        note=lambda key, value: None,
        pulse=lambda progress: None,
        reading=lambda done, of: None,
        steering=tuple,
    )
    with pytest.raises(DeviceError, match="it needs a C\\+\\+ compiler"):
        next(carry_out(work))


def test_torch_can_be_told_never_to_compile() -> None:
    with torch._dynamo.config.patch(disable=True):
        assert compiling.missing("cpu") == "TORCH_COMPILE_DISABLE switches it off"


def test_a_recipe_that_does_not_say_is_not_compiled() -> None:
    """As early versions wrote it, whose tables, labs and searches are named after their recipes."""
    recipe = find_preset("textures", "quick").recipe
    assert recipe.code == "eager"
    assert "code" not in json.loads(recipe.to_json())
    compiled = recipe.changed(COMPILED)
    assert json.loads(compiled.to_json())["code"] == "compiled"
    assert from_json(compiled.to_json()) == compiled
    assert Results(recipe, "epochs").path != Results(compiled, "epochs").path
    assert (recipe.computing, compiled.computing) == ("", ", compiled")
    assert compiled.changed({"precision": "bfloat16"}).computing == " in bfloat16, compiled"


def test_what_comes_of_a_recipe_is_compiled_like_it() -> None:
    recipe = find_preset("digits", "quick").recipe.changed(COMPILED)
    assert ours(recipe, 50).code == "compiled"
    stages = Stages(recipe, "cpu", small_data(), None)
    assert stages.job("teacher_a", nn.Linear(1, 1), recipe.teacher).code == "compiled"


def test_networks_that_fit_numbers_are_not_compiled() -> None:
    with pytest.raises(RecipeError, match=r"code='compiled', but .*leave it at 'eager'"):
        find_preset("sine", "quick").recipe.changed(COMPILED)


def test_the_form_offers_it_where_classes_are_learned(
    store: Store, begun: list[tuple[Experiment, str]]
) -> None:
    app = opened("merge")
    app.selectbox(key="recipe").set_value("sine").run()
    assert not [each for each in app.segmented_control if "code" in str(each.key)]
    app.selectbox(key="recipe").set_value("digits-averaged").run()
    app.segmented_control(key="code-digits-averaged-quick").set_value("compiled")
    app.button(key="go").click().run()
    assert not app.exception
    ((recipe, _),) = begun
    assert recipe == preset_of("digits-averaged", "quick").recipe.changed(COMPILED)
