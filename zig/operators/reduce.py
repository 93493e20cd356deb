"""Reductions and pooling windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.flow.row import Operator, letters, repair_sizes, same, zero_only
from zig.operators.sign import is_one_sided

if TYPE_CHECKING:
    from zig.flow.call import Call
    from zig.flow.row import Editor
    from zig.flow.units import Part


def _reduce(bound: bool) -> Any:
    def rule(call: Call) -> str:
        axes = letters(len(call.tensor(0).axes))
        return _over(axes, _axes(call, len(axes)), bound, call.attribute("keepdims", 1))

    rule.__doc__ = "`*a v! -> *a 1`" if bound else "`*a v -> *a 1`"
    return rule


def _over(axes: list[str], over: set[int], bound: bool, keep: bool) -> str:
    left = [a + "!" * (bound and i in over) for i, a in enumerate(axes)]
    right = ["1" if i in over else a for i, a in enumerate(axes) if keep or i not in over]
    return f"{' '.join(left)} -> {' '.join(right)}"


def _axes(call: Call, rank: int) -> set[int]:
    given = call.constant(1) if call.has(1) else call.attribute("axes")
    if call.has(1) and given is None:
        raise RuleError("its axes are computed at run time")
    if given is None or not len(given):
        return set() if call.attribute("noop_with_empty_axes", 0) else set(range(rank))
    return {int(a) % rank for a in given} if rank else set()  # a single number may be reduced "along" its axis 0


def _extreme(sign: int, rewrite: bool) -> Any:
    def rule(call: Call) -> str:
        """`*a v -> *a 1` where zeros can't win, or can be written out; else `*a v! -> *a 1`."""
        rank, graph = len(call.tensor(0).axes), call.flow.graph
        spreads = rewrite and graph.opsets.get("", 1) >= _SPREADS
        free = spreads or is_one_sided(graph, call.node.inputs[0], sign)
        return _over(letters(rank), _axes(call, rank), not free, call.attribute("keepdims", 1))

    return rule


def _repair_extreme(sign: int) -> Callable[[Editor], None]:
    def repair(cut: Editor) -> None:
        """Zeros that are gone still count: they win where all that is left lies beyond."""
        axes = cut.call.tensor(0).axes
        gone = any(cut.touches(axes[i]) for i in _axes(cut.call, len(axes)))
        if gone and not is_one_sided(cut.call.flow.graph, cut.call.node.inputs[0], sign):
            cut.append("Max" if sign > 0 else "Min", np.array(0, cut.dtype))

    return repair


def _extremes() -> dict[str, Operator]:
    """The largest and the smallest along axes: a zero among others is no loss where these lie on one side of it."""
    found = {}
    for name, sign in (("Max", 1), ("Min", -1)):
        given: dict[str, Any] = {"rest": _mean_rest, "data": 1}
        given["why"] = f"{_WHY}, in which something may lie {'below' if sign > 0 else 'above'} zero"
        written = Operator(_extreme(sign, True), repair=_repair_extreme(sign), **given)
        found[f"Reduce{name}"] = Operator(_extreme(sign, False), rewrite=written, **given)
    return found


def _mean(call: Call) -> str:
    """`*a v -> *a 1`; of squared distances from the mean too, where what is gone lay at zero, see `_repair_mean`."""
    x, over = call.tensor(0), _axes(call, len(call.tensor(0).axes))
    if any(part.live for i in over for part in x.axes[i]) and _centre(call):
        axes = (tuple(_at_zero(call, p) if i in over else p for p in axis) for i, axis in enumerate(x.axes))
        call.inputs[0] = replace(x, axes=tuple(axes))
    return _over(letters(len(x.axes)), over, False, call.attribute("keepdims", 1))


def _at_zero(call: Call, part: Part) -> Part:
    return part._replace(rest=call.flow.level(0.0, len(part.units))) if part.live else part


def _centre(call: Call) -> str:
    """The name of mean(x) where a node takes mean((x - mean(x))^2) and no other node reads the squares."""
    squares = _maker(call, call.node.inputs[0], "Pow", "Mul")
    apart = squares and _maker(call, squares.node.inputs[0], "Sub")
    mean = apart and _maker(call, apart.node.inputs[1], "ReduceMean")
    if not squares or not apart or not mean or mean.node.inputs[0] != apart.node.inputs[0]:
        return ""
    square = squares.tensor(1).number == 2 if squares.node.op == "Pow" else len(set(squares.node.inputs)) == 1
    rank, graph, name = len(call.tensor(0).axes), call.flow.graph, call.node.inputs[0]
    same = _axes(mean, rank) == _axes(call, rank) and all(c.attribute("keepdims", 1) for c in (mean, call))
    alone = name not in graph.outputs and len(graph.readers[name]) == 1
    return apart.node.inputs[1] if square and same and alone else ""


