"""What there is to say of a model at first sight."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zig.files import file_bytes

from ..opened import Opened
from ..scene.net import shape


def overview(model: Opened) -> dict[str, Any]:
    """Sizes of a model as plain numbers."""
    graph, budget = model.graph, model.budget
    return {
        "file": model.shown,
        "bytes": file_bytes(graph),
        "nodes": len(graph.nodes),
        "parameters": budget.parameters,
        "prunable_parameters": budget.prunable_parameters,
        "macs": budget.macs,
        "groups": len(model.partition),
        "node_groups": len(model.groups),
        "opset": graph.opsets.get("", 0),
        "producer": " ".join(filter(None, (graph.proto.producer_name, graph.proto.producer_version))),
        "seconds": model.partition.seconds,
    }


def interface(model: Opened) -> list[dict[str, str]]:
    """The inputs and outputs with their shapes."""
    graph = model.graph
    sides = (("input", graph.inputs), ("output", graph.outputs))
    return [{"": side, "name": name, "shape": shape(graph, name)} for side, names in sides for name in names]


def operators(model: Opened) -> list[dict[str, Any]]:
    """How often each operator occurs, with its MACs and parameters, most frequent first."""
    items = [item for item in model.net.items if item.index >= 0]
    counts = Counter(node.op for node in model.graph.nodes)
    macs: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for item in items:
        macs[item.op] += item.macs
        parameters[item.op] += item.parameters
    return [
        {"operator": op, "nodes": number, "parameters": parameters[op], "MACs": macs[op]}
        for op, number in counts.most_common()
    ]


def warnings(model: Opened) -> list[str]:
    """What a user should know before pruning, one sentence each."""
    found = []
    unknown = model.partition.unknown_operators
    if unknown:
        found.append(
            f"Unknown operators: {', '.join(unknown)}. What touches them stays as it is; "
            "zig.analyze(model, operators=...) takes rows for them."
        )
    if not len(model.partition):
        found.append("Nothing in this model can be removed; the table of reasons says why.")
    symbols = sorted({name for name in model.graph.inputs if "?" in shape(model.graph, name)})
    if symbols:
        found.append(f"The sizes of {', '.join(symbols)} are not declared; MACs count them as 1.")
    return found


def reasons(model: Opened) -> list[dict[str, Any]]:
    """Each kind of reason once: how many axes it fixes, and the first of them."""
    kinds: dict[str, list[str]] = {}
    for entry in model.partition.fixed:
        kind = entry.reason.replace(f" '{entry.node}'", "")
        kinds.setdefault(kind, []).append(f"{entry.tensor} axis {entry.axis}")
    return [
        {"reason": kind, "axes": len(places), "first": places[0]}
        for kind, places in sorted(kinds.items(), key=lambda entry: -len(entry[1]))
    ]
