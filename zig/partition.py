"""Ties become groups: forks are decided, components become ZIGs, ZIGs that run along the same axes a node group."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from zig.damage import blaming
from zig.errors import UsageError
from zig.flow import Flow
from zig.graph import Graph, load
from zig.operators import OPERATORS, Operator
from zig.units import NOTHING, Fork, Part, Units

NOBODY = -1  # what no other fork sees
FORKS = ("heads", "head_dims", "finest")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Slice(NamedTuple):
    """Indices of one axis of an initializer."""

    tensor: str
    axis: int
    indices: Units


@dataclass(frozen=True)
class Row:
    """One axis of one initializer: the ZIG of each index (-1 = fixed), and whether its slice is a member of it."""

    tensor: str
    axis: int
    groups: Units
    member: Mask


@dataclass(frozen=True)
class NodeGroup:
    """ZIGs that run along the same axes."""

    id: int
    name: str
    groups: Units
    members: list[tuple[str, int]]
    dependents: list[tuple[str, int]]

    @property
    def size(self) -> int:
        """How many ZIGs it has."""
        return len(self.groups)


@dataclass(frozen=True)
class Fixed:
    """Indices of an initializer's axis that can't be removed, with the reason and the node where it arose."""

    tensor: str
    axis: int
    size: int
    reason: str
    node: str


@dataclass(frozen=True)
class Zig:
    """One zero-invariant group: slices that must be zero, and slices that are only cut along."""

    id: int
    node_group: int
    members: list[Slice]
    dependents: list[Slice]


class Labels(NamedTuple):
    """The component of each unit, and for each component the reason that fixes it (0: none).

    `bare` leaves out reasons that lie in values alone: surgery looks at the actual values instead.
    """

    component: Units
    why: Units
    bare: Units


class Partition:
    """All groups of a model, column by column.

    `rows` says for each (initializer, axis) which ZIG an index belongs to; `node_group[g]` the node group of ZIG g.
    """

    def __init__(self, graph: Graph, flow: Flow, labels: Labels, members: Mask, forks: str = "", seconds: float = 0.0):
        """Number the components that are free of reasons and own a weight slice; `forks`: how these were decided."""
        self.graph, self.flow, self.labels, self.forks, self.seconds = graph, flow, labels, forks, seconds
        self.member = members
        self._axes = [
            (name, axis, part.units)
            for name, tensor in flow.weights.items()
            for axis, parts in enumerate(tensor.axes)
            for part in parts
        ]
        owned = np.zeros(len(labels.why), bool)
        units = np.concatenate([NOTHING, *(units for _, _, units in self._axes)])
        owned[labels.component[units[members[units]]]] = True
        free = np.flatnonzero(owned & (labels.why == 0))  # components are numbered as the network makes them
        zig_of_component = np.full(len(labels.why), -1)
        zig_of_component[free] = np.arange(len(free))
        self._zig_of_unit = zig_of_component[labels.component]
        self.node_group = self._families(len(free))

    def __len__(self) -> int:
        return len(self.node_group)

    def __getitem__(self, index: int) -> Zig:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} groups, not {index}")
        index %= len(self)
        found: tuple[list[Slice], list[Slice]] = ([], [])
        for row in self.rows:
            for list_, mask in zip(found, (row.member, ~row.member), strict=True):
                indices = np.flatnonzero((row.groups == index) & mask)
                if len(indices):
                    list_.append(Slice(row.tensor, row.axis, indices))
        return Zig(index, int(self.node_group[index]), *found)

    def __iter__(self) -> Iterator[Zig]:
        return (self[i] for i in range(len(self)))

    def zigs(self, units: Units) -> Units:
        """The ZIG of each unit, -1 where it is fixed."""
        return np.asarray(self._zig_of_unit[units])

    @cached_property
    def rows(self) -> list[Row]:
        """One row for each (initializer, axis) that carries a ZIG."""
        rows = [Row(name, axis, self.zigs(units), self.member[units]) for name, axis, units in self._axes]
        return [Row(r.tensor, r.axis, r.groups, r.member & (r.groups >= 0)) for r in rows if (r.groups >= 0).any()]

    @cached_property
    def node_groups(self) -> list[NodeGroup]:
        """The families of ZIGs, in the order in which the network makes them."""
        count = int(self.node_group.max(initial=-1)) + 1
        members: list[list[tuple[str, int]]] = [[] for _ in range(count)]
        dependents: list[list[tuple[str, int]]] = [[] for _ in range(count)]
        for row in self.rows:
            live = row.groups >= 0
            owned = _distinct(self.node_group[row.groups[row.member]])
            for family in owned:
                members[family].append((row.tensor, row.axis))
            for family in _distinct(self.node_group[row.groups[live]]):
                if family not in owned:
                    dependents[family].append((row.tensor, row.axis))
        order = np.argsort(self.node_group, kind="stable")
        bounds = np.searchsorted(self.node_group[order], np.arange(count + 1))
        return [
            NodeGroup(i, _title(members[i]), order[bounds[i] : bounds[i + 1]], members[i], dependents[i])
            for i in range(count)
        ]

    @cached_property
    def fixed(self) -> list[Fixed]:
        """What can't be removed, and why."""
        found = []
        for name, axis, units in self._axes:
            whys = self.labels.why[self.labels.component[units]]
            for why in _distinct(whys[whys > 0]):
                reason = self.flow.reasons[why]
                found.append(Fixed(name, axis, int((whys == why).sum()), reason.text, reason.node))
        return found

    @property
    def unknown_operators(self) -> list[str]:
        """Operators that have no row in the dictionary."""
        return list(self.flow.unknown)

    def summary(self) -> dict[str, Any]:
        """The result as plain data: what `zig analyze --json` prints."""
        from zig.budget import Budget  # noqa: PLC0415 - budget reads partitions

        budget = Budget(self)
        return {
            "nodes": len(self.graph.nodes),
            "parameters": budget.parameters,
            "prunable_parameters": budget.prunable_parameters,
            "macs": budget.macs,
            "groups": len(self),
            "node_groups": [
                {
                    "id": g.id, "name": g.name, "size": g.size,
                    "members": [{"tensor": t, "axis": a} for t, a in g.members],
                    "dependents": [{"tensor": t, "axis": a} for t, a in g.dependents],
                }
                for g in self.node_groups
            ],
            "fixed": [vars(f) | {} for f in self.fixed],
            "unknown_operators": self.unknown_operators,
            "seconds": round(self.seconds, 4),
        }  # fmt: skip

    def _families(self, count: int) -> Units:
        """ZIGs with the same set of axes get the same family: each axis adds a random number to its ZIGs."""
        marks = _random_marks(len(self.flow.parts))
        signature = np.zeros(count + 1, np.uint64)
        for mark, part in zip(marks, self.flow.parts.values(), strict=True):
            signature[self._zig_of_unit[part.units]] += mark  # once for each ZIG; the last entry is for what is fixed
        order = np.argsort(signature[:-1], kind="stable")  # and not np.unique, whose first call imports numpy.ma
        sorted_ = signature[:-1][order]
        begins = np.append(True, sorted_[1:] != sorted_[:-1])[:count]
        rank = np.empty(int(begins.sum()), np.int64)
        rank[np.argsort(order[begins])] = np.arange(len(rank))
        family = np.empty(count, np.int64)
        family[order] = rank[np.cumsum(begins) - 1]
        return family


