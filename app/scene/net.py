"""The nodes of a model that are worth drawing, and what each does to node groups.

Left out are nodes that only prepare weights (their weights count for the node that reads them), arithmetic on shapes,
and Identity nodes, which are spliced. That halves the pictures of TorchScript exports and hides no data path.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from zig.groups.partition import Fixed, Partition
from zig.model.graph import Graph
from zig.model.node import Node

INPUT, OUTPUT = "input", "output"
DEEPEST = 24  # modules within modules
_SPLICED = ("Identity",)


@dataclass(slots=True)
class Item:
    """One drawn node.

    `key` is the same in every model that has a node of this name, so that two models can be compared. `writes` are the
    node groups whose members its weights hold, `reads` those whose dependents they hold, with how many slices each.
    """

    key: str
    op: str
    name: str
    path: tuple[str, ...] = ()
    index: int = -1  # of the node in the graph; -1 for the model's inputs and outputs
    weights: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    writes: Counter[int] = field(default_factory=Counter)
    reads: Counter[int] = field(default_factory=Counter)
    fixed: list[Fixed] = field(default_factory=list)
    parameters: int = 0
    macs: int = 0

    @property
    def is_fixed(self) -> bool:
        """Whether it has weights and none of their slices can be removed along what it makes."""
        return bool(self.fixed) and not self.writes


@dataclass(frozen=True)
class Net:
    """Drawn nodes in topological order; edge e carries `tensors[e]` from item `sources[e]` to item `targets[e]`."""

    items: list[Item]
    sources: np.ndarray
    targets: np.ndarray
    tensors: list[str]
    shapes: dict[str, str]
    hidden: int

    def find(self, key: str) -> Item | None:
        """The item of a key."""
        return self._by_key.get(key)

    def __post_init__(self) -> None:
        """Index the items."""
        object.__setattr__(self, "_by_key", {item.key: item for item in self.items})

    _by_key: dict[str, Item] = field(default_factory=dict, init=False, repr=False)


def build(partition: Partition) -> Net:
    """The drawn network of a model.

    Args:
        partition: The model and its groups.
    """
    graph = partition.graph
    moving = _moving(graph)
    items = [Item(f"in:{name}", INPUT, name, outputs=[name]) for name in graph.inputs]
    maker = {name: index for index, name in enumerate(graph.inputs)}
    alias: dict[str, str] = {}
    prepared: dict[str, list[str]] = {}  # initializers behind a tensor that is made of initializers alone
    edges: list[tuple[int, int, str]] = []
    seen: Counter[str] = Counter()
    for node in graph.nodes:
        read = [alias.get(name, name) for name in (*node.inputs, *node.captured) if name]
        weights = [w for name in read for w in ([name] if name in graph.initializers else prepared.get(name, ()))]
        made = [name for name in node.outputs if name]
        if not moving.intersection(made):
            prepared.update(dict.fromkeys(made, weights))
        elif all(name in graph.values for name in made):
            continue
        elif node.op in _SPLICED and read:
            alias[made[0]] = read[0]
        else:
            seen[node.name] += 1
            key = f"n:{node.name}" + (f"#{seen[node.name]}" if seen[node.name] > 1 else "")
            weights = [name for name in dict.fromkeys(weights) if graph.is_float(name)]
            edges += [(maker[name], len(items), name) for name in dict.fromkeys(read) if name in maker]
            maker.update(dict.fromkeys(made, len(items)))
            items.append(Item(key, node.op, node.name, scope(node), node.index, weights, made))
    for name in graph.outputs:
        source = alias.get(name, name)
        if source in maker:
            edges.append((maker[source], len(items), source))
            items.append(Item(f"out:{name}", OUTPUT, name, outputs=[name]))
    _give_roles(partition, items)
    shapes = {name: shape(graph, name) for item in items for name in item.outputs}
    drawn = sum(item.index >= 0 for item in items)
    return Net(items, np.array([e[0] for e in edges], np.int64), np.array([e[1] for e in edges], np.int64),
               [e[2] for e in edges], shapes, len(graph.nodes) - drawn)  # fmt: skip


def scope(node: Node) -> tuple[str, ...]:
    """The modules that a node is in, outermost first, as torch's exporters note them; empty where they didn't."""
    for entry in node.proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return tuple(_strings(entry.value)[:-1])[:DEEPEST]
    return tuple(node.name.strip("/").split("/")[:-1])[:DEEPEST] if node.name.startswith("/") else ()


def _strings(text: str) -> list[str]:
    """The strings of a list as Python writes it, the empty ones left out; nothing where it is no such list."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # a file may hold anything
        return []
    return [name for name in found if isinstance(name, str) and name] if isinstance(found, list) else []


def tail(name: str) -> str:
    """The end of a dotted name that begins with a word: `features.3.conv.0` gives `conv.0`."""
    parts = name.split(".")
    start = len(parts) - 1
    while start > 0 and parts[start].isdigit():
        start -= 1
    return ".".join(parts[start:])


def shape(graph: Graph, tensor: str) -> str:
    """The shape of a tensor as text, `batch×64×56×56`, or a question mark."""
    sizes = graph.shapes.get(tensor)
    if sizes is None:
        return "?"
    return "×".join("?" if str(size).startswith("_") else str(size) for size in sizes) or "scalar"


def _moving(graph: Graph) -> set[str]:
    """The tensors that depend on an input of the model, and what has no input at all (random numbers)."""
    moving = set(graph.inputs)
    for node in graph.nodes:
        read = [name for name in (*node.inputs, *node.captured) if name]
        if not read or not moving.isdisjoint(read):
            moving.update(name for name in node.outputs if name)
    return moving


def _give_roles(partition: Partition, items: list[Item]) -> None:
    """Fill in groups, fixed axes, parameters and MACs of each item."""
    graph = partition.graph
    writes: dict[str, Counter[int]] = {}
    reads: dict[str, Counter[int]] = {}
    for row in partition.rows:
        live = row.groups >= 0
        for role, mask in ((writes, row.member), (reads, live & ~row.member)):
            families, counts = np.unique(partition.node_group[row.groups[mask]], return_counts=True)
            role.setdefault(row.tensor, Counter()).update(dict(zip(families.tolist(), counts.tolist(), strict=True)))
    fixed: dict[str, list[Fixed]] = {}
    for entry in partition.fixed:
        fixed.setdefault(entry.tensor, []).append(entry)
    macs = node_macs(partition)
    counted: set[str] = set()
    for item in items:
        for name in item.weights:
            item.writes.update(writes.get(name, {}))
            item.reads.update(reads.get(name, {}))
            item.fixed += fixed.get(name, [])
            if name not in counted:  # a shared weight counts where it is read first
                item.parameters += int(np.prod(graph.initializers[name].dims, dtype=np.int64))
        counted.update(item.weights)
        item.macs = macs.get(item.name, 0) if item.index >= 0 else 0
        for group in item.writes:
            item.reads.pop(group, None)


def node_macs(partition: Partition) -> dict[str, int]:
    """Multiply-accumulates of each node, symbolic sizes counted as 1."""
    found: Counter[str] = Counter()
    for name, parts in partition.flow.costs:
        found[name] += int(np.prod([size if isinstance(size := part.size, int) else 1 for part in parts], dtype=object))
    return dict(found)
