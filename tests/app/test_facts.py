"""What the pages say, as plain data."""

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from zig.app.facts import charts, compare, groups, model, node, pruning, report, training
from zig.app.facts.picture import picture
from zig.app.facts.pruning import Wish
from zig.app.opened import Opened
from zig.app.scene.svg import svg
from zig.app.session import Look
from zig.app.words import cells, count, indices, less, percent, plain, size

import zig
from zig.errors import PlanError, UsageError

pytest_plugins = ("app_models",)


def test_numbers_read_as_people_write_them() -> None:
    assert [count(n) for n in (0, 999, 1000, 11_680_000, 2.5e9)] == ["0", "999", "1.00 k", "11.68 M", "2.50 G"]
    assert [percent(s) for s in (0, 0.5, 0.012, 0.00034)] == ["0.0 %", "50.0 %", "1.2 %", "0.034 %"]
    assert less(200, 150) == "25.0 %"
    assert less(0, 0) == ""
    assert [size(n) for n in (10, 2_527_000)] == ["10 B", "2.5 MB"]
    assert indices(np.array([0, 1, 2, 3, 8, 12, 13])) == "0-3, 8, 12-13"
    assert indices(np.arange(0, 40, 2)) == "0, 2, 4, 6, 8, 10, … 20 in all"


def test_the_overview_agrees_with_the_library(sample_model: Opened) -> None:
    found, summary = model.overview(sample_model), zig.analyze(sample_model.path).summary()
    for name in ("parameters", "prunable_parameters", "macs", "groups", "nodes"):
        assert found[name] == summary[name]
    assert found["node_groups"] == len(summary["node_groups"])
    assert sum(row["nodes"] for row in model.operators(sample_model)) == summary["nodes"]
    assert sum(row["parameters"] for row in model.operators(sample_model)) == summary["parameters"]
    assert sum(row["MACs"] for row in model.operators(sample_model)) == summary["macs"]
    assert sum(row["axes"] for row in model.reasons(sample_model)) == len(summary["fixed"])


def test_what_a_group_saves_is_what_removing_it_saves(sample_model: Opened) -> None:
    rows = groups.table(sample_model)
    for group, row in zip(sample_model.groups, rows, strict=True):
        remove = np.zeros(len(sample_model.partition), bool)
        remove[group.groups[0]] = True
        left = zig.cost(sample_model.partition, remove)
        assert row["params of one"] == sample_model.budget.parameters - left["parameters"]
        assert groups.unit(sample_model, group.id, 0)["macs"] == sample_model.budget.macs - left["macs"]


def test_slices_and_units_are_those_of_the_partition(sample_model: Opened) -> None:
    group = sample_model.groups[0]
    rows = groups.slices(sample_model, 0)
    assert {(row["tensor"], row["axis"]) for row in rows if row["role"] == "member"} == set(group.members)
    assert {(row["tensor"], row["axis"]) for row in rows if row["role"] == "dependent"} == set(group.dependents)
    found = groups.unit(sample_model, 0, 3)
    weight = sample_model.graph.array(found["slices"][0]["tensor"])
    assert found["slices"][0]["norm"] == pytest.approx(np.linalg.norm(weight[3]), rel=1e-6)
    assert sum(row["groups"] for row in groups.norms(sample_model, 0)) == group.size


def test_plans_are_those_of_the_library(sample_model: Opened) -> None:
    for wish in (
        Wish(0.5),
        Wish(0.3, "macs", scope="local"),
        Wish(0.4, "groups", "random", seed=3),
        Wish(0.5, round_to=8),
    ):
        plan = pruning.plan(sample_model, wish)
        other = zig.prune(sample_model.partition, wish.ratio, of=wish.of, criterion=wish.criterion, scope=wish.scope,
                          seed=wish.seed, round_to=wish.round_to)  # fmt: skip
        assert np.array_equal(plan.remove, other.remove)
        left = zig.cost(sample_model.partition, plan.remove)
        assert {row["name"]: row["after"] for row in pruning.effect(sample_model, plan)} == {
            "parameters": left["parameters"], "MACs": left["macs"], "groups": int((~plan.remove).sum())
        }  # fmt: skip
        widths = pruning.widths(sample_model, plan)
        assert sum(row["after"] for row in widths) == int((~plan.remove).sum())
    with pytest.raises(PlanError):
        pruning.plan(sample_model, Wish(1.5))