def analyze(
    source: Any, *, forks: str = "heads", operators: Mapping[str, Operator] | None = None, keep: tuple[str, ...] = (),
    rewrite: bool = False, freeze_inputs: bool = False,
) -> Partition:  # fmt: skip
    """Find every zero-invariant group of a model.

    Args:
        source: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or a `Graph`.
        forks: what goes where both sides of a split axis could: attention `heads`, `head_dims`, or the `finest`.
        operators: further rows of the dictionary, by operator name (`domain.Name` outside the standard domain).
        keep: patterns of initializer names that must stay as they are (`fnmatch` wildcards).
        rewrite: whether surgery may write nodes anew to free what they look at: a LayerNormalization over a stream that
            is pruned becomes about ten small nodes with its original divisor.
        freeze_inputs: whether nobody overrides an initializer that is an input as well; else it is fixed. What is
            written no longer lists it among the inputs.

    Raises:
        ModelError: the model can't be read.
        UsageError: `forks` is none of the three, or a pattern of `keep` matches nothing.
    """
    if forks not in FORKS:
        raise UsageError(f"forks must be one of {', '.join(FORKS)}, not '{forks}'")
    start = time.perf_counter()
    graph = load(source, freeze_inputs)
    rows = {**OPERATORS, **(operators or {})}
    if rewrite:
        rows |= {name: row.rewrite for name, row in rows.items() if row.rewrite}
    with blaming(graph.name, graph.proto), _nothing_collected():
        flow = Flow(graph, rows).run()
        _keep(flow, keep)
        labels = settle(flow, forks)
        return Partition(graph, flow, labels, members(flow, labels), forks, time.perf_counter() - start)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without garbage collection: what an analysis makes is many small objects that all stay until it ends."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _keep(flow: Flow, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        names = [name for name in flow.weights if fnmatchcase(name, pattern)]
        if not names:
            raise UsageError(f"keep pattern '{pattern}' matches no weight of {flow.graph.name}")
        for name in names:
            flow.fix(flow.weights[name], flow.reason(f"is kept by request ('{pattern}')", ""))


