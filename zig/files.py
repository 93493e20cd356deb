"""Models on disk: written beside the target, then renamed, so that nothing is ever left half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from zig import disk
from zig.arithmetic import Array
from zig.errors import ModelError, UsageError
from zig.graph import Graph
from zig.removal import WHOLE, WORKERS, Zeroed

_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes; larger models need external data
Values = Callable[[str, slice], Array]  # of some rows of an initializer
_INLINE = 1024  # bytes of a tensor that stays in the file beside external data


def same_shape(graph: Graph, weights: Zeroed) -> ir.Model:
    """The whole model, with other weights where they change."""
    model = graph.editable()
    stored, nodes = initializers(model), makers(model)
    for name, tensor in graph.initializers.items():
        if weights.changes(name):
            replace(stored.get(name), nodes.get(name), Streamed(graph, name, tensor.dims, weights))
    return model


def initializers(model: ir.Model) -> dict[str, ir.Value]:
    """The initializers of a model and of all bodies in it."""
    return {name: value for graph in model.graphs() for name, value in graph.initializers.items()}


def makers(model: ir.Model) -> dict[str, ir.Node]:
    """The node that makes each tensor, bodies included."""
    return {str(out.name): node for node in model.graph.all_nodes() for out in node.outputs}


class Streamed(ir.LazyTensor):
    """New values for an initializer; they are made when it is saved, piece by piece where it is a large one."""

    __slots__ = ("_piece", "_runs")

    def __init__(self, graph: Graph, name: str, dims: Iterable[int], values: Values):
        """Remember how to make the values: from the name and a range of the rows that the initializer has now."""
        dtype = ir.DataType(graph.initializers[name].data_type)
        if dtype == ir.DataType.STRING:
            raise ModelError(f"{graph.name}: tensor '{name}' holds texts where numbers belong; export the model again")

        def piece(rows: slice = WHOLE) -> ir.Tensor[Array]:
            value = values(name, rows)
            return ir.Tensor(np.ascontiguousarray(value).reshape(value.shape), dtype=dtype, name=name)

        super().__init__(piece, dtype, ir.Shape(dims), name=name)
        self._piece, self._runs = piece, graph.pieces(name)

    def tofile(self, file: Any) -> None:
        """Write the bytes to a file."""
        disk.put(file, (_bytes(self._piece(rows)) for rows in self._runs))


def _bytes(tensor: ir.Tensor[Array]) -> Array:
    """The bytes of a tensor as a file holds them, uint8[n]."""
    packed = tensor.dtype.bitwidth < 8
    return np.frombuffer(tensor.tobytes(), np.uint8) if packed else tensor.numpy().reshape(-1).view(np.uint8)


def replace(initializer: ir.Value | None, node: ir.Node | None, tensor: Streamed) -> None:
    """Give an initializer, or the node that stands for one (a Constant, an Identity), other values."""
    if initializer is not None:
        initializer.const_value = tensor
        initializer.shape = tensor.shape
    elif node is not None:
        node.op_type = "Constant"
        node.resize_inputs(0)
        node.attributes.clear()
        node.attributes.add(ir.AttrTensor("value", tensor))


def has_external(graph: Graph) -> bool:
    """Whether any weight lies in a file of its own."""
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializers.values())


def save(model: ir.Model, target: Path, external: bool) -> Path:
    """Save a model; weights go to `<target>.data` where they were external or the file would pass protobuf's limit."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    weights = sum(t.nbytes for t in tensors if t is not None and t.dtype != ir.DataType.STRING)  # texts have no size
    if external or weights > _PROTOBUF_LIMIT:
        data, aligned = f"{target.name}.data", disk.ALIGNED if weights > disk.LARGE else None
        ir.save(model, target, external_data=data, size_threshold_bytes=_INLINE, max_workers=WORKERS, alignment=aligned)
    else:
        ir.save(model, target)
    return target


@contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is not finished; it is gone afterwards, whatever happens."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target}: can't be written ({error.strerror})") from error
    try:
        if target.is_dir():
            raise UsageError(f"{target}: is a folder; name a file to write")
        yield folder
    except OSError as error:
        raise UsageError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Move the finished files to their place, data before the model that refers to them."""
    for file in sorted((f for f in folder.iterdir() if f.is_file()), key=lambda f: f.name == target.name):
        os.replace(file, target.parent / file.name)


def write(model: ir.Model, target: Path, external: bool) -> None:
    """Save a model beside its target, then rename it.

    Raises:
        UsageError: the target can't be written.
    """
    with workspace(target) as folder:
        save(model, folder / target.name, external)
        publish(folder, target)


def file_bytes(graph: Graph) -> int:
    """The size of a model on disk, with its external data."""
    if graph.path is None:
        return int(graph.proto.ByteSize())
    entries = [{e.key: e.value for e in t.external_data} for t in graph.initializers.values()
               if t.data_location == onnx.TensorProto.EXTERNAL]  # fmt: skip
    files = {graph.path, *(graph.folder / e["location"] for e in entries)}
    return sum(file.stat().st_size for file in files)
