"""Recurrent layers: one hidden unit is a row of every gate, a column of the recurrence and an entry of the state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.operators.operator import Operator

if TYPE_CHECKING:
    from zig.units import Call


def _gates(count: int) -> Any:
    return lambda call: {"q": count, "r": 2 * count, "p": 3}


def _rest(call: Call, x: Any, w: Any, r: Any, bias: Any = None, lengths: Any = None, *states: Any) -> Any:
    """With all gates at zero the state stays where it starts: at 0, or it decays from there."""
    standard = all(name.lower() in ("sigmoid", "tanh", "relu") for name in call.attribute("activations", ()))
    given = [value for value in (w, r, bias, *states) if value is not None]
    silent = np.all(np.broadcast_arrays(*(np.asarray(value) == 0 for value in given)), axis=0)
    return np.where(silent & standard, 0.0, np.nan)


def _rule(peepholes: str, cell: str) -> Any:
    """Time before batches, or by the attribute `layout` after them."""

    def rule(call: Call) -> str:
        x, y, state = ("b t!", "b t D", "b D") if call.attribute("layout", 0) else ("t! b", "t D b", "D b")
        given = f"{x} i, D! (q! h) i, D (q h) h, D (r! h), b, {state} h{cell.format(state=state)}{peepholes}"
        return f"{given} -> {y} h, {state} h{cell.format(state=state)}"

    rule.__doc__ = "`t! b i, D! (q! h) i, D (q h) h, D (r! h), b, D b h -> t D b h, D b h`"
    return rule


OPERATORS: dict[str, Operator] = {
    name: Operator(
        _rule(peepholes, cell), rest=_rest, why="runs time, gates and directions over this axis",
        sizes={"hidden_size": "h"}, letters=_gates(gates), macs="t b D q i h + t b D q h h", feedback="h",
    )
    for name, gates, peepholes, cell in (
        ("LSTM", 4, ", D (p! h)", ", {state} h"), ("GRU", 3, "", ""), ("RNN", 1, "", ""),
    )
}  # fmt: skip
