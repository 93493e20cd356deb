"""An ONNX model as zig sees it: nodes in order, shapes, small constants; weights stay where they are.

Only shapes and small constants are read for the analysis. External weights are memory-mapped when somebody asks for
them. `shapes` holds an exact size for each axis (a number or a `Dim`), `values` the integer tensors that exporters
compute shapes with, evaluated symbolically by `zig.model.shapes`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from zig.errors import ModelError
from zig.model import bodies, body_shapes, bridge, checks, shared
from zig.model.dims import Size, parse, symbol
from zig.model.node import Node
from zig.model.reading import read
from zig.model.shapes import anonymous, evaluate
from zig.model.structure import LEVEL, Structure
from zig.model.tensors import FLOATS, is_inline

if TYPE_CHECKING:
    import onnx_ir

Source = "str | os.PathLike[str] | onnx.ModelProto | Graph"
_SMALL = 1024  # bytes of a constant that shape inference may look at
_NAMES = re.compile(r"[A-Za-z_][\w.]*")  # in a size such as `2*batch + 1`


class Graph(Structure):
    """A loaded model: `nodes` in topological order, `initializers` (Constants included), `shapes` and `values`."""

    def __init__(
        self, proto: onnx.ModelProto, path: Path | None = None, folder: Path | None = None, tied: Collection[str] = (),
        freeze_inputs: bool = False,
    ):  # fmt: skip
        """Read the structure of a model.

        Args:
            proto: the model.
            path: its file.
            folder: where its external data lie, if not beside it.
            tied: initializers that stay one tensor for all their readers even where they hold a constant.
            freeze_inputs: whether nobody overrides an initializer that is an input as well.

        Raises:
            ModelError: the model has no nodes, a cycle, or external data that can't be used.
        """
        super().__init__(proto, path, folder, tied, freeze_inputs)
        checks.check(self)
        self.readings = shared.read_apart(self)
        self._facts: dict[str, tuple[tuple[int, ...], bool, float]] = {}
        self._declared = [info for graph in bodies.walk(self.proto.graph) for info in _infos(graph)]
        self._doubtful = self._doubt()
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

        for value in self.proto.graph.output:
            if value.type.HasField("map_type") or value.type.sequence_type.elem_type.HasField("map_type"):
                raise ModelError(
                    f"{self.name}: output '{value.name}' is a map, which zig can't write; leave the last node (ZipMap) "
                    "out, for example by the exporter's options={'zipmap': False}"
                )
        for node in bodies.nodes(self.proto.graph):
            if any(a.HasField("sparse_tensor") or a.sparse_tensors for a in node.attribute):
                raise ModelError(
                    f"{self.name}: node '{node.name}' ({node.op_type}) holds a sparse tensor, which zig can't write; "
                    "export it as a dense one"
                )
        try:
            model = onnx_ir.serde.deserialize_model(self.proto)
        except (onnx_ir.serde.SerdeError, ValueError, TypeError, NotImplementedError) as error:
            why = f"{error}" if error.__cause__ is None else f"{error.__cause__}"
            raise ModelError(f"{self.name}: holds what zig can't write ({why}); export the model again") from error
        unlist(model, self.frozen)
        onnx_ir.external_data.set_base_dir(model.graph, self.folder.absolute())
        shared.give_copies(model, self)
        return model

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
        types = {info.name: info.type.tensor_type.elem_type for info in self._inferred({})}
        types |= {name: tensor.data_type for name, tensor in self.initializers.items()}
        for node in self.nodes:
            first = next((types[name] for name in node.inputs if types.get(name) in FLOATS), TensorProto.UNDEFINED)
            types.update({name: first for name in node.outputs if name and not types.get(name)})
        return types

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """What is known of a tensor before the model runs: real numbers, or an object array with `Dim`s, or None."""
        if name in self.values:
            return self.values[name]
        return self.array(name) if name in self.initializers and self.is_real(name) else None

    def facts(self, name: str) -> tuple[tuple[int, ...], bool, float]:
        """Of an initializer: its shape, whether it holds weights, and its value if it is one number, or 0 all over."""
        if name not in self._facts:
            tensor = self.initializers[name]
            dims = tuple(tensor.dims)
            single = math.prod(dims) == 1 and self.is_real(name)
            number = float(self.array(name).reshape(-1)[0]) if single else 0.0 if self._is_nothing(name) else math.nan
            self._facts[name] = dims, self.is_float(name), number
        return self._facts[name]

    def _is_nothing(self, name: str) -> bool:
        """Whether an initializer is zero all over, and nobody gives it other values."""
        tensor = self.initializers[name]
        small = tensor.ByteSize() <= LEVEL and self.is_float(name) and is_inline(tensor)
        return small and name not in self.tied and name not in self.overridable and not self.array(name).any()

    @staticmethod
    def scalar(tensor: TensorProto) -> float:
        """The first element of a tensor that an attribute holds."""
        return float(numpy_helper.to_array(tensor).reshape(-1)[0])

    def is_constant(self, name: str) -> bool:
        """Whether an initializer is one of several copies of a constant, see `zig.model.shared`."""
        return name in self.readings or name in {self.copies[copy] for copy in self.readings}

    @property
    def parameters(self) -> int:
        """The number of elements in all float initializers that some node reads."""
        read = {name for node in self.nodes for name in (*node.inputs, *node.captured)} - self.readings.keys()
        return sum(
            int(np.prod(t.dims, dtype=np.int64)) for n, t in self.initializers.items() if n in read and self.is_float(n)
        )

    def _shapes_of(self, infos: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[Size, ...]]:
        shapes = {name: tuple(tensor.dims) for name, tensor in self.initializers.items()}
        for info in infos:
            tensor = info.type.tensor_type
            if info.name not in shapes and info.type.HasField("tensor_type") and tensor.HasField("shape"):
                shapes[info.name] = tuple(_size(d, info.name, i) for i, d in enumerate(tensor.shape.dim))
        return shapes

    def _infer(self) -> None:
        """Let onnx infer open shapes, again with what shape arithmetic makes of them, until nothing is gained."""
        self.shapes = self._shapes_of(self._declared)
        self.values = evaluate(self, self.shapes, complete=True)
        before, left = float("inf"), self._open_sizes()
        while 0 < left < before:
            self.shapes = self._shapes_of(self._inferred())
            self.values = evaluate(self, self.shapes, complete=True)
            before, left = left, self._open_sizes()
        unsaid = {name for name in self._doubtful if self._is_unsaid(name)}
        self._declared = [self._doubtful.pop(info.name) if info.name in unsaid else info for info in self._declared]
        if unsaid or self._note_growing():
            self._infer()

    def _doubt(self) -> dict[str, onnx.ValueInfoProto]:
        """Leave out of what is declared the sizes over symbols which no input has; the shapes that had some, by name.

        Tools leave their own there where they could not tell a size (`Reshape_470_o0__d1`), and shape arithmetic often
        can: they are asked only where nothing else says a size.
        """
        known = {dim.dim_param for value in self.proto.graph.input for dim in value.type.tensor_type.shape.dim}
        known |= {name for text in known for name in _NAMES.findall(text)}
        doubtful, rest = dict[str, onnx.ValueInfoProto](), dict[str, onnx.ValueInfoProto]()
        for value in self.proto.graph.value_info:
            texts = {dim.dim_param for dim in value.type.tensor_type.shape.dim} - known
            foreign = {text for text in texts if not known.issuperset(_NAMES.findall(text))}
            if foreign:
                doubtful[value.name], rest[value.name] = value, onnx.ValueInfoProto()
                rest[value.name].CopyFrom(value)
                for dim in rest[value.name].type.tensor_type.shape.dim:
                    if dim.dim_param in foreign:
                        dim.ClearField("dim_param")
        self._declared = [rest.get(info.name, info) for info in self._declared]
        return doubtful

    def _is_unsaid(self, name: str) -> bool:
        """Whether some size of a tensor has no name but its own."""
        shape = self.shapes.get(name)
        return shape is None or any(size == symbol(anonymous(name, i)) for i, size in enumerate(shape))

    def _note_growing(self) -> bool:
        """Whether sizes were found that change from step to step, so that what was taken from the start is wrong."""
        found = False
        for node in self.nodes:
            if node.body is not None and node.body.carries and not node.is_entry:
                new = set(body_shapes.growing(node, self.shapes)) - node.body.grown
                node.body.grown.update(new)
                found |= bool(new)
        return found

    def _inferred(self, values: dict[str, np.ndarray[Any, Any]] | None = None) -> tuple[onnx.ValueInfoProto, ...]:
        """What onnx's shape inference makes of the nodes, without weights, shape arithmetic replaced by its results.

        What passes in and out of bodies comes in as given: onnx is not asked about nodes that hold bodies.
        """
        values = self.values if values is None else values
        main = self.proto.graph
        bare = onnx.ModelProto(ir_version=max(self.proto.ir_version, 4))  # so that initializers need not be inputs
        bare.opset_import.extend(self.proto.opset_import)
        bare.graph.name = main.name or "graph"
        known = [numpy_helper.from_array(v, n) for n, v in values.items()
                 if n not in self.initializers and v.dtype != object]  # fmt: skip
        fixed = [tensor for name, tensor in self.initializers.items() if name not in self.overridable]
        small = [tensor for tensor in fixed if tensor.ByteSize() <= _SMALL and is_inline(tensor)]
        bare.graph.initializer.extend([*small, *known])
        given = {tensor.name for tensor in bare.graph.initializer} | {value.name for value in main.input}
        bare.graph.input.extend(main.input)
        for name, tensor in self.initializers.items():
            if name not in given:
                bare.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        given |= self.initializers.keys()
        bare.graph.input.extend(info for info in self._through_bodies() if info.name not in given)
        given |= {info.name for info in bare.graph.input}
        bare.graph.node.extend(
            n.proto
            for n in self.nodes
            if n.body is None and not given.issuperset(filter(None, n.outputs)) and not self._flips(n)
        )
        bare.graph.output.extend(main.output)
        bare.graph.value_info.extend(info for info in self._declared if info.name not in given)
        try:
            return _infos(onnx.shape_inference.infer_shapes(bare, data_prop=True).graph)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            return tuple(self._declared)  # a model that inference refuses is analysed with the shapes it declares

    def _flips(self, node: Node) -> bool:
        """Whether a Slice goes backwards over what may be empty: some of these end the process in onnx's inference."""
        steps = self.constant(node.inputs[4]) if node.op == "Slice" and len(node.inputs) > 4 else None
        if steps is None or steps.dtype == object or not (steps < 0).any():
            return False
        sizes = self.shapes.get(node.inputs[0])
        return sizes is None or any(isinstance(n, int) and n < 1 for n in sizes)

    def _through_bodies(self) -> Iterator[onnx.ValueInfoProto]:
        """The inputs of bodies, and the results of the nodes that hold them, as far as they are known."""
        types = {info.name: info.type.tensor_type.elem_type for info in self._declared}
        for node in (node for node in self.nodes if node.body is not None):
            for i, name in enumerate(node.outputs):
                dtype = types.get(name) or types.get(body_shapes.source(node, i))
                if dtype and (shape := self.shapes.get(name)) is not None:
                    types[name] = dtype
                    sizes = [n if isinstance(n, int) else str(n) for n in shape]
                    yield onnx.helper.make_tensor_value_info(name, dtype, sizes)

    def _open_sizes(self) -> int:
        """How many sizes are not known as numbers; a tensor without a shape counts as many."""
        shapes = [self.shapes.get(name) for node in self.nodes for name in node.outputs if name]
        return sum(8 if shape is None else sum(not isinstance(n, int) for n in shape) for shape in shapes)


