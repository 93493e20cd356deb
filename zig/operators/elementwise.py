"""Elementwise operators: units pass by reference, constants pass through the operator's own function."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from zig.operators.operator import ABSENT, Operator, defined, letters, no_divisor, steady, times, zero_only

if TYPE_CHECKING:
    from zig.units import Call

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu(x: Any) -> Any:
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def _gelu_by_tanh(x: Any, bias: Any = None) -> Any:
    x = x if bias is None else x + bias
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_of(call: Call, x: Any) -> Any:
    return _gelu(x) if call.attribute("approximate", "none") == "none" else _gelu_by_tanh(x)


def _swish(call: Call, x: Any, alpha: float = 1.0) -> Any:
    return x * _sigmoid(call.attribute("alpha", alpha) * x)


def _cast(call: Call, x: Any) -> Any:
    kind = call.attribute("to")
    return steady(lambda value: _as_type(kind, value), x) if _jumps(kind) else _as_type(kind, x)


def _jumps(dtype: int) -> bool:
    return tensor_dtype_to_np_dtype(dtype).kind in "iub"


def _cast_like(call: Call, x: Any) -> Any:
    like = call.flow.graph.initializers.get(call.node.inputs[1])
    if like is None:
        return zero_only(call, x)
    kind = like.data_type
    return steady(lambda value: _as_type(kind, value), x) if _jumps(kind) else _as_type(kind, x)


def _as_type(dtype: int, x: Any) -> Any:
    """The number as the type has it; what the type can't hold is undefined, since each runtime makes its own of it."""
    kind = tensor_dtype_to_np_dtype(dtype)
    if kind.kind == "b":
        return np.where(np.isnan(x), np.nan, np.asarray(x) != 0)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        outside = (np.trunc(x) < limits.min) | (np.trunc(x) > limits.max)
        return np.where(outside, np.inf, np.trunc(x))
    return np.asarray(x).astype(kind).astype(np.float64)


def _softplus(x: Any) -> Any:
    return np.log1p(np.exp(x))


def _hard_sigmoid(call: Call, x: Any) -> Any:
    return np.clip(call.attribute("alpha", 0.2) * x + call.attribute("beta", 0.5), 0, 1)


def _elu(call: Call, x: Any, alpha: float = 1.0, gamma: float = 1.0) -> Any:
    alpha, gamma = call.attribute("alpha", alpha), call.attribute("gamma", gamma)
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(call: Call, x: Any) -> Any:
    alpha = call.attribute("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.divide(x, alpha)))


def _clip(call: Call, x: Any, *_: Any) -> Any:
    low, high = (call.constant(i) if call.has(i) else call.attribute(n) for i, n in ((1, "min"), (2, "max")))
    if any(call.has(i) and call.constant(i) is None for i in (1, 2)):
        return np.nan
    return np.clip(x, -np.inf if low is None else float(low), np.inf if high is None else float(high))


def _dropout(call: Call, x: Any) -> Any:
    """While training, entries are dropped and the others grow, so only zero is sure to stay."""
    switch = call.constant(2) if call.has(2) else np.bool_(call.node.version < 7 and not call.attribute("is_test", 0))
    return x if switch is not None and not switch.any() else zero_only(call, x)


def _shrink(call: Call, x: Any) -> Any:
    bias, lambd = call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
    return steady(lambda x: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, x * 0)), x)


def _thresholded(call: Call, x: Any) -> Any:
    alpha = call.attribute("alpha", 1.0)
    return steady(lambda x: np.where(x > alpha, x, x * 0), x)


