"""Which groups can go without changing the outputs, judged by the actual values.

The flow of the analysis runs again with the weights' own values. A group can go when at every sum it reaches it adds
nothing, or a constant that folds into the bias; what becomes dead once those are gone goes too. So this finds the
groups that training zeroed, dead channels behind a zero BatchNorm, and channels that nobody reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from zig.flow.flow import Flow
from zig.flow.units import NOTHING, Rest, Units
from zig.groups.forks import FORKS, members, settle, tied
from zig.groups.partition import Mask, Partition
from zig.groups.weights import WHOLE, WORKERS, Sight, Zeroed
from zig.model.dims import number
from zig.model.shapes import Array


def removable(partition: Partition, weights: Zeroed) -> tuple[Partition, Mask, Flow]:
    """Groups that can go without changing the outputs, judged by the actual values.

    Returns:
        The partition with reasons that lie in values alone lifted, bool[G] over its groups, and the last flow.
    """
    labels = partition.labels
    loose = Partition(partition.graph, partition.flow, labels._replace(why=labels.bare), partition.member)
    remove, constant = (np.zeros(len(loose), bool) for _ in range(2))
    resting = ActualRest(loose, weights)
    resting.look()
    while True:
        flow = Flow(partition.graph, partition.flow.operators, resting.without(remove & ~constant)).run()
        constant |= _constants(flow, loose)
        able = np.ones(len(loose), bool)
        for units, _ in flow.leaks:
            for zigs in loose.owners(units):
                able[zigs[zigs >= 0]] = False
        able[_infinite(flow, loose, weights)] = False
        able |= remove
        _keep_one(able, loose.node_group)
        if (able == remove).all():
            return loose, remove, flow
        remove = able


def idle(partition: Partition) -> Mask:
    """Groups that add nothing to any sum as the weights are: whatever a plan says, `compress` takes them, bool[G]."""
    loose, remove, flow = removable(partition, Zeroed(partition.graph))
    speaking = np.append(_constants(flow, loose), False)
    for part in (part for _, axis in flow.stored for part in axis):
        stored = np.concatenate(loose.owners(part.units))
        speaking[stored] = True  # surgery would store what they compute before it cuts them
    remove = remove & ~speaking[:-1]
    ours, theirs = partition.zig_of, loose.zig_of
    both = (ours >= 0) & (theirs >= 0)  # both number the same components; some are free in `loose` alone
    found = np.zeros(len(partition), bool)
    found[ours[both]] = remove[theirs[both]]
    return found


def _constants(flow: Flow, partition: Partition) -> Mask:
    """Groups that add a constant other than zero to some sum: gone, they still speak through its bias."""
    found = np.zeros(len(partition) + 1, bool)
    for contraction in flow.contractions:
        part = contraction.part
        speaking = part.units[np.isfinite(part.rest) & (part.rest != 0)]
        found[np.concatenate(partition.owners(speaking))] = True
    return found[:-1]


def _infinite(flow: Flow, partition: Partition, weights: Zeroed) -> Mask:
    """Groups that are read with infinite weights, or NaN: these make NaN of zeros."""
    found, odd = np.zeros(len(partition) + 1, bool), {name: _odd(flow, weights, name) for name in weights.infinite}
    everywhere = np.concatenate([NOTHING, *odd.values()])
    for call, _, weight in flow.contractions if len(everywhere) else ():
        if weight:
            found[np.concatenate(partition.owners(np.intersect1d(weight.units, everywhere)))] = True
            own = np.concatenate([NOTHING, *(odd[name] for name in call.node.inputs if name in odd)])
            ours, theirs = (np.concatenate(partition.owners(units)) for units in (weight.units, own))
            found[np.intersect1d(ours, theirs)] = True  # an axis that was split
    return found[:-1]


def _odd(flow: Flow, weights: Zeroed, name: str) -> Units:
    """The units of the slices of a weight that hold infinities or NaN."""
    units = [NOTHING]
    for mask, axis in zip(weights.infinite[name], flow.weights[name].axes, strict=True):
        table = mask.reshape([number(part.size) for part in axis])
        others = [tuple(j for j in range(len(axis)) if j != i) for i in range(len(axis))]
        units += [part.units[table.any(axis=rest)] for part, rest in zip(axis, others, strict=True) if part.live]
    return np.concatenate(units)


def choices(partition: Partition) -> Iterator[Partition]:
    """The partition under every choice at its forks that differs: a file does not say by which one it was pruned."""
    flow, seen = partition.flow, list[Units]()
    component = tied(flow) if flow.forks else None
    for forks in FORKS if flow.forks else [partition.forks]:
        known = forks == partition.forks
        labels = partition.labels if known else settle(flow, forks, component)
        groups = np.where(labels.bare > 0, -1, np.arange(len(labels.bare)))[labels.component]
        if not any(np.array_equal(groups, other) for other in seen):
            seen.append(groups)
            yield partition if known else Partition(partition.graph, flow, labels, members(flow, labels), forks)


def _keep_one(able: Mask, family: Any) -> None:
    """An axis can't become empty: where a whole node group could go, its first group stays."""
    if len(able):
        kept = np.bincount(family[~able], minlength=int(family.max()) + 1)
        first = np.unique(family, return_index=True)[1]
        able[first[kept == 0]] = False