def unlist(model: onnx_ir.Model, names: Collection[str]) -> None:
    """Leave out these initializers from what the model lists as its inputs."""
    left = [value for value in model.graph.inputs if value.name not in names]
    if len(left) < len(model.graph.inputs):
        model.graph.inputs[:] = left


def load(source: Any, tied: Collection[str] = (), freeze_inputs: bool = False) -> Graph:
    """Load a model from a path, or wrap what holds one in memory; a Graph comes back as it is.

    Args:
        source: a path, an `onnx.ModelProto`, an `onnx_ir.Model`, an `onnx_graphsurgeon.Graph` or a `Graph`.
        tied: initializers that stay one tensor for all their readers even where they hold a constant, as parameters do
            that training has yet to change.
        freeze_inputs: whether nobody overrides an initializer that is an input as well, see `zig.analyze`.

    Raises:
        ModelError: the file is missing, is not ONNX, or its external data can't be used.
    """
    if isinstance(source, Graph):
        return source
    if bridge.is_graphsurgeon(source):
        proto, folder = bridge.to_model(source)
        path = None
    else:
        proto, path = _read(source)
        folder = None
    with checks.blaming(str(path or proto.graph.name or "the model"), proto):
        return Graph(proto, path, folder, tied, freeze_inputs)


def _read(source: Any) -> tuple[onnx.ModelProto, Path | None]:
    if isinstance(source, onnx.ModelProto):
        return source, None
    if not isinstance(source, str | os.PathLike):
        import onnx_ir  # noqa: PLC0415

        return onnx_ir.to_proto(source), None
    path = Path(source)
    proto = read(path)
    if not proto.graph.node:
        raise ModelError(f"{path}: is not an ONNX model, or it is empty")
    return proto, path


def _size(dim: Any, tensor: str, axis: int) -> Size:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return parse(dim.dim_param) if dim.dim_param else symbol(anonymous(tensor, axis))


def _infos(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*graph.input, *graph.value_info, *graph.output)
