"""Gather and Scatter: entries are picked out and written to by their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.flow.row import Operator, letters, zero_only
from zig.flow.units import Axis, Part, Tensor, is_live, size
from zig.model.dims import number
from zig.operators.move import pick, shared
from zig.operators.reduce import bind

if TYPE_CHECKING:
    from zig.flow.call import Call
    from zig.flow.row import Editor

_WRITTEN = "is written to by index along this axis"


def _gather(call: Call) -> list[Tensor | None]:
    """A selection by constant indices, in whatever shape they have; else a look-up, which fixes the axis."""
    x, indices = call.tensor(0), call.constant(1)
    i = call.attribute("axis", 0) % len(x.axes)
    axis, middle = x.axes[i], _index_axes(call)
    if is_live(axis) and indices is not None and indices.dtype != object:
        wrapped = np.where(indices < 0, indices + number(size(axis)), indices)
        middle = call.flow.regroup([pick(call, axis, wrapped.reshape(-1))], indices.shape, call.node)
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


def _repair_gather(cut: Editor) -> None:
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
    others = tuple(shared(call, list(pair)) for pair in zip(x.axes[depth:], updates.axes[places:], strict=True))
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


def _repair_scatter(cut: Editor) -> None:
    """Places move, and those that are gone go."""
    indices, axis = cut.call.constant(1), cut.call.tensor(0).axes[0]
    if indices is None or not cut.touches(axis):
        cut.freeze(1)
        return
    keep = cut.keep(axis)
    places = indices[:, 0] % len(keep)
    cut.set_operand(1, (np.cumsum(keep) - 1)[places[keep[places]]][:, None].astype(indices.dtype))


OPERATORS: dict[str, Operator] = {
    "Gather": Operator(move=_gather, data=2, repair=_repair_gather, repairs=(1,)),
    "GatherND": Operator(_gather_nd, rest=zero_only, why="looks entries up along this axis"),
    "GatherElements": Operator(_gather_elements, rest=zero_only, why="looks entries up along this axis"),
    "ScatterND": Operator(move=_scatter, repair=_repair_scatter, repairs=(1,)),
    **{name: Operator(_scatter_elements, rest=_over_zeros, why=_WRITTEN) for name in ("ScatterElements", "Scatter")},
    "TensorScatter": Operator(
        _tensor_scatter, rest=lambda call, x, update, at=None: _over_zeros(call, x, at, update), why=_WRITTEN
    ),
}
