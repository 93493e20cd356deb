"""Operators that only move data: the operator itself is run on the units, and surgery repeats it on what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.arithmetic import reshaped
from zig.dims import Dim, Size, number
from zig.errors import RuleError
from zig.operators.operator import Operator, letters, repair_sizes, same, zero_only
from zig.operators.reduce import bind
from zig.units import Axis, Part, Tensor, size

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.operators.operator import Side
    from zig.units import Call


def _like(x: Tensor, axes: Any) -> Tensor:
    return Tensor(tuple(axes), x.const, x.weight, x.number)


# -- axes that change places or merge ------------------------------------------------------------------------------


def _transpose(call: Call) -> list[Tensor | None]:
    """Axes in another order."""
    x = call.tensor(0)
    order = call.attribute("perm") or list(range(len(x.axes)))[::-1]
    return [_like(x, (x.axes[i] for i in order))]


def _reshape(call: Call) -> list[Tensor | None]:
    """The same elements under other sizes."""
    x = call.tensor(0)
    return [_like(x, call.flow.regroup(x.axes, call.result_sizes(), call.node))]


def _squeeze(call: Call) -> list[Tensor | None]:
    """Axes of size one are left out: `*b ones -> *b`; what is squeezed is one when the model runs, or it fails."""
    x, axes = call.tensor(0), _squeezed(call)
    if axes is None or any(isinstance(size(x.axes[axis]), int) and size(x.axes[axis]) != 1 for axis in axes):
        return _reshape(call)
    return [_like(x, tuple(axis for i, axis in enumerate(x.axes) if i not in axes))]


def _squeezed(call: Call) -> set[int] | None:
    given = call.constant(1) if call.has(1) else call.attribute("axes")
    rank = len(call.tensor(0).axes)
    return None if given is None else {int(axis) % rank for axis in np.atleast_1d(given)}


def _repair_reshape(cut: Cut) -> None:
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
    return [_like(x, (_grown(call, axis, n, rest) for axis, n in zip(axes, sizes, strict=True)))]


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
    return [_like(x, (axis if k == 1 else (Part(k, why=why), *axis) for k, axis in pairs))]


# -- index maps along one axis -------------------------------------------------------------------------------------


def _pick(call: Call, axis: Axis, indices: Any) -> Axis:
    """The axis of a selection: the same units in another order."""
    flat = call.flow.flat(axis, call.node)
    if len(indices) < 2:
        return _alone(call, axis, indices)
    return (call.flow.part(flat.units[indices], flat.rest[indices]),)


def _alone(call: Call, axis: Axis, indices: Any) -> Axis:
    """A single index that is read by itself can't be removed: nothing would be left to read."""
    flat = call.flow.flat(axis, call.node)
    why = call.flow.reason(f"is read alone by {call.node}", call.node.name)
    call.flow.fixes.append((flat.units[np.atleast_1d(indices)], why))
    return ()


def is_live(axis: Axis) -> bool:
    """Whether any part of an axis carries units."""
    return any(part.live for part in axis)


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
            axes[i] = axes[i] if whole else _dead_axis(call, sizes, i)
        elif isinstance(start, Dim) or isinstance(end, Dim):
            axes[i] = _cut_anywhere(call, axes[i], sizes, i)
        else:
            indices = np.arange(number(size(axes[i])))[_bounds(start, end, step)]
            axes[i] = axes[i] if len(indices) == size(axes[i]) and step == 1 else _pick(call, axes[i], indices)
    return [_like(x, axes)]


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
    return _like(x, (_cut_anywhere(call, a, sizes, i) if i in touched else a for i, a in enumerate(x.axes)))


def _cut_anywhere(call: Call, axis: Axis, sizes: tuple[Size, ...] | None, i: int) -> Axis:
    call.flow.fix(axis, call.flow.reason(f"is sliced at run time by {call.node}", call.node.name))
    return _dead_axis(call, sizes, i)


def _bounds(start: Size, end: Size, step: int) -> slice:
    first, last = number(start), number(end)
    return slice(first, None if step < 0 and last < -(2**30) else last, int(step))


def _dead_axis(call: Call, sizes: tuple[Size, ...] | None, i: int) -> Axis:
    if sizes is None:
        raise RuleError(f"the shape of its output '{call.node.outputs[0]}' is not known")
    why = call.flow.reason(f"lies along an axis that {call.node} makes", call.node.name)
    return () if sizes[i] == 1 else (Part(sizes[i], why=why),)


