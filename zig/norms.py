"""LayerNormalizations that an exporter wrote out in small nodes, put together again for the analysis.

Before opset 17 there was no such operator. Where nodes may be written anew (`zig.analyze(rewrite=True)`), the nine
nodes stand in the analysis as the one that they mean, so that one row of the dictionary serves both. The model itself
keeps them, until surgery writes that norm anew.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import onnx

if TYPE_CHECKING:
    from zig.graph import Graph, Node


class Norm(NamedTuple):
    """One written-out norm: (x - mean) / sqrt(variance + epsilon) * gain + bias."""

    nodes: list[Node]  # all its nodes, the last one first
    x: str
    gain: str
    bias: str
    axis: int
    epsilon: float


def together(graph: Graph) -> Graph:
    """The same graph with one LayerNormalization in place of each norm that is written out."""
    found = list(_Search(graph).norms())
    if not found:
        return graph
    last = {norm.nodes[0].index: norm for norm in found}
    gone = {node.index for norm in found for node in norm.nodes[1:]}
    whole = copy.copy(graph)
    whole.nodes = [
        _node(last[node.index]) if node.index in last else node for node in graph.nodes if node.index not in gone
    ]
    return whole


def _node(norm: Norm) -> Node:
    end = norm.nodes[0]
    proto = onnx.helper.make_node(
        "LayerNormalization", [norm.x, norm.gain, norm.bias][: 3 if norm.bias else 2], end.outputs, name=end.name,
        axis=norm.axis, epsilon=norm.epsilon,
    )  # fmt: skip
    proto.metadata_props.extend(end.proto.metadata_props)
    return type(end)(proto, end.index, end.version)


class _Search:
    """Who makes and who reads each tensor, and the norms among them."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.maker = {name: node for node in graph.nodes for name in node.outputs if name}
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for name in (*node.inputs, *node.captured):
                self.readers[name].append(node)

    def norms(self) -> list[Norm]:
        divisions = (node for node in self.graph.nodes if node.op == "Div")
        return [norm for norm in map(self._norm, divisions) if norm]

    def _norm(self, division: Node) -> Norm | None:
        """The norm that ends in this division, a gain and perhaps a bias; every tensor in it is read by it alone."""
        apart, root = (self.maker.get(name) for name in division.inputs)
        centred = self._centred(apart)
        added = self._by(root, "Sqrt", 0)
        if apart is None or root is None or centred is None or added is None or added.op != "Add":
            return None
        x, mean, axes = centred
        variance, epsilon = self._with_number(added)
        spread = self.maker.get(variance)
        square = self._by(spread, "ReduceMean", 0)
        other = self._squared(square)
        if spread is None or square is None or other is None or self._centred(other) != centred:
            return None
        if self._axes(spread) != axes or axes is None:
            return None
        scale, gain = self._reader(division, "Mul", axes)
        if scale is None:
            return None
        shift, bias = self._reader(scale, "Add", axes)
        inner = [scale, division, root, added, spread, square, other, apart, self.maker[mean]]
        nodes = list({node.index: node for node in ([shift] if shift else []) + inner}.values())
        whole = Norm(nodes, x, gain, bias, axes[0] - len(self.graph.shapes[x]), epsilon)
        return whole if self._is_closed(nodes) else None

    def _by(self, node: Node | None, op: str, operand: int) -> Node | None:
        """What makes an operand of a node of this kind."""
        return self.maker.get(node.inputs[operand]) if node is not None and node.op == op else None

    def _centred(self, node: Node | None) -> tuple[str, str, list[int] | None] | None:
        """x, its mean, and the axes that it is over, where a node takes the mean off."""
        mean = self._by(node, "Sub", 1)
        if node is None or mean is None or mean.op != "ReduceMean" or mean.inputs[0] != node.inputs[0]:
            return None
        return node.inputs[0], mean.outputs[0], self._axes(mean)

    def _squared(self, node: Node | None) -> Node | None:
        """What makes the tensor that a node squares."""
        if node is None or node.op not in ("Pow", "Mul"):
            return None
        a, b = node.inputs
        squares = a == b if node.op == "Mul" else self._number(b) == 2
        return self.maker.get(a) if squares else None

    def _number(self, name: str) -> float:
        return self.graph.facts(name)[2] if name in self.graph.initializers else float("nan")

    def _with_number(self, node: Node) -> tuple[str, float]:
        """The operand of a sum that is computed, and the number that is added to it."""
        a, b = node.inputs
        return (b, self._number(a)) if a in self.graph.initializers else (a, self._number(b))

    def _axes(self, node: Node) -> list[int] | None:
        """The axes of a mean that keeps them as ones: all from one on, or None."""
        shape = self.graph.shapes.get(node.inputs[0])
        given = node.attribute("axes") if len(node.inputs) < 2 else self.graph.constant(node.inputs[1])
        if shape is None or given is None or not node.attribute("keepdims", 1):
            return None
        axes = sorted(int(axis) % len(shape) for axis in given)
        return axes if axes and axes == list(range(axes[0], len(shape))) else None

    def _reader(self, node: Node, op: str, axes: list[int]) -> tuple[Node | None, str]:
        """The only reader of a result, if it takes it and a weight with an entry for each that is normalised over."""
        name = node.outputs[0]
        reader = self.readers[name][0] if len(self.readers[name]) == 1 else None
        if reader is None or reader.op != op:
            return None, ""
        weight = next((other for other in reader.inputs if other != name), "")
        shape = self.graph.shapes[node.inputs[0]][axes[0] :] if node.inputs[0] in self.graph.shapes else ()
        fits = weight in self.graph.initializers and self.graph.shapes.get(weight) == tuple(shape)
        return (reader, weight) if fits else (None, "")

    def _is_closed(self, nodes: list[Node]) -> bool:
        """Whether nothing but these nodes reads what they make, but for the result of the first one."""
        inner = {node.index for node in nodes}
        made = [name for node in nodes[1:] for name in node.outputs]
        return all(
            name not in self.graph.outputs and all(reader.index in inner for reader in self.readers[name])
            for name in made
        )
