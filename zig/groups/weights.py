"""Weights as they are once some groups are zero, made when they are asked for: they may be larger than memory."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from zig.flow.units import Rest, Units
from zig.groups.partition import Mask, Partition
from zig.model.graph import Graph
from zig.model.shapes import Array

WHOLE = slice(None)
WORKERS = min(4, os.cpu_count() or 1)  # threads that read and write large weights


class Zeroed:
    """A graph's weights with some groups and all tiny values set to zero, made piece by piece when asked for."""

    def __init__(
        self, graph: Graph, partition: Partition | None = None, remove: Mask | None = None, tolerance: float = 0.0
    ):
        """Remember what to zero; nothing is read yet.

        Args:
            graph: whose weights.
            partition: the groups, where some of them are to be zeroed.
            remove: which of them, bool[G].
            tolerance: weights up to this magnitude become zero too.
        """
        self.graph, self.tolerance = graph, tolerance
        self.zeros = partition.flow.zeros if partition else {}
        self.rests: dict[tuple[Any, ...], Rest] = {}  # what is known of the constants of slices
        self.sights: dict[tuple[str, int], Sight] = {}
        self.infinite: dict[str, list[Mask]] = {}  # for each axis of a weight the slices with infinities or NaN
        self._gone: dict[str, list[tuple[int, Mask]]] = {}
        chosen = np.append(np.zeros(0, bool) if remove is None else remove, False)
        for row in partition.rows if partition and remove is not None else ():
            gone = row.member & chosen[row.groups]
            if gone.any() and not self._is_nothing(row.tensor):
                self._gone.setdefault(row.tensor, []).append((row.axis, gone))

    def __call__(self, name: str, rows: slice = WHOLE) -> Array:
        """The values of an initializer, or those of some of its rows."""
        value = self.graph.array(name)
        value = value[rows] if value.ndim else value
        if self.tolerance and np.issubdtype(value.dtype, np.floating):
            value = np.where(np.abs(value) <= self.tolerance, np.zeros((), value.dtype), value)
        for axis, gone in self._gone.get(name, ()):
            mask, zero = gone[rows] if axis == 0 else gone, np.array(self.zeros.get(name, 0), value.dtype)
            value = np.where(mask.reshape([-1] + [1] * (value.ndim - axis - 1)), zero, value)
        return value

    def _is_nothing(self, name: str) -> bool:
        """Whether a constant that several nodes read is zero all over, so that they can go on sharing it."""
        return self.graph.is_constant(name) and bool((self.graph.array(name) == self.zeros.get(name, 0)).all())

    def changes(self, name: str) -> bool:
        """Whether an initializer may have other values than in its file, or what it is a copy of may."""
        made = self.graph.copies.get(name) in self._gone and name not in self.graph.readings
        return name in self._gone or made or (self.tolerance > 0 and self.graph.is_float(name))


class Sight(NamedTuple):
    """What is remembered of the slices of a weight along an axis: which hold something, and at which places."""

    holds: Mask
    sample: Array  # uint8[n, _PLACES / 8], a bit for each place
    places: tuple[Units, ...]  # the index of each place along every axis

    def over(self, kept: list[Mask]) -> Mask:
        """bool[n]: which slices are known to hold something at a place that is kept."""
        open_ = np.logical_and.reduce([mask[at] for mask, at in zip(kept, self.places, strict=True)])
        return np.asarray((self.sample & np.packbits(open_)).any(axis=1))
