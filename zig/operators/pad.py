"""Pad: slices of a constant around an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.flow.row import Operator
from zig.flow.units import Axis, Part, Tensor, is_live
from zig.operators.move import alone, dead_axis

if TYPE_CHECKING:
    from zig.flow.call import Call
    from zig.flow.row import Editor


def _pad(call: Call) -> list[Tensor | None]:
    """A constant around an axis: its slices rest at that constant, and nothing else holds them there."""
    x, value = call.tensor(0), _pad_value(call)
    pads = {a: both for a, both in _pads(call).items() if both != (0, 0)}
    sizes, axes = call.flow.graph.shapes.get(call.node.outputs[0]), list(x.axes)
    for a, both in pads.items():
        axes[a] = _padded(call, axes[a], both, value) if is_live(axes[a]) else ()
        axes[a] = axes[a] or dead_axis(call, sizes, a)
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
        return alone(call, axis, np.arange(len(flat.units))[left])
    before, after = (flow.fresh(max(n, 0), value) for n in both)
    units = np.concatenate([before.units, flat.units[left], after.units])
    return (flow.part(units, np.concatenate([before.rest, flat.rest[left], after.rest])),)


def _only_at(call: Call, part: Part, value: float) -> Part:
    """Padding the other axes keeps a slice constant only where it rests at the value of the padding."""
    return part._replace(rest=np.where(part.rest == value, part.rest, np.nan)) if part.live else part


def _repair_pad(cut: Editor) -> None:
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


def _left(cut: Editor, axis: Axis, result: Axis, pad: int, step: int = 1) -> int:
    """What is left of the padding at one end; of what is cropped, how much is still there to be cropped."""
    return int(cut.keep(result)[::step][:pad].sum()) if pad > 0 else -int(cut.keep(axis)[::step][:-pad].sum())


OPERATORS: dict[str, Operator] = {
    "Pad": Operator(move=_pad, data=1, repair=_repair_pad, repairs=(1,)),
}