def tied(flow: Flow) -> Units:
    """The components of all ties, before any fork is decided."""
    return _joined(np.arange(flow.count), [(a, b) for a, b, _ in flow.ties])


def settle(flow: Flow, forks: str, component: Units | None = None) -> Labels:
    """Decide every fork, then find the components of all ties; `component` are those without the forks, if known.

    A side that is fixed is no choice. Where both sides are free, attention goes by head; else the side that another
    fork has taken is taken here too; else a block-diagonal weight (a grouped convolution) goes by the position inside
    its blocks, which shrinks both of its axes, and everything else by the side with more groups.
    """
    component = tied(flow) if component is None else component
    why, bare = (_first(flow.count, fixes) for fixes in ([*flow.fixes, *flow.leaks], flow.fixes))
    # A fork may meet what no unit stands for, such as the channels of an input beside those of a weight.
    why[0] = bare[0] = flow.reason("is split together with something that can't be removed", "")
    if flow.forks:
        ties, fixes = [], []
        for index, by_rows in _Choice(flow, forks, component, why > 0).decisions():
            fork = flow.forks[index]
            ties.append(_tie(fork, by_rows))
            text = f"is split at {fork.node} into a table that goes by the other side" if fork.node else "is split"
            other, reason = fork.columns if by_rows else fork.rows, flow.reason(text, fork.node)
            fixes.append((other, reason))
        split = _first(flow.count, fixes)
        why, bare = (np.where(array == 0, split, array) for array in (why, bare))
        component = _joined(component, ties)
    count = int(component.max()) + 1
    return Labels(component, _first_reason(component, why, count), _first_reason(component, bare, count))


def _first(count: int, fixes: Sequence[tuple[Units, int]]) -> Units:
    """The first reason that each of `count` units is given; 0 where there is none."""
    why = np.zeros(count, np.int64)
    for units, reason in reversed(fixes):
        why[units] = reason
    return why