class ActualRest:
    """The constant of each slice of each initializer, over what is still kept of its other axes."""

    def __init__(self, partition: Partition, weights: Zeroed):
        """Remember which axes can shrink; of the weights only answers are kept, for every choice at the forks."""
        self.partition, self.weights = partition, weights
        self.kept = np.ones(len(partition) + 1, bool)
        self._rests, self._sights = weights.rests, weights.sights

    def without(self, remove: Mask) -> ActualRest:
        """The same, with more groups gone."""
        self.kept = np.append(~remove, True)
        return self

    def __call__(self, name: str, axis: int) -> Rest:
        """float64[n]: the value of each slice along an axis, nan where it is not constant."""
        dims = self.partition.graph.facts(name)[0]
        kept = [np.ones(n, bool) if i == axis else self._kept(name, i, n) for i, n in enumerate(dims)]
        key = (name, axis, *(mask.tobytes() for mask in kept))
        if key not in self._rests:  # most axes are as they were in the round before
            if not math.prod(dims):
                self._rests[key] = np.full(dims[axis], self._zero(name))
            elif math.prod(dims) == dims[axis]:
                value = self.weights(name)
                self._find_infinite(name, WHOLE, value)
                self._rests[key] = value.reshape(-1).astype(np.float64)
            else:
                self._rests[key] = np.where(self._holds(name, axis, kept), np.nan, self._zero(name))
        return self._rests[key]

    def _holds(self, name: str, axis: int, kept: list[Mask]) -> Mask:
        """bool[n]: whether each slice along an axis holds anything but zeros, over what is kept of the other axes.

        A weight is read as a whole once; after that a sample of each slice mostly tells.
        """
        if (name, axis) not in self._sights:
            self._look(name, [axis])
        sight = self._sights[name, axis]
        found = sight.over(kept)
        return found if np.array_equal(found, sight.holds) else self._read(name, axis, kept)

    def look(self) -> None:
        """Read the large weights, several at a time: numpy lets go of the interpreter meanwhile."""
        axes = {
            name: [i for i, axis in enumerate(tensor.axes) if axis and (name, i) not in self._sights]
            for name, tensor in self.partition.flow.weights.items()
            if math.prod(self.partition.graph.facts(name)[0]) > _LARGE and sum(map(bool, tensor.axes)) > 1
        }
        with ThreadPoolExecutor(WORKERS) as pool:
            for look in [pool.submit(self._look, name, some) for name, some in axes.items() if some]:
                look.result()

    def _look(self, name: str, axes: list[int]) -> None:
        """Read a weight once for its slices along several axes."""
        runs, whole = self.partition.graph.pieces(name), [np.ones(n, bool) for n in self.partition.graph.facts(name)[0]]
        first = [len(mask[runs[0]]) if i == 0 else len(mask) for i, mask in enumerate(whole)]
        places = {axis: _places(first, axis) for axis in axes}
        holds = {axis: np.zeros(len(whole[axis]), bool) for axis in axes}
        samples: dict[int, list[Mask]] = {axis: [] for axis in axes}
        for rows in runs:
            value, kept = self.weights(name, rows), [whole[0][rows], *whole[1:]]
            self._find_infinite(name, rows, value)
            for axis in axes:
                holds[axis][rows if axis == 0 else WHOLE] |= _holds(value, axis, kept, self._zero(name))
                if axis == 0 or rows == runs[0]:
                    other: tuple[Any, ...] = (WHOLE, *(at for i, at in enumerate(places[axis]) if i != axis))
                    samples[axis].append(np.moveaxis(value, axis, 0)[other] != self._zero(name))
        for axis in axes:
            sample = np.packbits(np.concatenate(samples[axis]), axis=1)
            self._sights[name, axis] = Sight(holds[axis], sample, places[axis])

    def _find_infinite(self, name: str, rows: slice, value: Array) -> None:
        """Remember the slices of a weight, or of some of its rows, that hold infinities or NaN."""
        odd = ~np.isfinite(value) if _may_be_infinite(value) else np.zeros(0, bool)
        if odd.any():
            dims = self.partition.graph.facts(name)[0]
            masks = self.weights.infinite.setdefault(name, [np.zeros(n, bool) for n in dims])
            for axis, mask in enumerate(masks):
                mask[rows if axis == 0 else WHOLE] |= odd.any(axis=tuple(i for i in range(odd.ndim) if i != axis))

    def _read(self, name: str, axis: int, kept: list[Mask]) -> Mask:
        found = np.zeros(len(kept[axis]), bool)
        for rows in self.partition.graph.pieces(name):
            masks = [kept[0][rows], *kept[1:]]
            found[rows if axis == 0 else WHOLE] |= _holds(self.weights(name, rows), axis, masks, self._zero(name))
        return found

    def _zero(self, name: str) -> float:
        """What stands for zero: another integer, where a quantised weight has a zero point."""
        return self.partition.flow.zeros.get(name, 0.0)

    def is_frozen(self, units: Units) -> bool:
        """Whether none of these units can go."""
        return all((own < 0).all() for own in self.partition.owners(units))

    def _kept(self, name: str, axis: int, length: int) -> Mask:
        parts = self.partition.flow.weights[name].axes[axis]
        whole = len(parts) == 1 and parts[0].size == length
        return ~self.partition.chosen(parts[0].units, ~self.kept[:-1]) if whole else np.ones(length, bool)