def _repair_slice(cut: Cut) -> None:
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
    cut: Cut, operands: list[tuple[int, Size, Size, int]], changed: dict[int, tuple[Size, Size, int]]
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
        piece = _pick(call, whole, np.arange(start, start + n)) if is_live(whole) else dead_piece
        results.append(_like(x, (*x.axes[:axis], piece, *x.axes[axis + 1 :])))
        start = start + n
    return results


def repair_split(cut: Cut) -> None:
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
        axes.append(_chained(call, both) if k == i else _shared(call, both))
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


def _shared(call: Call, both: list[Axis]) -> Axis:
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


def _gather(call: Call) -> list[Tensor | None]:
    """A selection by constant indices, in whatever shape they have; else a look-up, which fixes the axis."""
    x, indices = call.tensor(0), call.constant(1)
    i = call.attribute("axis", 0) % len(x.axes)
    axis, middle = x.axes[i], _index_axes(call)
    if is_live(axis) and indices is not None and indices.dtype != object:
        wrapped = np.where(indices < 0, indices + number(size(axis)), indices)
        middle = call.flow.regroup([_pick(call, axis, wrapped.reshape(-1))], indices.shape, call.node)
    else:
        call.flow.fix(axis, call.flow.reason(f"is looked up by index in {call.node}", call.node.name))
    if x.weight:
        call.flow.members.extend(p.units for k, a in enumerate(x.axes) if k != i for p in a if p.live)
    const = x.const and call.tensor(1).const
    return [Tensor((*x.axes[:i], *middle, *x.axes[i + 1 :]), const, const and x.weight)]


def _index_axes(call: Call) -> tuple[Axis, ...]:
    """The axes that the indices bring, with nothing in them that can go."""
    indices = call.tensor(1)
    call.flow.fix(indices, call.flow.reason(f"is an index of {call.node}", call.node.name))
    why = call.flow.reason(f"lies along the indices of {call.node}", call.node.name)
    return tuple(() if n == 1 else (Part(n, why=why),) for n in indices.sizes)


def _gather_nd(call: Call) -> str:
    """Looks up along the axes that the last axis of the indices counts: `*b v! *d, ~*b *i! j! -> *b *i *d`."""
    rank, indices, batch = len(call.tensor(0).axes), call.tensor(1), call.attribute("batch_dims", 0)
    count = number(indices.sizes[-1])
    batches, looked_up = [f"b{i}" for i in range(batch)], [f"v{i}!" for i in range(count)]
    left = [f"d{i}" for i in range(rank - batch - count)]
    places = [f"i{i}!" for i in range(len(indices.axes) - batch - 1)]
    data, result = " ".join([*batches, *looked_up, *left]), " ".join([*batches, *places, *left])
    return f"{data}, ~{' '.join([*batches, *places, 'j!'])} -> {result}"


def _repair_gather(cut: Cut) -> None:
    """Indices point at new places; where they point at something that is gone they go too."""
    call, indices = cut.call, cut.call.constant(1)
    i = call.attribute("axis", 0) % len(call.tensor(0).axes)
    axis, result = call.tensor(0).axes[i], call.outputs[0]
    if indices is None or result is None or not is_live(axis) or not cut.touches(axis):
        cut.freeze(1)
        return
    keep = cut.keep(axis)
    moved = (np.cumsum(keep) - 1)[np.where(indices < 0, indices + len(keep), indices)]
    for k, place in enumerate(result.axes[i : i + indices.ndim]):
        moved = np.compress(cut.keep(place), moved, axis=k)
    cut.set_operand(1, moved.astype(indices.dtype))


def _by_index(call: Call) -> tuple[str, str]:
    """Axes of the data and of the indices: those of one size pass, all but the one that is looked up along."""
    data, indices = call.tensor(0).sizes, call.tensor(1).sizes
    axis = call.attribute("axis", 0) % len(data)
    passes = [m == n and i != axis for i, (m, n) in enumerate(zip(data, indices, strict=True))]
    x, places = ([f"a{i}" if one else f"{k}{i}!" for i, one in enumerate(passes)] for k in "vi")
    return " ".join(x), " ".join(places)


def _gather_elements(call: Call) -> str:
    """Looks up along one axis: `*a v!, ~*a i! -> *a i`."""
    x, places = _by_index(call)
    return f"{x}, ~{places} -> {places.replace('!', '')}"


def _scatter_elements(call: Call) -> str:
    """Writes along one axis: `*a v!, ~*a i!, *a i! -> *a v`."""
    x, places = _by_index(call)
    return f"{x}, ~{places}, {places} -> {x.replace('!', '')}"


