"""What a model file says of itself: its nodes, bodies spread out, and its initializers, which stay where they are."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from zig.errors import ModelError
from zig.model import bodies
from zig.model.bounds import excess
from zig.model.node import STANDARD, Node, plain
from zig.model.tensors import FLOATS, NOT_REAL, bring_in, check_size, check_tensor, is_inline

_LISTS_ALL = 3  # the last version of the format that lists every initializer as an input
LEVEL = 1 << 16  # bytes of a constant that may be the same number over and over
_DEFAULTS = 4  # the version of the format since which an initializer that is an input is but a default
_PIECE = 1 << 23  # bytes


class Structure:
    """A model's nodes in topological order and its initializers (Constants included); shapes are not known yet."""

    def __init__(
        self, proto: onnx.ModelProto, path: Path | None = None, folder: Path | None = None, tied: Collection[str] = (),
        freeze_inputs: bool = False,
    ):  # fmt: skip
        """Read a model; the arguments are those of `Graph`."""
        self.path, self.folder = path, folder or (path.parent if path else Path())
        self.name = str(path) if path else (proto.graph.name or "the model")
        if problem := excess(proto):
            raise ModelError(f"{self.name}: {problem}")
        self.proto = bodies.named_apart(self._inlined(proto) if proto.functions else proto)
        self.proto = self._with_data(self.proto)
        self.opsets = {o.domain if o.domain not in STANDARD else "": o.version for o in proto.opset_import}
        self.initializers = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.overridable = frozenset[str]() if freeze_inputs else overridable(self.proto)  # theirs is but a default
        self.frozen = overridable(self.proto) - self.overridable
        self.copies: dict[str, str] = {}  # initializers that are copies of others
        self.readings: dict[str, list[tuple[str, int]]] = {}  # who reads the copies that no node makes
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self.nodes = list(self._read_nodes(self.proto.graph, count()))
        self.inputs = [i.name for i in self.proto.graph.input if i.name not in self.initializers]
        self.outputs = [o.name for o in self.proto.graph.output]
        inputs = {i.name for i in self.proto.graph.input} if self.proto.ir_version > _LISTS_ALL else set[str]()
        self.tied = {*tied, *inputs}  # whoever runs the model may give it other values

    def _inlined(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        try:
            return inline_local_functions(proto)
        except (RuntimeError, onnx.checker.ValidationError) as error:
            why = str(error).splitlines()[0]
            raise ModelError(f"{self.name}: its functions can't be put where they are called ({why})") from error

    def _with_data(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The model with what its attributes keep in data files: there is no room for such files beside a target."""
        tensors = [tensor for node in bodies.nodes(proto.graph) for tensor in bodies.held(node)]
        for tensor in (tensor for tensor in tensors if tensor.HasField("segment") or not is_inline(tensor)):
            check_tensor(self.name, tensor, self.folder)
        if all(map(is_inline, tensors)):
            return proto
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for tensor in (tensor for node in bodies.nodes(copy.graph) for tensor in bodies.held(node)):
            if not is_inline(tensor):
                bring_in(self.name, tensor, self.folder)
        return copy

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

    def is_real(self, name: str) -> bool:
        """Whether an initializer holds real numbers, and always the same ones."""
        return name not in self.overridable and self.initializers[name].data_type not in NOT_REAL

    def is_float(self, name: str) -> bool:
        """Whether an initializer holds weights rather than indices or masks."""
        return self.initializers[name].data_type in FLOATS

    def _read_nodes(self, graph: onnx.GraphProto, index: Iterator[int]) -> Iterator[Node]:
        for proto in _sorted(list(graph.node), self.name):
            standard = proto.domain in STANDARD
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
            or tensor.ByteSize() > LEVEL
            or tensor.data_type not in FLOATS
            or not is_inline(tensor)
        ):
            return False
        check_size(self.name, tensor)
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


def overridable(proto: onnx.ModelProto) -> frozenset[str]:
    """The initializers that are inputs too, so that whoever runs the model may give them other values.

    Before version 4 of the format every initializer had to be listed as an input, and runtimes take them for constants.
    """
    if proto.ir_version < _DEFAULTS:
        return frozenset()
    return frozenset(tensor.name for tensor in proto.graph.initializer) & {value.name for value in proto.graph.input}


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
        tensor = numpy_helper.from_array(np.asarray(plain(attribute), dtype))
    tensor.name = proto.output[0]
    return tensor


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
