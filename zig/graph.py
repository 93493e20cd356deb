"""An ONNX model as zig sees it: nodes in order, shapes, small constants; weights stay where they are.

Only shapes and small constants are read for the analysis. External weights are memory-mapped when somebody asks for
them. `shapes` holds an exact size for each axis (a number or a `Dim`), `values` the integer tensors that exporters
compute shapes with, evaluated symbolically by `zig.arithmetic`.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from zig import arithmetic
from zig.dims import Size, parse, symbol
from zig.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir

Source = "str | os.PathLike[str] | onnx.ModelProto | Graph"
_SMALL = 1024  # bytes of a constant that shape inference may look at
_STANDARD = ("", "ai.onnx")


class Node:
    """One operator call. `op` is the operator's name, with its domain in front unless it is the standard one."""

    __slots__ = ("_attributes", "captured", "index", "inputs", "name", "op", "outputs", "proto", "version")

    def __init__(self, proto: onnx.NodeProto, index: int, version: int):
        """Wrap the node that stands at `index`, of a domain imported at `version`."""
        self.proto, self.index, self.version = proto, index, version
        self.op = proto.op_type if proto.domain in _STANDARD else f"{proto.domain}.{proto.op_type}"
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.name = proto.name or f"{self.op}_{index}"
        self._attributes: dict[str, Any] | None = None
        self.captured = tuple(_captured(proto))

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute as a Python value (str, int, float, list or TensorProto), or the default."""
        if self._attributes is None:
            self._attributes = {a.name: _plain(a) for a in self.proto.attribute}
        return self._attributes.get(name, default)

    def __repr__(self) -> str:
        return f"{self.op} '{self.name}'"


class Graph:
    """A loaded model: `nodes` in topological order, `initializers` (Constants included), `shapes` and `values`."""

    def __init__(self, proto: onnx.ModelProto, path: Path | None = None, folder: Path | None = None):
        """Read the structure of a model; `folder` is where its external data lie.

        Raises:
            ModelError: the model has no nodes, a cycle, or external data that can't be used.
        """
        self.path, self.folder = path, folder or (path.parent if path else Path())
        self.name = str(path) if path else (proto.graph.name or "the model")
        self.proto = inline_local_functions(proto) if proto.functions else proto
        self.opsets = {o.domain if o.domain not in _STANDARD else "": o.version for o in proto.opset_import}
        self.initializers = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self._check_external()
        self._check_inline()
        self.nodes = list(self._read_nodes())
        self.inputs = [i.name for i in self.proto.graph.input if i.name not in self.initializers]
        self.outputs = [o.name for o in self.proto.graph.output]
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._facts: dict[str, tuple[tuple[int, ...], bool, float]] = {}
        self.shapes = self._declared_shapes(self.proto.graph)
        self.values = arithmetic.evaluate(self, self.shapes, complete=True)
        self._infer()
        for name in self.initializers:
            self.facts(name)

    @cached_property
    def model(self) -> onnx_ir.Model:
        """The same model in onnx-ir, with memory-mapped weights, for those who only read it."""
        return self.editable()

    def editable(self) -> onnx_ir.Model:
        """A fresh copy of the structure for editing and saving; weights are shared, not copied."""
        import onnx_ir  # noqa: PLC0415 - a quarter of a second that the analysis does not need

        model = onnx_ir.serde.deserialize_model(self.proto)
        onnx_ir.external_data.set_base_dir(model.graph, self.folder.absolute())
        return model

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The values of an initializer; external data are memory-mapped, not read."""
        if name not in self._arrays:
            tensor = self.initializers[name]
            if tensor.data_location == TensorProto.EXTERNAL:
                import onnx_ir  # noqa: PLC0415

                external = onnx_ir.serde.deserialize_tensor(tensor, str(self.folder.absolute()))
                self._arrays[name] = np.asarray(external.numpy())
            else:
                self._arrays[name] = numpy_helper.to_array(tensor)
        return self._arrays[name]

    def compute(
        self, names: Collection[str], weights: Callable[[str], np.ndarray[Any, Any]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The values of tensors that depend on initializers alone, whose values `weights` gives.

        Raises:
            ModelError: onnx's reference implementation can't compute them.
        """
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - seldom needed, and slow to import

        needed, used = set(names), []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(name for name in node.outputs if name not in self.values):
                needed.update(node.inputs)
                used.append(node.proto)
        given = {name: self.values[name] for name in needed & self.values.keys()}
        given |= {name: weights(name) for name in needed & self.initializers.keys()}
        read = [numpy_helper.from_array(value, name) for name, value in given.items()]
        results = [onnx.ValueInfoProto(name=name) for name in names]
        part = onnx.helper.make_model(
            onnx.helper.make_graph(used[::-1], "part", [], results, read), opset_imports=self.proto.opset_import
        )
        try:
            return dict(zip(names, ReferenceEvaluator(part).run(None, {}), strict=True))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            name = next(iter(names))
            raise ModelError(f"{self.name}: '{name}' can't be computed from its weights: {error}") from error

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of each tensor; where onnx can't tell (foreign operators), that of the first operand."""
        graph = _infer(self.proto, self.initializers, {}).graph
        infos = (*graph.input, *graph.value_info, *graph.output)
        types = {info.name: info.type.tensor_type.elem_type for info in infos}
        types |= {name: tensor.data_type for name, tensor in self.initializers.items()}
        for node in self.nodes:
            first = next((types[name] for name in node.inputs if types.get(name) in _FLOATS), TensorProto.UNDEFINED)
            types.update({name: first for name in node.outputs if name and not types.get(name)})
        return types

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """What is known of a tensor before the model runs: numbers, or an object array with `Dim`s, or None."""
        if name in self.values:
            return self.values[name]
        return self.array(name) if name in self.initializers else None

    def facts(self, name: str) -> tuple[tuple[int, ...], bool, float]:
        """Of an initializer: its shape, whether it holds weights, and its value if it is a single number."""
        if name not in self._facts:
            tensor = self.initializers[name]
            dims = tuple(tensor.dims)
            single = math.prod(dims) == 1 and tensor.data_type != TensorProto.STRING
            number = float(self.array(name).reshape(-1)[0]) if single else math.nan
            self._facts[name] = dims, self.is_float(name), number
        return self._facts[name]

    @staticmethod
    def scalar(tensor: TensorProto) -> float:
        """The first element of a tensor that an attribute holds."""
        return float(numpy_helper.to_array(tensor).reshape(-1)[0])

    def is_float(self, name: str) -> bool:
        """Whether an initializer holds weights rather than indices or masks."""
        return self.initializers[name].data_type in _FLOATS

    @property
    def parameters(self) -> int:
        """The number of elements in all float initializers that some node reads."""
        read = {name for node in self.nodes for name in (*node.inputs, *node.captured)}
        return sum(
            int(np.prod(t.dims, dtype=np.int64)) for n, t in self.initializers.items() if n in read and self.is_float(n)
        )

    def _read_nodes(self) -> Iterator[Node]:
        for index, proto in enumerate(_sorted(list(self.proto.graph.node), self.name)):
            if (
                proto.op_type == "Constant"
                and proto.domain in _STANDARD
                and (tensor := _constant_tensor(proto)) is not None
            ):
                self.initializers[proto.output[0]] = tensor
            else:
                domain = "" if proto.domain in _STANDARD else proto.domain
                yield Node(proto, index, self.opsets.get(domain, 1))

    def _declared_shapes(self, graph: onnx.GraphProto) -> dict[str, tuple[Size, ...]]:
        shapes = {name: tuple(tensor.dims) for name, tensor in self.initializers.items()}
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            if info.name not in shapes and info.type.HasField("tensor_type") and tensor.HasField("shape"):
                shapes[info.name] = tuple(_size(d, info.name, i) for i, d in enumerate(tensor.shape.dim))
        return shapes

    def _infer(self) -> None:
        """Let onnx infer open shapes, again with what shape arithmetic makes of them, until nothing is gained."""
        before, left = float("inf"), self._open_sizes()
        while 0 < left < before:
            inferred = _infer(self.proto, self.initializers, self.values)
            self.shapes = self._declared_shapes(inferred.graph)
            self.values = arithmetic.evaluate(self, self.shapes, complete=True)
            before, left = left, self._open_sizes()

    def _open_sizes(self) -> int:
        """How many sizes are not known as numbers; a tensor without a shape counts as many."""
        shapes = [self.shapes.get(name) for node in self.nodes for name in node.outputs if name]
        return sum(8 if shape is None else sum(not isinstance(n, int) for n in shape) for shape in shapes)

    def _check_inline(self) -> None:
        """Refuse tensors that hold other than the bytes that their sizes need."""
        for tensor in self.initializers.values():
            if not tensor.HasField("raw_data") or tensor.data_type not in _FLOATS:
                continue
            needed = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            held = tensor.ByteSize()  # with name and sizes, but to read the data of a large one would copy them
            held = min(held, needed) if held > _LARGE else len(tensor.raw_data)
            if held != needed:
                raise ModelError(
                    f"{self.name}: tensor '{tensor.name}' holds {held} bytes instead of {needed}; the file is damaged, "
                    "export the model again"
                )

    def _check_external(self) -> None:
        """Refuse external data that lie outside the model's folder, are missing or too short."""
        for tensor in self.initializers.values():
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            entry = {e.key: e.value for e in tensor.external_data}
            location = entry.get("location", "")
            target = (self.folder / location).resolve()
            if not location or self.folder.resolve() not in target.parents:
                raise ModelError(
                    f"{self.name}: tensor '{tensor.name}' keeps its data in '{location}', outside the model's folder; "
                    "put the data file beside the model"
                )
            if not target.is_file():
                raise ModelError(f"{self.name}: the data file '{location}' of tensor '{tensor.name}' is missing")
            end = int(entry.get("offset", 0)) + int(entry.get("length", 0))
            if target.stat().st_size < end:
                raise ModelError(f"{self.name}: the data file '{location}' is too short for tensor '{tensor.name}'")


def load(source: Any) -> Graph:
    """Load a model from a path, or wrap a ModelProto or an `onnx_ir.Model`; a Graph comes back as it is.

    Raises:
        ModelError: the file is missing, is not ONNX, or its external data can't be used.
    """
    if isinstance(source, Graph):
        return source
    if isinstance(source, onnx.ModelProto):
        return Graph(source)
    if not isinstance(source, str | os.PathLike):
        import onnx_ir  # noqa: PLC0415

        return Graph(onnx_ir.to_proto(source))
    path = Path(source)
    try:
        proto = onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror or error})") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or it is damaged or cut off") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: is not an ONNX model, or it is empty")
    return Graph(proto, path)


