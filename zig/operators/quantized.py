"""Quantised operators: integers that stand for numbers, by a scale and a zero point.

A scale for each channel is what prunes: where it is zero, so is the number. Rest values of integers are counted from
their zero point, as far as that is one known number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.operators.move import joined
from zig.operators.operator import ABSENT, Operator, letters, summed, times
from zig.units import Part, Tensor

if TYPE_CHECKING:
    from zig.flow import Flow
    from zig.units import Call


def _integers(numbers: Any, zero: Any = None) -> Any:
    """What a number becomes: the zero point, if it is zero; others depend on how they are rounded."""
    return np.where(np.asarray(numbers) == 0, 0.0 if zero is None else zero, np.nan)


def _plus(total: Any, bias: Any) -> Any:
    return total if bias is None else total + bias


def _per(call: Call, index: int, axes: str) -> str:
    """The axes of a scale or zero point: none, or those given."""
    given = call.inputs[index] if call.has(index) else None
    return axes if given is not None and given.axes else ""


def _linear(call: Call) -> str:
    """One scale, one for each index, or one for each block of an axis: `*a c *b, c, c -> *a c *b`."""
    axes = letters(len(call.tensor(0).axes))
    axis = call.attribute("axis", 1) % max(len(axes), 1)
    x, over = " ".join(axes), axes[axis]
    if call.attribute("block_size", 0):
        x, over = " ".join([*axes[:axis], f"({axes[axis]} k!)", *axes[axis + 1 :]]), x
    divides = not call.node.op.endswith("DequantizeLinear")
    carried = "~" * (divides or call.node.inputs[0] in call.flow.zeros)  # what is zero anyway needs no scale of zero
    scale, zero = (_per(call, i, over) for i in (1, 2))
    return f"{x}, {carried * bool(scale)}{scale}, {zero} -> {x.replace('!', '')}"


def _conv(call: Call) -> str:
    """As Conv: `n (g c) *s!, , , (g o) c *k!, (g o), (g o), , , (g o) -> n (g o) *t`."""
    x, y = ("n *s! (g c)", "n *t (g o)") if call.attribute("channels_last", 0) else ("n (g c) *s!", "n (g o) *t")
    scales = ", ".join(_per(call, i, "(g o)") for i in (4, 5))
    return f"{x}, , , (g o) c *k!, {scales}, , , (g o) -> {y}"


def _conv_integer(call: Call) -> str:
    """As Conv: `n (g c) *s!, (g o) c *k!, , (g o) -> n (g o) *t`."""
    return f"n (g c) *s!, (g o) c *k!, , {_per(call, 3, '(g o)')} -> n (g o) *t"


def _product(order: str) -> Any:
    """The rule of a matrix product; `order` says what each operand is: x, w, or along m, along n, a single number."""

    def rule(call: Call) -> str:
        axes = {"x": "*b m k", "w": "*b k n", "m": "m", "n": "n", "-": ""}
        operands = (axes[o] if o in "xw" else _per(call, i, axes[o]) for i, o in enumerate(order))
        return f"{', '.join(operands)} -> *b m n"

    rule.__doc__ = "As MatMul, with scales and zero points: `*b m k, *b k n, m, n -> *b m n`."
    return rule


def _gemm(call: Call) -> str:
    """As Gemm: `m k, , , k n, n, n, n, , -> m n`."""
    a, b = "k m" if call.attribute("transA", 0) else "m k", "n k" if call.attribute("transB", 0) else "k n"
    bias = ["", "n", "m n"][len(call.tensor(6).axes)] if call.has(6) else ""
    return f"{a}, , , {b}, {_per(call, 4, 'n')}, {_per(call, 5, 'n')}, {bias}, , -> m n"


def _of(function: Any, *places: int) -> Any:
    """A row's `rest` from the operands at these places (None where they are absent), counted from their zero points."""
    return lambda _, *given: function(*(given[i] if i < len(given) else None for i in places))


def _weighed(x: Any, w: Any, scale: Any, bias: Any, zero: Any) -> Any:
    return _integers(times(_plus(summed(x, w), bias), scale), zero)


