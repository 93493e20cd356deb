"""What a plan costs: parameters and multiply-accumulates from axis sizes alone; no model is built to count.

Every node's MACs and every initializer's elements are a product of sizes, and a size is the number of indices that are
kept. So a plan is priced by one pass over the indices and one product for each node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.dims import at_least_one
from zig.units import Call, Part, Units

if TYPE_CHECKING:
    from zig.partition import Mask, Partition

Values = np.ndarray[Any, np.dtype[np.float64]]


class Products:
    """Products of sizes under plans of one partition. Symbolic sizes (a dynamic batch) count as 1."""

    def __init__(self, partition: Partition, products: Sequence[Sequence[Part]]):
        """Lay out all prunable parts end to end, and every product as a row of part numbers."""
        parts = {id(part.units): part for product in products for part in product if part.live}
        number = {key: i for i, key in enumerate(parts)}
        rows = [[number[id(part.units)] for part in product if part.live] for product in products]
        sizes = [[at_least_one(part.size) for part in product if not part.live] for product in products]
        self.factors = np.array([float(math.prod(fixed)) for fixed in sizes])
        width = max(map(len, rows), default=0)
        self.table = np.array([row + [-1] * (width - len(row)) for row in rows], np.int64).reshape(len(rows), width)
        lengths = [len(part.units) for part in parts.values()]
        self._starts = np.cumsum([0, *lengths], dtype=np.int64)[: len(lengths)]
        self._lengths = np.array(lengths, np.int64)
        units = np.concatenate([np.empty(0, np.int64), *(part.units for part in parts.values())])
        self._owners = partition.owners(units)

    def values(self, remove: Mask) -> Values:
        """Each product when the groups in `remove` (bool[G]) are gone, float64."""
        padded = np.append(remove, False)  # -1, what is fixed, reads the last entry
        gone = padded[self._owners[0]]
        for own in self._owners[1:]:
            gone = gone | padded[own]
        removed = np.diff(np.append(0, np.cumsum(gone))[np.append(self._starts, len(gone))])
        sizes = np.append(self._lengths - removed, 1).astype(np.float64)  # the last is what rows are padded with
        values: Values = self.factors * sizes[self.table].prod(axis=1)
        return values


class Budget:
    """Prices plans of one partition. Symbolic sizes (a dynamic batch) count as 1."""

    def __init__(self, partition: Partition):
        """See what is read: weights are products of their axes' sizes, MACs are what operators' rows say."""
        self.partition = partition
        graph = partition.graph
        read = {name for node in graph.nodes for name in (*node.inputs, *node.captured)} - graph.readings.keys()
        weights = {name: t for name, t in partition.flow.weights.items() if t.weight and name in read}
        others = [int(np.prod(t.dims, dtype=np.int64)) for n, t in graph.initializers.items()
                  if n in read and n not in weights and graph.is_float(n)]  # fmt: skip
        self._names = list(weights)
        elements = [[part for axis in t.axes for part in axis] for t in weights.values()]
        self._folds = _folds(partition)
        added = [parts for _, parts in self._folds]
        self._products = Products(partition, [*elements, *(parts for _, parts in partition.flow.costs), *added])
        self._loose = sum(others)
        self.parameters, self.macs = self.price(np.zeros(len(partition), bool))

    @property
    def prunable_parameters(self) -> int:
        """Elements that belong to at least one group."""
        total = 0
        for name, tensor in self.partition.flow.weights.items():
            if tensor.weight and name not in self.partition.graph.readings:
                owners = [self.partition.owners(part.units) for axis in tensor.axes for part in axis]
                axes = [np.logical_and.reduce([own < 0 for own in owns]) for owns in owners]
                dims = self.partition.graph.initializers[name].dims
                whole = int(np.prod(dims, dtype=np.int64))
                total += whole - (int(np.prod([int(fixed.sum()) for fixed in axes], dtype=np.int64)) if axes else whole)
        return total

    def price(self, remove: Mask, shares: Mapping[str, float] | None = None) -> tuple[int, int]:
        """Parameters and MACs that are left.

        Args:
            remove: The groups that are gone, bool[G].
            shares: For weights that lose a part of each slice (a convolution with a smaller kernel), the share that
                stays, by initializer; the nodes that read it cost that share too.
        """
        values = self._products.values(remove)
        if shares:
            values = values * self._shares(shares)
        first, last = len(self._names), len(values) - len(self._folds)
        parameters, macs = values[:first].sum(), values[first:last].sum()
        for biased, (groups, _) in zip(values[last:], self._folds, strict=True):
            parameters += biased if remove[groups].any() else 0.0
        return round(float(parameters)) + self._loose, round(float(macs))

    def _shares(self, shares: Mapping[str, float]) -> Values:
        """The share that stays of each weight, then of each product of MACs; biases stay."""
        readers = ((node.name, name) for node in self.partition.graph.nodes for name in node.inputs if name in shares)
        nodes = {node: shares[name] for node, name in readers}
        costs = [nodes.get(name, 1.0) for name, _ in self.partition.flow.costs]
        return np.array([*(shares.get(name, 1.0) for name in self._names), *costs, *([1.0] * len(self._folds))])


def _folds(partition: Partition) -> list[tuple[Units, list[Part]]]:
    """Biases that surgery adds: the groups that leave a constant where a node without a bias sums, and its parts."""
    groups: dict[int, list[Units]] = {}
    calls: dict[int, Call] = {}
    for call, part, weight in partition.flow.contractions:
        constant = np.isfinite(part.rest) & (part.rest != 0)
        if weight is None or not constant.any() or (call.node.op != "MatMul" and call.has(2)):
            continue
        fold = partition.flow.operators[call.node.op].fold
        if fold is not None and fold(call):
            calls[id(call)] = call
            groups.setdefault(id(call), []).extend(partition.owners(part.units[constant]))
    found = []
    for key, call in calls.items():
        whose, result = np.concatenate(groups[key]), call.outputs[0]
        if result is not None and (whose >= 0).any():
            batches = call.tensor(1).axes[:-2] if call.node.op == "MatMul" else ()
            axes = (*batches, result.axes[1 if call.node.op == "Conv" else -1])
            found.append((np.unique(whose[whose >= 0]), [part for axis in axes for part in axis]))
    return found


def nearest(gone: Callable[[int], float], share: float, top: int) -> int:
    """The rung of a ladder, 0 to `top`, where what is gone comes nearest to a share; of two the lower.

    Every rung removes more than the one below, so it is found by bisection.
    """
    low, high = 0, top
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if gone(middle) < share else (low, middle)
    return min((low, high), key=lambda rung: abs(gone(rung) - share))


def cost(partition: Partition, remove: Mask | None = None) -> dict[str, int]:
    """Parameters and MACs of a model, or of what is left of it once `remove` (bool[G]) is gone."""
    remove = np.zeros(len(partition), bool) if remove is None else remove
    parameters, macs = Budget(partition).price(remove)
    return {"parameters": parameters, "macs": macs}
