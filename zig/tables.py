"""Tables that lose rows and columns alike: an index of a product of two axes goes with its row, and with its column.

Each of its components is then no group of its own: its **factors** are the components that it goes with, one column for
each factor. Everything else has one factor, itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zig.units import Fork, Mask, Units

if TYPE_CHECKING:
    from zig.flow import Flow

NONE = -1


def cells(tables: Sequence[Fork], component: Units) -> tuple[Units, Units, Units]:
    """The component of every index of some tables, one after the other, and those of its row and its column."""
    found = [np.broadcast_arrays(fork.flat, fork.rows[:, None], fork.columns[None, :]) for fork in tables]
    flat, rows, columns = (np.concatenate([side.reshape(-1) for side in sides]) for sides in zip(*found, strict=True))
    return component[flat], component[rows], component[columns]


def clashes(index: Units, rows: Units, columns: Units) -> Mask:
    """Which indices are tied to one that has another row or column, or to their own: such a table can't lose both."""
    low, high, count = np.minimum(rows, columns), np.maximum(rows, columns), int(index.max(initial=0)) + 1
    some = np.full((2, count), NONE)
    some[:, index] = low, high
    clash = np.zeros(count, bool)
    clash[index[(some[0, index] != low) | (some[1, index] != high) | (index == rows) | (index == columns)]] = True
    return np.asarray(clash[index])


def factors(index: Units, rows: Units, columns: Units, count: int) -> Units:
    """The factors of each of `count` components, int64[count, F], -1 where one has fewer; [count, 0] for a circle."""
    pair = np.stack([np.arange(count + 1), np.full(count + 1, NONE)], axis=1)
    pair[index], pair[NONE] = np.stack([rows, columns], axis=1), NONE
    found, depth = pair[:-1], 1
    while (pair[found, 1] != NONE).any():
        if depth > count:
            return found[:, :0]
        found, depth = _each_once(pair[found].reshape(count, -1)), depth + 1
    return _each_once(found)


def _each_once(found: Units) -> Units:
    """The same without repetitions and without columns that say nothing."""
    found = found.copy()
    for k in range(1, found.shape[1]):
        found[(found[:, :k] == found[:, k : k + 1]).any(axis=1), k] = NONE
    return found[:, (found != NONE).any(axis=0)]


def spread(why: Units, factors: Units) -> Units:
    """The reason that fixes each component (0: none): what fixes an index fixes all that it would go with.

    An index is fixed itself once all of these are.
    """
    none = np.iinfo(np.int64).max
    first = np.append(np.where(why > 0, why, none), none)
    for factor in factors.T:
        np.minimum.at(first, factor[why > 0], why[why > 0])
    first[NONE] = none
    reasons = np.where(factors == NONE, none, first[factors]).min(axis=1)
    stays = ((factors == NONE) | (first[factors] < none)).all(axis=1)
    return np.where(stays, reasons, 0)


def ragged(flow: Flow, component: Units, tables: Units) -> Mask:
    """Whether some axis holds indices of a fork of these that are no rows times columns of its table, bool[tables].

    Of such an axis (the triangle of a matrix, its diagonal) nothing might be left where both go.
    """
    table = np.full(int(component.max()) + 1, NONE)
    place, found = table.copy(), np.zeros(len(tables), bool)
    for number, fork in enumerate(flow.forks[i] for i in tables):
        table[component[fork.flat]] = number
        place[component[fork.flat]] = np.arange(fork.flat.size).reshape(fork.flat.shape)
    for part in flow.parts.values():
        here = component[part.units]
        for number in set(table[here].tolist()) - {NONE}:
            places = np.unique(place[here[table[here] == number]])
            rows, columns = np.divmod(places, len(flow.forks[tables[number]].columns))
            found[number] |= len(places) != len(np.unique(rows)) * len(np.unique(columns))
    return found
