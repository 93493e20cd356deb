"""Shapes on their way into and out of the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zig.model.bodies import COUNTED
from zig.model.dims import Dim, Size, symbol
from zig.model.node import Node

Shape = tuple[Size, ...]
Array = np.ndarray[Any, Any]


def entry_shape(node: Node, output: int, shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape of one input of a body; a state whose sizes change from step to step keeps its rank alone."""
    assert node.body is not None
    place, axis = node.body.formals[output]
    if place == COUNTED:
        return ()
    shape, name = shapes.get(node.inputs[place]), node.outputs[output]
    if axis is not None:
        return without(shape, axis)
    changes = shape is not None and name in node.body.grown
    return tuple(open_size(name, i) for i in range(len(shape))) if shape is not None and changes else shape


def taken(node: Node, condition: Array | None) -> int | None:
    """Which branch an If takes (0: then, 1: else), where its condition is known before the model runs."""
    known = node.op == "If" and condition is not None and condition.dtype != object and condition.size == 1
    return int(not condition.item()) if known and condition is not None else None


def result_shape(node: Node, output: int, shapes: Mapping[str, Shape], condition: Array | None = None) -> Shape | None:
    """The shape of one result of an If, a Loop or a Scan; `condition` is what the first operand is known to hold."""
    assert node.body is not None
    name, meets = node.outputs[output], node.body.meets
    if (branch := taken(node, condition)) is not None:
        return shapes.get(node.inputs[meets[output][branch]])
    if output < len(meets):
        return common(name, *(shapes.get(node.inputs[place]) for place in meets[output]))
    place, axis = node.body.stacked[output - len(meets)]
    shape, steps = shapes.get(node.inputs[place]), _steps(node, shapes)
    if shape is None:
        return None
    return with_axis(shape, axis, open_size(name, axis % (len(shape) + 1)) if steps is None else steps)


def _steps(node: Node, shapes: Mapping[str, Shape]) -> Size | None:
    """How many steps a Scan takes; of a Loop nobody knows."""
    assert node.body is not None
    for place, axis in node.body.formals:
        if axis is not None:
            shape = shapes.get(node.inputs[place])
            return shape[axis] if shape else None
    return None


def source(node: Node, output: int) -> str:
    """The tensor whose type a result of an entry, an If, a Loop or a Scan has; empty for a number that counts."""
    assert node.body is not None
    places = [meets[1] for meets in node.body.meets] + [place for place, _ in node.body.stacked]
    if node.is_entry:
        places = [place for place, _ in node.body.formals]
    return "" if places[output] == COUNTED else node.inputs[places[output]]


def growing(node: Node, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """The inputs of a body whose sizes are not those that the next step gets."""
    if node.body is None or not node.body.carries:
        return
    after = dict(node.body.meets)
    for name, (place, axis) in zip(node.formals, node.body.formals, strict=True):
        if axis is None and place != COUNTED:
            before = shapes.get(name)
            if before is not None and common(name, before, shapes.get(node.inputs[after[place]])) != before:
                yield name


def common(name: str, *shapes: Shape | None) -> Shape | None:
    """The sizes that shapes share; where they differ, one that is known only when the model runs."""
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    return tuple(
        sizes[0] if all(size == sizes[0] for size in sizes) else open_size(name, axis)
        for axis, sizes in enumerate(zip(*(shape for shape in shapes if shape is not None), strict=True))
    )


def open_size(name: str, axis: int) -> Dim:
    """The size of an axis that nothing names."""
    return symbol(f"{name}[{axis}]")


def without(shape: Shape | None, axis: int) -> Shape | None:
    """A shape with one axis less: one step of a Scan."""
    return None if not shape else tuple(size for i, size in enumerate(shape) if i != axis % len(shape))


def with_axis(shape: Shape | None, axis: int, size: Size) -> Shape | None:
    """A shape with one axis more: all steps together."""
    if shape is None:
        return None
    axis %= len(shape) + 1
    return (*shape[:axis], size, *shape[axis:])
