"""Operators that only move data: the operator itself is run on the units, and surgery repeats it on what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.flow.row import Operator, repair_sizes, same
from zig.flow.units import Axis, Part, Tensor, is_live, size
from zig.model.dims import Dim, Size, number
from zig.model.shapes import reshaped

if TYPE_CHECKING:
    from zig.flow.call import Call
    from zig.flow.row import Editor, Side


def like(x: Tensor, axes: Any) -> Tensor:
    """A tensor with other axes, made of the same."""
    return Tensor(tuple(axes), x.const, x.weight, x.number)


# -- axes that change places or merge ------------------------------------------------------------------------------


def _transpose(call: Call) -> list[Tensor | None]:
    """Axes in another order."""
    x = call.tensor(0)
    order = call.attribute("perm") or list(range(len(x.axes)))[::-1]
    return [like(x, (x.axes[i] for i in order))]


def _reshape(call: Call) -> list[Tensor | None]:
    """The same elements under other sizes."""
    x = call.tensor(0)
    return [like(x, call.flow.regroup(x.axes, call.result_sizes(), call.node))]


def _squeeze(call: Call) -> list[Tensor | None]:
    """Axes of size one are left out: `*b ones -> *b`; what is squeezed is one when the model runs, or it fails."""
    x, axes = call.tensor(0), _squeezed(call)
    if axes is None or any(isinstance(size(x.axes[axis]), int) and size(x.axes[axis]) != 1 for axis in axes):
        return _reshape(call)
    return [like(x, tuple(axis for i, axis in enumerate(x.axes) if i not in axes))]


def _squeezed(call: Call) -> set[int] | None:
    given = call.constant(1) if call.has(1) else call.attribute("axes")
    rank = len(call.tensor(0).axes)
    return None if given is None else {int(axis) % rank for axis in np.atleast_1d(given)}


def _repair_reshape(cut: Editor) -> None:
    """Write the new sizes where the operand would no longer give them; a dynamic size stays a 0 or a -1."""
    before, want = cut.sizes(cut.call.inputs[0]), cut.sizes(cut.call.outputs[0])
    given = cut.operand(1)
    allowzero = bool(cut.call.attribute("allowzero", 0))
    if given is not None and reshaped(before, given, allowzero) == want:
        return
    old: list[Size] = [] if given is None else given.tolist()
    dynamic = [i for i, n in enumerate(want) if not isinstance(n, int)]
    changed = [i for i in dynamic if not old or old[i] != want[i]]  # not to be had from the operand any more
    left = old.index(-1) if -1 in old else next(iter(changed or dynamic), -1)
    entries: list[Size | None] = []
    for i, n in enumerate(want):
        if i == left:
            entries.append(-1)
        elif isinstance(n, int):
            entries.append(n)
        else:
            entries.append(0 if i < len(before) and before[i] == n and not allowzero else None)
    cut.set_sizes(1, entries, want)


def _expand(call: Call) -> list[Tensor | None]:
    """Axes of size one are repeated: slices that are all alike may go as they came."""
    x = call.tensor(0)
    sizes = call.result_sizes()
    axes = ((),) * (len(sizes) - len(x.axes)) + x.axes
    rest = x.number if np.isfinite(x.number) else np.nan
    return [like(x, (_grown(call, axis, n, rest) for axis, n in zip(axes, sizes, strict=True)))]


def _grown(call: Call, axis: Axis, n: Size, rest: float) -> Axis:
    """An axis of size one that is repeated has slices that can go as they came: they are all alike."""
    if axis or n == 1:
        return axis
    if isinstance(n, Dim):
        return (Part(n, why=call.flow.reason(f"lies along a dynamic axis of {call.node}", call.node.name)),)
    return (call.flow.fresh(n, rest),)


def _fill(call: Call) -> list[Tensor | None]:
    """One value everywhere, of which slices may go."""
    value = call.attribute("value")
    number = 0.0 if value is None else float(call.flow.graph.scalar(value))
    axes = tuple(_grown(call, (), n, number) for n in call.result_sizes())
    return [Tensor(axes, const=True, number=number)]


def _tile(call: Call) -> list[Tensor | None]:
    """Axes in front of those that are repeated."""
    x, repeats = call.tensor(0), call.constant(1)
    if repeats is None or (call.node.version < 6 and call.constant(2) is None):
        raise RuleError("its repeats are computed at run time")
    if call.node.version < 6:
        repeats = np.where(np.arange(len(x.axes)) == call.constant(2), repeats, 1)
    why = call.flow.reason(f"is repeated by {call.node}", call.node.name)
    pairs = zip(repeats.tolist(), x.axes, strict=True)
    return [like(x, (axis if k == 1 else (Part(k, why=why), *axis) for k, axis in pairs))]


# -- index maps along one axis -------------------------------------------------------------------------------------


def pick(call: Call, axis: Axis, indices: Any) -> Axis:
    """The axis of a selection: the same units in another order."""
    flat = call.flow.flat(axis, call.node)
    if len(indices) < 2:
        return alone(call, axis, indices)
    return (call.flow.part(flat.units[indices], flat.rest[indices]),)


def alone(call: Call, axis: Axis, indices: Any) -> Axis:
    """A single index that is read by itself can't be removed: nothing would be left to read."""
    flat = call.flow.flat(axis, call.node)
    why = call.flow.reason(f"is read alone by {call.node}", call.node.name)
    call.flow.fixes.append((flat.units[np.atleast_1d(indices)], why))
    return ()


