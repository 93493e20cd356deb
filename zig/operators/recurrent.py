"""Recurrent layers: one hidden unit is a row of every gate, a column of the recurrence and an entry of the state."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.operators.operator import Operator

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call


def _gates(count: int) -> Any:
    return lambda call: {"q": count, "r": 2 * count, "p": 3}


def _rest(call: Call, x: Any, w: Any, r: Any, bias: Any = None, lengths: Any = None, *states: Any) -> Any:
    """A unit whose rows and start are zero stays at zero where its cell, fed nothing, does."""
    learned = (state for i, state in zip(_STATES, states, strict=False) if not _starts_at_zero(call, i))
    given = [value for value in (w, r, bias, *learned) if value is not None]
    silent = np.all(np.broadcast_arrays(*(np.asarray(value) == 0 for value in given)), axis=0)
    return np.where(silent & _is_still(call), 0.0, np.nan)


def _is_still(call: Call) -> bool:
    """Whether the state of a cell that is fed nothing stays at zero, in every direction."""
    step, usual = _CELLS[call.node.op.rpartition(".")[2]]
    names = [name.lower() for name in call.attribute("activations") or usual * _directions(call)]
    functions = _functions(names, call.attribute("activation_alpha") or [], call.attribute("activation_beta") or [])
    if len(names) != len(usual) * _directions(call):
        return False  # onnxruntime refuses it, or takes some of them: which is not for us to say
    each = [functions[i : i + len(usual)] for i in range(0, len(functions), len(usual))]
    return all(value == 0 for activations in each for value in step(*activations))


def _directions(call: Call) -> int:
    return 2 if call.attribute("direction", "forward") == "bidirectional" else 1


def _functions(names: list[str], alphas: list[float], betas: list[float]) -> list[Any]:
    """Each activation with its own alpha and beta, which the lists deal out to those that take one, in their order.

    A list of another length is not ours to deal out, so whatever takes an entry of it is unknown.
    """
    parameters = [dict(_PARAMETERS.get(name, {})) for name in names]
    for which, values in (("alpha", alphas), ("beta", betas)):
        takers = [own for own in parameters if which in own]
        for i, own in enumerate(takers if values else []):
            own[which] = values[i] if len(values) == len(takers) else np.nan
    return [partial(_ACTIVATIONS.get(name, _unknown), **own) for name, own in zip(names, parameters, strict=True)]


def _unknown(_: float) -> float:
    return float(np.nan)


# What becomes of a state of zero in one step, with nothing but zeros at the gates.
def _step(f: Any) -> tuple[float]:
    return (f(0.0),)


def _gated_step(f: Any, g: Any) -> tuple[float]:
    gate = f(0.0)
    return ((1 - gate) * g(0.0) + gate * 0.0,)


def _cell_step(f: Any, g: Any, h: Any) -> tuple[float, float]:
    gate = f(0.0)
    cell = gate * 0.0 + gate * g(0.0)
    return cell, gate * h(cell)


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
_CELLS: dict[str, tuple[Any, list[str]]] = {
    "RNN": (_step, ["tanh"]), "GRU": (_gated_step, ["sigmoid", "tanh"]),
    **{name: (_cell_step, ["sigmoid", "tanh", "tanh"]) for name in ("LSTM", "DynamicQuantizeLSTM")},
}  # fmt: skip
_ACTIVATIONS: dict[str, Any] = {
    "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softsign": lambda x: x / (1 + np.abs(x)), "softplus": lambda x: np.log1p(np.exp(x)),
    "affine": lambda x, alpha, beta: alpha * x + beta, "leakyrelu": lambda x, alpha: x if x >= 0 else alpha * x,
    "thresholdedrelu": lambda x, alpha: x if x > alpha else alpha * 0,
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "elu": lambda x, alpha: x if x > 0 else alpha * np.expm1(x),
}  # fmt: skip
# Where a parameter is not given, its operator has a default, or it is unknown.
_PARAMETERS: dict[str, dict[str, float]] = {
    "affine": {"alpha": np.nan, "beta": np.nan}, "leakyrelu": {"alpha": 0.01}, "thresholdedrelu": {"alpha": 1.0},
    "scaledtanh": {"alpha": np.nan, "beta": np.nan}, "hardsigmoid": {"alpha": 0.2, "beta": 0.5}, "elu": {"alpha": 1.0},
}  # fmt: skip
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