def _maker(call: Call, name: str, *operators: str) -> Call | None:
    """The call that a tensor comes from, if it is of one of these operators."""
    made = next((other for other in reversed(call.flow.calls) if name in other.node.outputs), None)
    return made if made and made.node.op in operators else None


def _mean_rest(call: Call, x: Any) -> Any:
    """A constant is its own mean, but over entries that can go only zero is."""
    over = _axes(call, len(call.tensor(0).axes))
    return zero_only(call, x) if any(part.live for i in over for part in call.tensor(0).axes[i]) else x


def _repair_mean(cut: Editor) -> None:
    """Zeros that are gone still count: the sum is divided by the length that the axis had.

    The variance of a share s of the entries, the others being zero, is s mean((x - m)^2) + (1 - s) m^2, m being the
    mean: each entry that is gone was m away from it.
    """
    axes = cut.call.tensor(0).axes
    share = cut.share(axes[i] for i in _axes(cut.call, len(axes)))
    if share == 1:
        return
    if not (centre := _centre(cut.call)):
        cut.append("Mul", np.array(share, cut.dtype))
        return
    m, op = cut.value(centre), cut.insert
    given = {name: cut.call.attribute(name) for name in ("axes", "keepdims")}
    left = op("ReduceMean", *map(cut.value, cut.call.node.inputs), **{k: v for k, v in given.items() if v})
    gone = op("Mul", op("Mul", m, m), cut.constant(1 - share))
    cut.replace(op("Add", op("Mul", left, cut.constant(share)), gone))


def _log_of_sum(_: Call, x: Any) -> Any:
    """The logarithm of zero is no number that anything later could make up for."""
    return np.where(np.asarray(x) == 0, np.inf, np.nan)


def _arg(call: Call) -> str:
    """The winner along an axis: `*a v! -> *a 1`."""
    axes = letters(len(call.tensor(0).axes))
    return _over(axes, {call.attribute("axis", 0) % len(axes)}, True, call.attribute("keepdims", 1))


def _average_rest(call: Call, x: Any) -> Any:
    """Padding that counts as zeros pulls a constant other than zero down at the borders."""
    counts = call.attribute("count_include_pad", 0) and any(call.attribute("pads") or ())
    return zero_only(call, x) if counts or call.attribute("auto_pad", "NOTSET") != "NOTSET" else x


def powers(rule: str) -> Any:
    """A rule of a p-norm: zeros add nothing to a sum of powers above zero."""

    def checked(call: Call) -> str:
        if not call.attribute("p", 2) > 0:
            raise RuleError("its power is not above zero, so zeros would count")
        return rule

    checked.__doc__ = f"`{rule}`"
    return checked


def resize(call: Call) -> str:
    """Axes that keep their size pass: `*a x! -> *a t`."""
    before, after = call.tensor(0).sizes, call.result_sizes()
    if len(before) != len(after):
        raise RuleError("the shape of its output is not known")
    still = [a == b and _is_whole(call, i) for i, (a, b) in enumerate(zip(before, after, strict=True))]
    left = " ".join(f"a{i}" if same_size else f"x{i}!" for i, same_size in enumerate(still))
    return f"{left} -> {' '.join(f'a{i}' if same_size else f't{i}' for i, same_size in enumerate(still))}"


def _is_whole(call: Call, axis: int) -> bool:
    """Whether no scale and no crop changes an axis of which only the size stays."""
    cropped = call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    if cropped or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        return axis in _others(call)
    scales = call.constant(2 if call.node.version > 10 else 1) if call.node.op == "Resize" else None
    return scales is None or len(scales) != len(call.tensor(0).axes) or scales[axis] == 1


def _others(call: Call) -> set[int]:
    """The axes that an operator's attribute `axes` leaves out."""
    rank = len(call.tensor(0).axes)
    return set(range(rank)) - {int(a) % rank for a in call.attribute("axes") or range(rank)}


def _resized(call: Call, x: Any) -> Any:
    """Interpolation gives a constant back; what lies outside of a crop gets a value of its own."""
    if call.attribute("coordinate_transformation_mode") != "tf_crop_and_resize":
        return x
    return np.where(np.asarray(x) == call.attribute("extrapolation_value", 0.0), x, np.nan)