def _slice_operands(call: Call) -> list[tuple[int, Size, Size, int]] | None:
    """(axis, start, end, step) of each sliced axis, or None where they are computed at run time."""
    if call.node.version < 10:
        starts, ends, axes, steps = (call.attribute(name) for name in ("starts", "ends", "axes", "steps"))
    else:
        given: list[Any] = [call.constant(i) if call.has(i) else None for i in range(1, 5)]
        starts, ends, axes, steps = given
        if any(call.has(i) and call.constant(i) is None for i in range(1, 5)):
            return None
    rank = len(call.tensor(0).axes)
    places = list(range(len(starts))) if axes is None else [int(a) % rank for a in axes]
    strides = [1] * len(places) if steps is None else list(steps)
    return list(zip(places, starts, ends, strides, strict=True))


def _slice(call: Call) -> list[Tensor | None]:
    """A range of an axis, or a Gather where cutting leaves none."""
    x, operands = call.tensor(0), _slice_operands(call)
    sizes = call.flow.graph.shapes.get(call.node.outputs[0])
    axes = list(x.axes)
    if operands is None:
        return [_unknown_slice(call, x, sizes)]
    for i, start, end, step in operands:
        if not is_live(axes[i]):
            whole = step == 1 and start == 0 and sizes is not None and sizes[i] == x.sizes[i]
            axes[i] = axes[i] if whole else dead_axis(call, sizes, i)
        elif isinstance(start, Dim) or isinstance(end, Dim):
            axes[i] = _cut_anywhere(call, axes[i], sizes, i)
        else:
            indices = np.arange(number(size(axes[i])))[_bounds(start, end, step)]
            axes[i] = axes[i] if len(indices) == size(axes[i]) and step == 1 else pick(call, axes[i], indices)
    return [like(x, axes)]


def _slice_sides(call: Call) -> list[Side]:
    """The ranges that are known."""
    found = []
    for axis, first, last, step in _slice_operands(call) or ():
        whole = size(call.tensor(0).axes[axis])
        if isinstance(whole, int) and step == 1 and not isinstance(first, Dim) and not isinstance(last, Dim):
            start, end, _ = _bounds(first, last, 1).indices(whole)
            found.append((0, axis, start, end))
    return found


def _unknown_slice(call: Call, x: Tensor, sizes: tuple[Size, ...] | None) -> Tensor:
    """Bounds computed at run time: the axes that they are for must stay as they are, the others pass."""
    which = call.constant(3) if call.has(3) else call.attribute("axes")
    if call.has(3) and which is None:
        raise RuleError("its axes are computed at run time")
    touched = range(len(x.axes)) if which is None else [int(a) % len(x.axes) for a in which]
    return like(x, (_cut_anywhere(call, a, sizes, i) if i in touched else a for i, a in enumerate(x.axes)))


def _cut_anywhere(call: Call, axis: Axis, sizes: tuple[Size, ...] | None, i: int) -> Axis:
    call.flow.fix(axis, call.flow.reason(f"is sliced at run time by {call.node}", call.node.name))
    return dead_axis(call, sizes, i)


def _bounds(start: Size, end: Size, step: int) -> slice:
    first, last = number(start), number(end)
    return slice(first, None if step < 0 and last < -(2**30) else last, int(step))


def dead_axis(call: Call, sizes: tuple[Size, ...] | None, i: int) -> Axis:
    """An axis of the result in which nothing can go, of the size that shape inference gives."""
    if sizes is None:
        raise RuleError(f"the shape of its output '{call.node.outputs[0]}' is not known")
    why = call.flow.reason(f"lies along an axis that {call.node} makes", call.node.name)
    return () if sizes[i] == 1 else (Part(sizes[i], why=why),)


