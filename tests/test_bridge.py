"""GraphSurgeon graphs go in and come out whole: weights, shapes, metadata; what was edited by hand is analysed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from conftest import ROOT, parse

import zig
from zig.errors import UsageError

gs = pytest.importorskip("onnx_graphsurgeon", reason="needs the extra graphsurgeon")


@pytest.fixture
def noted(network: onnx.ModelProto) -> onnx.ModelProto:
    """The residual network, with things said about it that GraphSurgeon has no place for."""
    network.doc_string, network.domain, network.model_version = "a test", "zig.test", 7
    network.metadata_props.add(key="author", value="somebody")
    network.graph.metadata_props.add(key="scale", value="1")
    for node in network.graph.node:
        node.doc_string = f"makes {node.output[0]}"
        node.metadata_props.add(key="scope", value=node.name)
    return network


def test_nothing_is_lost_on_the_way_there_and_back(noted: onnx.ModelProto) -> None:
    back = zig.load(zig.to_graphsurgeon(noted)).proto
    for field in ("doc_string", "domain", "model_version", "ir_version"):
        assert getattr(back, field) == getattr(noted, field)
    assert list(back.metadata_props) == list(noted.metadata_props)
    assert list(back.graph.metadata_props) == list(noted.graph.metadata_props)
    assert list(back.graph.node) == list(noted.graph.node)
    assert {t.name: t for t in back.graph.initializer} == {t.name: t for t in noted.graph.initializer}


def test_what_was_edited_by_hand_keeps_what_is_said_about_the_rest(noted: onnx.ModelProto, tmp_path: Path) -> None:
    graph = zig.to_graphsurgeon(noted)
    relu = next(node for node in graph.nodes if node.op == "Relu")
    relu.op = "LeakyRelu"
    relu.attrs["alpha"] = 0.1
    assert len(zig.analyze(graph)) == 6
    partition = zig.analyze(graph)
    report = zig.compress(graph, tmp_path / "small.onnx", zig.prune(partition, 0.5))
    assert report.removed == 2
    small = onnx.load(tmp_path / "small.onnx")
    assert [node.op_type for node in small.graph.node].count("LeakyRelu") == 1
    assert all(node.metadata_props[0].value == node.name for node in small.graph.node)
    assert small.metadata_props[0].value == "somebody"


def test_what_pruning_left_comes_out_as_a_graph_with_shapes(noted: onnx.ModelProto, tmp_path: Path) -> None:
    zig.compress(noted, tmp_path / "small.onnx", zig.prune(zig.analyze(noted), 0.5))
    graph = zig.to_graphsurgeon(tmp_path / "small.onnx")
    assert graph.tensors()["w2"].shape == [4, 4, 3, 3]
    assert graph.tensors()["w2"].values.shape == (4, 4, 3, 3)


def test_external_weights_stay_unread_and_are_found_from_anywhere(
    noted: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models" / "full.onnx"
    path.parent.mkdir()
    whole = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in noted.graph.initializer}
    onnx.save(noted, path, save_as_external_data=True, size_threshold=0, location="full.data")
    monkeypatch.chdir(tmp_path)
    graph = zig.to_graphsurgeon(path)
    assert all(
        isinstance(t._values, gs.ir.tensor.LazyValues) for t in graph.tensors().values() if isinstance(t, gs.Constant)
    )
    zig.analyze(graph)  # reads none of them
    assert isinstance(graph.tensors()["w1"]._values, gs.ir.tensor.LazyValues)
    np.testing.assert_array_equal(graph.tensors()["w1"].values, whole["w1"])  # this one is read
    report = zig.compress(graph, tmp_path / "small.onnx", zig.prune(zig.analyze(graph), 0.5))
    assert report.comparison is not None
    assert report.comparison.equal


def test_every_form_of_a_model_gives_the_same_groups(noted: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "full.onnx"
    onnx.save(noted, path)
    forms = (path, str(path), noted, onnx_ir.serde.deserialize_model(noted), gs.import_onnx(noted), zig.load(path))
    assert {len(zig.analyze(form)) for form in forms} == {6}


def test_the_sample_gives_logits(network: onnx.ModelProto, tmp_path: Path) -> None:
    network.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["scores"], name="last"))
    network.graph.output[0].name = "scores"
    onnx.save(network, tmp_path / "full.onnx")
    sample = ROOT / "samples" / "edit_by_hand.py"
    done = subprocess.run(
        [sys.executable, str(sample), "full.onnx", "small.onnx"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "logits in place of probabilities" in done.stdout
    assert [output.name for output in onnx.load(tmp_path / "small.onnx").graph.output] == ["logits"]


def test_a_graph_that_can_not_be_exported_is_a_sentence() -> None:
    graph = zig.to_graphsurgeon(parse("g (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }"))
    graph.outputs[0].dtype = None
    with pytest.raises(UsageError, match="can't export the graph 'g'"):
        zig.load(graph)


def test_without_the_package_one_sentence_says_what_to_install(
    noted: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx_graphsurgeon", None)
    with pytest.raises(UsageError, match=r"pip install 'onnx-zig\[graphsurgeon\]'"):
        zig.to_graphsurgeon(noted)