# The value that a function gives to a constant slice. Functions of the value alone first, of them those with jumps
# last, then those with attributes.
_PLAIN: dict[str, Callable[[Any], Any]] = {
    "Abs": np.abs, "Acos": np.arccos, "Acosh": np.arccosh, "Asin": np.arcsin, "Asinh": np.arcsinh, "Atan": np.arctan,
    "Atanh": np.arctanh, "Cos": np.cos,
    "Cosh": np.cosh, "Erf": _erf, "Exp": np.exp,
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "Identity": lambda x: x, "IsInf": lambda x: x * 0,
    "IsNaN": lambda x: x * 0, "Log": np.log, "Mish": lambda x: x * np.tanh(_softplus(x)), "Neg": np.negative,
    "Not": lambda x: np.where(np.isnan(x), np.nan, np.asarray(x) == 0), "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0), "Sigmoid": _sigmoid,
    "Sin": np.sin, "Sinh": np.sinh, "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)), "Sqrt": np.sqrt, "Tan": np.tan, "Tanh": np.tanh,
    "com.microsoft.Gelu": _gelu,
}  # fmt: skip
_STEPS: dict[str, Callable[[Any], Any]] = {"Ceil": np.ceil, "Floor": np.floor, "Round": np.round, "Sign": np.sign}
_WITH_ATTRIBUTES: dict[str, Callable[..., Any]] = {
    "Celu": _celu,
    "Elu": _elu,
    "Gelu": _gelu_of,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda call, x: np.where(x >= 0, x, call.attribute("alpha", 0.01) * x),
    "Selu": lambda call, x: _elu(call, x, 1.67326319217681884765625, 1.05070102214813232421875),
    "Swish": _swish,
    "com.microsoft.QuickGelu": lambda call, x: _swish(call, x, 1.702),
}


def _both(_: Call, a: Any, b: Any) -> Any:
    return np.where(np.isnan(a) | np.isnan(b), np.where((a == 0) | (b == 0), 0.0, np.nan), times(a, b) != 0)


def _either_zero(_: Call, a: Any, b: Any) -> Any:
    return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, np.nan)


def _neither(_: Call, a: Any, b: Any) -> Any:
    return np.where((np.asarray(a) == 0) & (np.asarray(b) == 0), 0.0, np.nan)


def _remainder(call: Call, a: Any, b: Any) -> Any:
    """By zero there is none; zero by something unknown, which is taken to be no zero, is zero."""
    turns = steady(np.floor, np.divide(a, b))  # where it jumps
    rest = np.where(np.isnan(turns), np.nan, np.fmod(a, b) if call.attribute("fmod", 0) else np.mod(a, b))
    return np.where(np.asarray(b) == 0, np.inf, np.where(np.asarray(a) == 0, 0.0, rest))


def _quotient(_: Call, a: Any, b: Any) -> Any:
    """By zero there is none; zero by something unknown, which is taken to be no zero, is zero.

    A fraction of whole numbers is unknown: integers are divided otherwise, and what these are rests don't tell.
    """
    ratio = np.divide(a, b)
    fraction = (np.trunc(a) == a) & (np.trunc(b) == b) & (np.trunc(ratio) != ratio)
    known = np.where(fraction, np.nan, ratio)
    return np.where(np.asarray(b) == 0, np.inf, np.where(np.asarray(a) == 0, 0.0, known))


def _power(_: Call, a: Any, b: Any) -> Any:
    """To an unknown power, zero may be infinite; numpy has nan**0 = 1**nan = 1, which is no knowledge of ours."""
    unknown = np.isnan(a) | np.isnan(b)
    value = np.power(np.where(unknown, 1.0, a), np.where(unknown, 1.0, b))
    return np.where(unknown, np.where(np.asarray(a) == 0, np.inf, np.nan), defined(value, a, b))


def _choice(_: Call, condition: Any, a: Any, b: Any) -> Any:
    chosen = np.where(np.asarray(condition) != 0, a, b)
    return np.where(np.asarray(a) == np.asarray(b), a, np.where(np.isnan(condition), np.nan, chosen))