def _running(call: Call) -> str:
    """A running sum or product: `*a v! -> *a v`."""
    axes, axis = letters(len(call.tensor(0).axes)), call.constant(1)
    if axis is None:
        raise RuleError("its axis is computed at run time")
    return bind(axes, int(axis.reshape(-1)[0]))


def _product_so_far(call: Call, x: Any) -> Any:
    """Ones stay, and so do zeros, unless an exclusive product begins with a one."""
    one, zero = np.asarray(x) == 1, np.asarray(x) == 0
    return np.where(one | (zero & (not call.attribute("exclusive", 0))), x, np.nan)


def bind(axes: list[str], *over: int, result: list[str] | None = None) -> str:
    """A rule that binds some axes of its operand."""
    at = {axis % len(axes) for axis in over}
    return f"{' '.join(a + '!' * (i in at) for i, a in enumerate(axes))} -> {' '.join(result or axes)}"


def _triangle(call: Call) -> str:
    """The last two axes: `*b m! n! -> *b m n`."""
    return bind(letters(len(call.tensor(0).axes)), -2, -1)


def _top(call: Call) -> str:
    """The best along an axis, and where they are: `*a v! -> *a t, ~*a t`."""
    axes = letters(len(call.tensor(0).axes))
    axis = call.attribute("axis", -1) % len(axes)
    result = [*axes[:axis], "t", *axes[axis + 1 :]]
    return f"{bind(axes, axis, result=result)}, ~{' '.join(result)}"


def _reversed(call: Call) -> str:
    """Each batch in its own length: `t! b *s, ~b -> t b *s`."""
    axes = letters(len(call.tensor(0).axes))
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise RuleError("its axes are other than 0 and 1")
    x, result = bind(axes, time).split(" -> ")
    return f"{x}, ~{axes[batch]} -> {result}"


def _compress(call: Call) -> str:
    """Chosen places of an axis: `*a v!, k! -> *a t`."""
    rank, axis = len(call.tensor(0).axes), call.attribute("axis")
    axes = letters(rank)
    if axis is None:
        return f"{bind(axes, *range(rank), result=['t'])}".replace(" ->", ", k! ->")
    result = [*axes[: axis % rank], "t", *axes[axis % rank + 1 :]]
    return bind(axes, axis, result=result).replace(" ->", ", k! ->")


def _one_hot(call: Call) -> str:
    """One more axis: `*a -> *a t`."""
    axes = letters(len(call.tensor(0).axes))
    axis = call.attribute("axis", -1) % (len(axes) + 1)
    return f"{' '.join(axes)} -> {' '.join([*axes[:axis], 't', *axes[axis:]])}"


def _transform(call: Call) -> str:
    """A Fourier transform along an axis, of complex numbers at the end: `*a v! z! -> *a t c`."""
    axes = letters(len(call.tensor(0).axes))
    since20 = call.node.version >= 20
    axis = (call.constant(2) if since20 else call.attribute("axis", 1)) if not since20 or call.has(2) else -2
    if axis is None:
        raise RuleError("its axis is computed at run time")
    axis = int(np.reshape(axis, -1)[0]) % len(axes)
    return bind(axes, axis, -1, result=[*axes[:axis], "t", *axes[axis + 1 : -1], "c"])


def _max_pool(call: Call) -> str:
    """Indices count all entries of a tensor, so nothing but MaxUnpool may read them: `n c *s! -> n c *t, ~n c *t`."""
    name, graph = (*call.node.outputs, "")[1], call.flow.graph
    if name and (name in graph.outputs or any(node.op != "MaxUnpool" for node in graph.readers.get(name, ()))):
        raise RuleError("its indices count the entries of the whole tensor, and something reads them")
    return "n c *s! -> n c *t, ~n c *t"


def _unpool(call: Call) -> str:
    """Indices come from MaxPool, which counts anew in a smaller tensor: `n c *s!, n c *s! -> n c *t`."""
    pools = (other for other in call.flow.calls if other.node.op == "MaxPool")
    pool = next((other for other in pools if call.node.inputs[1] in other.node.outputs[1:]), None)
    if pool is None:
        raise RuleError("its indices come from no MaxPool")
    if pool.tensor(0).sizes[2:] != call.result_sizes()[2:]:
        raise RuleError("its indices count in an image of another size")
    return "n c *s!, n c *s! -> n c *t"


