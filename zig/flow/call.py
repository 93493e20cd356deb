"""One node with its tensors: what an operator's row gets to see, and what it may do to their units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zig.errors import RuleError
from zig.flow.axes import Parts
from zig.flow.units import Axis, Part, Tensor
from zig.model.dims import Size
from zig.model.node import Node
from zig.model.shapes import Array


@dataclass(slots=True)
class Call:
    """One node with its tensors: what an operator's row gets to see."""

    node: Node
    inputs: list[Tensor | None]
    flow: Parts
    outputs: list[Tensor | None] = field(default_factory=list)
    letters: dict[str, Axis] = field(default_factory=dict)  # by the rule

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return self.node.attribute(name, default)

    def constant(self, index: int) -> Array | None:
        """The value of an operand, where it is known before the model runs."""
        name = self.node.inputs[index] if index < len(self.node.inputs) else ""
        return self.flow.graph.constant(name) if name else None

    def tensor(self, index: int) -> Tensor:
        """An operand whose axes must be known.

        Raises:
            RuleError: it is absent, or its rank is not known.
        """
        given = self.inputs[index] if index < len(self.inputs) else None
        if given is None:
            raise RuleError(f"the shape of operand {index} is not known")
        return given

    def result_sizes(self, index: int = 0) -> tuple[Size, ...]:
        """The sizes of an output as shape inference gives them.

        Raises:
            RuleError: they are not known.
        """
        shape = self.flow.graph.shapes.get(self.node.outputs[index])
        if shape is None:
            raise RuleError(f"the shape of its output '{self.node.outputs[index]}' is not known")
        return shape

    def has(self, index: int) -> bool:
        """Whether an optional operand is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])


class Contraction(NamedTuple):
    """A sum over `part` of an activation times `weight` (None: another activation) inside `call`."""

    call: Call
    part: Part
    weight: Part | None
