"""Networks from a person's own file are merged and compared as those by name are."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import small

from merge_core import compared, launch, queue, worker
from merge_core.cli import main
from merge_core.errors import GraphError, RecipeError
from merge_core.models import build
from merge_core.recipes import Recipe
from merge_core.store import Store

NETS = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, outputs=10):
        super().__init__(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, outputs))

class Shrunk(Tiny):
    def __init__(self):
        super().__init__(7)

class Lawless(Tiny):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(x) + 1

def nothing():
    return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file of networks, which no other test finds."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tinynets_of_a_test.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("NETWELD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "code")
    yield tmp_path / "code"
    sys.modules.pop("tinynets_of_a_test", None)


def recipe(name: str = "Tiny") -> Recipe:
    return small("digits", model=f"tinynets_of_a_test:{name}")


def test_a_network_of_one_s_own_is_merged_and_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "enqueue", lambda *asked: [])  # the worker is this process
    arguments = [f"--set={each}" for each in ("model=tinynets_of_a_test:Tiny", "teacher.epochs=1")]
    arguments += ["--set=gating.epochs=1", "--set=fine_tune.epochs=1", "--no-wait"]
    monkeypatch.setattr(sys, "argv", ["netweld", "merge", "digits", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    store = Store()
    (run,) = (run.name for run in store.runs() if not run.sample)
    monkeypatch.chdir(folder.parent)  # the worker finds the file wherever it works
    assert worker.run(store, run, worker.carry_out) == 0
    with store.open(run) as reader:
        assert reader.code == folder
        assert reader.status()["state"] == "finished"
        asked, files = compared.of_run(reader, ("uniform",), examples=100)
    name, _ = launch.begin(store, asked, "cpu", None, files)
    assert worker.run(store, name, worker.carry_out) == 0
    with store.open(name) as reader:
        assert reader.code == folder


def test_a_file_that_is_gone_is_a_sentence(folder: Path) -> None:
    (folder / "tinynets_of_a_test.py").unlink()
    store = Store()
    run = store.create(recipe(), "cpu", code=folder)
    assert worker.run(store, run, worker.carry_out) == 1
    with store.open(run) as reader:
        status = reader.status()
    assert status["state"] == "failed"
    assert "'tinynets_of_a_test:Tiny' cannot be called (ModuleNotFoundError" in status["message"]
    assert "leave the file there" in status["message"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Shrunk", "gives 2×7 for two examples of shape 1×8×8, but 2×10 are needed"),
        ("nothing", "made a NoneType, but a torch.nn.Module is expected"),
        ("Missing", "cannot be called (AttributeError"),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    model = f"tinynets_of_a_test:{name}"
    with pytest.raises(GraphError) as caught:
        build(model, 0, recipe(name).data.shape)
    assert words in str(caught.value)


def test_what_cannot_be_followed_is_refused_before_anything_is_trained(folder: Path) -> None:
    store = Store()
    run = store.create(recipe("Lawless"), "cpu", code=folder)
    with pytest.raises(GraphError):
        next(worker.carry_out(_work(store, run)))


def _work(store: Store, run: str) -> worker.Work:
    with store.open(run) as reader:
        return worker.Work(
            recipe=reader.recipe,
            device="cpu",
            resume=None,
            inputs=(),
            code=reader.code,
            note=lambda key, value: None,
            pulse=lambda progress: None,
            reading=lambda done, of: None,
            steering=lambda: (),
        )


def test_the_same_seed_makes_the_same_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    one, same, other = (build(recipe().model, seed, recipe().data.shape) for seed in (1, 1, 2))
    weights = [network.state_dict()["1.weight"] for network in (one, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_only_such_a_name_goes_around_the_list() -> None:
    for name in ("nets", "a b:c", "os:system()", "../nets:make"):
        with pytest.raises(RecipeError, match=r"package\.module:factory"):
            small("digits", model=name)