def _numbers(a: Any, b: Any, a_scale: Any, b_scale: Any, bias: Any = None) -> Any:
    return _plus(summed(times(a, a_scale), times(b, b_scale)), bias)


def _requantized(a: Any, b: Any, a_scale: Any, b_scale: Any, zero: Any) -> Any:
    return _integers(_numbers(a, b, a_scale, b_scale), zero)


def _dynamic(a: Any, b: Any, scale: Any, bias: Any) -> Any:
    return _numbers(a, b, 1.0, scale, bias)


def _blocked(scale: Any, bias: Any) -> Any:
    return _plus(times(np.nan, scale), bias)


def _both(a: Any, b: Any, zero: Any) -> Any:
    return _integers(np.abs(a) + np.abs(b), zero)


def _either(a: Any, b: Any, zero: Any) -> Any:
    return _integers(times(a, b), zero)


def _pool(call: Call) -> str:
    """A window over space: `n c *s!, , , , -> n c *t`."""
    x = "n *s! c" if call.attribute("channels_last", 0) else "n c *s!"
    return f"{x}, , , , -> {x.replace('!', '').replace('s', 't')}"


def _softmax(call: Call) -> str:
    """Over one axis, or before opset 13 all from it on: `*a v!, , , , -> *a v`."""
    axes = letters(len(call.tensor(0).axes))
    axis = call.attribute("axis", -1) % len(axes)
    last = axis + 1 if call.attribute("opset", 13) >= 13 else len(axes)
    x = " ".join(a + "!" * (axis <= i < last) for i, a in enumerate(axes))
    return f"{x}, , , , -> {' '.join(axes)}"


def _block_columns(call: Call) -> str:
    """Columns one by one, rows packed in blocks: `*b k!, n q! z!, n q!, ~n p!, k!, n -> *b n`."""
    if call.attribute("weight_prepacked", 0):
        raise RuleError("its weights are packed for one device")
    flat = [call.has(i) and len(call.tensor(i).axes) == 1 for i in (2, 3)]
    scales, points = (f"(n {x})" if one else f"n {x}" for one, x in zip(flat, ("q!", "p!"), strict=True))
    return f"*b k!, n r! z!, {scales}, ~{points}, k!, n -> *b n"


def _quantize_dynamically(call: Call) -> list[Tensor | None]:
    """By the largest and smallest entry and zero, which zeros don't move: `*b -> *b, , `.

    The zero point is known only when the model runs, so integers count from it here, as do all nodes that read them.
    """
    x, (y, _, zero) = call.tensor(0), [*call.node.outputs, "", ""][:3]
    if not _count_from(call.flow, y, zero):
        call.flow.fix(x, call.flow.reason(f"{call.node} has a zero point that only the run tells", call.node.name))
    call.flow.must_rest(x, call.flow.reason(f"sets the range by which {call.node} quantises", call.node.name))
    axes = tuple(tuple(_restated(part, 0.0, 0.0) for part in axis) for axis in x.axes)
    return [Tensor(axes), Tensor(()), Tensor((), number=0.0)]


def _count_from(flow: Flow, integers: str, zero: str) -> bool:
    """Whether every node that reads the integers takes this for what stands for zero."""
    if integers in flow.graph.outputs:
        return False
    for node in flow.graph.readers.get(integers, ()):
        row = flow.operators.get(node.op)
        places = row.zero_points if row else {}
        read = [i for i, name in enumerate(node.inputs) if name == integers]
        known = [i in places and places[i] < len(node.inputs) and node.inputs[places[i]] == zero for i in read]
        if not known or not all(known) or not zero:
            return False
    return True


def _restated(part: Part, own: float, zero: float) -> Part:
    return part._replace(rest=np.where(part.rest == own, zero, np.nan)) if part.live else part


def _concat(call: Call) -> list[Tensor | None]:
    """As Concat; what stands for zero still does."""
    zero, tensors = call.tensor(1).number, []
    for i in range(2, len(call.inputs), 3):
        x, own = call.tensor(i), call.tensor(i + 2).number
        axes = (tuple(_restated(part, own, zero) for part in axis) for axis in x.axes)
        tensors.append(Tensor(tuple(axes), x.const, x.weight))
    return joined(call, tensors, call.attribute("axis"))


