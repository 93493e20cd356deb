"""Random valid networks out of the cases of all operators, as a hypothesis strategy.

A network grows case by case. What a case reads comes from the tensors that are there already, inner ones too, brought
to its shape by a layer; before that, two of them may be joined (sum, product, concatenation, broadcast) or turned
(transpose, reshape, slice). A few nodes of a case in a row may move into a model-local function, a branch of an If, or
the body of a Loop or Scan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from graphs import BATCH
from hypothesis import strategies as st
from onnx import TensorProto, compose, helper, numpy_helper
from operators.cases import CASES, Case

Draw = Callable[[Any], Any]
Shape = tuple[int | str, ...]
MOST = 3000  # features of a tensor that is read again
_UNARY = {
    "Relu",
    "Sigmoid",
    "Tanh",
    "Abs",
    "Neg",
    "Elu",
    "Softplus",
    "HardSwish",
    "Gelu",
    "Erf",
    "Sin",
    "Mish",
    "LeakyRelu",
}
OPSETS = Counter(case.options.get("opset", 20) for case in CASES)


@dataclass
class Network:
    """A network while it grows: nodes, weights, and the float tensors that may be read, with their shapes."""

    draw: Draw
    opset: int
    random: np.random.Generator
    batch: int | str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    open: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)

    def fresh(self, kind: str) -> str:
        return f"{kind}{len(self.nodes) + len(self.weights)}"

    def weight(self, *sizes: int, scale: float = 1.0) -> str:
        values = self.random.standard_normal(sizes) * scale
        return self.constant(values.astype(np.float32))

    def constant(self, value: Any) -> str:
        name = self.fresh("k")
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def call(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = self.fresh("t")
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def model(self) -> onnx.ModelProto:
        """The network, all that nobody reads being an output."""
        read = {name for node in self.nodes for name in (*node.input, *_inner(node))}
        ends = [name for node in self.nodes for name in node.output if name and name not in read]
        outputs = [helper.make_tensor_value_info(n, self.types.get(n, TensorProto.FLOAT), None) for n in ends]
        opsets = [
            helper.make_opsetid(domain, n) for domain, n in (("", self.opset), ("com.microsoft", 1), ("local", 1))
        ]
        graph = helper.make_graph(self.nodes, "random", self.inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=self.functions)
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except onnx.shape_inference.InferenceError:
            return model
        for declared, known in zip(model.graph.output, inferred.output, strict=True):
            declared.CopyFrom(known)
        return model


@st.composite
def networks(draw: Draw) -> onnx.ModelProto:
    """Random networks of one to four cases."""
    opset = draw(st.sampled_from(sorted(OPSETS, key=lambda n: -OPSETS[n])) | st.just(20))
    seed = draw(st.integers(0, 999))
    net = Network(draw, opset, np.random.default_rng(seed), draw(st.sampled_from([BATCH, "N"])))
    able = [case for case in CASES if case.options.get("opset", 20) == opset]
    for number in range(draw(st.integers(1, 4))):
        _add(net, draw(st.sampled_from(able)), number, seed)
    return net.model()


def _add(net: Network, case: Case, number: int, seed: int) -> None:
    """Let a case grow out of what is there."""
    sizes = {name: net.draw(st.sampled_from(few)) for name, few in sorted({**_letters(), **case.sizes}.items())}
    block = case.model(sizes, seed + number)
    # ONNX text knows nothing of empty names; they must stay empty.
    graph = compose.add_prefix_graph(block.graph, f"b{number}_") if number else block.graph
    for value in graph.input:
        made = _source(net, value) if value.type.tensor_type.elem_type == TensorProto.FLOAT else ""
        if made:
            _rename(graph.node, value.name, made)
        else:
            _declare(net, value)
            net.inputs.append(value)
    known = _shapes(graph, net)
    nodes = _wrapped(net, list(graph.node), {w.name for w in graph.initializer}, known, number)
    net.nodes.extend(nodes)
    net.weights.extend(graph.initializer)
    produced = {name for node in nodes for name in node.output}
    for name, (kind, shape) in known.items():
        net.types[name] = kind
        usable = name in produced and kind == TensorProto.FLOAT and shape is not None and len(shape) >= 2
        if usable and all(isinstance(n, int) for n in shape[1:]) and 0 < math.prod(shape[1:]) <= MOST:
            net.open[name] = shape


def _letters() -> dict[str, tuple[int, ...]]:
    from operators.cases import LETTERS

    return LETTERS


def _declare(net: Network, value: onnx.ValueInfoProto) -> None:
    """Take the batch of this network for that of the case."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param and isinstance(net.batch, int):
            dim.dim_value = net.batch


