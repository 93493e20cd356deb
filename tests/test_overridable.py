"""An initializer that is an input too can be given another value by whoever runs the model, so its shape must stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import zig

MLP = "h = Gemm (x, w, b)\ny = Relu (h)\nz = Gemm (y, v)"
SIZES: dict[str, Any] = {"x": "N 3", "w": "3 4", "b": "4", "v": "4 2"}
REASON = "can be overridden by whoever runs the model"


def listed(*names: str, **options: Any) -> onnx.ModelProto:
    """The network with these initializers among its inputs."""
    model = graphs.build(MLP, **{**SIZES, **options})
    for tensor in (tensor for tensor in model.graph.initializer if tensor.name in names):
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@pytest.mark.parametrize("name", ["w", "b", "v"])
def test_what_can_be_overridden_is_fixed_with_that_reason(name: str, tmp_path: Path) -> None:
    model = listed(name)
    partition = zig.analyze(model)
    assert not len(partition)
    assert any(fixed.tensor == name and REASON in fixed.reason for fixed in partition.fixed)
    assert any("--freeze-inputs" in why.advice for why in zig.why(partition, name))
    report = zig.compress(model, tmp_path / "small.onnx")
    assert (report.removed, report.before["parameters"]) == (0, 24)


def test_a_value_that_can_be_overridden_is_not_relied_on(tmp_path: Path) -> None:
    """Its zeros, and numbers that shift what comes before, are but defaults."""
    model = listed("b")
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "b"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    zig.compress(model, tmp_path / "small.onnx")
    given = {**graphs.feeds(model), "b": np.float32([1, 2, 3, 4])}
    assert graphs.difference(graphs.run(model, given), graphs.run(tmp_path / "small.onnx", given)) < 1e-6


def test_a_shape_that_can_be_overridden_is_not_relied_on(tmp_path: Path) -> None:
    model = graphs.build(
        "h = Gemm (x, w)\nt = Reshape (h, to)\ny = Reshape (t, back)\nz = Gemm (y, v)",
        **{**SIZES, "to": [0, 2, 2], "back": [0, 4]},
    )
    model.graph.input.append(helper.make_tensor_value_info("to", onnx.TensorProto.INT64, [3]))
    zig.compress(model, tmp_path / "small.onnx", graphs.half(zig.analyze(model)), check=False)
    for shape in ([0, 2, 2], [0, 4, 1], [0, 1, 4]):
        given = {**graphs.feeds(model), "to": np.array(shape)}
        assert graphs.difference(graphs.run(model, given), graphs.run(tmp_path / "small.onnx", given)) < 1e-6


def test_frozen_inputs_are_pruned_and_listed_no_more(tmp_path: Path) -> None:
    model = listed("w", "b", "v")
    plan = graphs.half(zig.analyze(model, freeze_inputs=True))
    zig.zero(plan, tmp_path / "zeroed.onnx")
    report = zig.compress(model, tmp_path / "small.onnx", plan)
    assert report.removed == plan.remove.sum() > 0
    for file in ("zeroed.onnx", "small.onnx"):
        assert [value.name for value in onnx.load(tmp_path / file).graph.input] == ["x"]
    onnx.save(model, tmp_path / "full.onnx")
    again = zig.compress(tmp_path / "full.onnx", tmp_path / "same.onnx", plan, freeze_inputs=True)
    assert again.removed == report.removed
    assert zig.verify(tmp_path / "zeroed.onnx", tmp_path / "small.onnx").equal


def test_old_files_stay_prunable_and_list_nothing_that_became_overridable(tmp_path: Path) -> None:
    """Before version 4 of the format every initializer was listed, and a constant; what is cut may be of version 4."""
    model = graphs.build(
        "h = Gemm (x, w, b)\nq = Sigmoid (h)\nz = MatMul (q, v)", **{**SIZES, "ir_version": 3, "opset": 8}
    )
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    partition = zig.analyze(model)
    report = zig.compress(model, tmp_path / "small.onnx", zig.Plan(partition, np.arange(4) == 1))
    assert report.removed == 1
    small = onnx.load(tmp_path / "small.onnx")
    assert small.ir_version < 4 or [value.name for value in small.graph.input] == ["x"]
    assert len(zig.analyze(small)) == 3


def test_the_command_takes_freeze_inputs(zig: Callable[..., Any], tmp_path: Path) -> None:
    onnx.save(listed("w", "v"), tmp_path / "full.onnx")
    as_it_is = json.loads(zig("analyze", "full.onnx", "--json").stdout)
    assert as_it_is["groups"] == 0
    assert any(REASON in fixed["reason"] for fixed in as_it_is["fixed"])
    assert json.loads(zig("analyze", "full.onnx", "--json", "--freeze-inputs").stdout)["groups"] == 4
    assert zig("prune", "full.onnx", "-o", "zeroed.onnx", "--ratio", "0.5", "--freeze-inputs").returncode == 0
    assert zig("compress", "zeroed.onnx", "-o", "small.onnx").returncode == 0
    assert zig("verify", "zeroed.onnx", "small.onnx").returncode == 0
    assert graphs.shapes(tmp_path / "small.onnx")["v"][0] < 4
    zeroed = onnx.load(tmp_path / "zeroed.onnx")
    zeroed.graph.input.append(helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [4, 2]))
    onnx.save(zeroed, tmp_path / "listed.onnx")
    assert zig("compress", "listed.onnx", "-o", "less.onnx", "--freeze-inputs").returncode == 0
    assert zig("verify", "listed.onnx", "less.onnx").returncode == 0
    session = onnxruntime.InferenceSession(tmp_path / "less.onnx", providers=["CPUExecutionProvider"])
    assert not session.get_overridable_initializers()
