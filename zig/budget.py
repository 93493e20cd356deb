"""What a plan costs: parameters and multiply-accumulates from axis sizes alone; no model is built to count.

Every node's MACs and every initializer's elements are a product of sizes, and a size is the number of indices that are
kept. So a plan is priced by one pass over the indices and one product for each node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.dims import at_least_one
from zig.units import Part

if TYPE_CHECKING:
    from zig.partition import Mask, Partition

Table = np.ndarray[Any, np.dtype[np.int64]]


class Budget:
    """Prices plans of one partition. Symbolic sizes (a dynamic batch) count as 1."""

    def __init__(self, partition: Partition):
        """Lay out all prunable parts end to end, and every product as a row of part numbers."""
        self.partition = partition
        self._columns: dict[int, int] = {}
        self._parts: list[Part] = []
        graph = partition.graph
        read = {name for node in graph.nodes for name in (*node.inputs, *node.captured)}
        weights = {name: t for name, t in partition.flow.weights.items() if t.weight and name in read}
        others = [int(np.prod(t.dims, dtype=np.int64)) for n, t in graph.initializers.items()
                  if n in read and n not in weights and graph.is_float(n)]  # fmt: skip
        self._weights = self._table([[part for axis in t.axes for part in axis] for t in weights.values()])
        self._macs = self._table([parts for _, parts in partition.flow.costs])
        self._loose = sum(others)
        lengths = [len(part.units) for part in self._parts]
        self._starts = (
            np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if lengths else np.empty(0, np.int64)
        )
        self._lengths = np.array(lengths, np.int64)
        units = np.concatenate([part.units for part in self._parts]) if self._parts else np.empty(0, np.int64)
        self._zigs = partition.zigs(units)
        self.parameters, self.macs = self.price(np.zeros(len(partition), bool))

    @property
    def prunable_parameters(self) -> int:
        """Elements that belong to at least one group."""
        total = 0
        for name, tensor in self.partition.flow.weights.items():
            if tensor.weight:
                axes = [self.partition.zigs(part.units) < 0 for axis in tensor.axes for part in axis]
                dims = self.partition.graph.initializers[name].dims
                whole = int(np.prod(dims, dtype=np.int64))
                total += whole - (int(np.prod([int(fixed.sum()) for fixed in axes], dtype=np.int64)) if axes else whole)
        return total

    def price(self, remove: Mask) -> tuple[int, int]:
        """Parameters and MACs that are left when the groups in `remove` (bool[G]) are gone."""
        gone = np.append(remove, False)[self._zigs]  # -1, what is fixed, reads the last entry
        removed = np.diff(np.append(0, np.cumsum(gone))[np.append(self._starts, len(gone))])
        sizes = np.append(self._lengths - removed, 1).astype(np.float64)
        parameters, macs = (
            float((factor * sizes[table].prod(axis=1)).sum()) for factor, table in (self._weights, self._macs)
        )
        return round(parameters) + self._loose, round(macs)

    def _table(self, products: Sequence[Sequence[Part]]) -> tuple[Table, Table]:
        """For each product its constant factor and the numbers of its prunable parts, padded with -1 (size 1)."""
        factors = np.array(
            [np.prod([at_least_one(p.size) for p in ps if not p.live], dtype=np.int64) for ps in products]
        )
        columns = [[self._column(part) for part in parts if part.live] for parts in products]
        width = max(map(len, columns), default=0)
        table = np.array([c + [-1] * (width - len(c)) for c in columns], np.int64).reshape(len(columns), width)
        return factors.astype(np.int64), table

    def _column(self, part: Part) -> int:
        key = id(part.units)
        if key not in self._columns:
            self._columns[key] = len(self._parts)
            self._parts.append(part)
        return self._columns[key]


def cost(partition: Partition, remove: Mask | None = None) -> dict[str, int]:
    """Parameters and MACs of a model, or of what is left of it once `remove` (bool[G]) is gone."""
    remove = np.zeros(len(partition), bool) if remove is None else remove
    parameters, macs = Budget(partition).price(remove)
    return {"parameters": parameters, "macs": macs}