def test_a_wish_out_of_reach_is_said(sample_model: Opened) -> None:
    plan = pruning.plan(sample_model, Wish(0.95, round_to=32))
    assert plan.reached["params"] < 0.9
    assert "can go, not 95 %" in pruning.shortfall(Wish(0.95, round_to=32), plan)
    assert pruning.shortfall(Wish(0.5), pruning.plan(sample_model, Wish(0.5))) == ""


def test_before_and_after(sample_model: Opened, tmp_path: Path) -> None:
    plan = pruning.plan(sample_model, Wish(0.5))
    zig.compress(sample_model.path, tmp_path / "small.onnx", plan, check=False)
    small = Opened(tmp_path / "small.onnx", "small.onnx")
    rows = {row["tensor"]: row for row in compare.widths(sample_model, small)}
    kept = int((~plan.remove[sample_model.groups[0].groups]).sum())
    assert rows["stem.weight"] == {"tensor": "stem.weight", "before": "16×3×3×3", "after": f"{kept}×3×3×3"}
    assert "head.bias" not in rows
    assert [row[""] for row in compare.sizes(sample_model, small)] == ["parameters", "MACs", "bytes", "nodes"]
    # What is selected in one is found in the other by its key.
    assert set(small.positions) == set(sample_model.positions)


def test_the_panel_says_why_a_node_is_fixed(small_model: Opened) -> None:
    key = next(key for key in small_model.positions if "logits" in key and key.startswith("n:"))
    found = node.describe(small_model, key)
    assert found is not None
    assert "is part of the model's output" in found["fixed"]
    assert {row["weight"] for row in found["weights"]} == {"w3", "b3"}
    assert found["attributes"] == [{"attribute": "transB", "value": "1"}]
    assert node.describe(small_model, "n:none") is None
    assert node.describe(small_model, "") is None


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)


def test_reports_hold_no_markup_of_the_model(network: onnx.ModelProto, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    for tensor in network.graph.initializer:
        if tensor.name == "w2":
            tensor.name = evil
    for made in network.graph.node:
        made.input[:] = [evil if name == "w2" else name for name in made.input]
    network.producer_name = "<img src=x onerror=alert(2)>"
    onnx.save(network, tmp_path / "evil.onnx")
    opened = Opened(tmp_path / "evil.onnx", "<b>evil</b>.onnx")
    page = report.as_html(report.collect(opened, {}), svg(opened.scene(opened.all_open()), opened.hues))
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "b"} & set(tags.found)
    assert "&lt;b&gt;evil&lt;/b&gt;" in page
    assert "svg" in tags.found


def test_the_json_report_holds_all(sample_model: Opened) -> None:
    found = json.loads(report.as_json(report.collect(sample_model, {})))
    assert found["model"]["groups"] == len(sample_model.partition)
    assert len(found["node_groups"]) == len(sample_model.groups)
    assert found["compress"] is None


def test_the_picture_is_plain_data(sample_model: Opened) -> None:
    for look in (Look(), Look(overlay="parameters"), Look(overlay="macs", flat=True), Look(query="add", focus=[1])):
        data = picture(sample_model, look, 500)
        assert json.loads(json.dumps(data, allow_nan=False)) is not None
        count_ = len(data["scene"]["key"])
        assert all(len(data["scene"][name]) == count_ for name in ("x", "y", "w", "h", "title", "writes", "fixed"))
        if look.overlay:
            assert max(share for share in data["overlay"]["shares"] if share is not None) == 1
    values = picture(sample_model, Look(overlay="sensitivity", flat=True), 500, {0: 0.5, 1: 0.25})["overlay"]
    assert {share for share in values["shares"] if share is not None} == {1.0, 0.5}


