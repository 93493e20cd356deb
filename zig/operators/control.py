"""If, Loop and Scan: what passes in and out of their bodies, whose nodes stand in the graph like any other.

Both branches of an If make the same tensor. A state is one tensor from step to step: what it starts from, what the body
gets and what the body makes of it are tied, and a unit that goes must be at rest at 0 in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zig.errors import RuleError
from zig.flow.row import Operator
from zig.flow.units import Axis, Part, Tensor
from zig.model.bodies import COUNTED, ENTERED, Body
from zig.model.body_shapes import taken
from zig.operators.move import agreed

if TYPE_CHECKING:
    from zig.flow.call import Call


def _body(call: Call) -> Body:
    assert call.node.body is not None
    return call.node.body


def _through(call: Call) -> list[Tensor | None]:
    """Results of branches are tied, and a state with what the body makes of it: `*b, *b -> *b`."""
    if call.node.body is None:
        raise RuleError("its body has other inputs or results than it needs; zig knows Scan from opset 9 on")
    return _entry(call) if call.node.is_entry else _results(call)


def _entry(call: Call) -> list[Tensor | None]:
    """What a body gets: states, at rest at 0 for now, and one step of each sequence."""
    return [
        Tensor(()) if place == COUNTED else _started(call, call.tensor(place), axis)
        for place, axis in _body(call).formals
    ]


def _started(call: Call, start: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        return Tensor(tuple(tuple(_zeroed(call, part) for part in parts) for parts in start.axes))
    axis %= len(start.axes)
    call.flow.fix(start.axes[axis], call.flow.reason(f"is what {call.node} steps over", call.node.name))
    return Tensor(start.axes[:axis] + start.axes[axis + 1 :])


def _zeroed(call: Call, part: Part) -> Part:
    return part._replace(rest=call.flow.level(0.0, len(part.units))) if part.live else part


def _results(call: Call) -> list[Tensor | None]:
    """The last state, or what either branch makes; and the steps one after another."""
    body = _body(call)
    branch = taken(call.node, call.constant(0))
    if branch is not None:
        return [call.tensor(places[branch]) for places in body.meets]
    results = [_met(call, i, call.tensor(a), call.tensor(b)) for i, (a, b) in enumerate(body.meets)]
    for place, axis in body.stacked:
        step = call.tensor(place)
        at = axis % (len(step.axes) + 1)
        sizes = call.result_sizes(len(results))
        results.append(Tensor((*step.axes[:at], call.flow.dead(sizes[at : at + 1]).axes[0], *step.axes[at:])))
    return list(results)


def _met(call: Call, output: int, *tensors: Tensor) -> Tensor | None:
    name = call.node.outputs[output]
    for tensor in tensors:
        if tensor.weight:
            call.flow.members.extend(part.units for part in tensor.live)
    if len({len(tensor.axes) for tensor in tensors}) > 1:
        raise RuleError(f"'{name}' has not always as many axes")
    if _body(call).carries:
        _check(call, tensors)
    pairs = zip(*(tensor.axes for tensor in tensors), strict=True)
    return Tensor(tuple(_joined(call, list(pair)) for pair in pairs))


def _joined(call: Call, axes: list[Axis]) -> Axis:
    return tuple(agreed(parts) for parts in call.flow.align(axes, call.node))


def _check(call: Call, tensors: tuple[Tensor, ...]) -> None:
    """What was taken for granted at the entry: nothing moves a state that rests at 0."""
    why = call.flow.reason(f"does not stay at 0 from one step of {call.node} to the next", call.node.name)
    for tensor in tensors:
        call.flow.must_rest(tensor, why)


OPERATORS: dict[str, Operator] = {name: Operator(move=_through) for name in ENTERED}