def _tensor_scatter(call: Call) -> str:
    """Writes along one axis: `b v! *a, b i! *a, ~b -> b v *a`."""
    axes = letters(len(call.tensor(0).axes))
    axis = call.attribute("axis", -2) % len(axes)
    update = " ".join(f"{a}_!" if i == axis else a for i, a in enumerate(axes))
    return bind(axes, axis).replace(" ->", f", {update}, ~{axes[0]} ->")


def _over_zeros(_: Call, x: Any, indices: Any, updates: Any) -> Any:
    """What is written over zeros must be zeros."""
    return np.where((np.asarray(x) == 0) & (np.asarray(updates) == 0), 0.0, np.nan)


def _scatter(call: Call) -> list[Tensor | None]:
    """Written over known places of the first axis, an update goes where its place goes; other axes pass."""
    x, indices, updates, flow = call.tensor(0), call.constant(1), call.tensor(2), call.flow
    flow.fix(call.tensor(1), flow.reason(f"is an index of {call.node}", call.node.name))
    depth, places = number(call.tensor(1).sizes[-1]), len(call.tensor(1).axes) - 1
    flow.members.extend(part.units for tensor in (x, updates) if tensor.weight for part in tensor.live)
    adds = call.attribute("reduction", "none") not in ("none", "max", "min")
    others = tuple(_shared(call, list(pair)) for pair in zip(x.axes[depth:], updates.axes[places:], strict=True))
    others = tuple(_only_zeros(axis) for axis in others) if adds else others
    known = depth == places == 1 and indices is not None and indices.dtype != object
    if known and call.attribute("reduction", "none") == "none":
        first: tuple[Axis, ...] = (_written(call, x.axes[0], updates.axes[0], indices),)
    else:
        why = flow.reason(f"is written to by index in {call.node}", call.node.name)
        first = x.axes[:depth]
        for axis in (*first, *updates.axes[:places]):
            flow.fix(axis, why)
    const = x.const and updates.const
    return [Tensor((*first, *others), const, const and (x.weight or updates.weight))]


def _only_zeros(axis: Axis) -> Axis:
    """Twice a constant is another one, but for zero."""
    return tuple(p._replace(rest=np.where(p.rest == 0, 0.0, np.nan)) if p.live else p for p in axis)


def _written(call: Call, axis: Axis, update: Axis, indices: Any) -> Axis:
    """An axis with some places written over: tied to the updates, at rest where they are."""
    flat, written = call.flow.flat(axis, call.node), call.flow.flat(update, call.node)
    if not flat.live:
        call.flow.fix(update, call.flow.reason(f"is written to places that {call.node} names", call.node.name))
        return axis
    places, rest = indices[:, 0] % len(flat.units), np.array(flat.rest)
    call.flow.tie(call.flow.part(flat.units[places], rest[places]), written, call.node)
    rest[places] = written.rest if written.live else np.nan
    return (flat._replace(rest=rest),)


def _repair_scatter(cut: Cut) -> None:
    """Places move, and those that are gone go."""
    indices, axis = cut.call.constant(1), cut.call.tensor(0).axes[0]
    if indices is None or not cut.touches(axis):
        cut.freeze(1)
        return
    keep = cut.keep(axis)
    places = indices[:, 0] % len(keep)
    cut.set_operand(1, (np.cumsum(keep) - 1)[places[keep[places]]][:, None].astype(indices.dtype))


def _pad(call: Call) -> list[Tensor | None]:
    """A constant around an axis: its slices rest at that constant, and nothing else holds them there."""
    x, value = call.tensor(0), _pad_value(call)
    pads = {a: both for a, both in _pads(call).items() if both != (0, 0)}
    sizes, axes = call.flow.graph.shapes.get(call.node.outputs[0]), list(x.axes)
    for a, both in pads.items():
        axes[a] = _padded(call, axes[a], both, value) if is_live(axes[a]) else ()
        axes[a] = axes[a] or _dead_axis(call, sizes, a)
    for a, axis in enumerate(axes):
        if pads.keys() - {a} and not _repeats_itself(call):
            axes[a] = tuple(_only_at(call, part, value) for part in axis)
    same = x.number == value or not pads or _repeats_itself(call)
    return [Tensor(tuple(axes), x.const, x.weight, x.number if same else np.nan)]


def _pads(call: Call) -> dict[int, tuple[Any, Any]]:
    """How much stands before and after each axis that is named; None where that is computed at run time.

    Raises:
        RuleError: which axes they are for is computed at run time.
    """
    rank = len(call.tensor(0).axes)
    pads = call.constant(1) if call.has(1) else call.attribute("pads") or call.attribute("paddings")
    which = call.constant(3) if call.has(3) else range(rank)
    if which is None:
        raise RuleError("its axes are computed at run time")
    places = [int(a) % rank for a in which]
    if pads is None:
        return dict.fromkeys(places, (None, None))
    entries = [int(n) if isinstance(n, int | np.integer) else None for n in pads]
    return dict(zip(places, zip(entries[: len(places)], entries[len(places) :], strict=True), strict=True))