def _compare(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda call, a, b: np.where(np.isnan(a) | np.isnan(b), np.nan, steady(function, a, b))


def _parametric_relu(_: Call, x: Any, slope: Any) -> Any:
    return np.where(np.asarray(x) >= 0, x, np.where(np.isnan(x), np.nan, times(x, slope)))


# Two operands under broadcasting. A `~` operand is cut along but never zeroed: it divides, or shapes without adding.
_BINARY: dict[str, tuple[str, Callable[..., Any]]] = {
    "Add": ("*b, *b -> *b", lambda call, a, b: np.add(a, b)),
    "Sub": ("*b, *b -> *b", lambda call, a, b: np.subtract(a, b)),
    "Mul": ("*b, *b -> *b", lambda call, a, b: times(a, b)),
    "Div": ("*b, ~*b -> *b", _quotient),
    "Mod": ("*b, ~*b -> *b", _remainder),
    "Pow": ("*b, ~*b -> *b", _power),
    "And": ("*b, *b -> *b", _both),
    "Or": ("*b, *b -> *b", _neither),
    "Xor": ("*b, *b -> *b", _neither),
    "BitShift": ("*b, ~*b -> *b", zero_only),
    "BitwiseAnd": ("*b, *b -> *b", _either_zero),
    "BitwiseOr": ("*b, *b -> *b", _neither),
    "BitwiseXor": ("*b, *b -> *b", _neither),
    "Equal": ("*b, *b -> *b", _compare(np.equal)),
    "Greater": ("*b, *b -> *b", _compare(np.greater)),
    "GreaterOrEqual": ("*b, *b -> *b", _compare(np.greater_equal)),
    "Less": ("*b, *b -> *b", _compare(np.less)),
    "LessOrEqual": ("*b, *b -> *b", _compare(np.less_equal)),
    "SwiGLU": ("*b, *b -> *b", lambda call, a, b: times(_swish(call, a), b)),
    "com.microsoft.BiasGelu": ("*b, *b -> *b", lambda call, x, bias: _gelu(x + bias)),
    "com.microsoft.FastGelu": ("*b, *b -> *b", lambda call, *xs: _gelu_by_tanh(*xs)),
}
_BY_ATTRIBUTE = ("Mod", "SwiGLU")
_BY_AXIS = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")  # before opset 7
_MANY: dict[str, Callable[..., Any]] = {
    "Max": lambda call, *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Min": lambda call, *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "Sum": lambda call, *xs: np.sum(np.broadcast_arrays(*xs), axis=0),
    "Mean": lambda call, *xs: np.mean(np.broadcast_arrays(*xs), axis=0),
}


def aligned(rule: str, axis: int | None = None) -> Callable[[Call], str]:
    """The rule of two operands; before opset 7 the second one may lie along axes of the first from `axis` on."""

    def at(call: Call) -> str:
        if call.node.version > 6 or (first := call.attribute("axis", axis)) is None:
            return rule
        x = letters(len(call.tensor(0).axes))
        other = x[first % len(x) :][: len(call.tensor(1).axes)]
        return f"{' '.join(x)}, {'~' * ('~' in rule)}{' '.join(other)} -> {' '.join(x)}"

    at.__doc__ = f"`{rule}`"
    return at


def _step(function: Callable[[Any], Any], _: Call, x: Any) -> Any:
    return steady(function, x)


def _defined(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function as a row's `rest`; where it is undefined (a root of -1) it gives infinity, which nothing absorbs."""
    return lambda _, x: defined(function(x), x)


def _defined_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that looks at attributes."""
    return lambda call, x: defined(function(call, x), x)


def _many(call: Call) -> str:
    """As many operands as there are: `*b, ..., *b -> *b`."""
    return f"{', '.join(['*b'] * len(call.node.inputs))} -> *b"


OPERATORS: dict[str, Operator] = {
    **{name: Operator("*b -> *b", rest=_defined(f), plain=True) for name, f in _PLAIN.items()},
    **{name: Operator("*b -> *b", rest=_defined_by(f)) for name, f in _WITH_ATTRIBUTES.items()},
    **{name: Operator("*b -> *b", rest=partial(_step, f), plain=True) for name, f in _STEPS.items()},
    "Cast": Operator("*b -> *b", rest=_cast, zero_points={0: ABSENT}),
    "Shrink": Operator("*b -> *b", rest=_shrink),
    "ThresholdedRelu": Operator("*b -> *b", rest=_thresholded),
    **{
        name: Operator(
            aligned(rule) if name in _BY_AXIS else rule,
            rest=f,
            plain=name not in _BY_ATTRIBUTE,
            undefined={1: no_divisor} if name in ("Div", "Mod") else {},
        )
        for name, (rule, f) in _BINARY.items()
    },
    "PRelu": Operator(aligned("*b, ~*b -> *b", axis=1), rest=_parametric_relu),
    **{name: Operator(_many, rest=f, plain=True) for name, f in _MANY.items()},
    **{name: Operator("*b -> *b") for name in ("BitwiseNot", "BitCast")},  # no constant stays known
    "Clip": Operator("*b -> *b", rest=_clip, data=1),
    "Dropout": Operator("*b -> *b, ~*b", rest=_dropout, data=1),
    "CastLike": Operator("*b -> *b", rest=_cast_like, data=1),
    "Where": Operator("*b, *b, *b -> *b", rest=_choice, plain=True),
}
