"""What is wrong with a model file: found before anything is computed, or asked for when something goes wrong.

A file may be cut off, written by hand or by a tool with a fault. What zig itself relies on is checked at once (names,
sizes, data files); the rest is for onnx's checker, which is asked only when a step fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

from zig import bodies
from zig.errors import ModelError, ZigError

if TYPE_CHECKING:
    from zig.graph import Graph

_LARGE = 1 << 20  # bytes
_DIGITS = 18  # of a place in a file
_SHARED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}  # how many numbers share a byte
_PACKED: dict[int, int] = {  # onnx 1.19 has no INT2
    kind: _SHARED[name] for name, kind in TensorProto.DataType.items() if name in _SHARED
}


def check(graph: Graph) -> None:
    """Refuse what can't be computed with.

    Raises:
        ModelError: a tensor is read that nothing makes, is made twice, holds other than its sizes say, or keeps its
            data in a file that is not there.
    """
    _check_names(graph)
    _check_declared(graph)
    for tensor in graph.initializers.values():
        check_tensor(graph.name, tensor, graph.folder)


def check_tensor(name: str, tensor: TensorProto, folder: Path) -> None:
    """Refuse a tensor that can't be read.

    Args:
        name: what to call the model.
        tensor: the tensor.
        folder: where its data file would lie.

    Raises:
        ModelError: it holds other than its sizes say, or keeps its data in a file that can't be used.
    """
    if tensor.HasField("segment"):
        raise ModelError(
            f"{name}: tensor '{tensor.name}' is a segment of another one, which nothing reads; export the model again"
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_file(name, tensor, folder)
    else:
        check_size(name, tensor)


def _check_names(graph: Graph) -> None:
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


def _check_declared(graph: Graph) -> None:
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


def check_size(name: str, tensor: TensorProto) -> None:
    """Refuse a tensor that holds other than the numbers that its sizes need."""
    _check_type(name, tensor)
    if tensor.data_type == TensorProto.STRING and not all(map(_is_text, tensor.string_data)):
        raise ModelError(f"{name}: tensor '{tensor.name}' holds texts that are not UTF-8; export the model again")
    needed, unit = _needed(tensor), "bytes" if tensor.HasField("raw_data") else "numbers"
    if unit == "bytes":
        held = tensor.ByteSize()  # with name and sizes, but to read the data of a large one would copy them
        held = min(held, needed) if held > _LARGE else len(tensor.raw_data)
    else:
        held = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
    if held != needed:
        raise ModelError(
            f"{name}: tensor '{tensor.name}' holds {held} {unit} instead of {needed}; the file is damaged, "
            "export the model again"
        )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_type(name: str, tensor: TensorProto) -> None:
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise ModelError(f"{name}: tensor '{tensor.name}' is of no type that onnx knows ({tensor.data_type})")
    if any(n < 0 for n in tensor.dims):
        raise ModelError(f"{name}: tensor '{tensor.name}' has a negative size ({list(tensor.dims)})")


def _needed(tensor: TensorProto) -> int:
    """How many bytes, or entries of a typed field, the numbers of a tensor take."""
    if tensor.HasField("raw_data"):
        return _bytes(tensor)
    count: int = -(-math.prod(tensor.dims) // _PACKED.get(tensor.data_type, 1))
    return count * (2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1)


def _bytes(tensor: TensorProto) -> int:
    """How many bytes the numbers of a tensor take."""
    if tensor.data_type in _PACKED:
        return int(-(-math.prod(tensor.dims) // _PACKED[tensor.data_type]))
    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _check_file(name: str, tensor: TensorProto, folder: Path) -> None:
    """Refuse external data that lie outside the model's folder, are missing or too short."""
    entry = {e.key: e.value for e in tensor.external_data}
    target = data_file(name, tensor, folder)
    place, location = f"tensor '{tensor.name}'", entry["location"]
    _check_type(name, tensor)
    if tensor.data_type == TensorProto.STRING:
        raise ModelError(f"{name}: {place} holds texts, which no data file can keep; save it inline")
    needed = _bytes(tensor)
    numbers = [entry.get("offset", "0"), entry.get("length", str(needed))]
    for text in numbers:
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise ModelError(f"{name}: {place} lies at '{text}' in its data file, which is no place in a file")
    if int(numbers[1]) != needed:
        raise ModelError(f"{name}: {place} needs {needed} bytes of its data file, not {numbers[1]}")
    if target.stat().st_size < sum(map(int, numbers)):
        raise ModelError(f"{name}: the data file '{location}' is too short for {place}")


def bring_in(name: str, tensor: TensorProto, folder: Path) -> None:
    """Give a tensor the data that lie in a file."""
    entry = {e.key: e.value for e in tensor.external_data}
    with data_file(name, tensor, folder).open("rb") as file:
        file.seek(int(entry.get("offset", "0")))
        tensor.raw_data = file.read(_bytes(tensor))
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def data_file(name: str, tensor: TensorProto, folder: Path) -> Path:
    """The file that a tensor says its data are in.

    Raises:
        ModelError: it lies outside the model's folder, is missing, or is a link that onnx does not follow.
    """
    location = str({e.key: e.value for e in tensor.external_data}.get("location", ""))
    place, target = f"tensor '{tensor.name}'", Path(folder, location)
    try:
        inside = bool(location) and "\0" not in location and folder.resolve() in target.resolve().parents
        found = inside and target.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle, up to Python 3.12
        raise ModelError(f"{name}: the data file '{location}' of {place} leads nowhere") from error
    if not inside:
        raise ModelError(
            f"{name}: {place} keeps its data in '{location}', outside the model's folder; put the data file "
            "beside the model"
        )
    if not found:
        raise ModelError(f"{name}: the data file '{location}' of {place} is missing")
    if target.stat().st_nlink > 1:
        raise ModelError(f"{name}: the data file '{location}' of {place} is a hard link, which onnx refuses; copy it")
    return target


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
