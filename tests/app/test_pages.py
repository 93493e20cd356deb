"""Every page, driven without a browser."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import parse

pytest.importorskip("streamlit", reason="the app's pages need streamlit: pip install 'onnx-zig[app]'")
pytest_plugins = ("app_models",)

from streamlit.testing.v1 import AppTest  # noqa: E402
from zig.app.launch import START  # noqa: E402
from zig.app.session import Session  # noqa: E402

MAIN = Path(__file__).resolve().parent.parent.parent / "app" / "main.py"
PAGES = ("model", "graph", "groups", "prune", "compare", "training", "report")
Show = Callable[..., AppTest]


@pytest.fixture
def show(sample_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """A page, with the sample open or with nothing open."""

    def run(page: str, start: Path | None = sample_path) -> AppTest:
        monkeypatch.setenv(START, str(start or tmp_path))
        script = f"from zig.app.views import {page}\n{page}.show()"
        return check(AppTest.from_string(script, default_timeout=60).run())

    return run


def check(page: AppTest) -> AppTest:
    """The page, which must not have raised."""
    assert not page.exception, page.exception
    return page


def session(page: AppTest) -> Session:
    found = page.session_state["zig"]
    assert isinstance(found, Session)
    return found


def button(page: AppTest, label: str) -> AppTest:
    """Press a button."""
    return check(next(b for b in page.button if b.label == label).click().run())


def wait(page: AppTest) -> AppTest:
    """Let the job end, then draw the page again."""
    job = session(page).job
    assert job is not None
    job.wait(100)
    return check(page.run())


def test_the_entrance_shows_the_model_page(sample_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START, str(sample_path))
    page = check(AppTest.from_file(str(MAIN), default_timeout=60).run())
    assert {metric.label for metric in page.metric} >= {"Parameters", "MACs", "Groups"}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_what_to_do_where_nothing_is_open(show: Show, name: str) -> None:
    page = show(name, None)
    assert page.info
    assert not page.error


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_a_model(show: Show, name: str) -> None:
    assert not show(name).error


@pytest.mark.parametrize("name", ["groups", "prune"])
def test_a_model_without_groups_is_said_to_have_none(show: Show, name: str, tmp_path: Path) -> None:
    onnx.save(parse("agraph (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }"), tmp_path / "plain.onnx")
    assert "no groups" in show(name, tmp_path / "plain.onnx").info[0].value


def test_a_broken_model_is_one_sentence(show: Show, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    page = show("model", tmp_path / "broken.onnx")
    assert "is not an ONNX model" in page.error[0].value


def test_the_sample_opens(show: Show) -> None:
    page = button(show("model", None), "Open the sample")
    assert {metric.label: metric.value for metric in page.metric}["Groups"] == "448"


def test_selecting_a_box_fills_the_panel(show: Show) -> None:
    page = show("graph")
    here = session(page)
    assert here.model is not None
    here.looks["graph"].selected = next(key for key in here.model.positions if "head" in key)
    page = check(page.run())
    assert "Gemm" in [text.value.strip("*") for text in page.markdown]
    assert "part of the model's output" in page.warning[0].value


def test_what_the_canvas_tells_reaches_python(show: Show) -> None:
    page = show("graph")
    assert page.get("bidi_component")
    key = "/stage2"
    page.session_state["graph"] = {"selected": key}
    check(page.run())


def test_overlays_say_what_is_missing(show: Show) -> None:
    page = show("graph")
    box = next(box for box in page.selectbox if box.label == "Colour by")
    page = check(box.set_value("sensitivity").run())
    assert any("no numbers yet" in caption.value for caption in page.caption)
    for name in ("parameters", "macs", ""):
        box = next(box for box in page.selectbox if box.label == "Colour by")
        page = check(box.set_value(name).run())


def test_groups_are_stepped_through_one_by_one(show: Show) -> None:
    page = show("groups")
    page = button(page, "Next")
    assert session(page).unit == 1
    page = button(button(page, "Previous"), "Previous")
    assert session(page).unit == 15


def test_sensitivity_is_measured_and_shown(show: Show) -> None:
    page = wait(button(show("groups"), "Measure sensitivity"))
    assert len(session(page).results["sensitivity"]["sensitivity"]) == 12
    assert "sensitivity" in page.dataframe[0].value.columns


def test_the_effect_follows_the_slider(show: Show) -> None:
    page = show("prune")
    before = {metric.label: metric.value for metric in page.metric}
    page = check(page.slider[0].set_value(80).run())
    after = {metric.label: metric.value for metric in page.metric}
    assert all(before[name] != after[name] for name in ("parameters", "MACs", "groups"))


def test_pruning_runs_and_can_be_downloaded_compared_and_reported(show: Show, sample_path: Path) -> None:
    page = wait(button(show("prune"), "Prune and compress"))
    assert "are equal on 3 inputs" in page.success[0].value
    here = session(page)
    compare = AppTest.from_string("from zig.app.views import compare\ncompare.show()", default_timeout=60)
    compare.session_state["zig"] = here
    page = button(check(compare.run()), "Compare with the pruned model")
    assert here.smaller is not None
    assert len(page.get("bidi_component")) == 2
    page = wait(button(page, "Compare the outputs"))
    assert "differ" in page.warning[0].value
    report = AppTest.from_string("from zig.app.views import report\nreport.show()", default_timeout=60)
    report.session_state["zig"] = here
    check(report.run())


def test_cancelling_keeps_nothing(show: Show) -> None:
    page = button(show("prune"), "Prune and compress")
    page = button(page, "Cancel")
    assert session(page).job is None
    assert "prune" not in session(page).results


def test_a_failed_job_is_told(show: Show, tmp_path: Path, sample_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(sample_path.read_bytes())
    page = show("prune", copy)
    copy.write_bytes(b"overwritten")
    page = button(page, "Prune and compress")
    job = session(page).job
    assert job is not None
    job._process.wait(100)
    page = check(page.run())
    assert "is not an ONNX model" in page.error[0].value


def test_a_training_log_is_drawn(show: Show, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    steps = [{"step": k, "loss": 1 / (k + 1), "accuracy": k / 10, "sparsity": {"stem": k / 10}} for k in range(10)]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    page = button(show("training", tmp_path), "Open log")
    assert {metric.label: metric.value for metric in page.metric} == {
        "step": "9", "loss": "0.1", "accuracy": "90.0 %", "node groups with zeros": "1 of 1"
    }  # fmt: skip
    assert len(page.get("vega_lite_chart")) == 3


def test_two_sessions_do_not_see_each_others_models(show: Show) -> None:
    one, other = show("model", None), show("model", None)
    one = button(one, "Open the sample")
    other = check(other.run())
    assert session(one).model is not None
    assert session(other).model is None
    assert session(one).workspace.scratch != session(other).workspace.scratch


def test_names_of_a_model_are_never_taken_for_markup(show: Show, network: onnx.ModelProto, tmp_path: Path) -> None:
    evil = "![x](http://example.com/a.png) :red[no] <b>"
    for node in network.graph.node:
        node.name = evil + node.name
        node.input[:] = [evil if name == "w1" else name for name in node.input]
    for tensor in network.graph.initializer:
        tensor.name = evil if tensor.name == "w1" else tensor.name
    network.graph.node[1].op_type = "Strange"
    network.graph.node[1].domain = evil
    network.producer_name = evil
    path = tmp_path / "evil.onnx"
    onnx.save(network, path)
    for name in PAGES:
        page = show(name, path)
        here = session(page)
        assert here.model is not None
        here.looks["graph"].selected = next(key for key in here.model.positions if "conv1" in key)
        page = check(page.run())
        kinds = ("markdown", "caption", "subheader", "warning", "error", "button", "info", "success")
        texts = [
            getattr(element, "label", "") or getattr(element, "value", "")
            for kind in kinds
            for element in page.get(kind)
        ]
        assert not [text for text in texts if "![" in str(text) or ":red[" in str(text)]
        assert name != "graph" or any("example" in str(text) for text in texts)


def test_a_damaged_weight_is_one_sentence(show: Show, network: onnx.ModelProto, tmp_path: Path) -> None:
    network.graph.initializer[0].raw_data = b"short"
    onnx.save(network, tmp_path / "damaged.onnx")
    assert "holds 5 bytes instead of" in show("model", tmp_path / "damaged.onnx").error[0].value


@pytest.mark.parametrize("scopes", ["__import__('os')", "[[[", "{'a': 1}", "['', 'a', 3, 'op']", "[" * 100_000])
def test_strange_scopes_are_no_scopes(show: Show, network: onnx.ModelProto, tmp_path: Path, scopes: str) -> None:
    for node in network.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    network.graph.node[0].name = "/a" * 2000  # as long as a name may be
    onnx.save(network, tmp_path / "strange.onnx")
    assert not show("graph", tmp_path / "strange.onnx").error
