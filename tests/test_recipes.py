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
    f{i} = Reshape (m{i}, flat) e{i} = MatMul (f{i}, wf{i}) u{i} = Add (x{i}, e{i})
    h{i} = MatMul (u{i}, wu{i}) r{i} = {function} (h{i}) o{i} = MatMul (r{i}, wo{i}) x{j} = Add (u{i}, o{i})"""


def network(*functions: str) -> zig.Graph:
    """A layer for each function, all on one residual stream."""
    random, weights = np.random.default_rng(0), {}
    for i in range(len(functions)):
        shapes = {"g": 8, "b": 8, "wq": (8, 8), "wk": (8, 8), "wf": (4, 8), "wu": (8, 12), "wo": (12, 8)}
        weights |= {f"{name}{i}": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    layers = [LAYER.format(i=i, j=i + 1, function=name) for i, name in enumerate(functions)]
    constants = {"heads": np.array([1, 5, 4, 2]), "flat": np.array([1, 5, 4]), "last": np.array([3])}
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
