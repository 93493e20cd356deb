"""What a recipe says is what working the node out would have said."""

import numpy as np
import pytest
from conftest import parse
from flows import check_recipes

import zig

LAYER = """
    a{i} = LayerNormalization (x{i}, g{i}, b{i}) q{i} = MatMul (a{i}, wq{i}) k{i} = MatMul (a{i}, wk{i})
    qh{i} = Reshape (q{i}, heads) kh{i} = Reshape (k{i}, heads)
    qt{i} = Transpose <perm = [0, 2, 1, 3]> (qh{i}) kt{i} = Transpose <perm = [0, 2, 3, 1]> (kh{i})
    s{i} = MatMul (qt{i}, kt{i}) p{i} = Softmax (s{i}) m{i} = ReduceMean <keepdims = 0> (p{i}, last)
    f{i} = Transpose <perm = [0, 2, 1]> (m{i}) e{i} = MatMul (f{i}, wf{i}) u{i} = Add (x{i}, e{i})
    h{i} = MatMul (u{i}, wu{i}) r{i} = {function} (h{i}) o{i} = MatMul (r{i}, wo{i}) x{j} = Add (u{i}, o{i})"""


def network(*functions: str) -> zig.Graph:
    """A layer for each function, all on one residual stream."""
    random, weights = np.random.default_rng(0), {}
    for i in range(len(functions)):
        shapes = {"g": 8, "b": 8, "wq": (8, 8), "wk": (8, 8), "wf": (4, 8), "wu": (8, 12), "wo": (12, 8)}
        weights |= {f"{name}{i}": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    layers = [LAYER.format(i=i, j=i + 1, function=name) for i, name in enumerate(functions)]
    constants = {"heads": np.array([1, 5, 4, 2]), "last": np.array([3])}
    text = f"g (float[1, 5, 8] x0) => (float[1, 5, 8] x{len(functions)}) {{ {' '.join(layers)} }}"
    return zig.load(parse(text, **weights, **constants))


def test_layers_that_repeat_are_worked_out_once() -> None:
    one, two, three, six = (check_recipes(network(*["Relu"] * n)) for n in (1, 2, 3, 6))
    assert one <= 1  # queries and keys are made alike
    assert six - three == 3 * (three - two) > 3 * (two - one)  # the first layer reads the input


@pytest.mark.parametrize("other", ["Exp", "Sigmoid", "Log"])
def test_what_differs_in_its_operator_only_is_no_repetition(other: str) -> None:
    # exp(0) is 1, which would leak or be folded; log(0) is infinite
    check_recipes(network("Relu", other, "Relu", other))


def test_constants_that_some_nodes_can_fold_are_asked_for_every_time() -> None:
    weights = {name: np.ones((4, 4), np.float32) for name in ("a", "b", "c")}
    text = """g (float[N, 4] x, float[4, 4] d) => (float[N, 4] y, float[N, 4] z) {
        p = MatMul (x, a) q = Exp (p) y = MatMul (q, b) r = MatMul (x, c) s = Exp (r) z = MatMul (s, d) }"""
    check_recipes(zig.load(parse(text, **weights)))


def test_what_was_cut_before_is_no_repetition() -> None:
    # The first sum meets what it cut itself; the second one cuts.
    shapes = {"wa": (5, 12), "wb": (5, 12), "wc": (5, 12), "wo": (12, 3), "wp": (12, 3)}
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    text = """g (float[2, 5] x) => (float[2, 3] y, float[2, 3] z) {
        p = MatMul (x, wa) a = Reshape (p, t) b = Relu (a) c = Reshape (b, u) d = Add (p, c) y = MatMul (d, wo)
        q = MatMul (x, wb) s = MatMul (x, wc) k = Reshape (s, t) r = Relu (k) v = Reshape (r, u) e = Add (q, v)
        z = MatMul (e, wp) }"""
    check_recipes(zig.load(parse(text, **weights, t=np.array([2, 3, 4]), u=np.array([2, 12]))))


def test_a_weight_by_its_own_size_is_no_repetition_of_one_by_another() -> None:
    weights = {name: np.arange(1, 13, dtype=np.float32).reshape(12, 1) for name in "vwk"}
    text = """g (float[1, 2] x) => (float[2] y, float[2] z) {
        a = Reshape (k, t) b = Abs (a) c = Reshape (b, u) d = Div (v, c) e = MatMul (d, x)
        y = ReduceSum <keepdims = 0> (e, first)
        f = Reshape (w, t) g = Abs (f) h = Reshape (g, u) i = Div (w, h) j = MatMul (i, x)
        z = ReduceSum <keepdims = 0> (j, first) }"""
    sizes = {"t": np.array([3, 4, 1]), "u": np.array([12, 1]), "first": np.array([0])}
    check_recipes(zig.load(parse(text, **weights, **sizes)))


def test_nodes_of_one_name_are_told_apart() -> None:
    weights = {"w": np.ones((4, 4), np.float32), "s": np.ones(4, np.float32)}
    text = """g (float[N, 4] x) => (float[N, 4] y) { a = MatMul (x, w) b = LayerNormalization (a, s)
        c = LayerNormalization (b, s) y = LayerNormalization (c, s) }"""
    model = parse(text, **weights)
    for node, name in zip(model.graph.node, ("m", "n", "n", "o"), strict=True):
        node.name = name
    check_recipes(zig.load(model))