def _sampled(call: Call, x: Any, _: Any) -> Any:
    """Outside of the image there are zeros, or what its border has."""
    return zero_only(call, x) if call.attribute("padding_mode", "zeros") == "zeros" else x


def _likelihood(call: Call) -> str:
    """A loss over classes: `n! c! *d!, n! *d!, c! -> `."""
    kept = call.attribute("reduction", "mean") == "none"
    bound = "" if kept else "!"
    loss = f"n{bound} c! *d{bound}, n{bound} *d{bound}, c! -> {'n *d' if kept else ''}"
    return f"{loss}, ~n c *d" if call.node.op == "SoftmaxCrossEntropyLoss" else loss


_SPREADS = 8  # the opset from which on Max and Min take operands of different shapes
_WHY = "reduces over this axis"
_WINDOW = "slides a window over this axis"
_REGION = "cuts regions out of this axis"
_RESIZED = "resizes this axis"
OPERATORS: dict[str, Operator] = {
    **{  # a sum tolerates zeros
        f"Reduce{name}": Operator(_reduce(bound=False), rest=zero_only, data=1)
        for name in ("Sum", "L1", "L2", "SumSquare")
    },
    **_extremes(),
    "ReduceMean": Operator(_mean, rest=_mean_rest, data=1, repair=_repair_mean),
    "ReduceLogSumExp": Operator(_reduce(bound=True), why=_WHY, data=1),
    "ReduceLogSum": Operator(_reduce(bound=False), rest=_log_of_sum, data=1),
    "ReduceProd": Operator(_reduce(bound=True), rest=zero_only, why=_WHY, data=1),
    **{name: Operator(_arg, why="picks an index along this axis") for name in ("ArgMax", "ArgMin")},
    "CumSum": Operator(_running, rest=zero_only, why="accumulates along this axis", data=1),
    "CumProd": Operator(_running, rest=_product_so_far, why="accumulates along this axis", data=1),
    "Trilu": Operator(_triangle, rest=zero_only, why="masks a triangle of this axis", data=1),
    "Det": Operator("*b m! n! -> *b", rest=zero_only, why="takes the determinant over this axis"),
    "TopK": Operator(_top, rest=same, why="sorts along this axis", data=1),
    "Compress": Operator(_compress, rest=same, why="selects by values along this axis"),
    "ReverseSequence": Operator(_reversed, rest=same, why="reverses this axis"),
    "OneHot": Operator(_one_hot, data=1),
    "DFT": Operator(_transform, rest=zero_only, why="transforms this axis", data=1),
    "STFT": Operator("b l! z! -> b f t c", rest=zero_only, why="transforms this axis", data=1),
    **{
        name: Operator(_likelihood, why="takes a likelihood over this axis")
        for name in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    },
    "AveragePool": Operator("n c *s! -> n c *t", rest=_average_rest, why=_WINDOW),
    "MaxPool": Operator(_max_pool, rest=same, why=_WINDOW),
    "com.microsoft.NhwcMaxPool": Operator("n *s! c -> n *t c", rest=same, why=_WINDOW),
    "LpPool": Operator(powers("n c *s! -> n c *t"), rest=zero_only, why=_WINDOW),
    "GlobalAveragePool": Operator("n c *s! -> n c *t", rest=same, why=_WINDOW),
    "GlobalMaxPool": Operator("n c *s! -> n c *t", rest=same, why=_WINDOW),
    "GlobalLpPool": Operator(powers("n c *s -> n c *t"), rest=zero_only),
    "MaxUnpool": Operator(_unpool, rest=zero_only, why=_WINDOW, data=2, repair=repair_sizes(2), repairs=(2,)),
    "MaxRoiPool": Operator("n! c h! w!, r! k! -> r c y x", rest=zero_only, why=_REGION),
    "RoiAlign": Operator("n! c h! w!, r! k!, r! -> r c y x", rest=zero_only, why=_REGION),
    "GridSample": Operator("n c *s!, n *t! d! -> n c *t", rest=_sampled, why="samples points along this axis"),
    "AffineGrid": Operator("n! a! b! -> n *t d", rest=zero_only, why="makes a grid of this axis", data=1),
    "Resize": Operator(resize, rest=_resized, why=_RESIZED, data=1, repair=repair_sizes(3), repairs=(3,)),
    "Upsample": Operator(resize, rest=same, why=_RESIZED, data=1),
    "CenterCropPad": Operator(resize, rest=zero_only, why=_RESIZED, data=1, repair=repair_sizes(1), repairs=(1,)),
}
