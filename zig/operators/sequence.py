"""Sequences of tensors: known members at known places pass; anything else fixes them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zig.errors import RuleError
from zig.flow.row import Operator
from zig.flow.units import Tensor, size
from zig.operators.move import dead, joined, pieces, repair_split

if TYPE_CHECKING:
    from zig.flow.call import Call


@dataclass
class Sequence(Tensor):
    """Tensors in a row; its axes are those of all of them, so that what fixes it fixes them all."""

    items: list[Tensor] = field(default_factory=list)


def _sequence(items: list[Tensor]) -> list[Tensor | None]:
    return [Sequence(tuple(axis for item in items for axis in item.axes), items=items)]


def _items(call: Call) -> list[Tensor]:
    given = call.tensor(0)
    if not isinstance(given, Sequence):
        raise RuleError("the members of its sequence are not known")
    return list(given.items)


def _place(call: Call, index: int, default: int) -> int:
    if not call.has(index):
        return default
    place = call.constant(index)
    if place is None:
        raise RuleError("its position is computed at run time")
    return int(place)


def _construct(call: Call) -> list[Tensor | None]:
    """Keeps its operands."""
    return _sequence([call.tensor(i) for i in range(len(call.inputs))])


def _at(call: Call) -> list[Tensor | None]:
    """Gives the member at a known place."""
    return [_items(call)[_place(call, 1, 0)]]


def _insert(call: Call) -> list[Tensor | None]:
    """Puts a tensor at a known place."""
    items = _items(call)
    place = _place(call, 2, len(items))
    return _sequence([*items[:place], call.tensor(1), *items[place:]])


def _erase(call: Call) -> list[Tensor | None]:
    """Leaves out the member at a known place."""
    items = _items(call)
    del items[_place(call, 1, -1)]
    return _sequence(items)


def _concat(call: Call) -> list[Tensor | None]:
    """As Concat, of the members; along a new axis, if it says so."""
    items, axis = _items(call), call.attribute("axis")
    if call.attribute("new_axis", 0):
        place = axis % (len(items[0].axes) + 1)
        items = [Tensor((*x.axes[:place], (), *x.axes[place:]), x.const, x.weight) for x in items]
    return joined(call, items, axis)


def _split(call: Call) -> list[Tensor | None]:
    """As Split, into members."""
    x = call.tensor(0)
    axis = call.attribute("axis", 0) % len(x.axes)
    given, length = call.constant(1) if call.has(1) else np.int64(1), size(x.axes[axis])
    if given is None or not isinstance(length, int):
        raise RuleError("the sizes of its pieces are computed at run time")
    sizes = np.asarray(given if given.ndim else np.diff(np.r_[0 : length : int(given), length]))
    if not call.has(1) and not call.attribute("keepdims", 1):
        raise RuleError("it drops the axis that it splits")
    return _sequence(pieces(call, x, axis, [int(n) for n in sizes]))


OPERATORS: dict[str, Operator] = {
    "SequenceEmpty": Operator(move=_construct),
    "SequenceConstruct": Operator(move=_construct),
    "SequenceAt": Operator(move=_at, data=1),
    "SequenceInsert": Operator(move=_insert, data=2),
    "SequenceErase": Operator(move=_erase, data=1),
    "SequenceLength": Operator(move=dead),
    "ConcatFromSequence": Operator(move=_concat),
    "SplitToSequence": Operator(move=_split, data=1, repair=repair_split, repairs=(1,)),
}
