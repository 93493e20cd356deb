"""Which groups can go without changing the outputs, judged by the actual values.

The flow of the analysis runs again with the weights' own values. A group can go when at every sum it reaches it adds
nothing, or a constant that folds into the bias; what becomes dead once those are gone goes too. So this finds the
groups that training zeroed, dead channels behind a zero BatchNorm, and channels that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from zig.arithmetic import Array
from zig.dims import product
from zig.flow import Flow
from zig.partition import FORKS, Labels, Mask, Partition, members, settle
from zig.plan import Plan
from zig.units import Rest, Units

Weights = Callable[[str], Array]


def zeroed(plan: Plan | None, array: Weights, tolerance: float) -> Weights:
    """The weights with a plan's members and all tiny values set to zero."""
    rows: dict[str, list[tuple[int, Mask]]] = {}
    for row in plan.partition.rows if plan else ():
        gone = row.member & np.append(plan.remove, False)[row.groups] if plan else row.member
        if gone.any():
            rows.setdefault(row.tensor, []).append((row.axis, gone))

    def weights(name: str) -> Array:
        value = array(name)
        if tolerance and np.issubdtype(value.dtype, np.floating):
            value = np.where(np.abs(value) <= tolerance, np.zeros((), value.dtype), value)
        if name in rows:
            value = np.array(value)
            for axis, gone in rows[name]:
                value[(slice(None),) * axis + (gone,)] = 0
        return value

    return weights


def removable(partition: Partition, weights: Weights) -> tuple[Partition, Mask, Flow]:
    """Groups that can go without changing the outputs, judged by the actual values.

    Returns:
        The partition with reasons that lie in values alone lifted, bool[G] over its groups, and the last flow.
    """
    labels = partition.labels
    loose = Partition(
        partition.graph, partition.flow, Labels(labels.component, labels.bare, labels.bare), partition.member
    )
    remove, constant = (np.zeros(len(loose), bool) for _ in range(2))
    resting = ActualRest(loose, weights)
    while True:
        flow = Flow(partition.graph, partition.flow.operators, resting.without(remove & ~constant)).run()
        constant |= _constants(flow, loose)
        able = np.ones(len(loose), bool)
        for units, _ in flow.leaks:
            zigs = loose.zigs(units)
            able[zigs[zigs >= 0]] = False
        able |= remove
        _keep_one(able, loose.node_group)
        if (able == remove).all():
            return loose, remove, flow
        remove = able


def _constants(flow: Flow, partition: Partition) -> Mask:
    """Groups that add a constant other than zero to some sum: gone, they still speak through its bias."""
    found = np.zeros(len(partition) + 1, bool)
    for contraction in flow.contractions:
        part = contraction.part
        found[partition.zigs(part.units[np.isfinite(part.rest) & (part.rest != 0)])] = True
    return found[:-1]


def choices(partition: Partition) -> Iterator[Partition]:
    """The partition under every choice at its forks that differs: a file does not say by which one it was pruned."""
    seen: list[Units] = []
    for forks in FORKS if partition.flow.forks else FORKS[:1]:
        labels = settle(partition.flow, forks)
        groups = np.where(labels.bare > 0, -1, np.arange(len(labels.bare)))[labels.component]
        if not any(np.array_equal(groups, other) for other in seen):
            seen.append(groups)
            yield Partition(partition.graph, partition.flow, labels, members(partition.flow, labels))


def _keep_one(able: Mask, family: Any) -> None:
    """An axis can't become empty: where a whole node group could go, its first group stays."""
    if len(able):
        kept = np.bincount(family[~able], minlength=int(family.max()) + 1)
        first = np.unique(family, return_index=True)[1]
        able[first[kept == 0]] = False


class ActualRest:
    """The constant of each slice of each initializer, over what is still kept of its other axes."""

    def __init__(self, partition: Partition, weights: Weights):
        """Remember which axes can shrink; patterns of zeros are read once and kept small."""
        self.partition, self.weights = partition, weights
        self.kept = np.ones(len(partition) + 1, bool)
        self._patterns: dict[str, Array] = {}
        self._rests: dict[tuple[Any, ...], Rest] = {}

    def without(self, remove: Mask) -> ActualRest:
        """The same, with more groups gone."""
        self.kept = np.append(~remove, True)
        return self

    def __call__(self, name: str, axis: int) -> Rest:
        """float64[n]: the value of each slice along an axis, nan where it is not constant."""
        pattern = self._pattern(name)
        others = tuple(i for i in range(pattern.ndim) if i != axis)
        if product(pattern.shape[i] for i in others) == 1 and pattern.dtype != bool:
            return pattern.reshape(-1)
        kept = [self._kept(name, i, pattern.shape[i]) for i in others]
        key = (name, axis, *(mask.tobytes() for mask in kept))
        if key not in self._rests:  # most axes are as they were in the round before
            for i, mask in zip(others, kept, strict=True):
                if not mask.all():
                    pattern = pattern & mask.reshape([-1] + [1] * (pattern.ndim - i - 1))
            self._rests[key] = np.where(pattern.any(axis=others), np.nan, 0.0)
        return self._rests[key]

    def is_frozen(self, units: Units) -> bool:
        """Whether none of these units can go."""
        return bool((self.partition.zigs(units) < 0).all())

    def _kept(self, name: str, axis: int, length: int) -> Mask:
        parts = self.partition.flow.weights[name].axes[axis]
        whole = len(parts) == 1 and parts[0].size == length
        return self.kept[self.partition.zigs(parts[0].units)] if whole else np.ones(length, bool)

    def _pattern(self, name: str) -> Array:
        """Where a tensor is not zero, with axes that can't shrink reduced to one; its values if it is one long axis."""
        if name not in self._patterns:
            value = self.weights(name)
            if max(value.shape, default=1) == value.size:
                self._patterns[name] = value.astype(np.float64)
            else:
                axes = self.partition.flow.weights[name].axes
                rigid = tuple(
                    i
                    for i, parts in enumerate(axes)
                    if not any((self.partition.zigs(p.units) >= 0).any() for p in parts)
                )
                pattern = value != 0
                self._patterns[name] = pattern.any(axis=rigid, keepdims=True) if rigid else pattern
        return self._patterns[name]
