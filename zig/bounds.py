"""What a model may hold at most, so that no file of a few kilobytes keeps a machine busy for hours.

Functions that call each other twice at each level stand for more nodes than there are atoms, and onnxruntime takes
longer than a minute over a name of a hundred thousand characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from zig import bodies
from zig.printable import shortened

NAME = 1 << 12  # characters of anything that is called something
NODES = 1 << 15  # that may come of functions where they are called
BYTES = 1 << 30  # of those nodes
Key = tuple[str, str, str]  # of a function: its domain, name and overload


def excess(model: ModelProto) -> str:
    """What a model has too much of, as the rest of a sentence; empty where it keeps all bounds."""
    longest = max(_names(model), key=len, default="")
    if len(longest) > NAME:
        return f"has a name of {len(longest):,} characters ('{shortened(longest, 40)}'); give it a shorter one"
    return _expansion(model) if model.functions else ""


def _names(model: ModelProto) -> Iterator[str]:
    """Everything that a model, its graphs and its nodes are called."""
    yield from (opset.domain for opset in model.opset_import)
    for function in model.functions:
        yield from (*_key(function), *function.input, *function.output, *function.attribute)
        yield from _of_nodes(function.node)
        for graph in _graphs(function.node):
            yield from _of_graph(graph)
    for graph in bodies.walk(model.graph):
        yield from _of_graph(graph)


def _of_graph(graph: GraphProto) -> Iterator[str]:
    yield graph.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param)
    yield from (tensor.name for tensor in graph.initializer)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _graphs(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """The graphs within some nodes, and those within them."""
    return (graph for node in nodes for body in bodies.graphs(node) for graph in bodies.walk(body))


def _expansion(model: ModelProto) -> str:
    """What is wrong with the functions of a model, counted before they are put where they are called."""
    functions = {_key(function): function for function in model.functions}
    sizes: dict[Key, tuple[int, int]] = {}
    calls = [key for graph in bodies.walk(model.graph) for key in _called(graph.node, functions)]
    for key in dict.fromkeys(calls):
        if found := _measure(key, functions, sizes):
            return f"has a function '{found[1]}' that calls itself; export the model without it"
    nodes, size = (sum(sizes[key][i] for key in calls) for i in (0, 1))
    if nodes > NODES or size > BYTES:
        much = f"{nodes:,} nodes" if nodes > NODES else f"{size / 1e9:.1f} GB"
        return f"has functions that stand for {shortened(much, 60)} where they are called; export it without them"
    return ""


def _measure(first: Key, functions: dict[Key, FunctionProto], sizes: dict[Key, tuple[int, int]]) -> Key | None:
    """How many nodes and bytes a function and all that it calls stand for; a function that calls itself, if any."""
    open_: dict[Key, list[Key]] = {}
    stack = [first]
    while stack:
        key = stack[-1]
        if key in sizes:
            stack.pop()
        elif key not in open_:
            open_[key] = list(_called(_nodes(functions[key]), functions))
            missing = [call for call in dict.fromkeys(open_[key]) if call not in sizes]
            if again := next((call for call in missing if call in open_), None):
                return again
            stack += missing
        else:
            inner, function = open_.pop(key), functions[key]
            own = sum(1 for _ in _nodes(function)), function.ByteSize()
            sizes[key] = (own[0] + sum(sizes[c][0] for c in inner), own[1] + sum(sizes[c][1] for c in inner))
            stack.pop()
    return None


def _nodes(function: FunctionProto) -> Iterator[NodeProto]:
    """The nodes of a function, those of bodies too."""
    yield from function.node
    for graph in _graphs(function.node):
        yield from graph.node


def _called(nodes: Iterable[NodeProto], functions: dict[Key, FunctionProto]) -> Iterator[Key]:
    return (key for node in nodes if (key := (_domain(node.domain), node.op_type, node.overload)) in functions)


def _key(function: FunctionProto) -> Key:
    return _domain(function.domain), function.name, function.overload


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
