"""What units are made of: axes are products of parts, and these are tied, fixed, split and joined.

Each axis of each tensor is a product of **parts**; a part carries, for each of its indices, the unit it belongs to and
the value it rests at when that unit's group is zero. Splitting a live part into rows and columns is a **fork**: a dense
tensor can lose whole rows or whole columns, which `zig.groups.partition` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.flow.units import (
    Axis,
    Fork,
    Part,
    Reason,
    Rest,
    Resting,
    Tensor,
    Units,
    common,
    dead_part,
    is_live,
    live_parts,
)
from zig.model.dims import Dim, Size, divide, number, product

if TYPE_CHECKING:
    from zig.model.graph import Graph
    from zig.model.node import Node


class Parts:
    """All parts of one run, with the ties, fixes and forks between their units."""

    def __init__(self, graph: Graph, operators: Mapping[str, Any], resting: Resting | None = None):
        """Begin with no units but 0, which means fixed.

        Args:
            graph: the model.
            operators: the dictionary: `zig.flow.row.Operator` by name.
            resting: the actual values, for surgery.
        """
        self.graph, self.operators, self.resting = graph, operators, resting
        self.calls: list[Any] = []  # `zig.flow.call.Call`, in the order of the nodes
        self.members: list[Units] = []
        self.leaks: list[tuple[Units, int]] = []  # fixed only by the value they rest at
        self.zeros: dict[str, float] = {}  # what stands for zero in quantised weights
        self.count = 1  # the next fresh unit
        self.reasons: list[Reason] = [Reason("", "")]
        self.ties: list[tuple[Units, Units, str]] = []  # with the node where they meet
        self.fixes: list[tuple[Units, int]] = []
        self.forks: list[Fork] = []
        self.parts: dict[int, Part] = {}  # every distinct array of units, for node groups
        self._splits: dict[tuple[int, int], tuple[Units, Units]] = {}
        self._joins: dict[tuple[int, int], Units] = {}
        self._reason_ids: dict[Reason, int] = {}
        self._whole: dict[int, tuple[Units, bool]] = {}  # whether every index has a unit; the array is kept alive
        self._shared: dict[tuple[float, int], Rest] = {}
        self._levels: dict[int, float] = {}  # the value of each shared array

    # -- units ---------------------------------------------------------------------------------------------------

    def fresh(self, count: int, rest: Rest | float = 0.0) -> Part:
        """A part of new units."""
        if count < 0:
            raise RuleError(f"an axis can't have {count} entries")
        units = np.arange(self.count, self.count + count)
        self.count += count
        self._whole[id(units)] = units, True
        if isinstance(rest, np.ndarray):
            return self.part(units, np.full(count, rest))
        self.parts[id(units)] = part = Part(count, units, self.level(rest, count))
        return part

    def part(self, units: Units, rest: Rest) -> Part:
        """A part that carries these units, registered so that its array stays alive and is counted once."""
        part = Part(len(units), units, self._leveled(rest))
        self.parts[id(units)] = part
        return part

    def level(self, value: float, count: int) -> Rest:
        """The same rest for each of `count` slices: one array for all that are alike."""
        key = (value if value == value else np.nan, count)  # noqa: PLR0124 - nan is found again by identity
        if key not in self._shared:
            rest = np.full(count, value, np.float64)
            rest.flags.writeable = False
            self._shared[key] = rest
            self._levels[id(rest)] = key[0]
        return self._shared[key]

    def _leveled(self, rest: Rest) -> Rest:
        """The shared array for a rest that is the same everywhere."""
        if id(rest) in self._levels or not rest.size:
            return rest
        first = rest.item(0)
        alike = (np.isnan(rest) if first != first else rest == first).all()  # noqa: PLR0124
        return self.level(first, rest.size) if alike else rest

    def _level(self, rest: Rest | float | None) -> Any:
        """The value of a level rest or of a number (always the same nan), `...` for a rest that is not level."""
        if isinstance(rest, np.ndarray):
            return self._levels.get(id(rest), ...)
        return rest if rest == rest else np.nan  # noqa: PLR0124

    def dead(self, shape: Iterable[Size], why: int = 0) -> Tensor:
        """A tensor in which nothing can go."""
        return Tensor(tuple(() if n == 1 else (Part(n, why=why),) for n in shape))

    def reason(self, text: str, node: str) -> int:
        """The number of a reason, kept once."""
        reason = Reason(text, node)
        if reason not in self._reason_ids:
            self._reason_ids[reason] = len(self.reasons)
            self.reasons.append(reason)
        return self._reason_ids[reason]

    def fix(self, what: Tensor | Part | Axis | None, why: int) -> None:
        """Nothing along these parts can be removed."""
        for part in live_parts(what):
            self.fixes.append((part.units, why))

    def tie(self, a: Part, b: Part, node: Node) -> None:
        """Index i of both is removed together, or not at all."""
        if a.units is b.units:
            return
        if not (a.live and b.live):
            live, other = (a, b) if a.live else (b, a)
            self.fix(live, other.why or self.reason(*unmade(node)))
            return
        if self._is_whole(a.units) and self._is_whole(b.units):
            self.ties.append((a.units, b.units, node.name))
            return
        whole = (a.units > 0) & (b.units > 0)
        why = self.reason(f"is joined at {node} with something that can't be removed", node.name)
        self.ties.append((a.units[whole], b.units[whole], node.name))
        self.fixes.append((np.concatenate([a.units[~whole], b.units[~whole]]), why))

    def _is_whole(self, units: Units) -> bool:
        """Whether every index has a unit."""
        if id(units) not in self._whole:
            self._whole[id(units)] = units, bool(units.all())
        return self._whole[id(units)][1]

    def must_rest(self, tensor: Tensor, why: int) -> None:
        """What goes along these axes must be at rest at 0 here: elsewhere it is looked at as well."""
        for part in tensor.live:
            if (moved := ~(part.rest == 0)).any():
                self.leaks.append((part.units[moved], why))

    # -- parts ---------------------------------------------------------------------------------------------------

    def split(self, part: Part, outer: Size, node: Node) -> tuple[Part, Part]:
        """Cut a part into rows and columns; a live one becomes a fork."""
        inner = divide(part.size, outer)
        if not part.live or inner is None or not isinstance(outer, int) or not isinstance(inner, int):
            if inner is None:
                raise RuleError(f"an axis of {part.size} can't be split into {outer}")
            self.fix(part, self.reason(f"is split into a dynamic size at {node}", node.name))
            return Part(outer, why=part.why), Part(inner, why=part.why)
        key = (id(part.units), outer)
        if key not in self._splits:
            self._splits[key] = self.fresh(outer).units, self.fresh(inner).units
            self.forks.append(Fork(part.units.reshape(outer, inner), *self._splits[key], False, node.name))
        rows, columns = self._splits[key]
        if (value := self._level(part.rest)) is not ...:
            return Part(outer, rows, self.level(value, outer)), Part(inner, columns, self.level(value, inner))
        table = part.rest.reshape(outer, inner)
        return Part(outer, rows, common(table, 1)), Part(inner, columns, common(table, 0))

    def flat(self, axis: Axis, node: Node) -> Part:
        """The axis as a single part; two live ones become a fork the other way round.

        Raises:
            RuleError: a live part stands beside one of dynamic size.
        """
        if len(axis) < 2:
            return axis[0] if axis else Part(1)
        live = [part for part in axis if part.live]
        if not live:
            return Part(product(p.size for p in axis), why=axis[0].why)
        if not all(isinstance(part.size, int) for part in axis):
            raise RuleError("it cuts an axis that is merged with one of dynamic size")
        joined = axis[0]
        for part in axis[1:]:
            joined = self._join(joined, part, node)
        return joined

    def _join(self, outer: Part, inner: Part, node: Node) -> Part:
        m, n = number(outer.size), number(inner.size)
        if not (inner.live or outer.live):
            return Part(m * n, why=outer.why or inner.why)
        key = (id(outer.units) if outer.live else -m, id(inner.units) if inner.live else -n)
        if key not in self._joins:
            if outer.live and inner.live:
                units = self.fresh(m * n).units
                self.forks.append(Fork(units.reshape(m, n), outer.units, inner.units, True, node.name))
            else:
                units = np.repeat(outer.units, n) if outer.live else np.tile(inner.units, m)
            self._joins[key] = units
        rests = [p.rest if p.live else self.level(np.nan, k) for p, k in ((outer, m), (inner, n))]
        if (value := self._level(rests[0])) is self._level(rests[1]) and value is not ...:
            return self.part(self._joins[key], self.level(value, m * n))
        if outer.live and inner.live and not self._is_frozen(outer) and not self._is_frozen(inner):
            rows, columns = np.broadcast_arrays(rests[0][:, None], rests[1][None, :])
            other = columns if self.resting else np.nan  # by the actual values, one of the two is enough
            rest = np.where((rows == columns) | (np.isnan(columns) & bool(self.resting)), rows, other).reshape(-1)
        else:
            rest = np.repeat(rests[0], n) if outer.live and not self._is_frozen(outer) else np.tile(rests[1], m)
        return self.part(self._joins[key], rest)

    def _is_frozen(self, part: Part) -> bool:
        """Whether the analysis has fixed all of a part, so that the other side of a product decides what is removed."""
        return self.resting is not None and self.resting.is_frozen(part.units)

    def regroup(self, axes: Sequence[Axis], sizes: Sequence[Size], node: Node) -> tuple[Axis, ...]:
        """The same elements in row-major order under other axis sizes: what Reshape does.

        Parts pass as far as the sizes fit them, from either end; only those that a size cuts across are a wall.
        """
        todo = [part for axis in reversed(axes) for part in reversed(axis)]
        result = []
        for place, size_ in enumerate(sizes):
            axis, left = list[Part](), size_
            while left != 1:
                part = todo.pop() if todo else Part(left)
                quotient = divide(left, part.size)
                if quotient is None and divide(part.size, left) is None:
                    todo = self._walled([*todo, part], (left, *sizes[place + 1 :]), node)
                    continue
                if quotient is None:
                    part, inner = self.split(part, left, node)
                    todo.append(inner)
                    quotient = 1
                axis.append(part)
                left = quotient
            result.append(tuple(axis))
        if is_live(tuple(todo)):
            self.fix(tuple(todo), self.reason(f"can't be followed through {node}: its sizes do not match", node.name))
        return tuple(result)

    def _walled(self, todo: list[Part], sizes: Sequence[Size], node: Node) -> list[Part]:
        """The parts (last first) with a wall in place of those that the first size cuts across.

        It ends where parts and sizes meet again. What goes must be a rectangle before and after: of parts that are
        multiplied out and split anew, that mostly is nothing but the whole.
        """
        count, wide = _meeting([part.size for part in reversed(todo)], sizes)
        todo, run = todo[:-count], todo[-count:]
        why = run[-1].why
        if is_live(tuple(run)):
            text = f"an axis of {run[-1].size} can't be split into {sizes[0]}"
            why = self.reason(f"can't be followed through {node}: {text}", node.name)
            self.fix(tuple(run), why)
        return [*todo, *(Part(size_, why=why) for size_ in reversed(sizes[:wide]) if size_ != 1)]

    def align(self, axes: Sequence[Axis], node: Node) -> list[list[Part]]:
        """Cut axes of one size into columns of parts of one size each, and tie the parts of a column."""
        first = axes[0][0].size if axes[0] else 1
        if not [axis for axis in axes if len(axis) != 1 or axis[0].size != first]:
            return [self._tied([axis[0] for axis in axes], node)]
        if not any(is_live(axis) for axis in axes):
            dead = [dead_part(axis) for axis in axes if axis]
            return [dead] if dead else []  # sizes that the model itself keeps equal
        todo = [list(reversed(axis)) for axis in axes]
        columns = []
        while all(todo):
            sizes = [stack[-1].size for stack in todo]
            least = next((s for s in sorted(sizes, key=_order) if all(divide(f, s) is not None for f in sizes)), None)
            if least is None:
                flat = [self.flat(tuple(reversed(stack)), node) for stack in todo]
                if len({part.size for part in flat}) > 1:
                    raise RuleError("its operands have different sizes")
                columns.append(flat)
                todo = []
                break
            for stack in todo:
                if stack[-1].size != least:
                    stack.extend(reversed(self.split(stack.pop(), least, node)))
            columns.append([stack.pop() for stack in todo])
        if any(todo):
            raise RuleError("its operands have different sizes")
        return [self._tied(column, node) for column in columns]

    def _tied(self, column: list[Part], node: Node) -> list[Part]:
        for other in column[1:]:
            self.tie(column[0], other, node)
        return column


def computed_over(node: Node, why: str) -> Reason:
    """Why nothing along an axis can go over which an operator computes."""
    return Reason(f"{node} {why}", node.name)


def unmade(node: Node) -> Reason:
    """Why what meets a part at a node that no weight makes can't go."""
    return Reason(f"meets an axis at {node} that no weight makes", node.name)


def leaked(node: Node, values: Rest) -> Reason:
    """Why what rests at these values can't go where a node sums over it."""
    constants = values[np.isfinite(values)]
    what = f"rests at {constants.min():g}" if len(constants) else "does not rest at a constant"
    return Reason(f"{what} where {node} sums over it, so it would leak into the result", node.name)


def _meeting(parts: Sequence[Size], sizes: Sequence[Size]) -> tuple[int, int]:
    """How many parts and how many sizes there are up to where they first meet; where none is known, up to the last."""
    ends = {product(sizes[:j]): j for j in range(len(sizes), 0, -1)}
    for i in range(1, len(parts) + 1):
        if (end := product(parts[:i])) in ends:
            return i, ends[end]
    starts = {product(sizes[j:]): j for j in range(len(sizes), 0, -1)}
    return next((i, starts[start]) for i in range(1, len(parts) + 1) if (start := product(parts[i:])) in starts)


def _order(size_: Size) -> tuple[bool, Any]:
    return (True, str(size_)) if isinstance(size_, Dim) else (False, size_)