_LARGE = 1 << 20  # bytes
_FLOATS = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
}  # fmt: skip


def _size(dim: Any, tensor: str, axis: int) -> Size:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return parse(dim.dim_param) if dim.dim_param else symbol(arithmetic.anonymous(tensor, axis))


def _infer(
    proto: onnx.ModelProto, initializers: dict[str, TensorProto], values: dict[str, np.ndarray[Any, Any]]
) -> onnx.ModelProto:
    """Run onnx's shape inference on the model without its weights, shape arithmetic replaced by what it gives."""
    bare = onnx.ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.graph.name = proto.graph.name or "graph"
    known = {n: numpy_helper.from_array(v, n) for n, v in values.items() if n not in initializers and v.dtype != object}
    small = [tensor for tensor in initializers.values() if tensor.ByteSize() <= _SMALL and _is_inline(tensor)]
    bare.graph.initializer.extend([*small, *known.values()])
    given = {tensor.name for tensor in bare.graph.initializer} | {value.name for value in proto.graph.input}
    bare.graph.input.extend(proto.graph.input)
    for name, tensor in initializers.items():
        if name not in given:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    given |= initializers.keys()
    bare.graph.node.extend(node for node in proto.graph.node if not all(name in given for name in node.output if name))
    bare.graph.output.extend(proto.graph.output)
    bare.graph.value_info.extend(info for info in proto.graph.value_info if info.name not in given)
    try:
        return onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return proto  # a model that inference refuses is analysed with the shapes it declares


