"""The shape arithmetic of exporters: what is known before a model runs is what onnxruntime computes when it runs."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import zig
from zig.model.dims import Dim, Size, product, symbol
from zig.model.graph import Graph
from zig.model.shapes import broadcast, reshaped

N, S = symbol("N"), symbol("S")


def at(size: Any, **symbols: int) -> int:
    """A size as a number, once its symbols have values."""
    if not isinstance(size, Dim):
        return int(size)
    return sum(k * int(product(eval(name, dict(symbols)) for name in names)) for names, k in size.terms)


CHAINS = {
    # x.view(b, groups, c // groups, h, w) of the TorchScript exporter
    "shuffle": (
        """
        shape = Shape (x)
        b = Gather <axis = 0> (shape, zero)
        c = Gather <axis = 0> (shape, one)
        d = Div (c, two)
        b1 = Unsqueeze (b, axes)
        d1 = Unsqueeze (d, axes)
        sizes = Concat <axis = 0> (b1, pair, d1, rest)
        y = Reshape (x, sizes)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (y)
        merge = Concat <axis = 0> (b1, minus, rest)
        z = Reshape (t, merge)
        """,
        {"sizes": [N, 2, 3, 4, 4], "merge": [N, -1, 4, 4]},
        {"y": (N, 2, 3, 4, 4), "z": (N, 6, 4, 4)},
        {"x": "N 6 4 4", "pair": [2], "rest": [4, 4], "minus": [-1]},
    ),
    "flatten": (
        """
        shape = Shape (x)
        first = Slice (shape, start, stop, axes)
        sizes = Concat <axis = 0> (first, minus)
        z = Reshape (x, sizes)
        """,
        {"first": [N], "sizes": [N, -1]}, {"z": (N, 96)},
        {"x": "N 6 4 4", "start": [0], "stop": [1], "minus": [-1]},
    ),
    "sizes of attention": (
        """
        n = Shape <start = 0, end = 1> (x)
        s = Shape <start = 1, end = 2> (x)
        sizes = Concat <axis = 0> (n, s, heads)
        y = Reshape (x, sizes)
        ns = Mul (n, s)
        flat = Concat <axis = 0> (ns, minus)
        z = Reshape (y, flat)
        """,
        {"sizes": [N, S, 2, 3], "flat": [N * S, -1]}, {"y": (N, S, 2, 3), "z": (N * S, 6)},
        {"x": "N S 6", "heads": [2, 3], "minus": [-1]},
    ),
    "expand by where": (
        """
        shape = Shape (x)
        n = Gather (shape, axes)
        sizes = Concat <axis = 0> (n, six)
        ones = ConstantOfShape <value = int64[1] {1}> (length)
        minus = Mul (ones, negative)
        same = Equal (sizes, minus)
        safe = Where (same, ones, sizes)
        z = Expand (w, safe)
        """,
        {"sizes": [N, 6], "ones": [1, 1], "minus": [-1, -1]}, {"z": (N, 6)},
        {"x": "N 6 4 4", "six": [6], "length": [2], "negative": [-1], "w": "1 6"},
    ),
    "interpolate": (
        """
        shape = Shape (x)
        h = Gather (shape, two)
        real = Cast <to = 1> (h)
        twice = Mul (real, scale)
        down = Floor (twice)
        whole = Cast <to = 7> (down)
        w1 = Unsqueeze (whole, axes)
        front = Slice (shape, start, stop)
        sizes = Concat <axis = 0> (front, w1, w1)
        z = Resize (x, , , sizes)
        """,
        {"whole": 8, "sizes": [N, 6, 8, 8]}, {"z": (N, 6, 8, 8)},
        {"x": "N 6 4 4", "scale": 2.0, "start": [0], "stop": [2]},
    ),
    "window": (
        """
        shape = Shape (x)
        s = Gather (shape, one)
        half = Div (s, two)
        more = Add (half, half)
        less = Sub (s, one)
        mod = Mod (s, one)
        parts = Concat <axis = 0> (s1, l1, n1)
        s1 = Unsqueeze (s, axes)
        l1 = Unsqueeze (less, axes)
        n = Neg (s)
        n1 = Unsqueeze (n, axes)
        """,
        {"less": S - 1, "parts": [S, S - 1, -S]}, {},
        {"x": "N S 6"},
    ),
    "numbers": (
        """
        r = Range (zero, six, two)
        t = Reshape (r, column)
        u = Transpose <perm = [1, 0]> (t)
        v = Squeeze (u, axes)
        g = GatherElements <axis = 0> (v, order)
        low = Min (g, v)
        high = Max (g, v)
        p = ReduceProd <keepdims = 0> (pair)
        n = Size (w)
        all = Identity (high)
        """,
        {"v": [0, 2, 4], "g": [4, 2, 0], "low": [0, 2, 0], "high": [4, 2, 4], "p": 6, "n": 15}, {},
        {"x": "N 6", "six": np.array(6), "column": [3, 1], "order": [2, 1, 0], "pair": [2, 3], "w": "3 5"},
    ),
    "number of elements": (
        """
        shape = Shape (x)
        all = ReduceProd <keepdims = 1> (shape)
        few = Div (all, pair)
        sizes = Concat <axis = 0> (few, two1)
        z = Reshape (x, sizes)
        """,
        {"all": [6 * N], "few": [3 * N]}, {"z": (3 * N, 2)},
        {"x": "N 6", "two1": [2], "pair": [2]},
    ),
    "packed sequences": (
        """
        n = Shape <start = 1, end = 2> (x)
        short = Cast <to = 6> (two)
        lengths = Expand (short, n)
        y, h = GRU <hidden_size = 3> (x, w, r, b, lengths)
        turned = Transpose <perm = [0, 2, 1, 3]> (y)
        z = Reshape (turned, merged)
        """,
        {"n": [N]}, {"y": (S, 1, N, 3), "h": (1, N, 3), "z": (S, N, 3)},
        {"x": "S N 4", "w": "1 9 4", "r": "1 9 3", "b": "1 18", "merged": [0, 0, -1]},
    ),
    "sorted": (
        """
        n = Shape <start = 0, end = 1> (x)
        sums = ReduceSum <keepdims = 0> (x, both)
        best, order = TopK (sums, n)
        z = Gather <axis = 0> (x, order)
        """,
        {"n": [N]}, {"best": (N,), "order": (N,), "z": (N, S, 6)},
        {"x": "N S 6", "both": [1, 2]},
    ),
    "quantised table": (
        """
        indices = Cast <to = 7> (x)
        rows = Gather <axis = 0> (table, indices)
        y = DequantizeLinear (rows, scale, point)
        sizes = Shape (y)
        """,
        {"sizes": [N, S, 4]}, {"rows": (N, S, 4), "y": (N, S, 4)},
        {"x": "N S", "table": "uint8: 10 4", "scale": 0.1, "point": np.array(3, np.uint8)},
    ),
}  # fmt: skip
SCALARS = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "axes": [0]}


def chain(name: str) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
    text, values, sizes, given_ = CHAINS[name]
    lines = sorted(filter(None, map(str.strip, text.splitlines())), key=lambda line: line.startswith("parts"))
    return graphs.build("\n".join(lines), **{**SCALARS, **given_}), values, sizes


@pytest.mark.parametrize("name", CHAINS)
def test_values_and_sizes_are_known(name: str) -> None:
    model, values, sizes = chain(name)
    graph = Graph(model)
    assert {key: graph.values[key].tolist() for key in values} == values
    assert {key: graph.shapes[key] for key in sizes} == sizes


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("symbols", [{"N": 2, "S": 5}, {"N": 7, "S": 4}])
def test_they_are_what_the_model_computes(name: str, symbols: dict[str, int]) -> None:
    model, _, _ = chain(name)
    graph = Graph(model)
    made = [out for node in model.graph.node for out in node.output]
    outputs = dict(zip(made, graphs.run(revealed(model), graphs.feeds(model, **symbols)), strict=True))
    known = [out for out in made if out in graph.values]
    assert known
    for out in known:
        value = np.array([at(v, **symbols) for v in np.ravel(graph.values[out]).tolist()])
        assert np.array_equal(value, outputs[out].ravel()), out
    for out in made:
        assert tuple(at(n, **symbols) for n in graph.shapes[out]) == outputs[out].shape, out


def revealed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with everything that it computes as an output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(copy)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    for node in model.graph.node:
        for out in node.output:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(out, types.get(out, TensorProto.INT64), None))
    return copy


@pytest.mark.parametrize("name", ["shuffle", "flatten", "sizes of attention"])
def test_sizes_that_arithmetic_gives_are_not_lost_where_the_file_declares_none(name: str) -> None:
    model, _, sizes = chain(name)
    assert not model.graph.value_info
    assert {key: Graph(model).shapes[key] for key in sizes} == sizes


def test_a_size_that_depends_on_data_stays_open() -> None:
    model = graphs.build("n = NonZero (x)\ns = Shape (n)\nz = Identity (s)", x="N 6", returns="int64")
    graph = Graph(model)
    assert graph.shapes["n"][0] == 2
    assert isinstance(graph.shapes["n"][1], Dim)
    assert zig.summary(zig.analyze(model))["groups"] == 0


def test_two_symbols_may_be_equal_so_nothing_follows_from_comparing_them() -> None:
    model = graphs.build(
        "shape = Shape (x)\nn = Gather (shape, zero)\ns = Gather (shape, one)\ne = Equal (n, s)\nz = Where (e, n, s)",
        x="N S 6", returns="int64", **SCALARS,
    )  # fmt: skip
    assert "e" not in Graph(model).values
    assert "z" not in Graph(model).values


@pytest.mark.parametrize(
    ("shape", "target", "result"),
    [
        ((N, 6, 4), [0, -1], (N, 24)), ((N, 6, 4), [-1, 6, 4], (N, 6, 4)), ((N, S, 6), [0, 0, 2, 3], (N, S, 2, 3)),
        ((N, S, 6), [-1, 6], (N * S, 6)), ((2, 12), [-1, 3], (8, 3)), ((2, 3), [6], (6,)),
    ],
)  # fmt: skip
def test_reshaped(shape: tuple[Size, ...], target: list[int], result: tuple[Size, ...]) -> None:
    assert reshaped(shape, np.array(target, object)) == result


def test_reshape_may_take_zero_literally() -> None:
    assert reshaped((0, 3), np.array([3, 0]), allowzero=True) == (3, 0)


@pytest.mark.parametrize(
    ("shapes", "result"),
    [
        (((N, 1, 4), (6, 1)), (N, 6, 4)), (((), (3,)), (3,)), (((1,), (N,)), (N,)), (((N, 6), (1, 1), (6,)), (N, 6)),
        (((N, 6), (4, 6)), (4, 6)),
    ],
)  # fmt: skip
def test_broadcast(shapes: tuple[tuple[Size, ...], ...], result: tuple[Size, ...]) -> None:
    assert broadcast(*shapes) == result


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 5]), max_size=4), min_size=1, max_size=3))
def test_broadcast_is_numpy_s(shapes: list[list[int]]) -> None:
    assert broadcast(*map(tuple, shapes)) == np.broadcast_shapes(*map(tuple, shapes))


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reshaped_is_numpy_s(shape: list[int], data: st.DataObject) -> None:
    total = int(np.prod(shape))
    first = data.draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
    target = data.draw(st.sampled_from([[first, -1], [-1, first], [first, total // first], [0, -1]]))
    numbers = [shape[0], -1] if target[0] == 0 else target
    assert reshaped(tuple(shape), np.array(target)) == np.zeros(shape).reshape(numbers).shape


def test_a_norm_does_not_take_the_width_for_its_channels() -> None:
    text = "h = Conv <pads = [1, 1, 1, 1]> (x, w)\nz = BatchNormalization (h, g, b, m, v)"
    model = graphs.build(text, dynamic="W", x="N 3 8 W", w="16 3 3 3", g="16", b="16", m="16", v="positive: 16")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert str(Graph(model).shapes["z"][3]) == "W"
