"""A scene: the boxes that are visible when some containers are open, laid out, ready for the canvas."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from zig.graph import Graph
from zig.printable import cell

from .layout import Ints, Placed, Problem, place
from .net import INPUT, OUTPUT, Item, Net, tail
from .tree import Branch

LEAF, CLOSED, FRAME = "leaf", "closed", "frame"
_SIZES = {"weighted": (184.0, 46.0), "plain": (116.0, 26.0), CLOSED: (196.0, 48.0), INPUT: (150.0, 30.0),
          OUTPUT: (150.0, 30.0), "port": (4.0, 0.0)}  # fmt: skip


@dataclass(slots=True)
class Box:
    """One visible box: a node, a closed container, or the frame of an open one."""

    key: str
    kind: str
    title: str
    sub: str = ""
    shape: str = ""
    size: str = "plain"
    frame: int = -1
    depth: int = 0
    leaves: list[int] = field(default_factory=list)
    writes: Counter[int] = field(default_factory=Counter)
    reads: Counter[int] = field(default_factory=Counter)
    fixed: str = ""
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Scene:
    """Boxes and arrows with their places; arrow e is a piece of the way from box `source[e]`."""

    boxes: list[Box]
    placed: Placed
    u: Ints
    v: Ints
    source: Ints
    tensors: Ints  # how many each arrow stands for
    links: np.ndarray  # int[2, k]: which box feeds which
    box_of: Ints  # the box that shows each item of the net

    @property
    def index(self) -> dict[str, int]:
        """The number of each box by key."""
        return {box.key: number for number, box in enumerate(self.boxes)}

    @cached_property
    def columns(self) -> dict[str, Any]:
        """Column by column, as the canvas takes it; numbers are rounded to a tenth of a pixel."""
        count, placed = len(self.boxes), self.placed
        boxes = self.boxes

        def tenths(values: np.ndarray) -> list[float | None]:
            rounded = np.round(values, 1).tolist()
            return [None if math.isnan(value) else value for value in rounded]

        return {
            "key": [box.key for box in boxes],
            "kind": [box.kind for box in boxes],
            "title": [cell(box.title) for box in boxes],
            "sub": [cell(box.sub) for box in boxes],
            "shape": [cell(box.shape) for box in boxes],
            "fixed": [cell(box.fixed) for box in boxes],
            "nodes": [len(box.leaves) for box in boxes],
            "writes": [box.writes.most_common() for box in boxes],
            "reads": [box.reads.most_common() for box in boxes],
            "parameters": [box.parameters for box in boxes],
            "macs": [box.macs for box in boxes],
            "x": tenths((placed.x - placed.width / 2)[:count]),
            "y": tenths((placed.y - placed.height / 2)[:count]),
            "w": tenths(placed.width[:count]),
            "h": tenths(placed.height[:count]),
            "u": self.u.tolist(),
            "v": self.v.tolist(),
            "source": self.source.tolist(),
            "count": self.tensors.tolist(),
            "bundle": placed.bundle.tolist(),
            "back": placed.back.tolist(),
            "x0": tenths(placed.x0),
            "y0": tenths(placed.y0),
            "x1": tenths(placed.x1),
            "y1": tenths(placed.y1),
            "lane": tenths(placed.lane),
            "top": tenths(placed.lane_top),
            "bottom": tenths(placed.lane_bottom),
            "from": self.links[0].tolist(),
            "to": self.links[1].tolist(),
            "size": list(placed.size),
        }


def scene(net: Net, graph: Graph, root: Branch, expanded: Collection[str], *, flat: bool = False) -> Scene:
    """The scene of a network with some containers open.

    Args:
        net: The drawn nodes.
        graph: The model, for the sizes of kernels.
        root: Their tree.
        expanded: Keys of open containers; what lies in a closed one is not seen.
        flat: Show every node, and no frames.
    """
    boxes, box_of = _boxes(net, graph, root, expanded, flat)
    a, b = box_of[net.sources], box_of[net.targets]
    different = a != b
    pairs, tensors = np.unique(np.stack([a[different], b[different]]), axis=1, return_counts=True)
    wires = _wires(boxes, pairs, tensors)
    return Scene(boxes, place(wires.problem), wires.problem.u, wires.problem.v, wires.source, wires.tensors, pairs,
                 box_of)  # fmt: skip


def _boxes(net: Net, graph: Graph, root: Branch, expanded: Collection[str], flat: bool) -> tuple[list[Box], Ints]:
    boxes: list[Box] = []
    box_of = np.zeros(len(net.items), np.int64)
    if flat:
        boxes = [_leaf(net, graph, position, -1, 0) for position in range(len(net.items))]
        return boxes, np.arange(len(boxes))
    stack: list[tuple[int | Branch, int, int]] = [(child, -1, 0) for child in reversed(root.children)]
    while stack:
        child, frame, depth = stack.pop()
        number = len(boxes)
        if isinstance(child, int):
            boxes.append(_leaf(net, graph, child, frame, depth))
            box_of[child] = number
            continue
        is_open = child.key in expanded
        boxes.append(_container(net, child, FRAME if is_open else CLOSED, frame, depth))
        if is_open:
            stack += [(below, number, depth + 1) for below in reversed(child.children)]
        else:
            box_of[child.leaves] = number
    return boxes, box_of


def _leaf(net: Net, graph: Graph, position: int, frame: int, depth: int) -> Box:
    item = net.items[position]
    shape = net.shapes.get(item.outputs[0], "") if item.outputs else ""
    kind = item.op if item.op in (INPUT, OUTPUT) else LEAF
    # A number that GELU divides by is no weight to speak of.
    weighted = any(math.prod(graph.initializers[name].dims) > 1 for name in item.weights)
    size = kind if kind != LEAF else "weighted" if weighted else "plain"
    title = item.name if kind != LEAF else f"{_operator(item.op)}{_kernel(item, graph)}"
    return Box(item.key, kind, title, _short(item), shape, size, frame, depth, [position], item.writes, item.reads,
               reason(item), item.parameters, item.macs)  # fmt: skip


def _container(net: Net, branch: Branch, kind: str, frame: int, depth: int) -> Box:
    box = Box(branch.key, kind, branch.title, branch.note, "", CLOSED, frame, depth, branch.leaves)
    held = [net.items[position] for position in branch.leaves]
    for item in held:
        box.writes.update(item.writes)
        box.reads.update(item.reads)
    for group in box.writes:
        box.reads.pop(group, None)
    weighted = [item for item in held if item.weights]
    if weighted and not box.writes:
        box.fixed = next((text for text in map(reason, weighted) if text), "")
    box.parameters, box.macs = sum(item.parameters for item in held), sum(item.macs for item in held)
    return box


def reason(item: Item) -> str:
    """Why a node with weights can't be pruned along what it makes, in one sentence; empty where it can."""
    if not item.is_fixed:
        return ""
    first = min(item.fixed, key=lambda entry: entry.axis)
    return f"{first.tensor} axis {first.axis} {first.reason}"


