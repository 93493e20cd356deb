"""Sizes that are read as numbers: what the cut could not give back as it was must stay as it is.

A size that a model computes with, or gives out, is still the number that it was after the cut: surgery writes it down.
Where it is known only together with what the run tells (batch times channels), or where a body reads it, that can't be
done, so whatever it is the size of is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zig import arithmetic
from zig.arithmetic import Array
from zig.dims import Dim, symbol

if TYPE_CHECKING:
    from zig.flow import Flow
    from zig.units import Call, Tensor

_MEASURES = ("Shape", "Size")


class Reading(NamedTuple):
    """A tensor that is known before the model runs, read where the cut must not change it."""

    name: str
    whole: bool  # whether nothing of it may change; else numbers may, but not what only the run tells
    why: int


def fix_measured(flow: Flow) -> None:
    """Fix whatever has a size that is read as a number which surgery could not write down."""
    readings = list(_readings(flow))
    if not readings:
        return
    values, shapes = flow.graph.values, dict(flow.graph.shapes)
    for name in {node.inputs[0] for node in flow.graph.nodes if node.op in _MEASURES and node.outputs[0] in values}:
        if (tensor := flow.tensor(name)) is not None and tensor.live:
            shapes[name] = tuple(
                symbol(f"what is left of {name}[{i}]") if any(part.live for part in axis) else size
                for i, (axis, size) in enumerate(zip(tensor.axes, tensor.sizes, strict=True))
            )
    changed = arithmetic.evaluate(flow.graph, shapes)
    for reading in readings:
        if not _can_stay(values[reading.name], changed.get(reading.name), reading.whole):
            for tensor in _sources(flow, reading.name):
                flow.fix(tensor, reading.why)


def _readings(flow: Flow) -> Iterator[Reading]:
    values, given = flow.graph.values, flow.graph.initializers
    for call in flow.calls:
        for i, name in enumerate(call.node.inputs):
            if name not in values or name in given or call.node.is_entry:
                continue
            inside = i >= len(call.node.proto.input)
            if inside or (values[name].dtype == object and not _is_repaired(flow, call, i)):
                yield Reading(name, inside, _reason(flow, call))
        for name in call.node.captured:
            if name in values and name not in given:
                yield Reading(name, True, _reason(flow, call))
    for name in flow.graph.outputs:
        if name in values and values[name].dtype == object:
            yield Reading(name, False, flow.reason(f"has a size that the model's output '{name}' tells", ""))


def _is_repaired(flow: Flow, call: Call, index: int) -> bool:
    """Whether an operand follows what the cut does to the node's own tensors."""
    row = flow.operators.get(call.node.op)
    tensors = (*call.inputs, *call.outputs)
    return row is not None and index in row.repairs and any(tensor is not None and tensor.live for tensor in tensors)


def _reason(flow: Flow, call: Call) -> int:
    return flow.reason(f"has a size that {call.node} computes with", call.node.name)


def _can_stay(old: Array, new: Array | None, whole: bool) -> bool:
    if new is None or new.shape != old.shape:
        return not whole and old.dtype != object
    open_ = np.array([whole or isinstance(n, Dim) for n in old.reshape(-1).tolist()], bool).reshape(old.shape)
    return not (new[open_] != old[open_]).any()


def _sources(flow: Flow, name: str) -> Iterator[Tensor]:
    """The tensors whose sizes a known tensor is computed from."""
    makers = {output: node for node in flow.graph.nodes for output in node.outputs}
    open_, seen = [name], set[str]()
    while open_:
        maker = makers.get(open_.pop())
        if maker is None or maker.outputs[0] in seen:
            continue
        seen.add(maker.outputs[0])
        if maker.op not in _MEASURES:
            open_ += [given for given in maker.inputs if given in flow.graph.values]
        elif (tensor := flow.tensor(maker.inputs[0])) is not None:
            yield tensor
