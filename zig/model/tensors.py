"""Stored tensors: whether one holds what its sizes say, and the file that its data lie in."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto

from zig.errors import ModelError

_LARGE = 1 << 20  # bytes
_DIGITS = 18  # of a place in a file
_SHARED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}  # how many numbers share a byte
_PACKED: dict[int, int] = {  # onnx 1.19 has no INT2
    kind: _SHARED[name] for name, kind in TensorProto.DataType.items() if name in _SHARED
}


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


FLOATS = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
}  # fmt: skip


def is_inline(tensor: TensorProto) -> bool:
    """Whether a tensor lies in the model's own file."""
    return bool(tensor.data_location != TensorProto.EXTERNAL)


NOT_REAL = {TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128}
