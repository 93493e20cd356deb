"""Reductions and pooling windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.operators.operator import Operator, letters, same, zero_only

if TYPE_CHECKING:
    from zig.units import Call


def _reduce(bound: bool) -> Any:
    def rule(call: Call) -> str:
        axes = letters(len(call.tensor(0).axes))
        over = _axes(call, len(axes))
        keep = call.attribute("keepdims", 1)
        left = [a + "!" * (bound and i in over) for i, a in enumerate(axes)]
        right = ["1" if i in over else a for i, a in enumerate(axes) if keep or i not in over]
        return f"{' '.join(left)} -> {' '.join(right)}"

    return rule


def _axes(call: Call, rank: int) -> set[int]:
    given = call.constant(1) if call.has(1) else call.attribute("axes")
    if call.has(1) and given is None:
        raise RuleError("its axes are computed at run time")
    if given is None or not len(given):
        return set() if call.attribute("noop_with_empty_axes", 0) else set(range(rank))
    return {int(a) % rank for a in given}


def _log_of_sum(_: Call, x: Any) -> Any:
    """The logarithm of zero is no number that anything later could make up for."""
    return np.where(np.asarray(x) == 0, np.inf, np.nan)


def _arg(call: Call) -> str:
    axes = letters(len(call.tensor(0).axes))
    over, keep = call.attribute("axis", 0) % len(axes), call.attribute("keepdims", 1)
    left = [a + "!" * (i == over) for i, a in enumerate(axes)]
    right = ["1" if i == over else a for i, a in enumerate(axes) if keep or i != over]
    return f"{' '.join(left)} -> {' '.join(right)}"


def _average_rest(call: Call, x: Any) -> Any:
    """Padding that counts as zeros pulls a constant other than zero down at the borders."""
    counts = call.attribute("count_include_pad", 0) and any(call.attribute("pads") or ())
    return zero_only(call, x) if counts or call.attribute("auto_pad", "NOTSET") != "NOTSET" else x


def resize(call: Call) -> str:
    """Axes that keep their size pass; resized ones are bound."""
    before, after = call.tensor(0).sizes, call.result_sizes()
    left, right = [], []
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        left.append(f"a{i}" if a == b else f"x{i}!")
        right.append(f"a{i}" if a == b else f"t{i}")
    return f"{' '.join(left)} -> {' '.join(right)}"


def _running(call: Call) -> str:
    axes = letters(len(call.tensor(0).axes))
    axis = call.constant(1)
    if axis is None:
        raise RuleError("its axis is computed at run time")
    over = int(axis) % len(axes)
    return f"{' '.join(a + '!' * (i == over) for i, a in enumerate(axes))} -> {' '.join(axes)}"


def _triangle(call: Call) -> str:
    axes = letters(len(call.tensor(0).axes))
    return f"{' '.join([*axes[:-2], axes[-2] + '!', axes[-1] + '!'])} -> {' '.join(axes)}"


_WHY = "reduces over this axis"
_WINDOW = "slides a window over this axis"
OPERATORS: dict[str, Operator] = {
    **{  # a sum tolerates zeros
        f"Reduce{name}": Operator(_reduce(bound=False), rest=zero_only, data=1)
        for name in ("Sum", "L1", "L2", "SumSquare")
    },
    **{  # these give a constant back as it is
        f"Reduce{name}": Operator(_reduce(bound=True), rest=same, why=_WHY, data=1) for name in ("Mean", "Max", "Min")
    },
    "ReduceLogSumExp": Operator(_reduce(bound=True), why=_WHY, data=1),
    "ReduceLogSum": Operator(_reduce(bound=False), rest=_log_of_sum, data=1),
    "ReduceProd": Operator(_reduce(bound=True), rest=zero_only, why=_WHY, data=1),
    "ArgMax": Operator(_arg, why="picks an index along this axis"),
    "ArgMin": Operator(_arg, why="picks an index along this axis"),
    "CumSum": Operator(_running, rest=zero_only, why="accumulates along this axis", data=1),
    "Trilu": Operator(_triangle, rest=zero_only, why="masks a triangle of this axis", data=1),
    "AveragePool": Operator("n c *s! -> n c *t", rest=_average_rest, why=_WINDOW),
    "MaxPool": Operator("n c *s! -> n c *t", rest=same, why=_WINDOW),
    "LpPool": Operator("n c *s! -> n c *t", rest=zero_only, why=_WINDOW),
    "GlobalAveragePool": Operator("n c *s! -> n c *t", rest=same, why=_WINDOW),
    "GlobalMaxPool": Operator("n c *s! -> n c *t", rest=same, why=_WINDOW),
    "GlobalLpPool": Operator("n c *s -> n c *t", rest=zero_only),
}