class _Choice:
    """The forks' decisions, one after the other, over the components that two forks or more see: each is an atom here.

    What only one cell of one table touches goes with whichever side the table goes by, and can decide nothing.
    """

    def __init__(self, flow: Flow, option: str, component: Units, fixed: Mask):
        """Number the atoms, and note what is known of some unit of each."""
        self.option = option
        sizes = np.bincount(component)

        def some(of: Units | Mask) -> Mask:
            found = np.zeros(len(sizes), bool)
            found[component[of]] = True
            return found

        marks = [some(fixed), *(some(np.concatenate([NOTHING, *units])) for units in (flow.heads, flow.blocks))]
        sides = some(np.concatenate([units for fork in flow.forks for units in (fork.rows, fork.columns)]))
        flats = np.concatenate([fork.flat.reshape(-1) for fork in flow.forks])
        cells = np.bincount(component[flats], minlength=len(sizes))
        seen = sides | (cells > 1) | ((cells > 0) & np.logical_or.reduce(marks))
        atom = np.where(seen, np.cumsum(seen) - 1, NOBODY)[component]
        self.forks = [
            fork._replace(flat=atom[fork.flat], rows=atom[fork.rows], columns=atom[fork.columns]) for fork in flow.forks
        ]
        load = np.where(seen, 0, sizes)[component]
        self.loads = [load[fork.flat] for fork in flow.forks]
        self.sees_cells = [bool((fork.flat != NOBODY).any()) for fork in self.forks]
        self.weight = sizes[seen]
        self.fixed, self.head, self.block = (mark[seen] for mark in marks)
        self.taken = np.zeros_like(self.fixed)
        self.component = np.arange(len(self.fixed))
        self.sides = [_Side([getattr(fork, side) for fork in self.forks]) for side in ("rows", "columns")]
        self.marks: dict[str, tuple[Mask, Mask]] = {}

    def decisions(self) -> Iterator[tuple[int, bool]]:
        """Each fork in the order in which they are decided, and whether it goes by its rows."""
        open_ = np.ones(len(self.forks), bool)
        while open_.any():
            self._look()
            forced = np.flatnonzero(open_ & ~self.is_choice)
            decided = forced if len(forced) else self.independent(np.flatnonzero(open_))
            ties = []
            for index in map(int, decided):
                fork, by_rows = self.forks[index], self._prefers_rows(index)
                yield index, by_rows
                side, other = (fork.rows, fork.columns) if by_rows else (fork.columns, fork.rows)
                self.taken[side] = self.fixed[other] = True
                np.add.at(self.weight, side, self.loads[index].sum(axis=int(by_rows)))
                if self.sees_cells[index]:
                    cells, along = _tie(fork, by_rows)
                    ties.append((cells[cells != NOBODY], along[cells != NOBODY]))
            open_[decided] = False
            self.component = _joined(self.component, ties)

    def _look(self) -> None:
        """What can be said of some unit of each fork's rows, and of its columns: bool[forks] for both."""
        rows, columns = (side.look(self.component) for side in self.sides)
        marked = {"taken": self.taken, "head": self.head, "block": self.block}
        masks = {"free": ~self._with(self.fixed)} | {name: self._with(atoms) for name, atoms in marked.items()}
        self.marks = {
            name: (self.sides[0].any(mask[rows]), self.sides[1].any(mask[columns])) for name, mask in masks.items()
        }
        if self._spread():
            self._look()

    def _with(self, atoms: Mask) -> Mask:
        """Which components have some of these atoms."""
        found = np.zeros(len(self.component), bool)
        found[self.component[atoms]] = True
        return found

    def _spread(self) -> bool:
        """What is made of heads and heads is heads too (queries that share keys), and blocks of blocks are blocks."""
        news = False
        for name, array in (("head", self.head), ("block", self.block)):
            for index in np.flatnonzero(self.marks[name][0] & self.marks[name][1]):
                flat = self.forks[index].flat
                flat = flat[flat != NOBODY]
                news |= not array[flat].all()
                array[flat] = True
        return news

    @property
    def is_choice(self) -> Mask:
        """bool[forks]: whether either side could be taken."""
        rows, columns = self.marks["free"]
        return rows & columns

    def independent(self, forks: Units) -> list[int]:
        """Forks that share no component with each other, so that they can be decided at once."""
        touched = np.zeros(len(self.component), bool)
        bound = self.marks["taken"][0] | self.marks["taken"][1]  # by other forks: these come first
        chosen = []
        for i in forks[np.argsort(~bound[forks], kind="stable")]:
            fork = self.forks[i]
            atoms = np.concatenate([fork.rows, fork.columns, fork.flat.reshape(-1)])
            components = self.component[atoms[atoms != NOBODY]]
            if not touched[components].any():
                chosen.append(int(i))
            touched[components] = True
        return chosen

    def _prefers_rows(self, index: int) -> bool:
        """By the first of these that tells the sides apart: what is free, heads, what is taken, blocks, numbers."""
        free, taken, heads, blocks = ([bool(side[index]) for side in marks] for marks in self.marks.values())
        if free[0] != free[1]:
            return free[0]
        if heads[0] != heads[1] and self.option != "finest":
            return heads[0] == (self.option == "heads")
        if taken[0] != taken[1]:
            return taken[0]
        sides = [self.component[side] for side in (self.forks[index].rows, self.forks[index].columns)]
        if all(heads) and self.option == "heads":  # queries that share keys go with the keys, where most goes at once
            sizes = np.bincount(self.component, self.weight)
            return bool(sizes[sides[0]].mean() >= sizes[sides[1]].mean())
        if blocks[0] != blocks[1] and self.option != "finest":
            return blocks[1]
        counts = [len(set(side.tolist())) for side in sides]
        return counts[0] >= counts[1]