def _operator(op: str) -> str:
    """An operator's name without its domain, the long ones in short: BatchNorm."""
    return op.rsplit(".", 1)[-1].replace("Normalization", "Norm")


def _kernel(item: Item, graph: Graph) -> str:
    """The size of a convolution's window: ` 3×3`."""
    if "Conv" not in item.op or not item.weights:
        return ""
    window = graph.initializers[item.weights[0]].dims[2:]
    return " " + "×".join(map(str, window)) if window else ""


def _short(item: Item) -> str:
    """The part of a node's name that tells it from its neighbours: the last two modules that it is in."""
    if item.op in (INPUT, OUTPUT):
        return ""
    name = item.path[-1] if item.path else item.name
    last = tail(name)
    before = tail(name.removesuffix(last).rstrip(".")) if last != name else tail("".join(item.path[-2:-1]))
    return f"{before}.{last}" if before else last


@dataclass(frozen=True)
class _Wires:
    problem: Problem
    source: Ints
    tensors: Ints


def _wires(boxes: list[Box], pairs: np.ndarray, tensors: Ints) -> _Wires:
    """Break the way from box to box into arrows within one frame each, joined by ports on the borders of frames."""
    count = len(boxes)
    frame = np.array([box.frame for box in boxes], np.int64)
    depth = np.array([box.depth for box in boxes], np.int64)
    above = np.full((int(depth.max(initial=0)) + 2, count), -1)  # above[d, e]: what holds e at depth d
    for level in range(above.shape[0]):
        here = depth == level
        above[level, here] = np.flatnonzero(here)
        if level:
            above[:level, here] = above[:level, frame[here]]
    a, b = pairs
    shared = (above[:, a] == above[:, b]) & (above[:, a] >= 0)
    level = np.argmin(shared, axis=0)  # the depth at which their ways part
    columns = np.arange(len(a))
    pieces = [(above[level, a], above[level, b], a, tensors, columns * 0)]
    for d in range(1, above.shape[0]):
        leaving = (d > level) & (d <= depth[a])
        entering = (d > level) & (d <= depth[b])
        pieces.append((above[d, a[leaving]], np.full(leaving.sum(), -1), a[leaving], tensors[leaving],
                       columns[leaving] * 0 + 1))  # fmt: skip
        pieces.append((np.full(entering.sum(), -1), above[d, b[entering]], a[entering], tensors[entering],
                       columns[entering] * 0 - 1))  # fmt: skip
    u, v, source, weight, way = (np.concatenate(column) for column in zip(*pieces, strict=True))
    inside = np.where(way == 1, frame[u], np.where(way == -1, frame[v], -1))  # the frame whose border is met
    ports, port_of = _ports(inside, way, source, way != 0)
    u = np.where(way == -1, count + port_of, u)
    v = np.where(way == 1, count + port_of, v)
    merged, which = np.unique(np.stack([u, v, source]), axis=1, return_inverse=True)
    total = np.bincount(which.reshape(-1), weight, merged.shape[1]).astype(np.int64)
    u, v, source = merged
    kinds = np.concatenate([np.zeros(count, np.int64), ports[1]])
    frames = np.concatenate([frame, ports[0]])
    order = np.array([box.leaves[0] for box in boxes], np.float64)
    last = np.where(ports[1] > 0, np.inf, -1.0)
    sizes = np.array([_SIZES[box.size] for box in boxes] + [_SIZES["port"]] * ports.shape[1], np.float64)
    lookup = {(f, w, s): count + n for n, (f, w, s) in enumerate(ports.T.tolist())}
    is_frame = np.array([box.kind == FRAME for box in boxes] + [False] * ports.shape[1])
    leaves = [
        lookup.get((f, 1, s), -1) if is_frame[f] else -1 for f, s in zip(u.tolist(), source.tolist(), strict=True)
    ]
    enters = [
        lookup.get((f, -1, s), -1) if is_frame[f] else -1 for f, s in zip(v.tolist(), source.tolist(), strict=True)
    ]
    problem = Problem(frames, _levels(boxes, frames), np.concatenate([order, last]), sizes[:, 0], sizes[:, 1], kinds,
                      u, v, source, np.array(leaves, np.int64), np.array(enters, np.int64))  # fmt: skip
    return _Wires(problem, source, total)


def _ports(frame: Ints, way: Ints, source: Ints, used: np.ndarray) -> tuple[np.ndarray, Ints]:
    """One port for each frame, direction and source: int[3, ports], and the port of each piece."""
    found, which = np.unique(np.stack([frame[used], way[used], source[used]]), axis=1, return_inverse=True)
    port_of = np.full(len(frame), -1)
    port_of[used] = which.reshape(-1)
    return found, port_of


def _levels(boxes: list[Box], frame: Ints) -> Ints:
    """The height of each frame above its lowest content."""
    level = np.zeros(len(frame), np.int64)
    for number in range(len(boxes) - 1, -1, -1):  # contents come after their frame
        if boxes[number].kind == FRAME:
            level[number] = max(level[number], 1)
        if boxes[number].frame >= 0:
            level[boxes[number].frame] = max(level[boxes[number].frame], level[number] + 1)
    return level


__all__ = ["CLOSED", "FRAME", "LEAF", "Box", "Scene", "scene"]