def _places(shape: list[int], axis: int) -> tuple[Units, ...]:
    """Places all over each slice along an axis."""
    slice_ = [1 if i == axis else n for i, n in enumerate(shape)]
    return np.unravel_index(np.linspace(0, math.prod(slice_) - 1, _PLACES).astype(np.int64), slice_)


def _may_be_infinite(value: Array) -> bool:
    """Whether all bits together have the exponent of an infinity, which is quicker to see than the numbers."""
    if value.dtype.name not in _IEEE:
        return "float" in value.dtype.name
    kind = f"u{value.itemsize}"
    exponent = np.array(np.inf, value.dtype).view(kind)
    return bool(np.bitwise_or.reduce(value.view(kind), axis=None) & exponent == exponent)


def _holds(value: Array, axis: int, kept: list[Mask], zero: float) -> Mask:
    """bool[n]: whether each slice along an axis holds anything but what stands for zero.

    Floats are joined by their bits, which is many times faster than comparing them.
    """
    for i, mask in enumerate(kept):
        value = value if mask.all() else np.compress(mask, value, axis=i)
    before, after = math.prod(value.shape[:axis]), math.prod(value.shape[axis + 1 :])
    table = value.reshape(before, value.shape[axis], after)
    if table.dtype.name not in _IEEE:
        return np.asarray((table != zero).any(axis=(0, 2)))
    bits = table.view(f"u{table.itemsize}")
    bits = np.bitwise_or.reduce(bits, axis=0) if len(bits) != 1 else bits[0]
    return np.asarray(np.bitwise_or.reduce(bits, axis=1) << 1 != 0)  # without the sign: -0 is zero too


_PLACES = 32
_LARGE = 1 << 16  # numbers in a weight
_IEEE = ("float16", "bfloat16", "float32", "float64")
