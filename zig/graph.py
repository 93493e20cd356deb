"""An ONNX model as zig sees it: nodes in order, shapes, small constants; weights stay where they are.

Only shapes and small constants are read for the analysis. External weights are memory-mapped when somebody asks for
them. `shapes` holds an exact size for each axis (a number or a `Dim`), `values` the integer tensors that exporters
compute shapes with, evaluated symbolically by `zig.arithmetic`.
"""

from __future__ import annotations

import heapq
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from zig import arithmetic, bodies, bridge, damage, shared
from zig.bounds import excess
from zig.dims import Size, parse, symbol
from zig.errors import ModelError
from zig.reading import read

if TYPE_CHECKING:
    import onnx_ir

Source = "str | os.PathLike[str] | onnx.ModelProto | Graph"
_LISTS_ALL = 3  # the last version of the format that lists every initializer as an input
_SMALL = 1024  # bytes of a constant that shape inference may look at
_LEVEL = 1 << 16  # bytes of a constant that may be the same number over and over
_STANDARD = ("", "ai.onnx")
_DEFAULTS = 4  # the version of the format since which an initializer that is an input is but a default
_NAMES = re.compile(r"[A-Za-z_][\w.]*")  # in a size such as `2*batch + 1`


class Node:
    """One operator call. `op` is the operator's name, with its domain in front unless it is the standard one."""

    __slots__ = (
        "_attributes", "body", "captured", "formals", "index", "inputs", "name", "op", "outputs", "proto", "version",
    )  # fmt: skip

    def __init__(self, proto: onnx.NodeProto, index: int, version: int):
        """Wrap the node that stands at `index`, of a domain imported at `version`."""
        self.proto, self.index, self.version = proto, index, version
        self.op = proto.op_type if proto.domain in _STANDARD else f"{proto.domain}.{proto.op_type}"
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
            self._attributes = {a.name: _plain(a) for a in self.proto.attribute}
        return self._attributes.get(name, default)

    @property
    def is_entry(self) -> bool:
        """Whether its results are the inputs of a body."""
        return bool(self.formals) and self.outputs is self.formals

    def __repr__(self) -> str:
        return f"{self.op} '{self.name}'"


