"""What the panel beside the graph says of a node or a module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto

from ..opened import Opened
from ..scene.net import shape
from ..scene.view import reason

_LONG = 60  # characters of an attribute's value


def describe(model: Opened, key: str) -> dict[str, Any] | None:
    """A drawn node or module by its key; None where the model has none of this key."""
    if key in model.positions:
        return _node(model, model.positions[key])
    if key and key in model.containers:
        return _module(model, key)
    return None


def _node(model: Opened, position: int) -> dict[str, Any]:
    graph, item = model.graph, model.net.items[position]
    node = graph.nodes[item.index] if item.index >= 0 else None
    inputs = [name for name in (node.inputs if node else []) if name and name not in graph.initializers]
    return {
        "kind": "node", "title": item.op, "name": item.name, "fixed": reason(item),
        "inputs": [{"shape": shape(graph, name), "tensor": name} for name in inputs],
        "outputs": [{"shape": shape(graph, name), "tensor": name} for name in item.outputs],
        "weights": [row for name in item.weights for row in _weight(model, name)],
        "attributes": _attributes(list(node.proto.attribute)) if node else [],
        "writes": [group for group, _ in item.writes.most_common()],
        "reads": [group for group, _ in item.reads.most_common()],
        "parameters": item.parameters, "macs": item.macs,
    }  # fmt: skip


def _module(model: Opened, key: str) -> dict[str, Any]:
    branch = model.containers[key]
    items = [model.net.items[position] for position in branch.leaves]
    writes = sorted({group for item in items for group in item.writes})
    reads = sorted({group for item in items for group in item.reads} - set(writes))
    return {
        "kind": "module", "title": branch.title, "name": key, "fixed": "", "nodes": len(items),
        "inputs": [], "outputs": [], "weights": [], "attributes": [], "writes": writes, "reads": reads,
        "parameters": sum(item.parameters for item in items), "macs": sum(item.macs for item in items),
    }  # fmt: skip


def _weight(model: Opened, name: str) -> list[dict[str, Any]]:
    """A weight, axis by axis: the node groups along it, or why it is fixed."""
    dims = list(model.graph.initializers[name].dims)
    rows = [row for row in model.partition.rows if row.tensor == name]
    groups = {axis: np.concatenate([row.groups for row in rows if row.axis == axis]) for axis in range(len(dims))
              if any(row.axis == axis for row in rows)}  # fmt: skip
    fixed = {entry.axis: entry.reason for entry in model.partition.fixed if entry.tensor == name}
    found = []
    for axis, width in enumerate(dims):
        live = groups.get(axis, np.empty(0, np.int64))
        families = np.unique(model.partition.node_group[live[live >= 0]]).tolist()
        named = ", ".join(f"g{family}" for family in families[:4]) + (" …" if len(families) > 4 else "")
        found.append({"weight": name, "axis": axis, "width": width, "group": named, "fixed": fixed.get(axis, "")})
    return found


def _attributes(attributes: list[AttributeProto]) -> list[dict[str, str]]:
    return [{"attribute": a.name, "value": _value(a)} for a in attributes]


def _value(attribute: AttributeProto) -> str:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type in (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS):
        text = str(value)
    elif attribute.type == AttributeProto.STRING:
        text = value.decode(errors="replace")
    else:
        text = AttributeProto.AttributeType.Name(attribute.type).lower()
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