def _tie(fork: Fork, by_rows: bool) -> tuple[Units, Units]:
    """The ties of a fork's table to one of its sides."""
    rows, columns = fork.rows, fork.columns
    side = np.repeat(rows, len(columns)) if by_rows else np.tile(columns, len(rows))
    return fork.flat.reshape(-1), side


def _joined(component: Units, ties: Sequence[tuple[Units, Units]]) -> Units:
    """The components, numbered by their first unit, after some more ties."""
    if not ties:
        return component
    a, b = (component[np.concatenate(side)] for side in zip(*ties, strict=True))
    return components(int(component.max()) + 1, a, b)[1][component]


class _Side:
    """The rows, or the columns, of all forks one after the other."""

    def __init__(self, units: list[Units]):
        self.units = np.concatenate([np.empty(0, np.int64), *units])
        self.starts = np.cumsum([0, *map(len, units)])[:-1]

    def look(self, component: Units) -> Units:
        """The component of each unit."""
        return np.asarray(component[self.units])

    def any(self, mask: Mask) -> Mask:
        """bool[forks]: whether the mask holds for some unit of each."""
        return np.logical_or.reduceat(mask, self.starts)


def components(count: int, a: Units, b: Units) -> tuple[int, Units]:
    """Connected components of `count` units under the ties a[i] - b[i]: how many, and the number of each unit's.

    Every root is hooked to a lower root that it is tied to, then paths are halved until they are flat; a few rounds do.
    Components are numbered by their first unit.
    The same as `scipy.sparse.csgraph.connected_components`, whose import alone takes longer than a whole analysis.
    """
    tied = np.zeros(count, bool)
    tied[a] = tied[b] = True
    units, number = np.flatnonzero(tied), np.cumsum(tied) - 1
    a, b, root = number[a], number[b], np.arange(len(units))
    while True:
        left, right = root[a], root[b]
        apart = left != right
        if not apart.any():
            break
        a, b = a[apart], b[apart]
        low, high = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
        root[high] = low  # of several ties of one root any will do: the others are seen again in the next round
        while not np.array_equal(root, shorter := root[root]):
            root = shorter
    whole = np.arange(count)
    whole[units] = units[root]
    is_root = whole == np.arange(count)
    return int(is_root.sum()), (np.cumsum(is_root) - 1)[whole]


def _first_reason(component: Units, why: Units, count: int) -> Units:
    none = np.iinfo(np.int64).max
    first = np.full(count, none)
    units = np.flatnonzero(why)
    np.minimum.at(first, component[units], why[units])
    return np.where(first == none, 0, first)


def members(flow: Flow, labels: Labels) -> Mask:
    """Which units stand for slices that must be zero, carried back through forks to the initializers."""
    member = np.zeros(flow.count, bool)
    for units in flow.members:
        member[units] = True
    for fork in reversed(flow.forks):
        if fork.joined:
            member[fork.rows] |= member[fork.flat].any(axis=1)
            member[fork.columns] |= member[fork.flat].any(axis=0)
        else:
            by_rows = (labels.component[fork.flat] == labels.component[fork.rows][:, None]).all()
            member[fork.flat] |= member[fork.rows][:, None] if by_rows else member[fork.columns][None, :]
    return member


def _distinct(values: Units) -> list[int]:
    """The different values, from the least on; mostly there is one."""
    if not len(values):
        return []
    first = int(values[0])
    return [first] if (values == first).all() else np.flatnonzero(np.bincount(values)).tolist()


def _random_marks(count: int) -> Any:
    """Numbers that look random (splitmix64), without the import of numpy's generators."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _title(members: list[tuple[str, int]]) -> str:
    tensor = members[0][0] if members else "?"
    return tensor.removesuffix(".weight").removesuffix(".bias")


__all__ = [
    "Fixed",
    "Labels",
    "Mask",
    "NodeGroup",
    "Part",
    "Partition",
    "Row",
    "Slice",
    "Zig",
    "analyze",
    "members",
    "settle",
]
