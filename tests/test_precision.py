"""Quantised and half-precision files: what zig prunes in them, and that the integers that stay are the ones there were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import zig
from zig.model.graph import Graph

CONVOLUTIONS = """
    h = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (h)
    k = Conv <pads = [1, 1, 1, 1]> (r, v, c)
    s = Add (k, r)
    a = Relu (s)
    g = GlobalAveragePool (a)
    f = Flatten (g)
    z = Gemm (f, u, e)
"""
SIZES = {"x": "1 3 8 8", "w": "8 3 3 3", "b": "8", "v": "8 8 3 3", "c": "8", "u": "8 5", "e": "5"}


class Calibration:
    """A few random images, as onnxruntime's calibration reads them."""

    def __init__(self, model: onnx.ModelProto):
        self.feeds = iter([graphs.feeds(model, seed) for seed in range(4)])

    def get_next(self) -> Any:
        """The next image, or None."""
        return next(self.feeds, None)


def quantised(folder: Path, **options: Any) -> Path:
    """The small network, quantised by onnxruntime."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = graphs.build(CONVOLUTIONS, opset=17, ir_version=8, **SIZES)
    onnx.save(model, folder / "float.onnx")
    form = options.pop("form")
    if form == "dynamic":
        quantization.quantize_dynamic(folder / "float.onnx", folder / "q.onnx", **options)
    else:
        options["quant_format"] = quantization.QuantFormat[form]
        kinds = {name: quantization.QuantType[kind] for name, kind in options.items() if name.endswith("_type")}
        quantization.quantize_static(
            folder / "float.onnx", folder / "q.onnx", Calibration(model), **{**options, **kinds}
        )
    return folder / "q.onnx"


def rows_of(path: Path) -> dict[str, set[bytes]]:
    """The rows of each integer weight, as bytes of sorted numbers (an inner axis may be cut as well)."""
    graph = Graph(onnx.load(path))
    integers = [n for n, t in graph.initializers.items() if t.data_type in (TensorProto.INT8, TensorProto.UINT8)]
    return {name: set(graph.array(name).reshape(-1).tolist()) for name in integers}


@pytest.mark.parametrize(
    "options",
    [
        {"form": "QDQ", "per_channel": False, "weight_type": "QInt8", "activation_type": "QUInt8"},
        {"form": "QDQ", "per_channel": True, "weight_type": "QInt8", "activation_type": "QInt8"},
        {"form": "QDQ", "per_channel": False, "weight_type": "QUInt8", "activation_type": "QUInt8"},
        {"form": "QOperator", "per_channel": False, "weight_type": "QInt8", "activation_type": "QUInt8"},
        {"form": "QOperator", "per_channel": True, "weight_type": "QInt8", "activation_type": "QUInt8"},
    ],
    ids=lambda options: " ".join(str(value) for value in options.values()),
)
def test_a_network_that_onnxruntime_quantised(options: dict[str, Any], tmp_path: Path) -> None:
    path = quantised(tmp_path, **options)
    partition = zig.analyze(path)
    assert [group.size for group in partition.node_groups] == [8]
    plan = zig.prune(partition, 0.5, of="groups", criterion="random")
    zig.zero(plan, tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    assert report.removed == plan.remove.sum() == 4
    full, small = (Graph(onnx.load(tmp_path / name)) for name in ("zeroed.onnx", "small.onnx"))
    cut = {name: axes(partition, plan, name) for name in full.initializers if not full.is_float(name)}
    for name, keep in cut.items():
        value = full.array(name)
        for axis, mask in keep.items():
            value = np.compress(mask, value, axis=axis)
        assert np.array_equal(value, small.array(name)), name
    assert any(keep for name, keep in cut.items() if full.initializers[name].data_type == TensorProto.INT8) or (
        options["weight_type"] == "QUInt8"
    )


def axes(partition: zig.Partition, plan: zig.Plan, name: str) -> dict[int, Any]:
    """What stays of each axis of an initializer that is cut."""
    rows = [row for row in partition.rows if row.tensor == name]
    return {row.axis: ~np.append(plan.remove, False)[row.groups] for row in rows}


def test_a_dynamically_quantised_network(tmp_path: Path) -> None:
    text = "h = MatMul (x, w)\ni = Add (h, b)\nr = Relu (i)\nz = MatMul (r, v)"
    model = graphs.build(text, opset=17, ir_version=8, x="4 6", w="6 8", v="8 3", b="8")
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(model, tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "q.onnx")
    partition = zig.analyze(tmp_path / "q.onnx")
    assert graphs.families(partition) == {"8: b.0 w_quantized.1 | v_quantized.0"}
    zig.zero(zig.prune(partition, 0.5, of="groups"), tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    assert report.removed == 4
    assert report.comparison is not None
    assert report.comparison.max_rel < 1e-6


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_dynamically_quantised_lstm(per_channel: bool, tmp_path: Path) -> None:
    text = "y, h, c = LSTM <hidden_size = 6> (x, w, r, b)\ns = Squeeze (h, zero)\nz = MatMul (s, v)"
    model = graphs.build(text, opset=17, ir_version=8, x="5 2 3", w="1 24 3", r="1 24 6", b="1 48", zero=[0], v="6 2")
    del model.graph.output[:-1]
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(model, tmp_path / "float.onnx")
    quantization.quantize_dynamic(
        tmp_path / "float.onnx", tmp_path / "q.onnx", per_channel=per_channel, op_types_to_quantize=["LSTM"]
    )
    partition = zig.analyze(tmp_path / "q.onnx")
    assert [group.size for group in partition.node_groups] == [6]
    zig.zero(zig.prune(partition, 0.5, of="groups"), tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    assert report.removed == 3


def test_an_lstm_quantises_the_same_however_many_units_it_has(tmp_path: Path) -> None:
    # onnxruntime shares a batch of two among threads up to 256 units, and each quantises by the range of its own share.
    sizes = {"x": "9 2 3", "w": "1 1200 3", "r": "1 1200 300", "b": "1 2400", "v": "300 2"}
    text = "y, h, c = LSTM <hidden_size = 300> (x, w, r, b)\ns = Squeeze (h, zero)\nz = MatMul (s, v)"
    model = graphs.build(text, opset=17, ir_version=8, zero=[0], **sizes)
    del model.graph.output[:-1]
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(model, tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "q.onnx", op_types_to_quantize=["LSTM"])
    zig.zero(zig.prune(zig.analyze(tmp_path / "q.onnx"), 0.4, of="groups"), tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    assert report.removed == 120
    assert report.comparison is not None
    assert report.comparison.max_rel < 1e-6


def test_integers_whose_zero_point_is_not_read_are_fixed() -> None:
    text = "h = MatMul (x, w)\nq, s, p = DynamicQuantizeLinear (h)\nz = MatMulInteger (q, v)"
    partition = zig.analyze(graphs.build(text, x="4 6", w="6 8", v="int8: 8 3", returns="int32"))
    assert not len(partition)
    assert any("zero point that only the run tells" in fixed.reason for fixed in partition.fixed)


def test_integers_that_are_cast_and_scaled_are_weights(tmp_path: Path) -> None:
    text = """
        c = Cast <to = 1> (w)
        d = Mul (c, s)
        h = MatMul (x, d)
        r = Relu (h)
        z = MatMul (r, v)
    """
    model = graphs.build(text, x="2 6", w="int8: 6 8", s=0.1, v="8 3")
    partition = zig.analyze(model)
    assert graphs.families(partition) == {"8: w.1 | v.0"}
    assert zig.compress(model, tmp_path / "small.onnx", graphs.half(partition)).removed


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
def test_four_bits_are_cut_and_packed_again(kind: str, tmp_path: Path) -> None:
    text = "d = DequantizeLinear (w, s)\nh = MatMul (x, d)\nr = Relu (h)\nz = MatMul (r, v)"
    model = graphs.build(text, opset=21, x="2 6", w="int8: 6 9", s=0.1, v="9 3")
    numbers = np.abs(numpy_helper.to_array(model.graph.initializer[0])) % 8
    packed = onnx.helper.make_tensor("w", TensorProto.DataType.Value(kind), numbers.shape, numbers.reshape(-1).tolist())
    model.graph.initializer[0].CopyFrom(packed)
    partition = zig.analyze(model)
    assert graphs.families(partition) == {"9: w.1 | v.0"}
    plan = graphs.half(partition)
    zig.compress(model, tmp_path / "small.onnx", plan)
    small = Graph(onnx.load(tmp_path / "small.onnx"))
    assert np.array_equal(small.array("w").astype(np.int8), numbers[:, ~plan.remove])


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "DOUBLE", "FLOAT8E4M3FN"])
def test_floats_of_every_width_are_cut_as_they_are(dtype: str, tmp_path: Path) -> None:
    model = graphs.build(
        "h = Conv (x, w, b)\nr = Relu (h)\nz = Conv (r, v)", x="1 3 5 5", w="8 3 1 1", b="8", v="4 8 1 1"
    )
    kind = TensorProto.DataType.Value(dtype)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, kind, values.shape, values.reshape(-1).tolist()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    partition = zig.analyze(model)
    plan = graphs.half(partition)
    runs = dtype == "FLOAT16"  # for the others onnxruntime has no kernels on a processor
    report = zig.compress(model, tmp_path / "small.onnx", plan, check=runs)
    if runs:
        assert report.comparison is not None
        assert report.comparison.max_rel <= 5e-3
    before, after = Graph(model), Graph(onnx.load(tmp_path / "small.onnx"))
    assert after.array("w").tobytes() == before.array("w")[~plan.remove].tobytes()
    assert after.array("v").tobytes() == np.ascontiguousarray(before.array("v")[:, ~plan.remove]).tobytes()


def test_quantised_weights_are_ranked_by_the_numbers_that_they_stand_for() -> None:
    text = "d = DequantizeLinear <axis = 1> (w, s, p)\nh = MatMul (x, d)\nr = Relu (h)\nz = MatMul (r, v)"
    integers = np.array([[120, 130, 120], [120, 110, 120]], np.uint8)  # numbers: -10 s, 0, -10 s
    given = {"w": integers, "s": np.array([0.1, 1.0, 0.2], np.float32), "p": np.array([130] * 3, np.uint8)}
    partition = zig.analyze(graphs.build(text, x="2 2", v="3 3", **given))
    plan = zig.prune(partition, 0.4, of="groups")
    assert plan.remove.tolist() == [True, False, False]