def _repair_slice(cut: Editor) -> None:
    """New bounds where what is kept is still a range, else a Gather."""
    operands = _slice_operands(cut.call) or []
    if not operands:
        cut.freeze(1, 2, 3, 4)
    changed: dict[int, tuple[Size, Size, int]] = {}
    for i, start, end, step in operands:
        axis = cut.call.tensor(0).axes[i]
        if not is_live(axis) or not cut.touches(axis):
            continue
        keep = cut.keep(axis)
        picked = np.arange(len(keep))[_bounds(start, end, step)]
        wanted = (np.cumsum(keep) - 1)[picked[keep[picked]]]
        if not len(wanted):  # an empty range stays empty
            continue
        if len(wanted) > 1 and (np.diff(wanted) != np.sign(step)).any():
            cut.gather(i, wanted)
            changed[i] = (0, len(wanted), 1)
            continue
        first, last = int(wanted[0]), int(wanted[-1])
        changed[i] = (first, last + 1, 1) if step > 0 else (first, last - 1 if last else -(2**31), -1)
    _write_bounds(cut, operands, changed)


def _write_bounds(
    cut: Editor, operands: list[tuple[int, Size, Size, int]], changed: dict[int, tuple[Size, Size, int]]
) -> None:
    rows = [changed.get(i, (start, end, step)) for i, start, end, step in operands]
    starts, ends, steps = (list(column) for column in zip(*rows, strict=True))
    if cut.call.node.version < 10:
        if not changed:
            return
        cut.set_attribute("starts", [int(s) for s in starts])
        cut.set_attribute("ends", [int(e) for e in ends])
        return
    for index, column in ((1, starts), (2, ends), (4, steps)):
        given = cut.operand(index)
        if cut.call.has(index) and (given is None or given.tolist() != column):
            cut.set_sizes(index, [c if isinstance(c, int | np.integer) else None for c in column], tuple(column))
    if not cut.call.has(4) and any(int(s) != 1 for s in steps):
        raise RuleError("a negative step needs its operand")


def _split(call: Call) -> list[Tensor | None]:
    """Pieces of an axis, each with its units."""
    axis = call.attribute("axis", 0) % len(call.tensor(0).axes)
    return list(pieces(call, call.tensor(0), axis, _split_sizes(call, axis)))


def _split_sides(call: Call) -> list[Side]:
    axis = call.attribute("axis", 0) % len(call.tensor(0).axes)
    sizes = _split_sizes(call, axis)
    return [(k, axis, sum(sizes[:k]), sum(sizes[: k + 1])) for k in range(len(sizes))]


def _split_sizes(call: Call, axis: int) -> list[int]:
    given = call.constant(1) if call.has(1) else call.attribute("split")
    if given is not None:
        return [int(n) for n in given]
    return [call.result_sizes(k)[axis] for k in range(len(call.node.outputs))]  # type: ignore[misc]


def pieces(call: Call, x: Tensor, axis: int, sizes: list[int]) -> list[Tensor]:
    """A tensor cut into pieces of these sizes."""
    why = call.flow.reason(f"lies along an axis that {call.node} makes", call.node.name)
    whole, start, results = x.axes[axis], 0, list[Tensor]()
    for n in sizes:
        dead_piece: Axis = () if n == 1 else (Part(n, why=why),)
        piece = pick(call, whole, np.arange(start, start + n)) if is_live(whole) else dead_piece
        results.append(like(x, (*x.axes[:axis], piece, *x.axes[axis + 1 :])))
        start = start + n
    return results


def repair_split(cut: Editor) -> None:
    """The sizes of the pieces follow what they keep."""
    call, found = cut.call, cut.call.outputs
    items = [t for t in getattr(found[0], "items", found) if t is not None]
    i = call.attribute("axis", 0) % len(call.tensor(0).axes)
    if not cut.touches(call.tensor(0).axes[i]):
        cut.freeze(1)
        return
    kept = [int(cut.keep(item.axes[i]).sum()) for item in items]
    if call.node.version < 13 and call.node.op == "Split" and not call.has(1):
        cut.set_attribute("split", kept)
    else:
        cut.set_attribute("num_outputs", None)
        cut.set_sizes(1, kept, tuple(kept))


def _concat(call: Call) -> list[Tensor | None]:
    """One axis after another; the others are tied: `*a c, *a d -> *a c+d`."""
    return joined(call, [call.tensor(k) for k in range(len(call.inputs))], call.attribute("axis"))


