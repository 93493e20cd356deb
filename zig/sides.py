"""The sides of a split kept equally wide, for code that halves an axis by its size, as `x.chunk(2)` does.

A file holds the sizes of the pieces, so surgery may leave 5 channels on one side and 7 on the other. A program that
divides whatever width it finds can't follow; there, index i of each side is tied to index i of the others.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from zig.dims import number
from zig.units import Axis, size

if TYPE_CHECKING:
    from zig.flow import Flow
    from zig.units import Call


class Piece(NamedTuple):
    """A piece of an axis: where it begins and ends, and its units."""

    start: int
    end: int
    axis: Axis
    call: Call


def even_out(flow: Flow) -> None:
    """Tie the sides of each axis that is cut into pieces of one size."""
    found: dict[tuple[str, int], dict[int, Piece]] = defaultdict(dict)
    for call in flow.calls:
        operator = flow.operators.get(call.node.op)
        if operator is None or operator.sides is None or not any(tensor and tensor.live for tensor in call.outputs):
            continue
        for index, axis, start, end in operator.sides(call):
            output = call.outputs[index]
            if output is not None and axis < len(output.axes):
                found[call.node.inputs[0], axis][start] = Piece(start, end, output.axes[axis], call)
    for (name, axis), sides in found.items():
        pieces = [sides[start] for start in sorted(sides)]
        whole = flow.tensor(name)
        if whole is not None and _are_even(pieces, whole.axes[axis]):
            flow.align([piece.axis for piece in pieces], pieces[0].call.node)


def _are_even(sides: list[Piece], whole: Axis) -> bool:
    """Whether pieces of one size, more than one, make up the whole axis."""
    total, width = size(whole), sides[0].end - sides[0].start
    if not isinstance(total, int) or len(sides) * width != total or len(sides) == 1 or width == 1:
        return False
    return all((side.start, side.end) == (i * width, (i + 1) * width) for i, side in enumerate(sides)) and all(
        number(size(side.axis)) == width for side in sides
    )
