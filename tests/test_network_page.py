"""The page Network as Streamlit runs it, without a browser."""

import json
from pathlib import Path

import fake_runs
import pytest
from streamlit.testing.v1 import AppTest
from test_pages import opened, store, words

from merge_core import inspected
from merge_core.store import Store

__all__ = ["store"]  # the fixture

WRITES = f"import sys; open(sys.argv[4], 'w').write({json.dumps(fake_runs.TINY.to_dict())!r})"
"""A program in the place of an inspection: its arguments are model, shape, batch and file."""


def waited(app: AppTest) -> AppTest:
    """The page after the inspection on its way, if any, has ended; `run_every` never fires here."""
    if "inspection" not in app.session_state:
        return app
    app.session_state["inspection"].process.wait()
    return app.run()


def test_a_runs_network_is_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake_runs.LAWS, "network", fake_runs.TINY.to_dict())
    app = opened("network", fake_runs.make(store, "textures"))
    assert not app.exception
    assert not app.error
    assert "permuting any channel changes the output by 3e-07" in words(app)
    assert "1 channel space to merge, 2 fixed" in words(app)
    assert [metric.value for metric in app.metric] == [
        "44 parameters", "86 parameters", "44 parameters",
    ]  # fmt: skip
    spec = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert spec["layout"]["yaxis"]["ticktext"] == ["a", "b"]


def test_a_broken_law_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = fake_runs.TINY.to_dict() | {"laws": {"permute": 0.2, "concatenate": float("nan")}}
    monkeypatch.setitem(fake_runs.LAWS, "network", wrong)
    app = opened("network", fake_runs.make(store, "textures"))
    assert "cannot be merged" in app.error[0].value


def test_inspecting_from_the_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", WRITES))
    early = fake_runs.make(store, "textures", state="stopped", stop="teacher_a")
    app = opened("network", early)
    assert "is not known" in words(app)
    app.button(key="inspect").click().run()
    app = waited(app)
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="network").value == "resnet18"
    assert "measured on random weights" in words(app)
    assert not app.button(key="inspect").disabled


def test_an_inspection_that_fails_is_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = "import sys; print('It cannot be followed.', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", fails))
    app = opened("network", fake_runs.make(store, "textures"))
    app.button(key="inspect").click().run()
    app = waited(app)
    assert not app.exception
    assert app.error[0].value == "It cannot be followed."
    assert app.selectbox(key="network").value == "the network of this run"


def test_all_viewers_together_inspect_only_a_few_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "import sys, time; time.sleep(60)"
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", waits))
    on_their_way = [inspected.start("resnet18") for _ in range(inspected.MOST)]
    app = opened("network", fake_runs.make(store, "textures"))
    app.button(key="inspect").click().run()
    assert "wait until one is done" in app.error[0].value
    for inspection in on_their_way:
        inspection.process.kill()
        inspection.process.wait()
        inspection.errors.close()
    monkeypatch.setattr(inspected, "PROGRAM", ("-c", WRITES))
    assert inspected.start("resnet18").result() == fake_runs.TINY


def test_a_damaged_description_is_a_sentence(store: Store, tmp_path: Path) -> None:
    fake_runs.make(store, "textures")
    inspected.directory().mkdir(parents=True)
    (inspected.directory() / "resnet18.json").write_text("{")
    app = opened("network")
    app.selectbox(key="network").set_value("resnet18").run()
    assert not app.exception
    assert "inspect it again" in app.error[0].value