def joined(call: Call, tensors: list[Tensor], axis: int) -> list[Tensor | None]:
    """Tensors one after another along an axis; their other axes are tied."""
    i = axis % len(tensors[0].axes)
    for tensor in tensors:
        if tensor.weight:
            call.flow.members.extend(part.units for part in tensor.live)
    axes: list[Axis] = []
    for k in range(len(tensors[0].axes)):
        both = [tensor.axes[k] for tensor in tensors]
        axes.append(_chained(call, both) if k == i else shared(call, both))
    const = all(tensor.const for tensor in tensors)
    number = tensors[0].number if len({tensor.number for tensor in tensors}) == 1 else np.nan
    return [Tensor(tuple(axes), const, const and any(tensor.weight for tensor in tensors), number)]


def _chained(call: Call, runs: list[Axis]) -> Axis:
    """The concatenated axis: one run after another."""
    if not any(is_live(run) for run in runs):
        total = sum((size(run) for run in runs[1:]), start=size(runs[0]))
        return (Part(total, why=next((p.why for run in runs for p in run), 0)),)
    flat = [call.flow.flat(run, call.node) for run in runs]
    units = [part.units if part.live else np.zeros(number(part.size), np.int64) for part in flat]
    rests = [part.rest if part.live else np.full(number(part.size), np.nan) for part in flat]
    return (call.flow.part(np.concatenate(units), np.concatenate(rests)),)


def shared(call: Call, both: list[Axis]) -> Axis:
    """The other axes: tied, at rest only where all operands rest at the same value."""
    columns = call.flow.align(both, call.node)
    return tuple(agreed(parts) for parts in columns)


def agreed(parts: list[Part]) -> Part:
    """The units of tied parts, at rest where all of them rest at the same value."""
    live = [part for part in parts if part.live]
    if not live:
        return parts[0]
    rests = np.stack([part.rest for part in live])
    rest = np.where((rests == rests[0]).all(axis=0) & (len(live) == len(parts)), rests[0], np.nan)
    return Part(live[0].size, live[0].units, rest)


def dead(call: Call) -> list[Tensor | None]:
    """Made from sizes or from nothing: no unit passes, and none is held."""
    why = call.flow.reason(f"comes from {call.node}", call.node.name)
    shapes = (call.flow.graph.shapes.get(name) for name in call.node.outputs)
    return [None if shape is None else call.flow.dead(shape, why) for shape in shapes]


def _blocks(call: Call) -> dict[str, int]:
    return {"a": call.attribute("blocksize"), "b": call.attribute("blocksize")}


def _depth_to_space(call: Call) -> str:
    """Channels become blocks of space: `n (a! b! c) h w -> n c (h a) (w b)`."""
    channels = "a! b! c" if call.attribute("mode", "DCR") == "DCR" else "c a! b!"
    return f"n ({channels}) h w -> n c (h a) (w b)"


def _space_to_depth(call: Call) -> str:
    """Blocks of space become channels: `n c (h a!) (w b!) -> n (a b c) h w`."""
    channels = "a b c" if call.attribute("mode", "DCR") == "DCR" else "c a b"
    return f"n c (h a!) (w b!) -> n ({channels}) h w"


_BLOCK = "spreads channels over space along this axis"
_FROM_SIZES = """Shape Size Range Constant RandomNormal RandomUniform BlackmanWindow HammingWindow HannWindow
    MelWeightMatrix OptionalHasElement"""
OPERATORS: dict[str, Operator] = {
    "Transpose": Operator(move=_transpose),
    "Reshape": Operator(move=_reshape, data=1, repair=_repair_reshape, repairs=(1,)),
    **{name: Operator(move=_reshape, data=1) for name in ("Flatten", "Unsqueeze")},
    "Squeeze": Operator(move=_squeeze, data=1),
    "Expand": Operator(move=_expand, data=1, repair=repair_sizes(1), repairs=(1,)),
    "ConstantOfShape": Operator(move=_fill, repair=repair_sizes(0), repairs=(0,)),
    "Tile": Operator(move=_tile, data=1),
    "Slice": Operator(move=_slice, data=1, repair=_repair_slice, sides=_slice_sides, repairs=(1, 2, 3, 4)),
    "Split": Operator(move=_split, data=1, repair=repair_split, sides=_split_sides, repairs=(1,)),
    "Concat": Operator(move=_concat),
    "DepthToSpace": Operator(_depth_to_space, rest=same, letters=_blocks, why=_BLOCK),
    "SpaceToDepth": Operator(_space_to_depth, rest=same, letters=_blocks, why=_BLOCK),
    "EyeLike": Operator("m! n! -> m n", why="draws a diagonal along this axis"),
    **{name: Operator("*b -> *b", rest=same) for name in ("Optional", "OptionalGetElement")},
    **{name: Operator(move=dead) for name in _FROM_SIZES.split()},
}
