"""Operators that multiply by weights and sum: the letter that no result names is contracted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zig.errors import RuleError
from zig.operators.operator import Operator, times

if TYPE_CHECKING:
    from zig.units import Call


def _linear(_: Call, x: Any, w: Any, bias: Any = None) -> Any:
    return times(x, w) + (0.0 if bias is None else bias)


def _gemm_rest(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    c = 0.0 if c is None else times(call.attribute("beta", 1.0), c)
    return times(call.attribute("alpha", 1.0), times(a, b)) + c


def _gemm(call: Call) -> str:
    a = "k m" if call.attribute("transA", 0) else "m k"
    b = "n k" if call.attribute("transB", 0) else "k n"
    c = ["", "n", "m n"][len(call.tensor(2).axes)] if call.has(2) else None
    return f"{a}, {b}{'' if c is None else f', {c}'} -> m n"


def _matmul(call: Call) -> str:
    a, b = (len(call.tensor(i).axes) for i in (0, 1))
    left, right = "k" if a == 1 else "*b m k", "k" if b == 1 else "*b k n"
    result = " ".join(["*b"] * (max(a, b) > 1) + ["m"] * (a > 1) + ["n"] * (b > 1))
    return f"{left}, {right} -> {result}"


def einsum_rule(equation: str) -> str:
    """An Einsum equation as a rule string: `bij,bjk->bik` is `b i j, b j k -> b i k`.

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
    stored = call.flow.graph.initializers
    if call.node.inputs[1] not in stored or len(call.tensor(0).axes) < 2:
        return False
    return len(call.tensor(1).axes) > 1 and (not call.has(2) or call.node.inputs[2] in stored)


_WINDOW = "convolves over this axis"
OPERATORS: dict[str, Operator] = {
    "Conv": Operator(
        "n (g c) *s!, (g o) c *k!, (g o) -> n (g o) *t",
        rest=_linear, why=_WINDOW, sizes={"group": "g"}, macs="n g c o k t", fold=_unpadded, contracts=True,
    ),
    "ConvTranspose": Operator(
        "n (g c) *s!, (g c) o *k!, (g o) -> n (g o) *t",
        rest=_linear, why=_WINDOW, sizes={"group": "g"}, macs="n g c o k s", contracts=True,
    ),
    "Gemm": Operator(_gemm, rest=_gemm_rest, macs="m k n", fold=_weight_is_stored, contracts=True),
    "MatMul": Operator(_matmul, rest=_linear, macs="b m k n", fold=_weight_is_stored, contracts=True),
    "Einsum": Operator(
        lambda call: einsum_rule(call.attribute("equation")),
        rest=lambda call, x, *ws: _product(x, *ws), macs="*", contracts=True,
    ),
}  # fmt: skip


def _product(x: Any, *others: Any) -> Any:
    for other in others:
        x = times(x, other)
    return x
