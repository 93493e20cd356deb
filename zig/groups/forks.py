"""Ties become components, and forks are decided: where one axis is split into two, which of them pruning goes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from zig.flow.flow import Flow
from zig.flow.units import NOTHING, Fork, Mask, Units
from zig.groups.tables import cells, clashes, factors, ragged, spread

NOBODY = -1  # what no other fork sees
FORKS = ("heads", "head_dims", "finest")


class Labels(NamedTuple):
    """The component of each unit, and for each component the reason that fixes it (0: none).

    `bare` leaves out reasons that lie in values alone: surgery looks at the actual values instead. `factors` are the
    components that each goes with, int64[C, F], -1 where there are fewer: itself, or those of its row and its column.
    """

    component: Units
    why: Units
    bare: Units
    factors: Units | None = None  # None: each goes with itself alone


def tied(flow: Flow) -> Units:
    """The components of all ties, before any fork is decided."""
    return _joined(np.arange(flow.count), [(a, b) for a, b, _ in flow.ties])


def settle(flow: Flow, forks: str, component: Units | None = None) -> Labels:
    """Decide every fork, then find the components of all ties; `component` are those without the forks, if known.

    A side that is fixed is no choice. Where both sides are free and have weights of their own, both can go, each for
    itself. Else attention goes by head; else the side that another fork has taken is taken here too; else a
    block-diagonal weight (a grouped convolution) goes by the position inside its blocks, which shrinks both of its
    axes, and everything else by the side with more groups.
    """
    component = tied(flow) if component is None else component
    why, bare = (_first(flow.count, fixes) for fixes in ([*flow.fixes, *flow.leaks], flow.fixes))
    # A fork may meet what no unit stands for, such as the channels of an input beside those of a weight.
    why[0] = bare[0] = flow.reason("is split together with something that can't be removed", "")
    found = None
    if flow.forks:
        ties, fixes, tables = [], [], []
        for index, by_rows in _Choice(flow, forks, component, why > 0).decisions():
            fork = flow.forks[index]
            if by_rows is None:
                tables.append(fork)
                continue
            ties.append(_tie(fork, by_rows))
            text = f"is split at {fork.node} into a table that goes by the other side" if fork.node else "is split"
            other, reason = fork.columns if by_rows else fork.rows, flow.reason(text, fork.node)
            fixes.append((other, reason))
        component, found = _factored(_joined(component, ties), tables)
        split = _first(flow.count, fixes)
        why, bare = (np.where(array == 0, split, array) for array in (why, bare))
    count = int(component.max()) + 1
    why, bare = (_first_reason(component, array, count) for array in (why, bare))
    if found is not None:
        why, bare = spread(why, found), spread(bare, found)
    return Labels(component, why, bare, found)


def _factored(component: Units, tables: Sequence[Fork]) -> tuple[Units, Units | None]:
    """The components, and the factors of each where some tables lose rows and columns alike.

    Where later ties have made an index of one table an index of another, or its own row, all of them go together.
    """
    while tables:
        index, rows, columns = cells(tables, component)
        clash, found = clashes(index, rows, columns), factors(index, rows, columns, int(component.max()) + 1)
        if not clash.any() and found.size:
            return component, found
        where = clash if clash.any() else np.ones(len(clash), bool)
        a, b = np.tile(index[where], 2), np.concatenate([rows[where], columns[where]])
        component = components(int(component.max()) + 1, a, b)[1][component]
        tables = [fork for fork in tables if sides(fork, component) == (True, True)]
    return component, None


def sides(fork: Fork, component: Units) -> tuple[bool, bool]:
    """Whether a decided fork goes by its rows, and by its columns; by both, where these can go each for itself."""
    flat = component[fork.flat]
    if (flat == component[fork.rows][:, None]).all():
        return True, False
    by_columns = bool((flat == component[fork.columns][None, :]).all())
    return not by_columns, True


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

        weights = [part.units for tensor in flow.weights.values() if tensor.weight for part in tensor.live]
        kinds = (flow.heads, flow.blocks, weights)
        marks = [some(fixed), *(some(np.concatenate([NOTHING, *units])) for units in kinds)]
        sides = some(np.concatenate([units for fork in flow.forks for units in (fork.rows, fork.columns)]))
        flats = np.concatenate([fork.flat.reshape(-1) for fork in flow.forks])
        cells = np.bincount(component[flats], minlength=len(sizes))
        seen = sides | (cells > 1) | ((cells > 0) & np.logical_or.reduce(marks[:3]))
        atom = np.where(seen, np.cumsum(seen) - 1, NOBODY)[component]
        self.forks = [
            fork._replace(flat=atom[fork.flat], rows=atom[fork.rows], columns=atom[fork.columns]) for fork in flow.forks
        ]
        load = np.where(seen, 0, sizes)[component]
        self.loads = [load[fork.flat] for fork in flow.forks]
        self.sees_cells = [bool((fork.flat != NOBODY).any()) for fork in self.forks]
        self.weight = sizes[seen]
        self.fixed, self.head, self.block, self.owned = (mark[seen] for mark in marks)
        self.table = np.zeros(len(self.forks), bool)
        self.flow, self.unit_component = flow, component
        self.taken = np.zeros_like(self.fixed)
        self.component = np.arange(len(self.fixed))
        self.sides = [_Side([getattr(fork, side) for fork in self.forks]) for side in ("rows", "columns")]
        self.marks: dict[str, tuple[Mask, Mask]] = {}

    def decisions(self) -> Iterator[tuple[int, bool | None]]:
        """Each fork in the order in which they are decided, and whether it goes by its rows (None: by both sides)."""
        open_ = np.ones(len(self.forks), bool)
        while open_.any():
            self._look()
            forced = np.flatnonzero(open_ & ~self.is_choice)
            if not len(forced) and (tables := self._tables(open_)):
                yield from ((index, None) for index in tables)
                self._lose_both(tables)
                open_[tables] = False
                continue
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
        marked = {"taken": self.taken, "head": self.head, "block": self.block, "owned": self.owned}
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

    def _tables(self, open_: Mask) -> list[int]:
        """Open forks both sides of which can go, each for itself: products of two axes that weights have by themselves.

        Heads and blocks are none of these: they are parts of one axis.
        """
        own = np.logical_and(*self.marks["owned"]) & ~np.logical_or.reduce([*self.marks["head"], *self.marks["block"]])
        wanted = open_ & self.is_choice & own
        tables = np.flatnonzero(wanted)
        if len(tables):
            wanted[tables[ragged(self.flow, self.unit_component, tables)]] = False
        return self._consistent(wanted, open_ & ~wanted)

    def _consistent(self, wanted: Mask, others: Mask) -> list[int]:
        """Those of the wanted tables whose cells are tied to nothing that other forks may tie to something else."""
        while wanted.any():
            touched = np.zeros(len(self.component) + 1, bool)
            for i in np.flatnonzero(others):
                touched[self._cells(int(i))] = True
            tables = list(map(int, np.flatnonzero(wanted | self.table)))
            found = np.stack(cells([self.forks[i] for i in tables], np.append(self.component, NOBODY)))
            index, rows, columns = found[:, found[0] != NOBODY]
            touched[index[clashes(index, rows, columns)]] = True
            touched[NOBODY] = False
            unfit = [i for i in tables if wanted[i] and touched[self._cells(i)].any()]
            if not unfit:
                break
            wanted[unfit], others[unfit] = False, True
        return list(map(int, np.flatnonzero(wanted)))

    def _cells(self, index: int) -> Units:
        """The component of each cell of a fork's table, NOBODY for those that nothing else sees."""
        return np.asarray(np.append(self.component, NOBODY)[self.forks[index].flat])

    def _lose_both(self, tables: Sequence[int]) -> None:
        """Decide forks: what weights own both sides of, they own; what is fixed of it fixes its row and its column."""
        fixed = np.append(self._with(self.fixed), False)
        for fork, cells_ in ((self.forks[i], self._cells(i)) for i in tables):
            self.owned[fork.flat[fork.flat != NOBODY]] = True
            stays = fixed[cells_]
            self.fixed[fork.rows[stays.any(axis=1)]] = self.fixed[fork.columns[stays.any(axis=0)]] = True
        self.table[tables] = True

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
        names = ("free", "taken", "head", "block")
        free, taken, heads, blocks = ([bool(side[index]) for side in self.marks[name]] for name in names)
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
        self.fork = np.repeat(np.arange(len(units)), [len(each) for each in units])
        self.count = len(units)

    def look(self, component: Units) -> Units:
        """The component of each unit."""
        return np.asarray(component[self.units])

    def any(self, mask: Mask) -> Mask:
        """bool[forks]: whether the mask holds for some unit of each; an axis of size 0 has none."""
        return np.bincount(self.fork[mask], minlength=self.count) > 0


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
            by_rows, by_columns = sides(fork, labels.component)
            member[fork.flat] |= by_rows & member[fork.rows][:, None] | by_columns & member[fork.columns][None, :]
    for name, axis in flow.held:
        for part in flow.weights[name].axes[axis] if name in flow.weights else ():
            member[part.units] = False
    return member
