"""Ties become groups: forks are decided, components become ZIGs, ZIGs that run along the same axes a node group."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from zig.errors import UsageError
from zig.flow.flow import Flow, WeightAxis, flown
from zig.flow.sides import even_out
from zig.flow.units import NOTHING, Mask, Part, Units
from zig.groups.forks import FORKS, Labels, members, settle
from zig.model.checks import blaming
from zig.model.graph import Graph, load
from zig.operators import OPERATORS, Operator


class Slice(NamedTuple):
    """Indices of one axis of an initializer."""

    tensor: str
    axis: int
    indices: Units


@dataclass(frozen=True)
class Row:
    """One axis of one initializer: the ZIG of each index (-1 = fixed), and whether its slice is a member of it.

    The indices of a product of two axes go with a ZIG of each: there are two rows then for one axis.
    """

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


class Partition:
    """All groups of a model, column by column.

    `rows` says for each (initializer, axis) which ZIG an index belongs to; `node_group[g]` the node group of ZIG g.
    """

    def __init__(self, graph: Graph, flow: Flow, labels: Labels, members: Mask, forks: str = "", seconds: float = 0.0):
        """Number the components that are free of reasons and own a weight slice; `forks`: how these were decided."""
        self.graph, self.flow, self.labels, self.forks, self.seconds = graph, flow, labels, forks, seconds
        self.member, self.keep = members, tuple[str, ...]()  # patterns of what was to be kept
        self._axes = [
            (name, axis, part.units)
            for name, tensor in flow.weights.items()
            for axis, parts in enumerate(tensor.axes)
            for part in parts
        ]
        factors = np.arange(len(labels.why))[:, None] if labels.factors is None else labels.factors
        owned = np.zeros(len(factors), bool)
        units = np.concatenate([NOTHING, *(units for _, _, units in self._axes)])
        owners = factors[labels.component[units[members[units]]]]
        owned[owners[owners >= 0]] = True
        free = np.flatnonzero(owned & (labels.why == 0))  # components are numbered as the network makes them
        self.zig_of = np.full(len(factors) + 1, -1)  # of each component; the last entry is for those that have none
        self.zig_of[free] = np.arange(len(free))
        self._owners = [self.zig_of[factor][labels.component] for factor in factors.T]
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
        """The ZIG of each unit, -1 where it is fixed; of several, which the indices of a product have, the first."""
        return np.asarray(self._owners[0][units])

    def owners(self, units: Units) -> list[Units]:
        """The ZIGs that each unit goes with, -1 where there is none: one array, or one for each factor of a product."""
        return [owner[units] for owner in self._owners]

    def chosen(self, units: Units, among: Mask) -> Mask:
        """Whether each unit goes with one of the ZIGs in `among` (bool[G]), bool[n]."""
        padded = np.append(among, False)
        return np.asarray(np.logical_or.reduce([padded[own] for own in self.owners(units)]))

    @cached_property
    def rows(self) -> list[Row]:
        """One row for each (initializer, axis) that carries a ZIG, and for each factor of a product."""
        rows = [
            Row(name, axis, own, self.member[units] & (own >= 0))
            for name, axis, units in self._axes
            for own in self.owners(units)
        ]
        return [row for row in rows if (row.groups >= 0).any()]

    @cached_property
    def node_groups(self) -> list[NodeGroup]:
        """The families of ZIGs, in the order in which the network makes them."""
        count = int(self.node_group.max(initial=-1)) + 1
        members: list[dict[tuple[str, int], None]] = [{} for _ in range(count)]
        dependents: list[dict[tuple[str, int], None]] = [{} for _ in range(count)]
        for row in self.rows:
            live = row.groups >= 0
            owned = _distinct(self.node_group[row.groups[row.member]])
            for family in owned:
                members[family][row.tensor, row.axis] = None
            for family in _distinct(self.node_group[row.groups[live]]):
                if family not in owned:
                    dependents[family][row.tensor, row.axis] = None
        order = np.argsort(self.node_group, kind="stable")
        bounds = np.searchsorted(self.node_group[order], np.arange(count + 1))
        groups = [order[bounds[i] : bounds[i + 1]] for i in range(count)]
        sides = [(list(members[i]), [axis for axis in dependents[i] if axis not in members[i]]) for i in range(count)]
        return [NodeGroup(i, _title(sides[i][0]), groups[i], *sides[i]) for i in range(count)]

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

    def _families(self, count: int) -> Units:
        """ZIGs with the same set of axes get the same family: each axis adds a random number to its ZIGs."""
        marks = _random_marks(len(self.flow.parts) * len(self._owners)).reshape(len(self._owners), -1)
        signature = np.zeros(count + 1, np.uint64)
        for owner, own in zip(self._owners, marks, strict=True):
            for mark, part in zip(own, self.flow.parts.values(), strict=True):
                signature[owner[part.units]] += mark  # once for each ZIG; the last entry is for what is fixed
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
    rewrite: bool = False, freeze_inputs: bool = False, held: Iterable[str] = (), even_splits: bool = False,
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
        held: names of initializers that keep their values, as what no training changes: they may be cut along, but no
            group needs them to be zero.
        even_splits: whether all sides of an axis that is split into equal ones lose the same indices, so that code that
            halves whatever width it finds still fits.

    Raises:
        ModelError: the model can't be read.
        UsageError: `forks` is none of the three, or a pattern of `keep` matches nothing.
    """
    if forks not in FORKS:
        raise UsageError(f"forks must be one of {', '.join(FORKS)}, not '{forks}'")
    start = time.perf_counter()
    graph = load(source, freeze_inputs=freeze_inputs)
    rows = {**OPERATORS, **(operators or {})}
    if rewrite:
        rows |= {name: row.rewrite for name, row in rows.items() if row.rewrite}
    with blaming(graph.name, graph.proto), _nothing_collected():
        flow = flown(graph, rows, _all_axes(graph, held))
        if even_splits:
            even_out(flow)
        _keep(flow, keep)
        labels = settle(flow, forks)
        partition = Partition(graph, flow, labels, members(flow, labels), forks, time.perf_counter() - start)
        partition.keep = keep
        return partition


def _all_axes(graph: Graph, names: Iterable[str]) -> frozenset[WeightAxis]:
    return frozenset((name, axis) for name in names for axis in range(len(graph.facts(name)[0])))


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
