"""The words of the analysis: parts and axes that carry units, tensors, calls, forks, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from zig.arithmetic import Array
from zig.dims import Size, product
from zig.errors import RuleError

if TYPE_CHECKING:
    from zig.flow import Flow
    from zig.graph import Node

Units = np.ndarray[Any, np.dtype[np.int64]]
Rest = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


NOTHING: Units = np.empty(0, np.int64)


class Part(NamedTuple):
    """A factor of an axis: `units` int64[size] (0 = fixed) and `rest` float64[size], or nothing that can go (`why`)."""

    size: Size
    units: Units = NOTHING
    rest: Rest = np.empty(0)
    why: int = 0

    @property
    def live(self) -> bool:
        """Whether the part carries units."""
        return self.units is not NOTHING


Axis = tuple[Part, ...]


class Reason(NamedTuple):
    """Why something can't be removed, and at which node that arose."""

    text: str
    node: str


@dataclass(slots=True)
class Tensor:
    """Axes of a tensor; `const` where it is made of initializers alone, `number` where it is a single known value."""

    axes: tuple[Axis, ...]
    const: bool = False
    weight: bool = False  # const, and of a float type: zeroing it is pruning
    number: float = np.nan

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The size of each axis."""
        return tuple(size(axis) for axis in self.axes)

    @property
    def live(self) -> list[Part]:
        """All parts that carry units."""
        return [part for axis in self.axes for part in axis if part.live]


class Fork(NamedTuple):
    """`flat[i, j]` stands for row i of `rows` and column j of `columns`; one of the two sides will be tied to it."""

    flat: Units
    rows: Units
    columns: Units
    joined: bool  # True where the flat part was made from the two, False where they were made from it
    node: str


@dataclass(slots=True)
class Call:
    """One node with its tensors: what an operator's row gets to see."""

    node: Node
    inputs: list[Tensor | None]
    flow: Flow
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


class Resting(Protocol):
    """The actual values, for surgery."""

    def __call__(self, name: str, axis: int) -> Rest:
        """The constant of each slice of an initializer (float64[n], nan where it is not constant)."""

    def is_frozen(self, units: Units) -> bool:
        """Whether none of these units can go."""


def size(axis: Axis) -> Size:
    """The size of an axis."""
    return product(part.size for part in axis)


def live_parts(what: Tensor | Part | Axis | None) -> list[Part]:
    """The parts that carry units."""
    if what is None:
        return []
    if isinstance(what, Tensor):
        return what.live
    return [part for part in ([what] if isinstance(what, Part) else what) if part.live]


def common(table: Rest, axis: int) -> Rest:
    """The value along an axis where it is the same everywhere, else nan."""
    first = np.take(table, 0, axis)
    return np.where((table == np.expand_dims(first, axis)).all(axis), first, np.nan)


def is_live(axis: Axis) -> bool:
    """Whether some part of an axis carries units."""
    return any([part.units is not NOTHING for part in axis])  # noqa: C419 - asked for every letter: a list is faster


def first_live(parts: Sequence[Part]) -> Part:
    """The first part that carries units, or the first of all."""
    for part in parts:
        if part.units is not NOTHING:
            return part
    return parts[0]


def is_weight(tensor: Tensor | None) -> bool:
    """Whether a tensor is made of weights alone."""
    return tensor is not None and tensor.weight


def is_const(tensor: Tensor | None) -> bool:
    """Whether a tensor is made of initializers alone."""
    return tensor is not None and tensor.const


def dead_part(axis: Axis) -> Part:
    """An axis in which nothing can go, as one part."""
    return axis[0] if len(axis) == 1 else Part(size(axis), why=axis[0].why)
