"""Models on disk: written beside the target, then renamed, so that nothing is ever left half-written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from zig import datafiles, disk
from zig.arithmetic import Array
from zig.atomic import Draft, draft
from zig.datafiles import publish
from zig.errors import ModelError
from zig.graph import Graph
from zig.removal import WHOLE, WORKERS, Zeroed
from zig.shared import rejoin

_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes; larger models need external data
Values = Callable[[str, slice], Array]  # of some rows of an initializer
_INLINE = 1024  # bytes of a tensor that stays in the file beside external data
_UNNAMED = "unnamed"  # a data file whose bytes, and so its name, are not known yet


def same_shape(graph: Graph, weights: Zeroed) -> ir.Model:
    """The whole model, with other weights where they change."""
    model = graph.editable()
    stored, nodes = initializers(model), makers(model)
    changed = {name for name in graph.initializers if weights.changes(name)}
    for name in changed:
        replace(stored.get(name), nodes.get(name), Streamed(graph, name, graph.initializers[name].dims, weights))
    rejoin(model, graph, changed)
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


def save(model: ir.Model, file: Path, external: bool, home: Path | None = None) -> Path:
    """Save a model as `file`; weights go to a file beside it if they were external or would pass protobuf's limit.

    That file is called `<file>.<digest>.data` by its own bytes: the same weights get the same name and others another
    one, so that no file that is there has to make room.

    Args:
        model: what to save.
        file: where to; nothing has this name yet.
        external: whether weights go to a file of their own.
        home: the folder that both will be moved to, if not where they are.
    """
    tensors = [value.const_value for value in model.graph.initializers.values()]
    weights = sum(t.nbytes for t in tensors if t is not None and t.dtype != ir.DataType.STRING)  # texts have no size
    if external or weights > _PROTOBUF_LIMIT:
        with _stored(model, file, home or file.parent, disk.ALIGNED if weights > disk.LARGE else None):
            ir.save(model, file)
    else:
        ir.save(model, file)
    return file


@contextmanager
def _stored(model: ir.Model, file: Path, home: Path, alignment: int | None) -> Iterator[None]:
    """The large weights of a model in a file of their own, which is named by what is in it; the model is lent."""
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    usual = [value.const_value for value in values]
    try:
        ir.external_data.unload_from_model(
            model, file.parent, _UNNAMED, size_threshold_bytes=_INLINE, max_workers=WORKERS, alignment=alignment
        )
        name = _named(file, home)
        for value in values:
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _moved(value.const_value, name)
        yield
    finally:
        for value, tensor in zip(values, usual, strict=True):
            value.const_value = tensor


def _named(file: Path, home: Path) -> str:
    """Give the data file of a model its name, where there is one: all weights may be small."""
    unnamed = file.parent / _UNNAMED
    if not unnamed.exists():
        return ""
    name = datafiles.name_of(unnamed, file.name, home)
    unnamed.rename(unnamed.with_name(name))
    return name


def _moved(tensor: ir.ExternalTensor, name: str) -> ir.ExternalTensor:
    """The tensor once its file has another name."""
    return ir.ExternalTensor(
        name, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=str(tensor.name),
        doc_string=tensor.doc_string, metadata_props=dict(tensor.metadata_props), base_dir=tensor.base_dir,
    )  # fmt: skip


def drafted(target: str | os.PathLike[str]) -> AbstractContextManager[Draft]:
    """A draft of a model, see `zig.atomic.draft`; what it and its data need is `publish`ed together."""
    return draft(target, datafiles.swept)


def write(model: ir.Model, target: Path, external: bool) -> None:
    """Save a model beside its target, then rename it.

    Raises:
        UsageError: the target can't be written.
    """
    with drafted(target) as made:
        save(model, made.file, external, made.target.parent)
        publish(made)


def file_bytes(graph: Graph) -> int:
    """The size of a model on disk, with its external data."""
    if graph.path is None:
        return int(graph.proto.ByteSize())
    entries = [{e.key: e.value for e in t.external_data} for t in graph.initializers.values()
               if t.data_location == onnx.TensorProto.EXTERNAL]  # fmt: skip
    files = {graph.path, *(graph.folder / e["location"] for e in entries)}
    return sum(file.stat().st_size for file in files)
