"""Recurrent layers: one hidden unit is a row of every gate, a column of the recurrence and an entry of the state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.operators.operator import Operator

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call


def _gates(count: int) -> Any:
    return lambda call: {"q": count, "r": 2 * count, "p": 3}


def _rest(call: Call, x: Any, w: Any, r: Any, bias: Any = None, lengths: Any = None, *states: Any) -> Any:
    """With all gates at zero the state stays where it starts: at 0, or it decays from there."""
    standard = all(name.lower() in ("sigmoid", "tanh", "relu") for name in call.attribute("activations", ()))
    learned = (state for i, state in zip(_STATES, states, strict=False) if not _starts_at_zero(call, i))
    given = [value for value in (w, r, bias, *learned) if value is not None]
    silent = np.all(np.broadcast_arrays(*(np.asarray(value) == 0 for value in given)), axis=0)
    return np.where(silent & standard, 0.0, np.nan)


def _starts_at_zero(call: Call, index: int) -> bool:
    """Whether a state is nothing but zeros, which is where it would start without being given."""
    if not call.has(index):
        return False
    state, value = call.tensor(index), call.constant(index)
    return state.number == 0 or (value is not None and value.dtype != object and not value.any())


def _states(call: Call, state: str, cells: int) -> str:
    """The states that are given. Exporters let all layers start from one tensor of zeros, which must not tie them."""
    given = (f"d{i}! b{i}! h{i}!" if _starts_at_zero(call, i) else f"{state} h" for i in _STATES[: 1 + cells])
    return ", ".join(given)


def _rule(peepholes: str, cells: int) -> Any:
    """Time before batches, or by the attribute `layout` after them."""

    def rule(call: Call) -> str:
        x, y, state = ("b t!", "b t D", "b D") if call.attribute("layout", 0) else ("t! b", "t D b", "D b")
        given = f"{x} i, D! (q! h) i, D (q h) h, D (r! h), b, {_states(call, state, cells)}{peepholes}"
        return f"{given} -> {y} h{f', {state} h' * (1 + cells)}"

    rule.__doc__ = "`t! b i, D! (q! h) i, D (q h) h, D (r! h), b, D b h -> t D b h, D b h`"
    return rule


def _quantized(call: Call) -> str:
    """As LSTM, weights the other way round: `t! b i, D! i (q! h), D h (q h), D (r! h), b, D b h -> t D b h, D b h`."""
    ranks = [len(call.tensor(i).axes) if call.has(i) else 0 for i in range(8, 12)]
    scales = ", ".join("~D (q h)" if rank > 1 else "~D" if rank else "" for rank in ranks)
    given = f"t! b i, D! i (q! h), D h (q h), D (r! h), b, {_states(call, 'D b', 1)}, D (p! h), {scales}"
    return f"{given} -> t D b h, D b h, D b h"


def _quantized_rest(call: Call, *rests: Any) -> Any:
    return _rest(call, *rests[:8])  # scales and zero points have no say


def _repair(cut: Cut) -> None:
    """States of zeros are left out: they have the size that they had."""
    for index in _STATES:
        if _starts_at_zero(cut.call, index):
            cut.node.replace_input_with(index, None)


_STATES = (5, 6)
_HIDDEN: dict[str, Any] = {
    "why": "runs time, gates and directions over this axis", "sizes": {"hidden_size": "h"}, "feedback": "h",
    "macs": "t b D q i h + t b D q h h", "repair": _repair,
}  # fmt: skip
OPERATORS: dict[str, Operator] = {
    **{
        name: Operator(_rule(peepholes, cells), rest=_rest, letters=_gates(gates), **_HIDDEN)
        for name, gates, peepholes, cells in (("LSTM", 4, ", D (p! h)", 1), ("GRU", 3, "", 0), ("RNN", 1, "", 0))
    },
    "com.microsoft.DynamicQuantizeLSTM": Operator(
        _quantized, rest=_quantized_rest, letters=_gates(4), zero_points={1: 9, 2: 11}, ranges=True, **_HIDDEN
    ),
}
