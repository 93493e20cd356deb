"""The analysis is right by itself: what it calls prunable is cut without verification, and nothing changes.

`tests/unverified.py` says how. The quick part takes every case of every operator as it stands, some random networks, and
each kind of fault that was found this way; the slow part varies each attribute of each node, and takes the zoo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fuzz.networks
import graphs
import hypothesis
import numpy as np
import onnx
import pytest
import unverified
from operators.cases import CASES, Case
from test_random_networks import MAKERS

import zig

# onnx's reference, where onnxruntime lacks an operator, computes in numpy
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(case: Case, tmp_path: Path) -> None:
    assert not unverified.differs(case.model(case.letters()), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_attribute(case: Case, tmp_path: Path) -> None:
    """Each attribute of each node at other values, as far as onnxruntime takes them."""
    model = case.model(case.letters())
    said = {name: unverified.differs(other, tmp_path) for name, other in unverified.variants(model)}
    assert not {name: fault for name, fault in said.items() if fault}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 80))])
def test_random_networks(kind: str, seed: int, tmp_path: Path) -> None:
    assert not unverified.differs(MAKERS[kind](seed), tmp_path, seed)


@pytest.mark.slow
@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(fuzz.networks.networks())
def test_networks_of_cases(tmp_path_factory: Any, model: onnx.ModelProto) -> None:
    assert not unverified.differs(model, tmp_path_factory.mktemp("cut"))


@pytest.mark.slow
def test_the_zoo(tmp_path: Path) -> None:
    zoo = pytest.importorskip("zoo", reason="the zoo is made of torch modules")
    for name in (name for name, architecture in zoo.ZOO.items() if architecture.small):
        for exporter in ("dynamo", "torchscript"):
            try:
                model = onnx.load(zoo.export(name, exporter, tmp_path))
            except zoo.UnavailableError:
                continue
            found = unverified.pair(model, tmp_path)
            names = [value.name for value in zoo.architecture(name).inputs]
            inputs = dict(zip(names, zoo.sample(name, 11), strict=True))
            asked = {value.name for value in model.graph.input}
            given = {key: value for key, value in inputs.items() if key in asked}
            far = unverified.worst(found, [given]) if found else 0.0
            assert far <= unverified.EXACT, f"{name} by {exporter}"


# -- kinds of faults ------------------------------------------------------------------------------------------------

DENSE: dict[str, Any] = {"x": "3 3", "w": "3 c", "b": "c", "v": "c 2", "c": 4}
IMAGE: dict[str, Any] = {"x": "1 3 4 4", "w": "4 3 1 1", "v": "2 4 1 1", "gamma": "4", "beta": "4"}
FIRST, LAST = "h = Gemm (x, w, b)", "z = Gemm (y, v)"
ONE_OF_FOUR = np.float32([0, 1, 1, 1])


def built(body: str, **given: Any) -> onnx.ModelProto:
    """A model with the types of its outputs as onnx infers them."""
    model = graphs.build(body, **given)
    for output in model.graph.output:
        output.type.CopyFrom(onnx.TypeProto())
    inferred = onnx.shape_inference.infer_shapes(model)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
    return model


def dense(body: str, **given: Any) -> onnx.ModelProto:
    """h -> body -> y."""
    return built(f"{FIRST}\n{body}\n{LAST}", **{**DENSE, **given})


def normed(node: str, **given: Any) -> onnx.ModelProto:
    return built(f"h = Conv (x, w)\ny = {node}\nz = Conv (y, v)", **{**IMAGE, **given})


def statistics(mean: Any, variance: Any, epsilon: float = 1e-5) -> onnx.ModelProto:
    node = f"BatchNormalization <epsilon = {epsilon}> (h, gamma, beta, mean, var)"
    return normed(node, mean=np.float32(mean), var=np.float32(variance))


OFF = np.float32([np.nan, 1, 1, 1])
GAP = "q = Sigmoid (h)\n"
FAULTS: dict[str, onnx.ModelProto] = {
    # numbers that are more than one
    "a sum of equal numbers": dense(
        GAP + "t = Transpose (q)\ne = Expand (two, sizes)\nm = MatMul (t, e)\ny = Transpose (m)", two=2.0, sizes=[3, 1]
    ),
    "a number with padding around it": dense(
        GAP + "r = Reshape (q, to)\np = Pad (k, pads)\ns = Mul (r, p)\ny = ReduceMax <keepdims = 0> (s, last)",
        to=[0, 0, 1], k=np.full((1, 1, 1), -0.7, np.float32), pads=[0, 0, 0, 0, 0, 2], last=[2],
    ),
    # functions with jumps, at numbers that rounding moves
    "a floor of what rounds to a whole number": dense("a = Add (h, k)\nm = Mul (a, t)\ny = Floor (m)", k=0.7, t=10.0),
    "the sign of what cancels": dense(
        "a = Add (h, k)\ns = Add (a, l)\nd = Sub (s, both)\ny = Sign (d)",
        k=0.1, l=0.7, both=float(np.float32(0.1) + np.float32(0.7)),
    ),
    "a division of integers": dense(
        "a = Add (h, k)\ni = Cast <to = 7> (a)\nj = Div (i, two)\ny = Cast <to = 1> (j)", k=3.2, two=np.array(2)
    ),
    "an integer that its type can't hold": dense("a = Add (h, k)\ni = Cast <to = 3> (a)\ny = Cast <to = 1> (i)", k=300.2),
    # what is nowhere defined
    "a root of what is below zero": dense("a = Add (h, k)\ny = Pow (a, half)", k=-3.2, half=0.5),
    "an exponential that overflows": dense("a = Add (h, k)\ny = Exp (a)", k=100.0),
    "a divisor of zero": dense("y = Div (h, d)", d=ONE_OF_FOUR),
    "a divisor of NaN": dense("y = Div (h, d)", d=OFF),
    "a divisor that is a factor elsewhere": dense("p = Div (h, d)\nq = Mul (h, d)\ny = Add (p, q)", d="positive: c"),
    "a root of it": dense("r = Sqrt (d)\np = Div (h, r)\nq = Mul (h, d)\ny = Add (p, q)", d="positive: c"),
    "Celu of alpha 0": dense("y = Celu <alpha = 0.0> (h)"),
    "Celu of alpha 0, above zero": dense("a = Add (h, k)\ny = Celu <alpha = 0.0> (a)", k=0.8),
    "a slope of zero": dense("y = PRelu (h, d)", d=ONE_OF_FOUR),
    "indices into an image of another size": built(
        "h = Conv (x, w)\np, i = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (h)\n"
        "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i)\nz = Conv (y, v)", **IMAGE
    ),
    "a power of zero in a norm": normed("GlobalLpPool <p = 0> (h)"),
    "a variance of NaN": statistics([0] * 4, [np.nan, 1, 1, 1]),
    "a variance below zero": statistics([0] * 4, [-1, 1, 1, 1]),
    "no variance": statistics([0] * 4, [0, 1, 1, 1], epsilon=0.0),
    "a mean of infinity": statistics([np.inf, 0, 0, 0], [1] * 4),
    **{
        f"epsilon {epsilon:g} in {name}": normed(node.replace("(", f"<epsilon = {epsilon}> (", 1))
        for epsilon in (0.0, -0.7)
        for name, node in (
            ("InstanceNormalization", "InstanceNormalization (h, gamma, beta)"),
            ("BatchNormalization", "BatchNormalization (h, gamma, beta, beta, gamma)"),
        )
    },
    # what a bias that is folded in is multiplied by
    "a beta without its bias": built(f"{FIRST}\ny = Sigmoid (h)\nz = Gemm <beta = 0.3> (y, v)", **DENSE),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_kinds(name: str, tmp_path: Path) -> None:
    for seed in range(4):
        assert not unverified.differs(FAULTS[name], tmp_path, seed)


@pytest.mark.parametrize("name", ["a variance of NaN", "a variance below zero", "no variance", "a divisor of zero"])
def test_what_leaves_nothing_defined_is_fixed_with_that_reason(name: str) -> None:
    partition = zig.analyze(FAULTS[name])
    assert len(partition) == 3
    assert any("would be infinite or undefined" in fixed.reason for fixed in partition.fixed)


# -- sizes that are read as numbers -----------------------------------------------------------------------------------

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "all of a shape": ("s = Shape (h)", {}),
    "the end of a shape": ("s = Shape <start = 1> (h)", {}),
    "the number of entries": ("s = Size (h)", {"x": "2 3"}),
    "arithmetic": ("a = Shape (h)\ng = Gather (a, one)\ns = Mul (g, g)", {"one": np.array(1)}),
    "as a factor": ("s = Size (h)\nk = Cast <to = 1> (s)\nq = Mul (z, k)", {"x": "2 3"}),
    "a shape as factors": ("s = Shape (h)\nk = Cast <to = 1> (s)\nq = Mul (z, k)", {}),
    "the shape of something else": ("s = Shape (h)\nr = Reshape (x_2, s)", {"x_2": "N 2 2"}),
    "what something else is spread to": ("s = Shape (h)\nr = Expand (x_2, s)", {"x_2": "N 1"}),
    "a bound": ("s = Shape <start = 1> (h)\nr = Slice (x_2, o, s, a)", {"x_2": "N 7", "o": [0], "a": [1]}),
    "an index": ("s = Shape <start = 1> (h)\nr = Gather <axis = 1> (x_2, s)", {"x_2": "N 7"}),
    "a number of best": ("s = Shape <start = 1> (h)\nr, i = TopK (x_2, s)", {"x_2": "N 7"}),
    "pieces": (
        "s = Shape <start = 1> (h)\nl = Sub (s, one)\np = Concat <axis = 0> (l, one)\nr, q = Split <axis = 1> (x_2, p)",
        {"x_2": "N 4", "one": [1]},
    ),
    "repeats": ("s = Shape <start = 1> (h)\nr = Tile (x_2, s)", {"x_2": "2"}),
}
ONLY_THE_RUN_TELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "the number of entries": ("s = Size (h)", {}),
    "as a factor": ("s = Size (h)\nk = Cast <to = 1> (s)\nq = Mul (z, k)", {}),
    "in a branch": (
        "p = Greater (x_2, zero)\ns = If (p) <then_branch = t () => (int64[B] s1) { s1 = Shape (h) }, "
        "else_branch = e () => (int64[B] s2) { s2 = Shape (x) }>",
        {"zero": 0.0, "x_2": ""},
    ),
}


def measured(body: str, given: dict[str, Any]) -> onnx.ModelProto:
    return built(f"h = Gemm (x, w)\nz = Gemm (h, v)\n{body}", **{"x": "N 3", "w": "3 c", "v": "c 2", "c": 4, **given})


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_read_as_a_number_stays_that_number(name: str, tmp_path: Path) -> None:
    model = measured(*SIZES[name])
    assert len(zig.analyze(model)) == 4
    assert unverified.runs(model, graphs.feeds(model))
    assert not unverified.differs(model, tmp_path)


@pytest.mark.parametrize("name", ONLY_THE_RUN_TELLS)
def test_what_only_the_run_tells_fixes_what_it_is_the_size_of(name: str) -> None:
    partition = zig.analyze(measured(*ONLY_THE_RUN_TELLS[name]))
    assert not len(partition)
    assert any("has a size that" in fixed.reason for fixed in partition.fixed)


# -- recurrent cells ----------------------------------------------------------------------------------------------------

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def cell(operator: str, *activations: str, directions: int = 1, **given: Any) -> onnx.ModelProto:
    names = ", ".join(f'"{name}"' for name in activations)
    more = "".join(f", {k} = {v}" for k, v in given.items())
    both = ', direction = "bidirectional"' if directions == 2 else ""
    sizes = {"w": f"{directions} {GATES[operator] * 4} 3", "r": f"{directions} {GATES[operator] * 4} 4"}
    return built(
        f"q = {operator} <hidden_size = 4, activations = [{names}]{both}{more}> (x, w, r)\n"
        "h = Transpose <perm = [0, 2, 1, 3]> (q)\ny = Reshape (h, flat)\nz = MatMul (y, v)",
        x="5 2 3", flat=[0, 0, -1], v=f"{directions * 4} 2", **sizes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        (cell("RNN", "Tanh"), 4),
        (cell("RNN", "Sigmoid"), 0),
        (cell("RNN", "Softsign"), 4),
        (cell("RNN", "Softplus"), 0),
        (cell("RNN", "HardSigmoid"), 0),
        (cell("RNN", "HardSigmoid", activation_beta="[0.0]", activation_alpha="[0.3]"), 4),
        (cell("RNN", "Affine", activation_alpha="[0.3]", activation_beta="[0.0]"), 4),
        (cell("RNN", "Affine", activation_alpha="[0.3]", activation_beta="[0.1]"), 0),
        (cell("RNN", "Affine"), 0),  # of which the standard gives no default
        (cell("RNN", "Elu", activation_alpha="[0.5, 0.5]"), 0),  # whose entry is it?
        (cell("RNN", "Tanh", "Sigmoid", directions=2), 0),
        (cell("RNN", "Tanh", "Relu", directions=2), 4),
        (cell("GRU", "Sigmoid", "Tanh"), 4),
        (cell("GRU", "Sigmoid", "Sigmoid"), 0),
        (cell("GRU", "Tanh", "Tanh", linear_before_reset="1"), 4),
        (cell("LSTM", "Sigmoid", "Tanh", "Tanh"), 4),
        (cell("LSTM", "Sigmoid", "Sigmoid", "Tanh"), 0),
        (cell("LSTM", "Sigmoid", "Tanh", "Sigmoid"), 0),
        (cell("LSTM", "Tanh", "Sigmoid", "Sigmoid"), 4),  # its gates are shut: nothing comes in, nothing goes out
        (cell("LSTM", "Softplus", "Elu", "LeakyRelu", input_forget="1", clip="3.0"), 4),
    ],
)
def test_a_cell_rests_where_its_activations_let_it(model: onnx.ModelProto, groups: int, tmp_path: Path) -> None:
    assert len(zig.analyze(model)) == groups
    assert not unverified.differs(model, tmp_path)


def test_a_gate_that_made_up_inputs_never_open(tmp_path: Path) -> None:
    model = built(
        'q = RNN <hidden_size = 4, activations = ["Sigmoid"]> (x, w, r)\nh = Squeeze (q, one)\nm = Greater (x, fifty)\n'
        "n = ReduceMax <keepdims = 1> (x, last)\nopen = Greater (n, fifty)\ng = Where (open, h, zero)\nz = MatMul (g, v)",
        x="5 2 3", w="1 4 3", r="1 4 4", one=[1], last=[2], fifty=50.0, zero=0.0, v="4 2",
    )  # fmt: skip
    assert not unverified.differs(model, tmp_path)