def _is_inline(tensor: TensorProto) -> bool:
    return bool(tensor.data_location != TensorProto.EXTERNAL)


def _constant_tensor(proto: onnx.NodeProto) -> TensorProto | None:
    """The tensor of a Constant node; None for strings and sparse tensors."""
    attribute = proto.attribute[0] if proto.attribute else None
    if attribute is None or attribute.name in ("sparse_value", "value_string", "value_strings"):
        return None
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
    else:
        dtype = np.float32 if "float" in attribute.name else np.int64
        tensor = numpy_helper.from_array(np.asarray(_plain(attribute), dtype))
    tensor.name = proto.output[0]
    return tensor


def _plain(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _captured(proto: onnx.NodeProto) -> Iterable[str]:
    """Names that the sub-graphs of a node read from outside."""
    for attribute in proto.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            inner = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            inner |= {name for node in graph.node for name in node.output}
            read = [n for node in graph.node for n in (*node.input, *_captured(node))] + [o.name for o in graph.output]
            yield from (name for name in read if name and name not in inner)


def _sorted(protos: list[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Nodes in topological order, stable; files from hand-written tools are not always sorted.

    Raises:
        ModelError: the graph has a cycle.
    """
    producer = {out: i for i, proto in enumerate(protos) for out in proto.output if out}
    needs = [{producer[n] for n in (*p.input, *_captured(p)) if n in producer} for p in protos]
    if all(j < i for i, before in enumerate(needs) for j in before):
        return protos
    readers: dict[int, list[int]] = {}
    for i, before in enumerate(needs):
        for j in before:
            readers.setdefault(j, []).append(i)
    ready = [i for i, before in enumerate(needs) if not before]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for i in readers.get(order[-1], ()):
            needs[i].discard(order[-1])
            if not needs[i]:
                heapq.heappush(ready, i)
    if len(order) < len(protos):
        raise ModelError(
            f"{name}: the graph has a cycle through node '{protos[next(i for i, b in enumerate(needs) if b)].name}'"
        )
    return [protos[i] for i in order]