_PACKED = "packs this axis into blocks"
_BOTH, _ONE = "*b, , , *b, , , , -> *b", "*b, , , , -> *b"
_BLOCKS: dict[str, Any] = {"why": _PACKED, "sizes": {"block_size": "k"}}
_CONV: dict[str, Any] = {
    "why": "convolves over this axis", "sizes": {"group": "g"}, "macs": "n g c o k t", "contracts": True,
}  # fmt: skip
_MATMUL: dict[str, Any] = {"macs": "b m k n", "contracts": True}
_SCALED: dict[str, Any] = {"zero_points": {0: 2, 3: 5}}
_BIASED = {0: 2, 3: 5, 8: ABSENT}  # a bias is counted from 0
_QUANTIZE = Operator(_linear, rest=_of(_integers, 0, 2), **_BLOCKS)
_DEQUANTIZE = Operator(_linear, rest=_of(times, 0, 1), zero_points={0: 2}, **_BLOCKS)
_QCONV = Operator(_conv, rest=_of(_weighed, 0, 3, 4, 8, 7), zero_points=_BIASED, **_CONV)
_QPOOL = Operator(_pool, rest=_of(_integers, 0, 4), why="slides a window over this axis", zero_points={0: 2})
OPERATORS: dict[str, Operator] = {
    "QuantizeLinear": _QUANTIZE, "com.microsoft.QuantizeLinear": _QUANTIZE,
    "DequantizeLinear": _DEQUANTIZE, "com.microsoft.DequantizeLinear": _DEQUANTIZE,
    "DynamicQuantizeLinear": Operator(move=_quantize_dynamically),
    "QLinearConv": _QCONV, "com.microsoft.QLinearConv": _QCONV,
    "ConvInteger": Operator(_conv_integer, rest=_of(summed, 0, 1), zero_points={0: 2, 1: 3}, **_CONV),
    "MatMulInteger": Operator(_product("xwmn"), rest=_of(summed, 0, 1), zero_points={0: 2, 1: 3}, **_MATMUL),
    "QLinearMatMul": Operator(_product("xmmwnn--"), rest=_of(_requantized, 0, 3, 1, 4, 7), **_SCALED, **_MATMUL),
    "com.microsoft.QGemm": Operator(
        _gemm, rest=_of(_weighed, 0, 3, 4, 6, 8), zero_points={0: 2, 3: 5, 6: ABSENT}, macs="m k n", contracts=True
    ),
    "com.microsoft.MatMulIntegerToFloat": Operator(
        _product("xwmnmnn"), rest=_of(_numbers, 0, 1, 2, 3, 6), zero_points={0: 4, 1: 5}, **_MATMUL
    ),
    "com.microsoft.DynamicQuantizeMatMul": Operator(
        _product("xwnnn"), rest=_of(_dynamic, 0, 1, 2, 4), zero_points={1: 3}, ranges=True, **_MATMUL
    ),
    "com.microsoft.MatMulNBits": Operator(
        _block_columns, rest=_of(_blocked, 2, 5), why=_PACKED, sizes={"N": "n"}, macs="b k n", contracts=True
    ),
    "com.microsoft.QLinearAdd": Operator(_BOTH, rest=_of(_both, 0, 3, 7), **_SCALED),
    "com.microsoft.QLinearMul": Operator(_BOTH, rest=_of(_either, 0, 3, 7), **_SCALED),
    "com.microsoft.QLinearWhere": Operator(
        "*b, *b, , , *b, , , , -> *b", rest=_of(_both, 1, 4, 8), zero_points={1: 3, 4: 6}
    ),
    "com.microsoft.QLinearConcat": Operator(move=_concat),
    "com.microsoft.QLinearLeakyRelu": Operator(_ONE, rest=_of(_integers, 0, 4), zero_points={0: 2}),
    "com.microsoft.QLinearSigmoid": Operator(_ONE),
    "com.microsoft.QLinearSoftmax": Operator(_softmax, why="normalises over this axis"),
    "com.microsoft.QLinearAveragePool": _QPOOL, "com.microsoft.QLinearGlobalAveragePool": _QPOOL,
}  # fmt: skip
