"""Normalisations: exact along axes they treat one by one, bound along axes they take statistics over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.operators.operator import Operator, defined, letters, times, zero_only

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call

_WHY = "normalises over this axis"


def _batch(call: Call) -> str:
    """Channels one by one, or before opset 9 entries one by one: `n c *s, c, c, ~c, ~c -> n c *s, ~c, ~c, ~c, ~c`."""
    over = "c" if call.node.version > 8 or call.attribute("spatial", 1) else "c *s"
    x = "n! c *s!" if _trains(call) else "n c *s"
    return f"{x}, {over}, {over}, ~{over}, ~{over} -> n c *s{', ~c' * 4}"


def _trains(call: Call) -> bool:
    """Whether the statistics are those of the batch: by an attribute, formerly by how many results there are."""
    old = call.node.version < 14 and len(call.node.outputs) > 1
    return bool(call.attribute("training_mode", old and not call.attribute("is_test", 0)))


def _undefined(_: Call, x: Any) -> Any:
    """A constant slice has no deviation: zero is divided by zero."""
    return np.where(np.isfinite(x), np.inf, np.nan)


def _batch_rest(call: Call, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if _trains(call):
        return _centred_rest(call, x, scale, bias)
    spread = 1 / np.sqrt(np.asarray(variance) + call.attribute("epsilon", 1e-5))
    return times(np.subtract(x, mean), times(scale, defined(spread, variance))) + bias


def _no_mean(_: Call, mean: Any) -> Any:
    return ~np.isfinite(mean)


def _no_variance(call: Call, variance: Any) -> Any:
    return np.isnan(variance) | (variance + call.attribute("epsilon", 1e-5) <= 0)


def _centred_rest(call: Call, x: Any, scale: Any = None, bias: Any = None) -> Any:
    """A constant slice minus its own mean is zero; what is left is the bias."""
    flat = times(np.multiply(x, 0.0), _per_spread(call))
    return times(flat, np.nan if scale is None else scale) + (0.0 if bias is None else bias)


def _per_spread(call: Call, epsilon: float = 1e-5) -> float:
    """What a slice without any deviation is multiplied by: infinite where nothing is added to its variance of zero."""
    epsilon = np.float64(call.attribute("epsilon", epsilon))
    return float(1 / np.sqrt(epsilon)) if epsilon > 0 else np.inf


def _layer_rest(_: Call, x: Any, scale: Any = None, bias: Any = None) -> Any:
    """As `_centred_rest`, where `_divided` has seen to the epsilon."""
    return times(np.multiply(x, 0.0), np.nan if scale is None else scale) + (0.0 if bias is None else bias)


def _local_rest(call: Call, x: Any) -> Any:
    """Zero by the power of what the neighbours, zeros as well, leave of the divisor."""
    bias, power = np.float64(call.attribute("bias", 1.0)), call.attribute("beta", 0.75)
    return times(zero_only(call, x), defined(bias**-power, bias))


def _divided(rule: Any) -> Any:
    """The rule of a norm along an axis, which ends where zeros would be divided by zero: nothing is added to them."""

    def checked(call: Call) -> str:
        if not call.attribute("epsilon", 1.0) > 0:
            raise RuleError("its epsilon is not above zero, so zeros would be divided by zero")
        return str(rule(call))

    checked.__doc__ = rule.__doc__
    return checked


def _first(call: Call) -> int:
    """The first of the axes that are normalised over."""
    return int(call.attribute("axis", -1)) % len(call.tensor(0).axes)


def _layer(call: Call) -> str:
    """All axes from one on, with the statistics as further results: `*b d!, d!, d! -> *b d, ~*b 1, ~*b 1`."""
    rank, first = len(call.tensor(0).axes), _first(call)
    axes = letters(rank)
    over = " ".join(f"{a}!" for a in axes[first:])
    x = " ".join([*axes[:first], over])
    statistics = f", ~{' '.join([*axes[:first], *['1'] * (rank - first)])}"
    return f"{x}, {over}, {over} -> {' '.join(axes)}{statistics * 2}"


def _skip_rest(call: Call, x: Any, skip: Any, _: Any = None, bias: Any = None) -> Any:
    """The sum, which comes out as well, is zero where all that is added is."""
    return zero_only(call, np.add(x, skip) + (0.0 if bias is None else bias))


def _root_mean_square(call: Call) -> str:
    """A zero adds nothing to the squares: `*b *d, *d, *d -> *b *d`; further results need all: `d!`."""
    if any(call.node.outputs[1:]):
        return _layer(call)
    over = " ".join([*letters(_first(call)), "*d"])
    return f"{over}, *d, *d -> {over}"


def _skip_root_mean_square(call: Call) -> str:
    """Of a sum, which may come out too: `*b d, *b d, d, d -> *b d, ~*b 1, ~*b 1, *b d`."""
    rule = "*b d, *b d, d, d -> *b d, ~*b 1, ~*b 1, *b d"
    return rule.replace("d", "d!") if any(call.node.outputs[1:3]) else rule


def _repair_root_mean_square(cut: Cut, gain: int = 1, epsilon: float = 1e-5) -> None:
    """The mean is now over a share s of the entries, so it is 1/s of what it was, for the same sum.

    x / sqrt(m + e) g = x / sqrt(s m' + e) g = x / sqrt(m' + e / s) (g / sqrt(s)) with m = s m'.
    """
    share = cut.share(cut.call.tensor(0).axes[_first(cut.call) :])
    if share < 1:
        cut.set_attribute("epsilon", cut.call.attribute("epsilon", epsilon) / share)
        value = cut.weight(gain)
        if value is None:  # the gain is computed
            cut.append("Mul", np.array(1 / np.sqrt(share), cut.dtype))
        else:
            cut.set_operand(gain, (value / np.sqrt(share)).astype(value.dtype))


def _written_rest(_: Call, x: Any, scale: Any, bias: Any = None) -> Any:
    """What is zero differs from the mean, so only a gain of zero silences it."""
    return np.where(np.asarray(x) == 0, times(np.nan, scale) + (0.0 if bias is None else bias), np.nan)


def _write_out(cut: Cut) -> None:
    """A LayerNormalization over what is left, with the divisor that it had."""
    if cut.share(cut.call.tensor(0).axes[_first(cut.call) :]) < 1:
        x, gain, *bias = map(cut.surgeon.value, cut.call.node.inputs)
        cut.replace(_written_out(cut, x, gain, bias[0] if bias else None))


def _written_out(cut: Cut, x: Any, gain: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    """The result of small nodes that normalise a share s of the entries, the others being zero.

    The mean is m = s mean(x), and the variance s mean((x - m)^2) + (1 - s) m^2: each entry that is gone was m away.
    """
    result = cut.call.outputs[0]
    assert result is not None
    axes, first = result.axes, int(cut.call.attribute("axis", -1)) % len(result.axes)
    share, over, op = cut.share(axes[first:]), list(range(first, len(axes))), cut.insert

    def mean(value: Any) -> Any:
        """The sum over what is left, by the length that there was."""
        if cut.surgeon.graph.opsets.get("", 1) < _AXES_BY_OPERAND:
            return op("Mul", op("ReduceMean", value, axes=over, keepdims=1), cut.constant(share))
        return op("Mul", op("ReduceMean", value, cut.integers(over), keepdims=1), cut.constant(share))

    centre = mean(x)
    apart = op("Sub", x, centre)
    gone = op("Mul", op("Mul", centre, centre), cut.constant(1 - share))
    variance = op("Add", mean(op("Mul", apart, apart)), gone)
    spread = op("Sqrt", op("Add", variance, cut.constant(cut.call.attribute("epsilon", epsilon))))
    scaled = op("Mul", op("Div", apart, spread), gain)
    return op("Add", scaled, bias) if bias is not None else scaled


def _skip(call: Call) -> str:
    """Of a sum, which comes out too; the statistics need all: `*b d, *b d, d, d, d -> *b d, ~*b 1, ~*b 1, *b d`."""
    return _SKIP if any(call.node.outputs[1:3]) else _SKIP.replace("!", "")


def _skip_written_rest(call: Call, x: Any, skip: Any, gain: Any, bias: Any = None, more: Any = None) -> Any:
    """Both results are zero where all that is added is, and the gain silences it."""
    return _sum_written_rest(call, np.add(x, skip) + (0.0 if more is None else more), gain, bias)


def _sum_written_rest(call: Call, total: Any, gain: Any, bias: Any) -> Any:
    both = (np.asarray(total) == 0) & (np.asarray(_written_rest(call, total, gain, bias)) == 0)
    return np.where(both, 0.0, np.nan)


def _write_out_skip(cut: Cut) -> None:
    """A sum, then a LayerNormalization of it that is written out."""
    if cut.share(cut.call.tensor(0).axes[-1:]) < 1:
        x, skip, gain, *others = map(cut.surgeon.value, cut.call.node.inputs)
        bias, more = [*others, None, None][:2]
        total = cut.insert("Add", x, skip)
        total = total if more is None else cut.insert("Add", total, more)
        cut.replace(_written_out(cut, total, gain, bias, epsilon=_SMALL))
        cut.replace(total, 3)


def _embed_written_rest(call: Call, *rests: Any) -> Any:
    """Both results are zero where all tables are, and the gain silences it."""
    words, places, kinds, gain, bias = rests[2:7]
    return _sum_written_rest(call, np.add(words, places) + (0.0 if kinds is None else kinds), gain, bias)


def _write_out_embedding(cut: Cut) -> None:
    """The node goes on adding the embeddings up; what it sums to is normalised by nodes that are written out."""
    result = cut.call.outputs[0]
    assert result is not None
    if cut.share(result.axes[-1:]) < 1:
        gain, bias = (cut.surgeon.value(cut.call.node.inputs[i]) for i in (5, 6))
        cut.replace(_written_out(cut, cut.output(2), gain, bias, epsilon=_SMALL))


def _over(*default: int, since13: bool = False) -> Any:
    """A rule for operators that compute over one axis, or before opset 13 over all axes from it on."""

    def rule(call: Call) -> str:
        """One axis, or before opset 13 all from it on: `*a v! -> *a v`."""
        axes = letters(len(call.tensor(0).axes))
        axis = call.attribute("axis", default[-1] if call.node.version >= 13 else default[0]) % len(axes)
        last = len(axes) if since13 and call.node.version < 13 else axis + 1
        marked = [f"{a}!" if axis <= i < last else a for i, a in enumerate(axes)]
        return f"{' '.join(marked)} -> {' '.join(axes)}"

    return rule


def _length(call: Call) -> str:
    """A zero adds nothing to the length, so entries can go where they rest at zero: `*a v -> *a v`."""
    if not call.attribute("p", 2) > 0:
        raise RuleError("its power is not above zero, so zeros would count")
    axes = letters(len(call.tensor(0).axes))
    axes[call.attribute("axis", -1)] = "v"
    return f"{' '.join(axes)} -> {' '.join(axes)}"


def _group(call: Call) -> str:
    """Groups of channels: `n (g d!) *s!, (g d!), (g d!) -> n (g d) *s`."""
    per_group = call.node.version < 21 and call.tensor(1).sizes[0] == call.attribute("num_groups")
    scale = "g" if per_group else "(g d!)"
    return f"n (g d!) *s!, {scale}, {scale} -> n (g d) *s"


def _mean_variance(call: Call) -> str:
    """The axes that it names: `*a v! -> *a v`."""
    axes = letters(len(call.tensor(0).axes))
    over = {axis % len(axes) for axis in call.attribute("axes", [0, 2, 3])}
    return f"{' '.join(a + '!' * (i in over) for i, a in enumerate(axes))} -> {' '.join(axes)}"


_AXES_BY_OPERAND = 18  # the opset in which the axes of a ReduceMean became an operand
_SMALL = 1e-12  # onnxruntime's epsilon, where a node says none
_STATISTICS = "normalises over this axis, and something reads its statistics"
_LOOKS_UP = "looks entries up along this axis"
_SKIP = "*b d!, *b d!, d!, d!, d! -> *b d, ~*b 1, ~*b 1, *b d"
_EMBED = "b s, b s, v! d!, p! d!, t! d!, d!, d!, b s, b s -> b s d, ~b, b s d"
OPERATORS: dict[str, Operator] = {
    "BatchNormalization": Operator(
        _batch, rest=_batch_rest, why="takes statistics over this axis while it trains",
        undefined={3: _no_mean, 4: _no_variance},
    ),
    "InstanceNormalization": Operator("n c *s!, c, c -> n c *s", rest=_centred_rest, why=_WHY),
    "GroupNormalization": Operator(_group, rest=_centred_rest, why=_WHY, sizes={"num_groups": "g"}),
    "LayerNormalization": Operator(
        _divided(_layer),
        rest=_layer_rest,
        plain=True,
        why=_WHY,
        rewrite=Operator(
            _divided(_root_mean_square), rest=_written_rest, plain=True, why=_STATISTICS, feedback="d",
            repair=_write_out,
        ),
    ),
    "RMSNormalization": Operator(
        _divided(_root_mean_square), rest=zero_only, feedback="d", repair=_repair_root_mean_square
    ),
    "SimplifiedLayerNormalization": Operator(  # onnxruntime's, in the standard domain
        _divided(_root_mean_square), rest=zero_only, why=_WHY, feedback="d", repair=_repair_root_mean_square
    ),
    "com.microsoft.SkipLayerNormalization": Operator(
        _SKIP,
        why=_WHY,
        rewrite=Operator(
            _divided(_skip), rest=_skip_written_rest, plain=True, why=_STATISTICS, feedback="d", repair=_write_out_skip
        ),
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": Operator(
        _divided(_skip_root_mean_square),
        rest=_skip_rest,
        why=_WHY,
        feedback="d",
        repair=partial(_repair_root_mean_square, gain=2, epsilon=1e-12),
    ),
    "com.microsoft.EmbedLayerNormalization": Operator(
        _EMBED,
        why=_WHY,
        rewrite=Operator(
            _EMBED.replace("d!", "d"),
            rest=_embed_written_rest,
            why=_LOOKS_UP,
            feedback="d",
            repair=_write_out_embedding,
        ),
    ),
    "LpNormalization": Operator(_length, rest=zero_only, feedback="v"),
    "MeanVarianceNormalization": Operator(_mean_variance, rest=_undefined, why=_WHY),
    "LRN": Operator("n c! *s -> n c *s", rest=_local_rest, why="normalises over neighbouring channels"),
    **{name: Operator(_over(1, -1, since13=True), why=_WHY) for name in ("Softmax", "LogSoftmax", "Hardmax")},
}  # fmt: skip
