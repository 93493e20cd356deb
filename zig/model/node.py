"""One operator call of a model."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import AttributeProto

from zig.model import bodies

STANDARD = ("", "ai.onnx")


class Node:
    """One operator call. `op` is the operator's name, with its domain in front unless it is the standard one."""

    __slots__ = (
        "_attributes", "body", "captured", "formals", "index", "inputs", "name", "op", "outputs", "proto", "version",
    )  # fmt: skip

    def __init__(self, proto: onnx.NodeProto, index: int, version: int):
        """Wrap the node that stands at `index`, of a domain imported at `version`."""
        self.proto, self.index, self.version = proto, index, version
        self.op = proto.op_type if proto.domain in STANDARD else f"{proto.domain}.{proto.op_type}"
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.name = proto.name or f"{self.op}_{index}"
        self._attributes: dict[str, Any] | None = None
        self.captured = tuple(bodies.captured(proto))  # what is read inside bodies that stay closed
        self.body: bodies.Body | None = None
        self.formals: list[str] = []  # the inputs of its body

    def entry(self, index: int) -> Node:
        """What stands before the body of this node: its results are the inputs of the body."""
        node = Node(self.proto, index, self.version)
        node.name, node.body, node.captured = f"{self.name}.entry", self.body, ()
        node.inputs, node.outputs, node.formals = list(self.proto.input), self.formals, self.formals
        return node

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute as a Python value (str, int, float, list or TensorProto), or the default."""
        if self._attributes is None:
            self._attributes = {a.name: plain(a) for a in self.proto.attribute}
        return self._attributes.get(name, default)

    @property
    def is_entry(self) -> bool:
        """Whether its results are the inputs of a body."""
        return bool(self.formals) and self.outputs is self.formals

    def __repr__(self) -> str:
        return f"{self.op} '{self.name}'"


def plain(attribute: AttributeProto) -> Any:
    """An attribute as a Python value: str, int, float, list or TensorProto."""
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode(errors="replace") for text in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value