def _rename(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _shapes(graph: onnx.GraphProto, net: Network) -> dict[str, tuple[int, Shape | None]]:
    """Element types and shapes of what a block computes, as far as onnx can tell."""
    given = {value.name for value in graph.input}
    probe = onnx.GraphProto()
    probe.CopyFrom(graph)
    outside = {name for node in graph.node for name in node.input} & net.open.keys()
    probe.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, net.open[n]) for n in outside - given)
    opsets = [helper.make_opsetid("", net.opset), helper.make_opsetid("com.microsoft", 1)]
    try:
        found = onnx.shape_inference.infer_shapes(helper.make_model(probe, opset_imports=opsets), data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    return {value.name: _shape(value) for value in (*found.value_info, *found.output)}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, Shape | None]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return tensor.elem_type, sizes


# -- what a case reads ------------------------------------------------------------------------------------------------


def _source(net: Network, value: onnx.ValueInfoProto) -> str:
    """An input of a case, made of what is there; empty where it stays an input of the model."""
    shape = tuple(net.batch if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim)
    if not net.open or net.draw(st.integers(0, 9)) == 0 or 0 in shape or not shape:
        return ""
    name = net.draw(st.sampled_from(sorted(net.open)))
    for _ in range(net.draw(st.integers(0, 2))):
        name = net.draw(st.sampled_from([_join, _turn, _curve]))(net, name)
    return _fitted(net, name, shape)


def _fitted(net: Network, name: str, shape: Shape) -> str:
    """A dense layer from a tensor to a shape; the batch stays in its place, wherever that is."""
    sizes = net.open[name]
    if net.draw(st.booleans()):
        name = net.call(net.draw(st.sampled_from(["Tanh", "Relu", "Sigmoid"])), name)
    if net.batch in shape and sizes[0] == net.batch:
        place = shape.index(net.batch)
        rest = [n for axis, n in enumerate(shape) if axis != place]
        wide, want = math.prod(sizes[1:]), math.prod(rest)
        if len(sizes) != 2:
            name = net.call("Flatten", name, axis=1)
        first = -1 if isinstance(net.batch, str) else net.draw(st.sampled_from([-1, 0, net.batch]))
    elif all(isinstance(n, int) for n in (*shape, *sizes)):
        place, rest, wide, want, first = 0, [*shape[1:]], math.prod(sizes), math.prod(shape), shape[0]
        name = net.call("Reshape", name, net.constant(np.array([1, wide])))
    else:
        return ""
    bias = net.weight(want, scale=0.5)
    name = net.call("Gemm", name, net.weight(wide, want, scale=wide**-0.5), bias)
    if len(shape) > 2 or place:
        name = net.call("Reshape", name, net.constant(np.array([first, *rest])))
    if place:
        perm = [*range(1, len(shape))]
        perm.insert(place, 0)
        name = net.call("Transpose", name, perm=perm)
    return name


def _join(net: Network, name: str) -> str:
    """Two tensors as one."""
    shape = net.open[name]
    alike = [other for other, sizes in net.open.items() if sizes == shape]
    beside = [other for other, sizes in net.open.items() if len(sizes) == len(shape) and sizes[:-1] == shape[:-1]]
    kind = net.draw(st.sampled_from(["sum", "product", "concat", "row", "all"]))
    if kind in ("sum", "product"):
        other = net.draw(st.sampled_from(sorted(alike)))
        operator = net.draw(st.sampled_from(["Add", "Sub", "Max"])) if kind == "sum" else "Mul"
        made = net.call(operator, name, other)
    elif kind == "concat":
        other = net.draw(st.sampled_from(sorted(beside)))
        made = net.call("Concat", name, other, axis=len(shape) - 1)
        shape = (*shape[:-1], shape[-1] + net.open[other][-1])  # type: ignore[operator]
    elif kind == "row":
        made = net.call(net.draw(st.sampled_from(["Add", "Mul"])), name, net.weight(int(shape[-1])))
    else:
        made = net.call("Mul", name, net.weight(*(1,) * len(shape)))
    net.open[made] = shape
    return made


