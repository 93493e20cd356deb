"""Operators that multiply by weights and sum: the letter that no result names is contracted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.operators.operator import Operator, summed, times, zero_only

if TYPE_CHECKING:
    from zig.units import Call


def _linear(_: Call, x: Any, w: Any, bias: Any = None) -> Any:
    return summed(x, w) + (0.0 if bias is None else bias)


def _gemm_rest(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    c = 0.0 if c is None else times(call.attribute("beta", 1.0), c)
    return times(call.attribute("alpha", 1.0), summed(a, b)) + c


def _gemm(call: Call) -> str:
    """Either matrix may come transposed: `m k, k n, m n -> m n`."""
    a = "k m" if call.attribute("transA", 0) else "m k"
    b = "n k" if call.attribute("transB", 0) else "k n"
    c = ["", "n", "m n"][len(call.tensor(2).axes)] if call.has(2) else None
    return f"{a}, {b}{'' if c is None else f', {c}'} -> m n"


def _matmul(call: Call) -> str:
    """Vectors lack `m` or `n`: `*b m k, *b k n -> *b m n`."""
    a, b = (len(call.tensor(i).axes) for i in (0, 1))
    left, right = "k" if a == 1 else "*b m k", "k" if b == 1 else "*b k n"
    result = " ".join(["*b"] * (max(a, b) > 1) + ["m"] * (a > 1) + ["n"] * (b > 1))
    return f"{left}, {right} -> {result}"


def _fused_matmul(call: Call) -> str:
    """Either matrix may come transposed: `*b m k, *b k n -> *b m n`."""
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        raise RuleError("it takes its batches from the middle of an operand")
    a = "*b k m" if call.attribute("transA", 0) else "*b m k"
    b = "*b n k" if call.attribute("transB", 0) else "*b k n"
    return f"{a}, {b} -> *b m n"


# What a fused activation gives, of its input and its parameters.
_ACTIVATIONS: dict[str, Any] = {
    "": lambda x: x, "none": lambda x: x, "Relu": lambda x: np.maximum(x, 0), "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)), "LeakyRelu": lambda x, alpha=0.01: np.where(x >= 0, x, alpha * x),
    "Clip": np.clip, "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
}  # fmt: skip


def _activated(call: Call, x: Any) -> Any:
    """A fused activation; one that the table lacks leaves nothing known."""
    name = call.attribute("activation", "")
    given = (call.attribute(f"activation_{letter}") for letter in ("alpha", "beta", "gamma"))
    parameters = call.attribute("activation_params") or [a for a in given if a is not None]
    return _ACTIVATIONS[name](x, *parameters) if name in _ACTIVATIONS else x * np.nan


def _fused_conv(call: Call, x: Any, w: Any, bias: Any = None, other: Any = None) -> Any:
    return _activated(call, _linear(call, x, w, bias) + (0.0 if other is None else other))


def _causal(call: Call, x: Any, w: Any, bias: Any = None, past: Any = None) -> Any:
    """The window slides from the past state into the input: both must rest at zero."""
    seen = x if past is None else np.where(np.asarray(past) == 0, x, np.nan)
    return _activated(call, _linear(call, zero_only(call, seen), w, bias))


def _deformed_rest(call: Call, x: Any, w: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    return _linear(call, x, w if mask is None else times(w, mask), bias)


def _deformed(call: Call) -> str:
    """Channels by groups of offsets: `n (f! d) *s!, o (f! d) *k!, n p! *t!, o, n q! *t! -> n o *t`."""
    if call.attribute("group", 1) == 1:
        return "n (f! d) *s!, o (f! d) *k!, n p! *t!, o, n q! *t! -> n o *t"
    if call.attribute("offset_group", 1) > 1:
        raise RuleError("its groups of channels and of offsets differ")
    return "n (g c) *s!, (g o) c *k!, n p! *t!, (g o), n q! *t! -> n (g o) *t"


def einsum_rule(equation: str) -> str:
    """An Einsum equation as a rule: `bij,bjk->bik` is `b i j, b j k -> b i k`.

    Raises:
        RuleError: an operand names a letter twice (a diagonal).
    """
    left, arrow, right = equation.replace(" ", "").replace("...", "*").partition("->")
    if not arrow:
        counts = {x: left.count(x) for x in left if x.isalpha()}
        right = "*" * ("*" in left) + "".join(sorted(x for x, n in counts.items() if n == 1))
    operands = [*left.split(","), right]
    if any(len(set(operand)) < len(operand) for operand in operands):
        raise RuleError(f"its equation '{equation}' takes a diagonal")
    spelled = [" ".join("*rest" if x == "*" else x for x in operand) for operand in operands]
    return f"{', '.join(spelled[:-1])} -> {spelled[-1]}"


def _unpadded(call: Call) -> bool:
    """A constant channel folds into the bias only where no border sees padding instead."""
    free = not any(call.attribute("pads") or ()) and call.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return free and _weight_is_stored(call)


def _weight_is_stored(call: Call) -> bool:
    """Whether weight and bias are there to be computed with."""
    stored = call.flow.graph.initializers.keys() - call.flow.graph.overridable
    if call.node.inputs[1] not in stored or len(call.tensor(0).axes) < 2:
        return False
    return len(call.tensor(1).axes) > 1 and (not call.has(2) or call.node.inputs[2] in stored)


def _einsum(call: Call) -> str:
    """Its equation."""
    return einsum_rule(call.attribute("equation"))


def _product(_: Call, x: Any, *others: Any) -> Any:
    for other in others:
        x = times(x, other)
    return summed(x, 1.0)


def _columns(call: Call) -> str:
    """Blocks of each channel: `n (c k!) l! -> n c *t`."""
    return "n (c k!) l! -> n c *t" if len(call.tensor(0).axes) == 3 else "(c k!) l! -> c *t"


def _block(call: Call) -> dict[str, int]:
    block = call.constant(2)
    if block is None:
        raise RuleError("its blocks are computed at run time")
    return {"k": int(np.prod(block))}


_WINDOW = "convolves over this axis"
_CONV, _NHWC = "n (g c) *s!, (g o) c *k!, (g o)", "n *s! (g c), (g o) c *k!, (g o)"
_COSTS: dict[str, Any] = {"why": _WINDOW, "sizes": {"group": "g"}, "macs": "n g c o k t", "contracts": True}
OPERATORS: dict[str, Operator] = {
    "Conv": Operator(f"{_CONV} -> n (g o) *t", rest=_linear, fold=_unpadded, **_COSTS),
    "com.microsoft.FusedConv": Operator(f"{_CONV}, n (g o) *t -> n (g o) *t", rest=_fused_conv, **_COSTS),
    "com.microsoft.NhwcConv": Operator(f"{_NHWC} -> n *t (g o)", rest=_linear, **_COSTS),
    "com.microsoft.NhwcFusedConv": Operator(f"{_NHWC}, n *t (g o) -> n *t (g o)", rest=_fused_conv, **_COSTS),
    "ConvTranspose": Operator(
        "n (g c) *s!, (g c) o *k!, (g o) -> n (g o) *t",
        rest=_linear, why=_WINDOW, sizes={"group": "g"}, macs="n g c o k s", contracts=True,
    ),
    "CausalConvWithState": Operator(
        "n c l!, c 1 k!, c, n c p! -> n c l, ~n c p", rest=_causal, why=_WINDOW, macs="n c l k", contracts=True,
    ),
    "DeformConv": Operator(
        _deformed, rest=_deformed_rest, why=_WINDOW, sizes={"group": "g", "offset_group": "f"}, macs="n f d g c o k t",
        contracts=True,
    ),
    "Col2Im": Operator(_columns, rest=zero_only, why="puts blocks together along this axis", letters=_block, data=1),
    "Gemm": Operator(_gemm, rest=_gemm_rest, macs="m k n", fold=_weight_is_stored, contracts=True),
    "com.microsoft.FusedGemm": Operator(
        _gemm, rest=lambda call, *xs: _activated(call, _gemm_rest(call, *xs)), macs="m k n", contracts=True
    ),
    "MatMul": Operator(_matmul, rest=_linear, plain=True, macs="b m k n", fold=_weight_is_stored, contracts=True),
    **{
        f"com.microsoft.{name}": Operator(_fused_matmul, rest=_product, macs="b m k n", contracts=True)
        for name in ("FusedMatMul", "TransposeMatMul")
    },
    "Einsum": Operator(_einsum, rest=_product, macs="*", contracts=True),
}  # fmt: skip
