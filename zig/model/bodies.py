"""The bodies of If, Loop and Scan, spread out, so that their nodes stand in the graph like any other.

A Loop or Scan becomes two nodes around its body: an entry, whose results are the body's inputs, and the node itself,
which reads what it read before, the body's inputs and the body's results. An If needs no entry. What a body reads from
outside it reads by name, as ONNX has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple, cast

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from zig.model.dims import Size

ENTERED = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
COUNTED = -1  # in place of a tensor: the number of the step, or whether there is another one
Shape = tuple[Size, ...]
Array = np.ndarray[Any, Any]
Start = tuple[int, int | None]


class Body(NamedTuple):
    """How tensors pass in and out of the bodies of a node; places are those among all that the node reads."""

    formals: list[
        tuple[int, int | None]
    ]  # for each input of the body: its place outside, and the axis a step leaves out
    meets: list[
        tuple[int, int]
    ]  # for each result: places of both branches, or of a state's start and of what it becomes
    stacked: list[tuple[int, int]]  # for each further result: its place, and the axis along which the steps lie
    carries: bool  # whether what comes out of the body goes into it again
    grown: set[str]  # inputs of the body whose sizes change from step to step


def graphs(node: NodeProto) -> list[GraphProto]:
    """All graphs that the attributes of a node hold."""
    return [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else ()), *a.graphs)]


def entered(node: NodeProto, version: int) -> list[GraphProto]:
    """The bodies that are spread out, in the order of `ENTERED`; none for other nodes, nor for the Scan of opset 8."""
    known = node.domain in ("", "ai.onnx") and (node.op_type != "Scan" or version >= 9)
    names = ENTERED.get(node.op_type, ()) if known else ()
    found = {a.name: a.g for a in node.attribute}
    return [found[name] for name in names if name in found]


def body(node: NodeProto, inner: list[GraphProto]) -> Body:
    """The ways in and out of the bodies of an If, a Loop or a Scan."""
    return {"If": _if, "Loop": _loop, "Scan": _scan}[node.op_type](node, inner[0])


def fit(node: NodeProto, inner: list[GraphProto]) -> bool:
    """Whether bodies have the inputs and results that their node needs."""
    results, made = {len(graph.output) for graph in inner}, len(node.output)
    if node.op_type == "If":
        return len(inner) == len(ENTERED["If"]) and len(node.input) == 1 and results == {made}
    given = len(inner[0].input)
    if node.op_type == "Loop":
        return 2 <= given == len(node.input) and results == {made + 1} and made >= given - 2
    steps = {a.name: a.i for a in node.attribute}.get("num_scan_inputs", -1)
    return 0 < steps <= given == len(node.input) and results == {made} and made >= given - steps


def _if(_: NodeProto, branch: GraphProto) -> Body:
    results = len(branch.output)  # after the condition come the results of one branch, then those of the other
    return Body([], [(1 + i, 1 + results + i) for i in range(results)], [], carries=False, grown=set())


def _loop(node: NodeProto, inner: GraphProto) -> Body:
    first, states = len(node.input) + len(inner.input), len(inner.input) - 2
    starts: list[Start] = [(COUNTED, None), (COUNTED, None), *((2 + i, None) for i in range(states))]
    meets = [(2 + i, first + 1 + i) for i in range(states)]
    stacked = [(first + i, 0) for i in range(1 + states, len(inner.output))]
    return Body(starts, meets, stacked, carries=True, grown=set())


def _scan(node: NodeProto, inner: GraphProto) -> Body:
    numbers = {a.name: a.i or list(a.ints) for a in node.attribute}
    first, steps = len(node.input) + len(inner.input), cast("int", numbers["num_scan_inputs"])
    states = len(inner.input) - steps
    taken, given = (cast("list[int]", numbers.get(f"scan_{way}_axes", [])) for way in ("input", "output"))
    starts: list[Start] = [(i, None) for i in range(states)]
    starts += [(states + i, taken[i] if taken else 0) for i in range(steps)]
    stacked = [(first + states + i, given[i] if given else 0) for i in range(len(inner.output) - states)]
    return Body(starts, [(i, first + i) for i in range(states)], stacked, carries=True, grown=set())


def walk(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs within it."""
    yield graph
    for node in graph.node:
        for body in graphs(node):
            yield from walk(body)


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All tensors that a graph and the graphs within it hold, as initializers and as attributes."""
    for each in walk(graph):
        yield from each.initializer
    for node in nodes(graph):
        yield from held(node)


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph and of the graphs within it."""
    for each in walk(graph):
        yield from each.node


def held(node: NodeProto) -> Iterator[TensorProto]:
    """The tensors that the attributes of a node hold."""
    for attribute in node.attribute:
        yield from ([attribute.t] if attribute.HasField("t") else ())
        yield from attribute.tensors


def captured(node: NodeProto) -> Iterator[str]:
    """Names that the bodies of a node read from outside."""
    for graph in graphs(node):
        inner = _made(graph)
        read = [n for node in graph.node for n in (*node.input, *captured(node))] + [o.name for o in graph.output]
        yield from (name for name in read if name and name not in inner)


def _made(graph: GraphProto) -> dict[str, None]:
    """The names that a graph gives to tensors, in order."""
    made = [value.name for value in (*graph.input, *graph.initializer)]
    return dict.fromkeys([*made, *(name for node in graph.node for name in node.output if name)])


def named_apart(model: ModelProto) -> ModelProto:
    """The model with a name of its own for each tensor: two bodies may use the same one."""
    if not any(graphs(node) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = dict.fromkeys(_made(copy.graph), 0)  # with the last number that was tried for each
    for node in copy.graph.node:
        for body in graphs(node):
            _name_apart(body, {}, taken)
    return copy


def _name_apart(graph: GraphProto, outer: dict[str, str], taken: dict[str, int]) -> None:
    names = dict(outer)
    for name in _made(graph):
        names[name] = free = _free(name, taken)
        taken[free] = 0
    for value in (*graph.input, *graph.initializer, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for each in (node.input, node.output):
            each[:] = [names.get(name, name) for name in each]
        for body in graphs(node):
            _name_apart(body, names, taken)


def _free(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where it is taken: each number is tried once, as bodies may all use the same names."""
    if name not in taken:
        return name
    for number in count(taken[name] + 1):
        if (free := f"{name}_{number}") not in taken:
            taken[name] = number
            return free
    raise AssertionError(name)  # numbers do not end
