"""Normalisations: exact along axes they treat one by one, bound along axes they take statistics over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.operators.operator import Operator, letters, times, zero_only

if TYPE_CHECKING:
    from zig.units import Call

_WHY = "normalises over this axis"


def _batch_rest(call: Call, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    spread = np.sqrt(np.asarray(variance) + call.attribute("epsilon", 1e-5))
    return times(np.subtract(x, mean), times(scale, 1 / spread)) + bias


def _centred_rest(_: Call, x: Any, scale: Any = None, bias: Any = None) -> Any:
    """A constant slice minus its own mean is zero; what is left is the bias."""
    flat = np.multiply(x, 0.0)
    return times(flat, np.nan if scale is None else scale) + (0.0 if bias is None else bias)


def _layer(call: Call) -> str:
    rank = len(call.tensor(0).axes)
    axes = letters(rank)
    first = call.attribute("axis", -1) % rank
    over = " ".join(f"{a}!" for a in axes[first:])
    x = " ".join([*axes[:first], over])
    given = [over for i in range(1, len(call.node.inputs)) if call.has(i)]
    return f"{', '.join([x, *given])} -> {' '.join(axes)}"


def _over(*default: int, since13: bool = False) -> Any:
    """A rule for operators that compute over one axis, or before opset 13 over all axes from it on."""

    def rule(call: Call) -> str:
        axes = letters(len(call.tensor(0).axes))
        axis = call.attribute("axis", default[-1] if call.node.version >= 13 else default[0]) % len(axes)
        last = len(axes) if since13 and call.node.version < 13 else axis + 1
        marked = [f"{a}!" if axis <= i < last else a for i, a in enumerate(axes)]
        return f"{' '.join(marked)} -> {' '.join(axes)}"

    return rule


def _length(call: Call) -> str:
    """A zero adds nothing to the length, so entries of the axis `v` can go where they rest at zero."""
    axes = letters(len(call.tensor(0).axes))
    axes[call.attribute("axis", -1)] = "v"
    return f"{' '.join(axes)} -> {' '.join(axes)}"


def _group(call: Call) -> str:
    per_group = call.node.version < 21 and call.tensor(1).sizes[0] == call.attribute("num_groups")
    scale = "g" if per_group else "(g d!)"
    return f"n (g d!) *s!, {scale}, {scale} -> n (g d) *s"


def _mean_variance(call: Call) -> str:
    axes = letters(len(call.tensor(0).axes))
    over = {axis % len(axes) for axis in call.attribute("axes", [0, 2, 3])}
    return f"{' '.join(a + '!' * (i in over) for i, a in enumerate(axes))} -> {' '.join(axes)}"


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": Operator("n c *s, c, c, ~c, ~c -> n c *s", rest=_batch_rest),
    "InstanceNormalization": Operator("n c *s!, c, c -> n c *s", rest=_centred_rest, why=_WHY),
    "GroupNormalization": Operator(_group, rest=_centred_rest, why=_WHY, sizes={"num_groups": "g"}),
    "LayerNormalization": Operator(_layer, rest=_centred_rest, why=_WHY),
    "RMSNormalization": Operator(_layer, rest=zero_only, why=_WHY),
    "LpNormalization": Operator(_length, rest=zero_only, feedback="v"),
    "MeanVarianceNormalization": Operator(_mean_variance, why=_WHY),  # 0/0 where a slice is constant
    "LRN": Operator("n c! *s -> n c *s", rest=zero_only, why="normalises over neighbouring channels"),
    **{
        name: Operator(_over(1, -1, since13=True), why=_WHY) for name in ("Softmax", "LogSoftmax", "Hardmax")
    },
}  # fmt: skip