def _pad_value(call: Call) -> float:
    """What it pads with; nan where that is not known, or is no number."""
    given = call.constant(2) if call.has(2) else call.attribute("value", 0.0)
    value = np.nan if given is None else float(np.reshape(given, -1)[0])
    return value if np.isfinite(value) else np.nan


def _repeats_itself(call: Call) -> bool:
    """Whether it pads with what the tensor holds."""
    return bool(call.attribute("mode", "constant") != "constant")


def _padded(call: Call, axis: Axis, both: tuple[Any, Any], value: float) -> Axis:
    """A live axis with slices of its own around it, or without those at its ends; empty where nothing may go any more.

    Raises:
        RuleError: how much is computed at run time.
    """
    flow, node = call.flow, call.node
    if None in both:
        raise RuleError("its pads are computed at run time")
    if _repeats_itself(call):
        flow.fix(axis, flow.reason(f"is padded with its own values by {node}", node.name))
        return ()
    flat = flow.flat(axis, node)
    left = slice(max(-both[0], 0), len(flat.units) - max(-both[1], 0))
    if len(flat.units[left]) + sum(max(n, 0) for n in both) < 2:
        return _alone(call, axis, np.arange(len(flat.units))[left])
    before, after = (flow.fresh(max(n, 0), value) for n in both)
    units = np.concatenate([before.units, flat.units[left], after.units])
    return (flow.part(units, np.concatenate([before.rest, flat.rest[left], after.rest])),)


def _only_at(call: Call, part: Part, value: float) -> Part:
    """Padding the other axes keeps a slice constant only where it rests at the value of the padding."""
    return part._replace(rest=np.where(part.rest == value, part.rest, np.nan)) if part.live else part


def _repair_pad(cut: Cut) -> None:
    """The slices around an axis are all alike: as many of them as stay."""
    call, result = cut.call, cut.call.outputs[0]
    pads, changed = _pads(call), False
    if result is None or _repeats_itself(call):
        return
    for a, (before, after) in pads.items():
        axis = call.tensor(0).axes[a]
        if (before, after) != (0, 0) and is_live(axis) and is_live(result.axes[a]):
            changed = True
            pads[a] = (_left(cut, axis, result.axes[a], before), _left(cut, axis, result.axes[a], after, -1))
    if changed:
        entries = [n for column in zip(*pads.values(), strict=True) for n in column]
        if call.has(1):
            given = call.constant(1)
            assert given is not None
            cut.set_sizes(
                1, entries, tuple(o if n is None else n for n, o in zip(entries, given.tolist(), strict=True))
            )
        else:
            cut.set_attribute("pads" if call.attribute("pads") else "paddings", entries)


def _left(cut: Cut, axis: Axis, result: Axis, pad: int, step: int = 1) -> int:
    """What is left of the padding at one end; of what is cropped, how much is still there to be cropped."""
    return int(cut.keep(result)[::step][:pad].sum()) if pad > 0 else -int(cut.keep(axis)[::step][:-pad].sum())


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
_WRITTEN = "is written to by index along this axis"
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
    "Gather": Operator(move=_gather, data=2, repair=_repair_gather, repairs=(1,)),
    "GatherND": Operator(_gather_nd, rest=zero_only, why="looks entries up along this axis"),
    "GatherElements": Operator(_gather_elements, rest=zero_only, why="looks entries up along this axis"),
    "ScatterND": Operator(move=_scatter, repair=_repair_scatter, repairs=(1,)),
    **{name: Operator(_scatter_elements, rest=_over_zeros, why=_WRITTEN) for name in ("ScatterElements", "Scatter")},
    "TensorScatter": Operator(
        _tensor_scatter, rest=lambda call, x, update, at=None: _over_zeros(call, x, at, update), why=_WRITTEN
    ),
    "Pad": Operator(move=_pad, data=1, repair=_repair_pad, repairs=(1,)),
    "DepthToSpace": Operator(_depth_to_space, rest=same, letters=_blocks, why=_BLOCK),
    "SpaceToDepth": Operator(_space_to_depth, rest=same, letters=_blocks, why=_BLOCK),
    "EyeLike": Operator("m! n! -> m n", why="draws a diagonal along this axis"),
    **{name: Operator("*b -> *b", rest=same) for name in ("Optional", "OptionalGetElement")},
    **{name: Operator(move=dead) for name in _FROM_SIZES.split()},
}
