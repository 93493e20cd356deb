"""Models on disk: written beside the target, then renamed, so that nothing is ever left half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from zig.arithmetic import Array
from zig.errors import UsageError
from zig.graph import Graph
from zig.removal import Weights

_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes; larger models need external data
_INLINE = 1024  # bytes of a tensor that stays in the file beside external data


def same_shape(graph: Graph, weights: Weights | None) -> ir.Model:
    """The whole model, with other weights where they are given."""
    model = graph.editable()
    if weights is not None:
        nodes = {out.name: node for node in model.graph for out in node.outputs}
        for name in graph.initializers:
            value = weights(name)
            if value is not graph.array(name):
                replace(model, nodes, graph, name, value)
    return model


def replace(model: ir.Model, nodes: dict[str | None, ir.Node], graph: Graph, name: str, value: Array) -> None:
    """Give an initializer, or the Constant node that stands for one, another value."""
    dtype = ir.DataType(graph.initializers[name].data_type)
    tensor = ir.Tensor(np.ascontiguousarray(value).reshape(value.shape), dtype=dtype, name=name)
    initializer = model.graph.initializers.get(name)
    if initializer is not None:
        initializer.const_value = tensor
        initializer.shape = ir.Shape(value.shape)
    elif name in nodes:
        nodes[name].attributes.clear()
        nodes[name].attributes.add(ir.AttrTensor("value", tensor))


def has_external(graph: Graph) -> bool:
    """Whether any weight lies in a file of its own."""
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializers.values())


def save(model: ir.Model, target: Path, external: bool) -> Path:
    """Save a model; weights go to `<target>.data` where they were external or the file would pass protobuf's limit."""
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if external or weights > _PROTOBUF_LIMIT:
        ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=_INLINE)
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
    entries = [{e.key: e.value for e in t.external_data} for t in graph.initializers.values() if t.external_data]
    files = {graph.path, *(graph.folder / e["location"] for e in entries)}
    return sum(file.stat().st_size for file in files)
