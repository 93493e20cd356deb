"""What is wrong with a model file: found before anything is computed, or asked for when something goes wrong.

A file may be cut off, written by hand or by a tool with a fault. What zig itself relies on is checked at once (names,
sizes, data files); the rest is for onnx's checker, which is asked only when a step fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

from zig.errors import ModelError, ZigError
from zig.model import bodies
from zig.model.structure import Structure
from zig.model.tensors import check_tensor


def check(graph: Structure) -> None:
    """Refuse what can't be computed with.

    Raises:
        ModelError: a tensor is read that nothing makes, is made twice, holds other than its sizes say, or keeps its
            data in a file that is not there.
    """
    _check_names(graph)
    _check_declared(graph)
    for tensor in graph.initializers.values():
        check_tensor(graph.name, tensor, graph.folder)


def _check_names(graph: Structure) -> None:
    given = {value.name for value in graph.proto.graph.input} | graph.initializers.keys() | {""}
    given |= {tensor.values.name for tensor in graph.proto.graph.sparse_initializer}
    for text in (*given, *(name for node in graph.nodes for name in (node.name, node.op, *node.outputs))):
        if not isinstance(text, str):
            raise ModelError(f"{graph.name}: the name {text!r} is no text; the file is damaged, export the model again")
    for node in graph.nodes:
        for name in (*node.inputs, *node.captured):
            if name not in given:
                raise ModelError(f"{graph.name}: {node} reads tensor '{name}', which nothing makes")
        for name in node.outputs:
            if name and name in given:
                raise ModelError(f"{graph.name}: {node} makes tensor '{name}', which is there already")
        given.update(node.outputs)
        if node.op == "Split" and node.attribute("num_outputs", len(node.outputs)) != len(node.outputs):
            parts = node.attribute("num_outputs")  # onnx's shape inference would write that many
            raise ModelError(
                f"{graph.name}: {node} makes {parts} parts and names {len(node.outputs)}; export the model again"
            )
    for name in graph.outputs:
        if not name or name not in given:
            raise ModelError(f"{graph.name}: nothing makes the output '{name}'")


def _check_declared(graph: Structure) -> None:
    for domain, version in graph.opsets.items():
        if not 0 < version < 1 << 31:
            which = f"version {version} of '{domain or 'ai.onnx'}'"
            raise ModelError(f"{graph.name}: imports {which}, which nobody knows; export the model again")
    types = {name: tensor.data_type for name, tensor in graph.initializers.items()}
    for value in (*graph.proto.graph.input, *graph.proto.graph.output):
        declared = value.type.tensor_type.elem_type
        if declared not in TensorProto.DataType.values():
            raise ModelError(f"{graph.name}: '{value.name}' is of no type that onnx knows; export the model again")
        if declared and declared != types.setdefault(value.name, declared):
            both = " and as ".join(TensorProto.DataType.Name(n).lower() for n in (types[value.name], declared))
            raise ModelError(f"{graph.name}: '{value.name}' is declared as {both}; export the model again")


def _odd_texts(message: Message) -> Iterator[object]:
    """What should be text anywhere in a message and is not."""
    for field, value in message.ListFields():
        for each in [value] if isinstance(value, str | bytes | int | float | Message) else value:
            if isinstance(each, Message):
                yield from _odd_texts(each)
            elif field.type == FieldDescriptor.TYPE_STRING and not isinstance(each, str):
                yield each


@contextmanager
def blaming(name: str, model: onnx.ModelProto) -> Iterator[None]:
    """Where a step fails on a model that is no valid ONNX, say what is wrong with the model.

    Raises:
        ModelError: the model is not valid; on a valid one the error is raised as it is.
    """
    try:
        yield
    except ZigError:
        raise
    except Exception as error:
        said = complaint(model)
        if not said:
            raise
        raise ModelError(f"{name}: is damaged or no valid ONNX ({said}); export the model again") from error


def complaint(model: onnx.ModelProto, *, shapeless: bool = False) -> str:
    """The first line of what onnx's checker and strict shape inference say against a model; "" where it is valid.

    Args:
        model: the model.
        shapeless: whether outputs may lack a shape, which is against the standard, but changes nothing.
    """
    if odd := next(_odd_texts(model), b""):
        return f"{odd!r} is no text"
    for node in (node for graph in bodies.walk(model.graph) for node in graph.node):
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                return f"attribute '{attribute.name}' of node '{node.name}' refers to a function that it is not in"
    types: dict[str, onnx.TypeProto] = {}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.HasField("type") and value.type != types.setdefault(value.name, value.type):
            return f"'{value.name}' is declared twice, with different shapes or types"
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    given = {value.name for value in bare.graph.input}
    for tensor in [tensor for tensor in bare.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]:
        if tensor.name not in given:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        bare.graph.initializer.remove(tensor)
    if shapeless:
        kept = [value for value in bare.graph.output if value.type.tensor_type.HasField("shape")]
        del bare.graph.output[:]
        bare.graph.output.extend(kept)
    try:
        onnx.checker.check_model(bare)
        onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ""