LOG = [
    {"step": 10, "epoch": 0, "loss": 2.0, "accuracy": 0.1, "sparsity": {"stem": 0.0}},
    {
        "step": 20,
        "epoch": 0,
        "loss": 1.0,
        "accuracy": 0.5,
        "sparsity": {"stem": 0.25, "1": 0.5, "gone": 1.0},
        "gates": {"stem": 0.75, "1": 0.5},
    },
    {"step": 30, "epoch": 1, "loss": float("nan"), "lr": 0.1},
]


def write_log(folder: Path, text: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text(text if text is not None else "".join(json.dumps(step) + "\n" for step in LOG))
    return folder


def test_training_logs_become_curves(tmp_path: Path, sample_model: Opened) -> None:
    log = training.read(write_log(tmp_path / "run"))
    curves = training.curves(log)
    assert curves["loss"] == [{"step": 10.0, "value": 2.0}, {"step": 20.0, "value": 1.0}]
    assert set(curves) == {"loss", "accuracy", "lr"}
    assert len(training.shares(log)) == 4
    assert training.shares(log, "gates")[0] == {"step": 20.0, "node group": "stem", "gates": 0.75}
    assert training.last_sparsity(log, sample_model.groups) == {0: 0.25, 1: 0.5}
    assert training.last(log)["accuracy"] == 0.5
    assert charts.heat(training.shares(log))["encoding"]["y"]["sort"] == ["stem", "1", "gone"]
    assert charts.heat(training.shares(log, "gates"), "gates")["encoding"]["color"]["field"] == "gates"


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    assert len(training.read(write_log(tmp_path / "run", '{"step": 1}\n{"step": 2}\n{"ste'))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no step yet"),
        ("not json\n", "line 1 is not JSON"),
        ('{"step": 1}\n{"loss": 2}\n', "line 2 has no number 'step'"),
        ("[1, 2]\n", "has no number 'step'"),
        ('{"step": true}\n', "has no number 'step'"),
        ('{"step": 1, "sparsity": {"a": "b"}}\n', "must give a number"),
        ('{"step": 1, "sparsity": [1]}\n', "must give a number"),
        ('{"step": 1, "gates": {"a": null}}\n', "'gates' must give a number"),
        ("[" * 100_000 + "\n", "is not JSON"),
    ],
)
def test_broken_logs_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        training.read(write_log(tmp_path / "run", text))


def test_a_folder_without_a_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.jsonl file"):
        training.read(tmp_path)


def test_long_logs_are_thinned_out(tmp_path: Path) -> None:
    text = "".join(
        json.dumps({"step": k, "loss": 1 / (k + 1), "sparsity": {"a": k / 5000}}) + "\n" for k in range(5000)
    )
    log = training.read(write_log(tmp_path / "run", text))
    assert len(training.curves(log)["loss"]) <= 400
    assert len(training.shares(log)) <= 60


def test_zero_groups_are_counted(sample_path: Path, tmp_path: Path) -> None:
    proto = onnx.load(sample_path)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("stage1.0.conv1"):
            values = numpy_helper.to_array(tensor).copy()
            values[:5] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "zeros.onnx")
    rows = groups.table(Opened(tmp_path / "zeros.onnx", "zeros.onnx"))
    assert [row["zero"] for row in rows if row["zero"]] == [5]


def test_the_picture_of_a_report_is_well_formed_and_shows_every_box(sample_model: Opened) -> None:
    for expanded in (frozenset[str](), sample_model.first_open()):
        shown = sample_model.scene(expanded)
        drawing = ElementTree.fromstring(svg(shown, sample_model.hues))
        texts = [element.text or "" for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
        for box in shown.boxes:
            assert any(box.title[-8:] in text for text in texts), box.title
        assert sum(text == "fixed" for text in texts) == sum(
            bool(box.fixed) and box.kind == "leaf" for box in shown.boxes
        )


def test_texts_of_a_model_are_printable() -> None:
    assert plain("\x1b[31m\u202e") == r"\\x1b\[31m\\u202e"
    assert cells([{"name": "a\bb", "width": 3}]) == [{"name": r"a\x08b", "width": 3}]
