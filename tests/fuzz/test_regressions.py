"""What the fuzzers have found: files that once led to a traceback, a crash or noise, and must not again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import parse
from onnx import TensorProto, helper, numpy_helper

from fuzz.command import trial
from zig.model.checks import complaint

BASE = "g (float[N, 4] x) => (float[N, 2] y) {{ {} y = MatMul (r, v) }}"
SIZES = {"w": (4, 3), "b": (3,), "v": (3, 2)}


def model(body: str = "h = MatMul (x, w) r = Relu (h)", **more: np.ndarray) -> onnx.ModelProto:
    """A layer, what `body` says, and another layer."""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal(size).astype(np.float32) for name, size in SIZES.items()}
    return parse(BASE.format(body), **weights, **more)


def changed(
    change: Callable[[onnx.ModelProto], object], body: str = "h = MatMul (x, w) r = Relu (h)"
) -> onnx.ModelProto:
    """The model with something done to it."""
    proto = model(body)
    change(proto)
    return proto


def weight(**fields: object) -> Callable[[onnx.ModelProto], None]:
    """Set fields of the first weight."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                tensor.dims[:] = value
            else:
                setattr(tensor, name, value)

    return change


def outside(**entries: str) -> Callable[[onnx.ModelProto], None]:
    """Say of the first weight that it lies in another file."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items())

    return change


def function(
    *body: onnx.NodeProto, times: int = 1, inputs: tuple[str, ...] = ("h",), gap: bool = False
) -> Callable[[onnx.ModelProto], None]:
    """Call a function in place of the Relu."""

    def change(proto: onnx.ModelProto) -> None:
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
        proto.functions.extend([helper.make_function("local", "again", list(inputs), ["r"], body, opsets)] * times)
        proto.opset_import.append(opsets[1])
        proto.graph.node[1].op_type, proto.graph.node[1].domain = "again", "local"
        proto.graph.node[1].input.extend([""] * gap)

    return change


CALL = helper.make_node("again", ["h"], ["r"], domain="local")
RELU = helper.make_node("Relu", ["h"], ["r"])
DAMAGED: dict[str, Callable[[], onnx.ModelProto]] = {
    "a function that calls itself": lambda: changed(function(CALL)),
    "two functions of one name": lambda: changed(function(RELU, times=2)),
    "a function called with too many operands": lambda: changed(function(RELU, inputs=())),
    "an offset that is empty": lambda: changed(outside(location="d", offset="", length="48")),
    "an offset that is no whole number": lambda: changed(outside(location="d", offset="1e3", length="48")),
    "a data file with a zero byte in its name": lambda: changed(outside(location="a\0b")),
    "a data file without a name": lambda: changed(outside(location="")),
    "a data file that is said nothing of": lambda: changed(outside()),
    "too few numbers": lambda: changed(weight(dims=[4, 5])),
    "a negative size": lambda: changed(weight(dims=[-4, 3])),
    "huge sizes": lambda: changed(weight(dims=[2**40, 2**20])),
    "no type": lambda: changed(weight(data_type=0)),
    "a type of which nobody has heard": lambda: changed(weight(data_type=99)),
    "half a number": lambda: changed(weight(raw_data=b"\0" * 47)),
    "indices out of range": lambda: model("h = MatMul (x, w) r = Gather <axis = 1> (h, far)", far=np.array([0, 1, 99])),
    "an index far out of range": lambda: model("h = MatMul (x, w) s = Gather <axis = 1> (h, far) r = Add (h, s)", far=np.array([-(2**62)])),
    "a product of one": lambda: model("h = MatMul (x, w) r = MatMul (h)"),
    "a sum of one": lambda: model("h = MatMul (x, w) r = Add (h)"),
    "a layer of nothing": lambda: model("h = MatMul (x, w) r = Gemm ()"),
    "a comparison with nothing": lambda: model("h = MatMul (x, w) m = Greater (h) r = Cast <to = 1> (m)"),
    "a choice without a value": lambda: model("h = MatMul (x, w) m = Greater (h, b) r = Where (m, h)"),
    "nothing in a row": lambda: model("h = MatMul (x, w) r = Concat <axis = 1> ()"),
    "a gap in a sum": lambda: model("h = MatMul (x, w) r = Sum (h, , b)"),
    "axes that are no integers": lambda: model("h = MatMul (x, w) s = ReduceSum (h, b) r = Add (h, s)"),
    "axes that are complex": lambda: model("h = MatMul (x, w) s = ReduceSum (h, a) r = Add (h, s)", a=np.array([1], np.complex64)),
    "one axis for all": lambda: model("h = MatMul (x, w) s = ReduceSum (h, a) r = Add (h, s)", a=np.array(1)),
    "an axis that is not there": lambda: model("h = MatMul (x, w) s = ReduceSum (h, a) r = Add (h, s)", a=np.array([7])),
    "a cast to nothing": lambda: model("h = MatMul (x, w) r = Cast (h)"),
    "a cast to what is no type": lambda: model("h = MatMul (x, w) r = Cast <to = 999> (h)"),
    "limits that are no numbers": lambda: model("h = MatMul (x, w) r = Clip (h, b, b)"),
    "a turn of too many axes": lambda: model("h = MatMul (x, w) r = Transpose <perm = [0, 1, 2, 9]> (h)"),
    "a Reshape to a negative size": lambda: model("h = MatMul (x, w) r = Reshape (h, s)", s=np.array([-7, -1, 3])),
    "a Split into negative sizes": lambda: model("h = MatMul (x, w) r, q = Split <axis = 1> (h, s)", s=np.array([4, -1])),
    "more groups than channels": lambda: model("h = MatMul (x, w) r = Conv <group = 7> (h, w)"),
    "an attribute of a function outside of one": lambda: changed(
        lambda proto: proto.graph.node[1].attribute.add(name="alpha", ref_attr_name="a", type=onnx.AttributeProto.FLOAT)
    ),
    "a tensor without a type": lambda: changed(
        lambda proto: proto.graph.value_info.append(helper.make_tensor_value_info("h", 0, [2, 3]))
    ),
    "entries of a data file for what lies here": lambda: changed(
        lambda proto: proto.graph.initializer[0].external_data.add(key="offset", value="3")
    ),
    "a data file that is said to be shorter than it must be": lambda: changed(
        outside(location="bad.onnx", offset="0", length="4")
    ),
    "an output without a name": lambda: changed(lambda proto: setattr(proto.graph.output[0], "name", "")),
    "a function called with a gap": lambda: changed(
        function(helper.make_node("Add", ["a", "c"], ["r"]), inputs=("a", "c"), gap=True)
    ),
    "a cycle": lambda: model("h = MatMul (r, w) r = Relu (h)"),
    "a tensor that nothing gives": lambda: changed(lambda proto: proto.graph.initializer.pop(0)),
    "an output that nothing gives": lambda: changed(lambda proto: proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("nobody", TensorProto.FLOAT, [2]))),
    "two that give the same": lambda: model("h = MatMul (x, w) r = Relu (h) r = Abs (h)"),
    "no version": lambda: changed(lambda proto: proto.ClearField("opset_import")),
    "a version that is to come": lambda: changed(lambda proto: setattr(proto.opset_import[0], "version", 2**40)),
    "a version of another domain that is to come": lambda: changed(
        lambda proto: proto.opset_import.append(helper.make_opsetid("com.microsoft", 2**40)),
        "h = MatMul (x, w) r = com.microsoft.SkipLayerNormalization (h, h, b, , b)",
    ),
    "a weight that is an output of another type": lambda: changed(
        lambda proto: (
            proto.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3])),
            proto.graph.output.append(onnx.ValueInfoProto(name="b", type=helper.make_tensor_type_proto(16, None))),
        ),
        "h = MatMul (x, w) r = Add (h, b)",
    ),
    "a complex number where an integer belongs": lambda: model(
        "h = MatMul (x, w) r, q = TopK (h, k)", k=np.array([1 + 2j], np.complex64)
    ),
    "attention by no heads": lambda: model(
        "h = MatMul (x, w) k = Unsqueeze (h, a) "
        "p = Attention <q_num_heads = 1, kv_num_heads = 0> (k, k, k) r = Squeeze (p, a)",
        a=np.array([1]),
    ),
    "a Split into more parts than it names": lambda: model("h = MatMul (x, w) r = Split <num_outputs = 9> (h)"),
    "an output that is named twice": lambda: changed(
        lambda proto: proto.graph.output.append(onnx.ValueInfoProto.FromString(proto.graph.output[0].SerializeToString()))
    ),
    "an If without branches": lambda: changed(
        lambda proto: proto.graph.node[1].CopyFrom(helper.make_node("If", ["h"], ["r"]))
    ),
    "a Loop whose body takes nothing": lambda: changed(
        lambda proto: proto.graph.node[1].CopyFrom(
            helper.make_node("Loop", ["", "", "h"], ["r"], body=helper.make_graph([], "b", [], []))
        )
    ),
    "a Scan whose body takes nothing": lambda: changed(
        lambda proto: proto.graph.node[1].CopyFrom(
            helper.make_node("Scan", ["h"], ["r"], num_scan_inputs=1, body=helper.make_graph([], "b", [], []))
        )
    ),
    "a Scan over more than it has": lambda: changed(
        lambda proto: proto.graph.node[1].CopyFrom(
            helper.make_node("Scan", ["h"], ["r"], num_scan_inputs=2**31, body=helper.make_graph([RELU], "b", [], []))
        )
    ),
    "an input of huge size": lambda: changed(
        lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2**40)
    ),
    "an input of negative size": lambda: changed(
        lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", -5)
    ),
    "a weight of eight bits without its scale": lambda: model(
        "h = MatMul (x, w) q = DequantizeLinear (k) r = Mul (h, q)", k=np.ones(3, np.int8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_was_found_stays_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(DAMAGED[name]().SerializeToString())
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as noise:
        warnings.simplefilter("always")
        assert trial("bad.onnx") == []
    assert [str(warning.message) for warning in noise if f"{os.sep}zig{os.sep}" in warning.filename] == []


def test_a_tensor_that_is_declared_twice_is_complained_of() -> None:
    proto = model()
    proto.graph.value_info.append(proto.graph.input[0])
    assert not complaint(proto)
    proto.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 7
    assert complaint(proto) == "'x' is declared twice, with different shapes or types"


def test_an_attribute_of_a_function_outside_of_one_is_complained_of() -> None:
    # onnx's checker says nothing, and onnxruntime makes something else of it in each of two models.
    assert complaint(DAMAGED["an attribute of a function outside of one"]()).startswith("attribute 'alpha' of node")
    assert not complaint(model())


def test_names_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = model("hidden = MatMul (x, w) r = Relu (hidden)").SerializeToString()
    (tmp_path / "bad.onnx").write_bytes(data.replace(b"hidden", b"\xf2idden"))
    monkeypatch.chdir(tmp_path)
    assert trial("bad.onnx") == []


def test_numbers_that_are_infinite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Zero times infinity is NaN in the model with zeros, and gone in the one without.
    proto = model()
    values = np.array(numpy_helper.to_array(proto.graph.initializer[2]))
    values[1] = np.inf
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(values, "v"))
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path)
    assert trial("bad.onnx") == []