def _turn(net: Network, name: str) -> str:
    """A tensor with its entries moved, the batch in front."""
    shape = net.open[name]
    kind = net.draw(st.sampled_from(["transpose", "merge", "split", "reverse"]))
    if kind == "transpose" and len(shape) > 2:
        order = net.draw(st.permutations(range(1, len(shape))))
        made, shape = net.call("Transpose", name, perm=[0, *order]), (shape[0], *(shape[a] for a in order))
    elif kind == "merge" and len(shape) > 2:
        sizes = (*shape[1:-2], int(shape[-2]) * int(shape[-1]))
        made, shape = net.call("Reshape", name, net.constant(np.array([0, *sizes]))), (shape[0], *sizes)
    elif kind == "split" and int(shape[-1]) % 2 == 0 and len(shape) < 5:
        sizes = (*shape[1:-1], 2, int(shape[-1]) // 2)
        made, shape = net.call("Reshape", name, net.constant(np.array([0, *sizes]))), (shape[0], *sizes)
    elif int(shape[-1]) > 0:
        order = net.random.permutation(int(shape[-1]))
        made = net.call("Gather", name, net.constant(order), axis=len(shape) - 1)
    else:
        return name
    net.open[made] = shape
    return made


def _curve(net: Network, name: str) -> str:
    made = net.call(net.draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Abs", "Neg"])), name)
    net.open[made] = net.open[name]
    return made


# -- functions and sub-graphs -----------------------------------------------------------------------------------------


def _inner(node: onnx.NodeProto) -> Iterable[str]:
    """What the sub-graphs of a node read."""
    for attribute in node.attribute:
        for part in attribute.g.node:
            yield from (*part.input, *_inner(part))
        yield from (value.name for value in attribute.g.output)


@dataclass
class Row:
    """A few nodes in a row, with what flows in and out of them."""

    before: list[onnx.NodeProto]
    nodes: list[onnx.NodeProto]
    after: list[onnx.NodeProto]
    reads: list[str]
    writes: list[str]
    known: dict[str, Any]

    @classmethod
    def of(cls, nodes: list[onnx.NodeProto], first: int, last: int, known: dict[str, Any]) -> Row:
        """The nodes from `first` to before `last`."""
        inside, after = nodes[first:last], nodes[last:]
        made = dict.fromkeys(name for node in inside for name in node.output if name)
        reads = dict.fromkeys(name for node in inside for name in node.input if name and name not in made)
        later = {name for node in after for name in node.input}
        ends = [name for name in made if name in later] or [list(made)[-1]]
        return cls(nodes[:first], inside, after, list(reads), ends, known)

    def value(self, name: str) -> onnx.ValueInfoProto:
        """The declaration of a tensor."""
        kind, shape = self.known[name]
        return helper.make_tensor_value_info(name, kind, shape and [None if n == "?" else n for n in shape])

    def is_float(self) -> bool:
        """Whether nothing but floats flows out."""
        return all(self.known.get(name, (0, None))[0] == TensorProto.FLOAT for name in self.writes)

    def keeps_shape(self, weights: set[str]) -> bool:
        """Whether one tensor flows in and another one of its shape flows out."""
        self.reads = [name for name in self.reads if name not in weights]
        if len(self.reads) != 1 or len(self.writes) != 1 or not self.is_float():
            return False
        shape = self.known[self.writes[0]][1]
        return bool(shape) and "?" not in shape and self.known.get(self.reads[0], (0, None))[1] == shape

    def is_unary(self) -> bool:
        """Whether every node works element by element."""
        return all(node.op_type in _UNARY for node in self.nodes)

    def with_ends(self, old: str, new: str) -> list[onnx.NodeProto]:
        """The nodes, reading and writing tensors of other names."""
        names = {self.reads[0]: old, self.writes[0]: new}
        for node in self.nodes:
            for list_ in (node.input, node.output):
                list_[:] = [names.get(name, name) for name in list_]
        return self.nodes


def _wrapped(
    net: Network, nodes: list[onnx.NodeProto], weights: set[str], known: dict[str, Any], number: int
) -> list[onnx.NodeProto]:
    """The nodes, a few of them in a row perhaps inside a function or a sub-graph."""
    kind = net.draw(st.sampled_from(["plain", "function", "if", "loop", "scan"]))
    rows = [Row.of(nodes, i, j, known) for i in range(len(nodes)) for j in range(i + 1, len(nodes) + 1)]
    if kind in ("loop", "scan"):
        rows = [row for row in rows if row.keeps_shape(weights) and (kind == "loop" or row.is_unary())]
    elif kind == "if":
        rows = [row for row in rows if row.is_float() and net.open]
    if kind == "plain" or not rows or net.opset < 13:
        return nodes
    row = net.draw(st.sampled_from(rows))
    wrap = {"function": _function, "if": _if, "loop": _loop, "scan": _scan}[kind]
    return [*row.before, *wrap(net, row, number), *row.after]


def _function(net: Network, row: Row, number: int) -> list[onnx.NodeProto]:
    opsets = [helper.make_opsetid("", net.opset), helper.make_opsetid("com.microsoft", 1)]
    net.functions.append(helper.make_function("local", f"f{number}", row.reads, row.writes, row.nodes, opsets))
    return [helper.make_node(f"f{number}", row.reads, row.writes, domain="local")]


def _if(net: Network, row: Row, number: int) -> list[onnx.NodeProto]:
    """The nodes as one branch, and what they compute with another sign as the other."""
    then = helper.make_graph(row.nodes, f"then{number}", [], [row.value(name) for name in row.writes])
    other = compose.add_prefix_graph(then, "e_", rename_inputs=False)
    for value in other.output:
        other.node.append(helper.make_node("Neg", [value.name], [f"{value.name}_n"]))
        value.name = f"{value.name}_n"
    largest = net.call("ReduceMax", net.draw(st.sampled_from(sorted(net.open))), keepdims=0)
    which = net.call("Greater", largest, net.constant(np.float32(net.draw(st.sampled_from([-99.0, 0.5])))))
    results = [f"{name}_i" for name in row.writes]
    call = helper.make_node("If", [which], results, then_branch=then, else_branch=other)
    return [call, *(helper.make_node("Identity", [r], [w]) for r, w in zip(results, row.writes, strict=True))]


def _loop(net: Network, row: Row, number: int) -> list[onnx.NodeProto]:
    """The nodes, run twice, each time on their own result."""
    reads, writes, shape = row.reads, row.writes, row.known[row.writes[0]][1]
    state = [helper.make_tensor_value_info(f"{n}{number}", TensorProto.FLOAT, shape) for n in ("old", "new")]
    go = [helper.make_tensor_value_info(f"{n}{number}", TensorProto.BOOL, []) for n in ("go", "on")]
    count = helper.make_tensor_value_info(f"i{number}", TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", [go[0].name], [go[1].name]), *row.with_ends(state[0].name, state[1].name)]
    body = helper.make_graph(nodes, f"body{number}", [count, go[0], state[0]], [go[1], state[1]])
    times, true = net.constant(np.array(2)), net.constant(np.array(True))
    return [helper.make_node("Loop", [times, true, *reads], writes, body=body)]


def _scan(net: Network, row: Row, number: int) -> list[onnx.NodeProto]:
    """The nodes, run on one slice of the first axis after the other."""
    reads, writes, shape = row.reads, row.writes, row.known[row.writes[0]][1]
    slices = [helper.make_tensor_value_info(f"{n}{number}", TensorProto.FLOAT, shape[1:]) for n in ("old", "new")]
    nodes = row.with_ends(slices[0].name, slices[1].name)
    body = helper.make_graph(nodes, f"body{number}", slices[:1], slices[1:])
    return [helper.make_node("Scan", reads, writes, body=body, num_scan_inputs=1)]