class Graph:
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
        self.path, self.folder = path, folder or (path.parent if path else Path())
        self.name = str(path) if path else (proto.graph.name or "the model")
        if problem := excess(proto):
            raise ModelError(f"{self.name}: {problem}")
        self.proto = bodies.named_apart(self._inlined(proto) if proto.functions else proto)
        self.proto = self._with_data(self.proto)
        self.opsets = {o.domain if o.domain not in _STANDARD else "": o.version for o in proto.opset_import}
        self.initializers = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.overridable = frozenset[str]() if freeze_inputs else overridable(self.proto)  # theirs is but a default
        self.frozen = overridable(self.proto) - self.overridable
        self.copies: dict[str, str] = {}  # initializers that are copies of others
        self.nodes = list(self._read_nodes(self.proto.graph, count()))
        self.inputs = [i.name for i in self.proto.graph.input if i.name not in self.initializers]
        self.outputs = [o.name for o in self.proto.graph.output]
        damage.check(self)
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        inputs = {i.name for i in self.proto.graph.input} if self.proto.ir_version > _LISTS_ALL else set[str]()
        self.tied = {*tied, *inputs}  # whoever runs the model may give it other values
        self.readings = shared.read_apart(self)  # who reads the copies that no node makes
        self._facts: dict[str, tuple[tuple[int, ...], bool, float]] = {}
        self._declared = [info for graph in bodies.walk(self.proto.graph) for info in _infos(graph)]
        self._doubtful = self._doubt()
        self._infer()
        for name in self.initializers:
            self.facts(name)

    def _inlined(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        try:
            return inline_local_functions(proto)
        except (RuntimeError, onnx.checker.ValidationError) as error:
            why = str(error).splitlines()[0]
            raise ModelError(f"{self.name}: its functions can't be put where they are called ({why})") from error

    def _with_data(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The model with what its attributes keep in data files: there is no room for such files beside a target."""
        tensors = [tensor for node in bodies.nodes(proto.graph) for tensor in bodies.held(node)]
        for tensor in (tensor for tensor in tensors if tensor.HasField("segment") or not _is_inline(tensor)):
            damage.check_tensor(self.name, tensor, self.folder)
        if all(map(_is_inline, tensors)):
            return proto
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for tensor in (tensor for node in bodies.nodes(copy.graph) for tensor in bodies.held(node)):
            if not _is_inline(tensor):
                damage.bring_in(self.name, tensor, self.folder)
        return copy

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

    def forget(self, name: str) -> None:
        """Hold the values of an initializer no longer."""
        self._arrays.pop(name, None)

    def pieces(self, name: str) -> list[slice]:
        """The rows of an initializer in runs of a few megabytes, to read it piece by piece; for a scalar, all of it."""
        dims = self.initializers[name].dims
        rows = dims[0] if dims else 1
        step = 4 * max(1, _PIECE * rows // (4 * max(self.array(name).nbytes, 1)))  # up to four numbers share a byte
        return [slice(start, start + step) for start in range(0, rows, step)]

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
            first = next((types[name] for name in node.inputs if types.get(name) in _FLOATS), TensorProto.UNDEFINED)
            types.update({name: first for name in node.outputs if name and not types.get(name)})
        return types

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The node that makes each tensor; of what passes into and out of bodies none."""
        return {name: node for node in self.nodes if node.body is None for name in node.outputs if name}

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, as often as they do."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in (*node.inputs, *node.captured):
                readers.setdefault(name, []).append(node)
        return readers

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """What is known of a tensor before the model runs: real numbers, or an object array with `Dim`s, or None."""
        if name in self.values:
            return self.values[name]
        return self.array(name) if name in self.initializers and self.is_real(name) else None

    def is_real(self, name: str) -> bool:
        """Whether an initializer holds real numbers, and always the same ones."""
        return name not in self.overridable and self.initializers[name].data_type not in arithmetic.NOT_REAL

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
        small = tensor.ByteSize() <= _LEVEL and self.is_float(name) and _is_inline(tensor)
        return small and name not in self.tied and name not in self.overridable and not self.array(name).any()

    @staticmethod
    def scalar(tensor: TensorProto) -> float:
        """The first element of a tensor that an attribute holds."""
        return float(numpy_helper.to_array(tensor).reshape(-1)[0])

    def is_constant(self, name: str) -> bool:
        """Whether an initializer is one of several copies of a constant, see `zig.shared`."""
        return name in self.readings or name in {self.copies[copy] for copy in self.readings}

    def is_float(self, name: str) -> bool:
        """Whether an initializer holds weights rather than indices or masks."""
        return self.initializers[name].data_type in _FLOATS

    @property
    def parameters(self) -> int:
        """The number of elements in all float initializers that some node reads."""
        read = {name for node in self.nodes for name in (*node.inputs, *node.captured)} - self.readings.keys()
        return sum(
            int(np.prod(t.dims, dtype=np.int64)) for n, t in self.initializers.items() if n in read and self.is_float(n)
        )

    def _read_nodes(self, graph: onnx.GraphProto, index: Iterator[int]) -> Iterator[Node]:
        for proto in _sorted(list(graph.node), self.name):
            standard = proto.domain in _STANDARD
            if proto.op_type == "Constant" and standard and (tensor := _constant_tensor(proto)) is not None:
                self.initializers[proto.output[0]] = tensor
                continue
            if proto.op_type == "Identity" and standard and self._is_level(proto.input[0]):
                self._copy(proto.input[0], proto.output[0])
                continue
            node = Node(proto, next(index), self.opsets.get("" if standard else proto.domain, 1))
            inner = bodies.entered(proto, node.version)
            if inner and bodies.fit(proto, inner):
                yield from self._spread(node, inner, index)
            yield node

    def _is_level(self, name: str) -> bool:
        """Whether an initializer is one float over and over."""
        tensor = self.initializers.get(name)
        if (
            tensor is None
            or name in self.overridable
            or tensor.ByteSize() > _LEVEL
            or tensor.data_type not in _FLOATS
            or not _is_inline(tensor)
        ):
            return False
        damage.check_size(self.name, tensor)
        values = numpy_helper.to_array(tensor)
        return values.size > 1 and bool((values == values.flat[0]).all())

    def _copy(self, name: str, copy: str) -> None:
        """An Identity of zeros or ones is a parameter of its own: torch's exporter stores equal parameters once.

        Other parameters are never equal by chance: there the Identity stands for one weight that is used many times.
        """
        self.initializers[copy] = TensorProto.FromString(self.initializers[name].SerializeToString())
        self.initializers[copy].name = copy
        self.copies[copy] = name

    def _spread(self, node: Node, inner: list[onnx.GraphProto], index: Iterator[int]) -> Iterator[Node]:
        """What stands before a node with bodies: its entry and the nodes of the bodies."""
        node.body, node.captured = bodies.body(node.proto, inner), ()
        node.formals = [value.name for graph in inner for value in graph.input]
        if node.formals:
            yield node.entry(next(index))
        for graph in inner:
            self.initializers |= {tensor.name: tensor for tensor in graph.initializer}
            yield from self._read_nodes(graph, index)
        node.inputs += [*node.formals, *(value.name for graph in inner for value in graph.output)]

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
        self.values = arithmetic.evaluate(self, self.shapes, complete=True)
        before, left = float("inf"), self._open_sizes()
        while 0 < left < before:
            self.shapes = self._shapes_of(self._inferred())
            self.values = arithmetic.evaluate(self, self.shapes, complete=True)
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
        return shape is None or any(size == symbol(arithmetic.anonymous(name, i)) for i, size in enumerate(shape))

    def _note_growing(self) -> bool:
        """Whether sizes were found that change from step to step, so that what was taken from the start is wrong."""
        found = False
        for node in self.nodes:
            if node.body is not None and node.body.carries and not node.is_entry:
                new = set(bodies.growing(node, self.shapes)) - node.body.grown
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
        small = [tensor for tensor in fixed if tensor.ByteSize() <= _SMALL and _is_inline(tensor)]
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
                dtype = types.get(name) or types.get(bodies.source(node, i))
                if dtype and (shape := self.shapes.get(name)) is not None:
                    types[name] = dtype
                    sizes = [n if isinstance(n, int) else str(n) for n in shape]
                    yield onnx.helper.make_tensor_value_info(name, dtype, sizes)

    def _open_sizes(self) -> int:
        """How many sizes are not known as numbers; a tensor without a shape counts as many."""
        shapes = [self.shapes.get(name) for node in self.nodes for name in node.outputs if name]
        return sum(8 if shape is None else sum(not isinstance(n, int) for n in shape) for shape in shapes)


def overridable(proto: onnx.ModelProto) -> frozenset[str]:
    """The initializers that are inputs too, so that whoever runs the model may give them other values.

    Before version 4 of the format every initializer had to be listed as an input, and runtimes take them for constants.
    """
    if proto.ir_version < _DEFAULTS:
        return frozenset()
    return frozenset(tensor.name for tensor in proto.graph.initializer) & {value.name for value in proto.graph.input}


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
    with damage.blaming(str(path or proto.graph.name or "the model"), proto):
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


_PIECE = 1 << 23  # bytes
_FLOATS = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
}  # fmt: skip


def _size(dim: Any, tensor: str, axis: int) -> Size:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return parse(dim.dim_param) if dim.dim_param else symbol(arithmetic.anonymous(tensor, axis))


def _infos(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, ...]:
    return (*graph.input, *graph.value_info, *graph.output)


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
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode(errors="replace") for text in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _sorted(protos: list[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """Nodes in topological order, stable; files from hand-written tools are not always sorted.

    Raises:
        ModelError: the graph has a cycle.
    """
    producer = {out: i for i, proto in enumerate(protos) for out in proto.output if out}
    needs = [{producer[n] for n in (*p.input, *bodies.captured(p)) if n in producer} for p in protos]
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
