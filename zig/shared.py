"""Constants that several nodes read: every reader gets a copy of its own, so that they tie no layers to each other.

Exporters store equal tensors once: the zeros that all recurrent layers start from, or into which a graph network adds
its messages. What repeats all along an axis is no weight that was learned, so that its readers have nothing in common
but a number. In the file they go on sharing it, as long as none of them needs it narrower or with zeros in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

if TYPE_CHECKING:
    import onnx_ir as ir

    from zig.graph import Graph, Node

    Use = tuple[Node, int]
Array = np.ndarray[Any, Any]
Reading = tuple[str, int]  # a result of the node that reads, and which operand that is


def read_apart(graph: Graph) -> dict[str, list[Reading]]:
    """Let all readers of a constant but the first read copies of it, by names of their own.

    The graph's nodes and initializers are changed, its proto is not.

    Returns:
        For each copy, who reads it: a node with a body reads twice, before and after it.
    """
    taken = graph.initializers.keys() | {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    found: dict[str, list[Reading]] = {}
    for name, uses in _read_often(graph):
        if not _repeats(graph.array(name)):
            graph.forget(name)
        else:
            for use in uses:
                copy = next(free for i in range(1, len(taken) + 2) if (free := f"{name}_{i}") not in taken)
                taken.add(copy)
                graph.initializers[copy] = _copied(graph.initializers[name], copy)
                graph.copies[copy] = name
                found[copy] = [_read(node, operand, copy) for node, operand in use]
    return found


def _read_often(graph: Graph) -> Iterator[tuple[str, list[list[Use]]]]:
    """Initializers that may hold constants, with the readers that could do with a copy."""
    uses: dict[str, dict[tuple[int, int], list[Use]]] = {}
    others = set(graph.outputs)
    for node in graph.nodes:
        others.update((*node.captured, *node.inputs[len(node.proto.input) :]))
        for operand, name in enumerate(node.proto.input):
            if name in graph.initializers and any(node.proto.output):
                uses.setdefault(name, {}).setdefault((id(node.proto), operand), []).append((node, operand))
    for name, found in uses.items():
        first = int(name not in others)  # who may go on reading the tensor itself
        if (
            len(found) > first
            and _may_lie_along_units(graph.initializers[name])
            and name not in graph.tied | graph.overridable
        ):
            yield name, list(found.values())[first:]


def _may_lie_along_units(tensor: TensorProto) -> bool:
    """Whether it is no list of sizes or the like."""
    return tensor.data_type in _KINDS or (tensor.data_type in _INDICES and len(tensor.dims) > 1)


def _read(node: Node, operand: int, copy: str) -> Reading:
    node.inputs[operand] = copy
    if node.body is None:  # else it is never asked for by itself
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        proto.input[operand] = copy
        node.proto = proto
    return next(name for name in node.proto.output if name), operand


def _copied(tensor: TensorProto, name: str) -> TensorProto:
    """The tensor under another name; a large one is the same object."""
    if tensor.ByteSize() > _SMALL:
        return tensor
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _repeats(values: Array) -> bool:
    """Whether the values are the same all along some axis."""
    return values.size > 1 and any(
        n > 1 and _alike(np.moveaxis(values, axis, 0)) for axis, n in enumerate(values.shape)
    )


def _alike(slices: Array) -> bool:
    """Whether all slices are the same; a few numbers tell of nearly all weights that they are not."""
    few = slices[tuple(slice(None, None, max(1, n // _PLACES)) for n in slices.shape)]
    return bool((few == few[:1]).all()) and bool((slices == slices[:1]).all())


# -- the model that is edited -----------------------------------------------------------------------------------------


def give_copies(model: ir.Model, graph: Graph) -> None:
    """Make the copies initializers of an editable model, and let their readers read them; the values are shared."""
    import onnx_ir as ir  # noqa: PLC0415 - a quarter of a second that the analysis does not need

    makers = {out.name: node for node in model.graph.all_nodes() for out in node.outputs} if graph.readings else {}
    for copy, readings in graph.readings.items():
        tensor = ir.Tensor(graph.array(copy), ir.DataType(graph.initializers[copy].data_type), name=copy)
        value = ir.Value(name=copy, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(value)
        for result, operand in readings:
            makers[result].replace_input_with(operand, value)


def rejoin(model: ir.Model, graph: Graph, changed: Collection[str]) -> None:
    """Let those that read a constant as it was read one tensor again."""
    values = {value.name: value for node in model.graph.all_nodes() for value in node.inputs if value is not None}
    families: dict[str, list[str]] = {}
    for copy in graph.readings:
        families.setdefault(graph.copies[copy], [graph.copies[copy]]).append(copy)
    for family in families.values():
        same = [values[name] for name in family if name in values and name not in changed]
        for value in same[1:]:
            value.replace_all_uses_with(same[0])
            model.graph.initializers.pop(str(value.name))


_PLACES = 4  # of each axis that are looked at first
_SMALL = 1024  # bytes of a tensor that is copied with its values
_KINDS = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16,
    TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32,
}  # fmt: skip
_INDICES = {TensorProto.INT64, TensorProto.BOOL}
