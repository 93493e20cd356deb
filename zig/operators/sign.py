"""Which tensors are never below zero, whatever the model reads, told by the nodes that make them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zig.graph import Graph, Node

_MAKE = {  # nothing below zero, of whatever
    "Abs", "Exp", "HardSigmoid", "Relu", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Sigmoid", "Softmax", "Softplus",
}  # fmt: skip
_KEEP = {  # what their first operand has
    "AveragePool", "Expand", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_KEEP_ALL = {"Add", "Concat", "Max", "Mean", "Min", "Sum"}  # what all operands have
_DEPTH = 100  # nodes, one behind the other


def is_one_sided(graph: Graph, name: str, sign: int) -> bool:
    """Whether a tensor holds nothing below zero (`sign` 1), or nothing above (-1); of weights nobody knows."""
    return _is_known(graph, name, sign, _DEPTH, {})


def _is_known(graph: Graph, name: str, sign: int, depth: int, seen: dict[tuple[str, int], bool]) -> bool:
    """As `is_one_sided`, for tensors that are up to `depth` nodes away from what tells; every one is asked for once."""
    if (name, sign) not in seen:
        seen[name, sign] = False
        node = graph.makers.get(name)
        if name in graph.initializers:
            seen[name, sign] = name not in graph.tied and bool(sign * graph.facts(name)[2] >= 0)
        elif node is not None and depth:
            ask = partial(_is_known, graph, depth=depth - 1, seen=seen)
            seen[name, sign] = _makes_known(graph, node, sign, lambda i, way=sign: ask(node.inputs[i], way))
    return seen[name, sign]


def _makes_known(graph: Graph, node: Node, sign: int, known: Callable[..., bool]) -> bool:
    """Whether a node makes nothing on the other side, where `known` tells of its operands."""
    if node.op in _MAKE:
        return sign > 0
    if node.op == "Neg":
        return known(0, -sign)
    if node.op == "Clip":
        return _is_clipped(graph, node, sign)
    if node.op == "Mul":
        return any(known(0, way) and known(1, way * sign) for way in (1, -1))
    if node.op == ("Max" if sign > 0 else "Min"):
        return any(known(i) for i in range(len(node.inputs)))
    if node.op in _KEEP_ALL:
        return all(known(i) for i in range(len(node.inputs)))
    return node.op in _KEEP and known(0)


def _is_clipped(graph: Graph, node: Node, sign: int) -> bool:
    """Whether the limit of a Clip on that side is zero or beyond."""
    operand, name = (1, "min") if sign > 0 else (2, "max")
    limit = node.attribute(name)
    if len(node.inputs) > operand and node.inputs[operand]:
        limit = graph.constant(node.inputs[operand])
    return limit is not None and bool(sign * limit >= 0)
