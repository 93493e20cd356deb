"""Streams under normalisations, weights that are computed, blocks and directions: what may go though all is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import graphs
import numpy as np
import onnx
import pytest

import zig


class Case(NamedTuple):
    """A network as text, its sizes, and how many groups it has."""

    text: str
    given: dict[str, Any]
    groups: int
    opset: int = 20


RMS = {"x": "2 4", "w": "4 6", "g": "positive: 6", "v": "6 3"}
CASES = {
    "RMSNormalization": Case("h = MatMul(x, w)  r = RMSNormalization(h, g)  y = MatMul(r, v)", RMS, 6, opset=23),
    "RMSNormalization, two axes": Case(
        "h = Conv(x, w)  r = RMSNormalization<axis=1, epsilon=0.1>(h, g)  y = Conv(r, v)",
        {"x": "2 3 4 4", "w": "6 3 1 1", "g": "positive: 6 4 4", "v": "2 6 1 1"}, 6, opset=23,
    ),
    "RMSNormalization of a residual stream, tied gain": Case(
        """
        h = MatMul(x, w)  r = RMSNormalization(h, g)  m = MatMul(r, u)  a = Relu(m)  d = MatMul(a, t)  s = Add(h, d)
        q = RMSNormalization<epsilon=0.01>(s, g)  y = MatMul(q, v)
        """,
        RMS | {"u": "6 5", "t": "5 6"}, 11, opset=23,
    ),
    "RMSNormalization whose statistics are read": Case(
        "h = MatMul(x, w)  r, s = SimplifiedLayerNormalization(h, g)  y = MatMul(r, v)  z = Relu(s)", RMS, 0
    ),
    "SkipSimplifiedLayerNormalization": Case(
        """
        h = MatMul(x, w)  k = MatMul(x, u)
        r, , , s = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.02>(h, k, g)  t = Add(r, s)  y = MatMul(t, v)
        """,
        RMS | {"u": "4 6"}, 6,
    ),
    "root mean square, written out": Case(
        """
        h = MatMul(x, w)  q = Pow(h, two)  m = ReduceMean<keepdims=1>(q, last)  e = Add(m, eps)  s = Sqrt(e)
        d = Div(h, s)  r = Mul(d, g)  y = MatMul(r, v)
        """,
        RMS | {"two": 2.0, "eps": 0.1, "last": [-1]}, 6,
    ),
    "root mean square before opset 18": Case(
        """
        h = MatMul(x, w)  q = Mul(h, h)  m = ReduceMean<axes=[-1], keepdims=1>(q)  e = Add(m, eps)  s = Sqrt(e)
        d = Div(h, s)  r = Mul(d, g)  y = MatMul(r, v)
        """,
        RMS | {"eps": 0.1}, 6, opset=13,
    ),
    "layer norm, written out": Case(
        """
        h = MatMul(x, w)  m = ReduceMean<keepdims=1>(h, last)  c = Sub(h, m)  q = Mul(c, c)
        k = ReduceMean<keepdims=1>(q, last)  e = Add(k, eps)  s = Sqrt(e)  d = Div(c, s)  r = Mul(d, g)  y = MatMul(r, v)
        """,
        RMS | {"eps": 0.1, "last": [-1]}, 6,
    ),
    "mean of all, no axes": Case(
        "h = MatMul(x, w)  m = ReduceMean<keepdims=0>(h)  y = Relu(m)", {"x": "2 4", "w": "4 6"}, 6
    ),
    "global response": Case(
        """
        h = Conv(x, w)  l = ReduceL2<keepdims=1>(h, space)  m = ReduceMean<keepdims=1>(l, one)  e = Add(m, eps)
        n = Div(l, e)  k = Mul(h, n)  y = Conv(k, v)
        """,
        {"x": "2 3 4 4", "w": "6 3 1 1", "v": "2 6 1 1", "space": [2, 3], "one": [1], "eps": 0.1}, 6,
    ),
    "standardised weight": Case(
        """
        s = Conv(x, u)  r = Relu(s)  m = ReduceMean<keepdims=1>(w, inner)  c = Sub(w, m)  q = Mul(c, c)
        k = ReduceMean<keepdims=1>(q, inner)  e = Add(k, eps)  d = Sqrt(e)  z = Div(c, d)  a = Mul(z, g)
        t = Conv(r, a)  f = Relu(t)  y = Conv(f, v)
        """,
        {"x": "2 3 4 4", "u": "5 3 1 1", "w": "6 5 1 1", "v": "2 6 1 1", "inner": [1, 2, 3], "eps": 0.1,
         "g": "6 1 1 1"}, 11,
    ),
    "weight with unit length": Case(
        """
        s = MatMul(x, u)  r = Relu(s)  n = ReduceL2<keepdims=1>(w, inner)  e = Add(n, eps)  z = Div(w, e)
        t = MatMul(r, z)  f = Relu(t)  y = MatMul(f, v)
        """,
        {"x": "2 3", "u": "3 5", "w": "5 6", "v": "6 2", "inner": [0], "eps": 0.1}, 11,
    ),
    "softmax of a weight": Case(
        "s = MatMul(x, u)  z = Softmax<axis=0>(w)  y = MatMul(s, z)", {"x": "2 3", "u": "3 5", "w": "5 2"}, 5
    ),
    "a computed weight that is not silent where its own is": Case(
        "h = MatMul(x, w)  a = Sigmoid(h)  u = Exp(v)  y = MatMul(a, u)", {"x": "2 4", "w": "4 6", "v": "6 3"}, 0
    ),
    "a computed weight that is silent where its own is": Case(
        "h = MatMul(x, w)  a = Sigmoid(h)  u = Tanh(v)  b = Cos(a)  y = MatMul(b, u)",
        {"x": "2 4", "w": "4 6", "v": "6 3"}, 6,
    ),
    "arithmetic on the size of a weight": Case(
        "h = MatMul(x, w)  s = Shape(v)  c = Cast<to=1>(s)  m = ReduceProd(c)  e = Div(v, m)  y = MatMul(h, e)",
        {"x": "2 4", "w": "4 6", "v": "6 3"}, 6,
    ),
    "a mean behind an operator of onnxruntime": Case(
        "h = MatMul(x, w)  r = com.microsoft.Gelu(h)  m = ReduceMean<keepdims=1>(r, l)  d = Mul(r, m)  y = MatMul(d, v)",
        {"x": "2 4", "w": "4 6", "v": "6 3", "l": [1]}, 6,
    ),
    "a gain that is computed": Case(
        "h = MatMul(x, w)  k = Mul(g, f)  r = SimplifiedLayerNormalization(h, k)  y = MatMul(r, v)", RMS | {"f": "6"}, 6
    ),
    "SkipSimplifiedLayerNormalization of small values": Case(
        """
        h = MatMul(x, w)  a = Mul(h, tiny)  k = MatMul(x, u)  b = Mul(k, tiny)
        r = com.microsoft.SkipSimplifiedLayerNormalization(a, b, g)  y = MatMul(r, v)
        """,
        RMS | {"u": "4 6", "tiny": 1e-3}, 6,
    ),
    "a divisor that passes through a function": Case(
        "h = MatMul(x, w)  s = Sqrt(g)  u = Div(h, s)  y = MatMul(u, v)", RMS, 6
    ),
    "SkipSimplifiedLayerNormalization with a bias": Case(
        "h = MatMul(x, w)  k = MatMul(x, u)  r = com.microsoft.SkipSimplifiedLayerNormalization(h, k, g, b)  y = MatMul(r, v)",
        RMS | {"u": "4 6", "b": "6"}, 6,
    ),
    "layer norm, written out in small nodes": Case(
        """
        h = MatMul(x, w)  m = ReduceMean<keepdims=1>(h, last)  d = Sub(h, m)  q = Pow(d, two)  p = ReduceMean<keepdims=1>(q, last)
        e = Add(p, eps)  s = Sqrt(e)  n = Div(d, s)  k = Mul(n, g)  r = Add(k, b)  y = MatMul(r, v)
        """,
        RMS | {"b": "6", "two": 2.0, "eps": 0.01, "last": [-1]}, 6,
    ),
    "layer norm before opset 13, a product for a square, twice the difference": Case(
        """
        h = Conv(x, w)  m = ReduceMean<axes=[1, 2, 3], keepdims=1>(h)  d = Sub(h, m)  f = Sub(h, m)  q = Mul(f, f)
        p = ReduceMean<axes=[1, 2, 3], keepdims=1>(q)  e = Add(eps, p)  s = Sqrt(e)  n = Div(d, s)  r = Mul(g, n)  y = Conv(r, v)
        """,
        {"x": "2 3 4 4", "w": "6 3 1 1", "g": "positive: 6 4 4", "v": "2 6 1 1", "eps": 0.01}, 6, opset=12,
    ),
    "layer norm, written out, and the mean is read": Case(
        """
        h = MatMul(x, w)  m = ReduceMean<keepdims=1>(h, last)  d = Sub(h, m)  q = Pow(d, two)  p = ReduceMean<keepdims=1>(q, last)
        e = Add(p, eps)  s = Sqrt(e)  n = Div(d, s)  k = Mul(n, g)  r = Add(k, b)  y = MatMul(r, v)  z = Relu(m)
        """,
        RMS | {"b": "6", "two": 2.0, "eps": 0.01, "last": [-1]}, 6,
    ),
    "low rank": Case("w = MatMul(a, b)  y = MatMul(x, w)", {"x": "2 3", "a": "3 4", "b": "4 2"}, 4),
    "both directions of an LSTM, twice": Case(
        """
        u = Concat<axis=0>(f, b)  o, , = LSTM<hidden_size=3, direction="bidirectional">(x, u, r, k)
        p = Transpose<perm=[0, 2, 1, 3]>(o)  q = Reshape(p, flat)  z = Concat<axis=-1>(q, q)  y = MatMul(z, v)
        """,
        {"x": "2 1 2", "f": "1 12 2", "b": "1 12 2", "r": "2 12 3", "k": "2 24", "flat": [2, 1, 6], "v": "12 2"}, 3,
    ),
    "grouped convolution of channels of which some are the input's": Case(
        "h = Conv(x, w)  c = Concat<axis=1>(h, x)  b = Conv<group=2>(c, z)  y = Conv(b, v)",
        {"x": "2 3 4 4", "w": "9 3 1 1", "z": "12 6 1 1", "v": "2 12 1 1"}, 9,
    ),
    "grouped convolutions of different groups": Case(
        "h = Conv(x, w)  a = Conv<group=2>(h, u)  b = Conv<group=4>(a, t)  y = Conv(b, v)",
        {"x": "2 3 4 4", "w": "16 3 1 1", "u": "16 8 1 1", "t": "16 4 1 1", "v": "2 16 1 1"}, 16,
    ),
    "grouped convolution": Case(
        "s = Conv(x, u)  r = Conv<group=2>(s, w)  y = Conv(r, v)",
        {"x": "2 3 4 4", "u": "12 3 1 1", "w": "8 6 1 1", "v": "2 8 1 1"}, 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_streams(name: str, ratio: float, tmp_path: Path) -> None:
    case = CASES[name]
    model = graphs.build(case.text, opset=case.opset, **case.given)
    partition = zig.analyze(model)
    assert len(partition) == case.groups
    if not case.groups:
        return
    plan = zig.prune(partition, ratio=ratio, of="groups", scope="local", criterion="random", seed=1)
    report = zig.compress(model, tmp_path / "small.onnx", plan)
    assert report.removed == plan.remove.sum() > 0
    assert report.comparison.max_rel < 1e-5
    zig.zero(plan, tmp_path / "zeroed.onnx", model)
    again = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "again.onnx")
    assert again.removed >= plan.remove.sum()
    inputs = graphs.feeds(model, 1)
    full, small = (graphs.run(tmp_path / f"{file}.onnx", inputs) for file in ("zeroed", "again"))
    assert graphs.difference(full, small) <= 1e-5


LAYER_NORMS = {
    "one": Case(
        "h = MatMul(x, w)  r = LayerNormalization(h, g, b)  y = MatMul(r, v)", RMS | {"b": "6"}, 6
    ),
    "no bias, two axes": Case(
        "h = Conv(x, w)  r = LayerNormalization<axis=1, epsilon=0.1>(h, g)  y = Conv(r, v)",
        {"x": "2 3 4 4", "w": "6 3 1 1", "g": "positive: 6 4 4", "v": "2 6 1 1"}, 6, opset=17,
    ),
    "a residual stream": Case(
        """
        h = MatMul(x, w)  r = LayerNormalization(h, g, b)  m = MatMul(r, u)  a = Relu(m)  d = MatMul(a, t)  s = Add(h, d)
        q = LayerNormalization<epsilon=0.01>(s, k, c)  y = MatMul(q, v)
        """,
        RMS | {"u": "6 5", "t": "5 6", "b": "6", "c": "6", "k": "6"}, 11,
    ),
    "with a skip": Case(
        "h = MatMul(x, w)  k = MatMul(x, u)  r = com.microsoft.SkipLayerNormalization(h, k, g, b)  y = MatMul(r, v)",
        RMS | {"b": "6", "u": "4 6"}, 6,
    ),
    "with a skip, a bias, and the sum read": Case(
        """
        h = MatMul(x, w)  k = MatMul(x, u)
        r, _, _, s = com.microsoft.SkipLayerNormalization<epsilon=0.1>(h, k, g, b, c)
        m = MatMul(r, t)  a = Relu(m)  d = MatMul(a, q)
        o = com.microsoft.SkipLayerNormalization(d, s, e, , f)  y = MatMul(o, v)
        """.replace("r, _, _, s", "r, , , s"),
        RMS | {"b": "6", "u": "4 6", "c": "6", "t": "6 5", "q": "5 6", "e": "6", "f": "6"}, 11, opset=17,
    ),
    "embeddings": Case(
        """
        i = Cast<to=6>(xi)  h, m = com.microsoft.EmbedLayerNormalization(i, i, words, places, kinds, g, b)
        y = MatMul(h, v)  z = Cast<to=1>(m)
        """,
        {"xi": "ids : 2 4", "words": "7 6", "places": "7 6", "kinds": "7 6", "g": "6", "b": "6", "v": "6 3"}, 6,
    ),
    "embeddings of one kind, read after a skip": Case(
        """
        i = Cast<to=6>(xi)
        h, , s = com.microsoft.EmbedLayerNormalization<epsilon=0.01>(i, , words, places, , g, b)
        r = com.microsoft.SkipLayerNormalization(h, s, e)
        y = MatMul(r, v)
        """,
        {"xi": "ids : 2 4", "words": "7 6", "places": "7 6", "g": "6", "b": "6", "e": "6", "v": "6 3"}, 6,
    ),
    "the statistics of a skip": Case(
        """
        h = MatMul(x, w)  r, , q = com.microsoft.SkipLayerNormalization(h, h, g, b)  y = MatMul(r, v)  z = Relu(q)
        """,
        RMS | {"b": "6"}, 0,
    ),
    "the output itself": Case("h = MatMul(x, w)  y = LayerNormalization(h, g, b)", RMS | {"b": "6"}, 0),
    "statistics are read": Case(
        "h = MatMul(x, w)  r, m = LayerNormalization(h, g, b)  y = MatMul(r, v)  z = Relu(m)", RMS | {"b": "6"}, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_layer_norms_that_may_be_rewritten(name: str, tmp_path: Path) -> None:
    case = LAYER_NORMS[name]
    model = graphs.build(case.text, opset=case.opset, **case.given)
    assert not len(zig.analyze(model)) or case.groups > len(zig.analyze(model))
    partition = zig.analyze(model, rewrite=True)
    assert len(partition) == case.groups
    if not case.groups:
        return
    plan = zig.prune(partition, ratio=0.5, of="groups", scope="local", criterion="random", seed=1)
    zig.zero(plan, tmp_path / "zeroed.onnx", model)
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx", rewrite=True)
    assert report.removed >= plan.remove.sum() > 0
    assert report.comparison.max_rel < 1e-5
    assert zig.compress(tmp_path / "zeroed.onnx", tmp_path / "same.onnx").removed < report.removed


EXTREMES = {
    "the largest": "h = MatMul(x, w)  m = ReduceMax<axes=[1]>(h)  a = Mul(h, m)  y = MatMul(a, v)",
    "the smallest, without its axis": "h = MatMul(x, w)  m = ReduceMin<axes=[1], keepdims=0>(h)  k = Unsqueeze<axes=[1]>(m)  "
    "a = Mul(h, k)  y = MatMul(a, v)",
    "the largest of squashed numbers": "h = MatMul(x, w)  t = Tanh(h)  m = ReduceMax<axes=[-1]>(t)  a = Add(t, m)  "
    "b = Mul(a, t)  y = MatMul(b, v)",
    "the smallest of what is rectified": "h = MatMul(x, w)  t = Relu(h)  m = ReduceMin<axes=[1]>(t)  a = Mul(t, m)  "
    "y = MatMul(a, v)",
}


@pytest.mark.parametrize("name", EXTREMES)
def test_a_zero_that_may_win_is_written_out(name: str, tmp_path: Path) -> None:
    model = graphs.build(EXTREMES[name], x="40 2", w="2 3", v="3 2", opset=12)
    assert not len(zig.analyze(model))
    partition = zig.analyze(model, rewrite=True)
    assert len(partition) == 3
    plan = zig.Plan(partition, np.array([False, True, False]))
    zig.zero(plan, tmp_path / "zeroed.onnx", model)
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx", rewrite=True, check=False)
    assert report.removed == 1
    inputs = graphs.feeds(model)
    zeroed, small = (graphs.run(tmp_path / f"{each}.onnx", inputs) for each in ("zeroed", "small"))
    assert graphs.difference(zeroed, small) < 1e-6
    assert any(node.op_type in ("Max", "Min") for node in onnx.load(tmp_path / "small.onnx").graph.node)


@pytest.mark.parametrize("taken", ["m.before", "m.before_mul", "m.mul.operand", "m.mul"])
def test_names_that_are_taken_are_left_alone(taken: str, tmp_path: Path) -> None:
    model = graphs.build(
        "h = MatMul(x, w)  m = ReduceMean<keepdims=1>(h, l)  a = Mul(h, m)  c = Relu(a)  y = MatMul(c, v)",
        x="2 4", w="4 6", l=[-1], v="6 3",
    )  # fmt: skip
    for names in (*(node.output for node in model.graph.node), *(node.input for node in model.graph.node)):
        names[:] = [taken if name == "c" else name for name in names]
    plan = zig.prune(zig.analyze(model), ratio=0.5, scope="local")
    assert zig.compress(model, tmp_path / "small.onnx", plan).removed == 3


def test_a_divisor_is_never_zeroed() -> None:
    case = CASES["a divisor that passes through a function"]
    (group,) = zig.analyze(graphs.build(case.text, **case.given)).node_groups
    assert group.members == [("w", 1)]
    assert ("g", 0) in group.dependents


def test_a_grouped_convolution_loses_positions_of_every_group(tmp_path: Path) -> None:
    case = CASES["grouped convolution"]
    model = graphs.build(case.text, **case.given)
    plan = zig.prune(zig.analyze(model), ratio=0.5, of="groups", scope="local")
    zig.compress(model, tmp_path / "small.onnx", plan)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert sizes["w"] == (4, 3, 1, 1)


def test_half_precision_means_are_scaled_in_their_own_type(tmp_path: Path) -> None:
    case = CASES["root mean square, written out"]
    model = graphs.build(case.text, **case.given)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    plan = zig.prune(zig.analyze(model), ratio=0.5, of="groups", scope="local")
    report = zig.compress(model, tmp_path / "small.onnx", plan, rtol=5e-3, atol=5e-3)
    assert report.removed == 3


def test_the_size_that_a_reshape_leaves_open_stays_the_open_one(tmp_path: Path) -> None:
    model = graphs.build(
        """
        h = MatMul(x, a)
        n = Shape<start=0, end=1>(x)
        s = Concat<axis=0>(n, open, four, two)
        r = Reshape<allowzero=1>(h, s)
        t = Transpose<perm=[0, 2, 1, 3]>(r)
        k = MatMul(t, w)
        z = Relu(k)
        v = Transpose<perm=[0, 2, 1, 3]>(z)
        s2 = Concat<axis=0>(n, open, eight)
        f = Reshape<allowzero=1>(v, s2)
        y = MatMul(f, o)
        """,
        dynamic="NS", x="N S 3", a="3 8", w="2 2", o="8 3", open=[-1], four=[4], two=[2], eight=[8],
    )  # fmt: skip
    plan = zig.prune(zig.analyze(model), ratio=0.5, scope="local")
    assert zig.compress(model, tmp_path / "small.onnx", plan).removed == 2


def test_queries_that_share_keys_go_with_the_keys() -> None:
    text = """
        q = MatMul(x, wq)  q1 = Reshape(q, s4)  q2 = Transpose<perm=[0, 2, 1, 3]>(q1)
        k = MatMul(x, wk)  k1 = Reshape(k, s2)  k2 = Transpose<perm=[0, 2, 3, 1]>(k1)
        k3 = Unsqueeze(k2, two)  k4 = Expand(k3, e)  k5 = Reshape(k4, sk)
        a = MatMul(q2, k5)  p = Softmax(a)
        v = MatMul(x, wv)  v1 = Reshape(v, s2)  v2 = Transpose<perm=[0, 2, 1, 3]>(v1)
        v3 = Unsqueeze(v2, two)  v4 = Expand(v3, f)  v5 = Reshape(v4, sv)
        o = MatMul(p, v5)  o1 = Transpose<perm=[0, 2, 1, 3]>(o)  o2 = Reshape(o1, flat)  y = MatMul(o2, wo)
        """
    given = {
        "x": "1 5 7", "wq": "7 24", "wk": "7 6", "wv": "7 6", "wo": "24 7", "s4": [1, 5, 8, 3], "s2": [1, 5, 2, 3],
        "two": [2], "e": [1, 2, 4, 3, 5], "sk": [1, 8, 3, 5], "f": [1, 2, 4, 5, 3], "sv": [1, 8, 5, 3], "flat": [1, 5, 24],
    }  # fmt: skip
    groups = zig.analyze(graphs.build(text, **given)).node_groups
    assert [group.size for group in groups] == [2]
    assert {tensor for tensor, _ in groups[0].members + groups[0].dependents} == {"wq", "wk", "wv", "wo"}
