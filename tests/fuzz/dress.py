"""The same network, written in other ways that files have: none of them changes what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Random = np.random.Generator


def _weights(model: onnx.ModelProto) -> list[TensorProto]:
    return [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 0]


def as_nodes(model: onnx.ModelProto, random: Random) -> None:
    """Initializers become Constant nodes."""
    chosen = [tensor for tensor in model.graph.initializer if random.random() < 0.5]
    for tensor in chosen:
        model.graph.initializer.remove(tensor)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in chosen]
    _replace(model.graph.node, [*nodes, *model.graph.node])


def as_inputs(model: onnx.ModelProto, random: Random) -> None:
    """Initializers are inputs as well, as in old files."""
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )


def turned(model: onnx.ModelProto, random: Random) -> None:
    """Weights are stored with their axes turned and come through a Transpose."""
    for tensor in _weights(model):
        if len(tensor.dims) > 1 and random.random() < 0.3:
            order = random.permutation(len(tensor.dims))
            stored = np.transpose(numpy_helper.to_array(tensor), np.argsort(order))
            _before(model, tensor, "Transpose", stored, perm=order.tolist())


def flattened(model: onnx.ModelProto, random: Random) -> None:
    """Weights are stored flat and come through a Reshape."""
    for tensor in _weights(model):
        if random.random() < 0.2:
            sizes = numpy_helper.from_array(np.array(tensor.dims), f"{tensor.name}_sizes")
            _before(model, tensor, "Reshape", numpy_helper.to_array(tensor).reshape(-1), more=[sizes])


def in_double(model: onnx.ModelProto, random: Random) -> None:
    """Weights are stored in double precision."""
    for tensor in _weights(model):
        if random.random() < 0.3:
            _before(model, tensor, "Cast", numpy_helper.to_array(tensor).astype(np.float64), to=TensorProto.FLOAT)


def in_bytes(model: onnx.ModelProto, random: Random) -> None:
    """Weights are stored in eight bits, with one scale for all or one for each index of an axis."""
    for tensor in _weights(model):
        if len(tensor.dims) < 2 or random.random() > 0.3 or 0 in tensor.dims:
            continue
        values, axis = numpy_helper.to_array(tensor), int(random.integers(len(tensor.dims)))
        others = tuple(a for a in range(values.ndim) if a != axis) if random.random() < 0.5 else None
        scale = np.maximum(np.abs(values).max(axis=others), 1e-3).astype(np.float32) / 127
        wide = scale if others is None else np.expand_dims(scale, others)
        stored = np.clip(np.round(values / wide), -127, 127).astype(np.int8)
        more = [numpy_helper.from_array(np.asarray(scale, np.float32), f"{tensor.name}_scale")]
        _before(model, tensor, "DequantizeLinear", stored, more=more, axis=axis)


def shared(model: onnx.ModelProto, random: Random) -> None:
    """Weights of one shape are one weight."""
    first: dict[tuple[int, ...], str] = {}
    for tensor in _weights(model):
        name = first.setdefault(tuple(tensor.dims), tensor.name)
        if name != tensor.name and random.random() < 0.5:
            for node in model.graph.node:
                for i, read in enumerate(node.input):
                    if read == tensor.name:
                        node.input[i] = name


def computed(model: onnx.ModelProto, random: Random) -> None:
    """The first size of a Reshape is taken from the tensor at run time."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        given = constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        if given is not None and len(given.dims) and random.random() < 0.7:
            sizes = numpy_helper.to_array(given)
            if len(sizes) > 1 and sizes[0] == 0:
                name = f"{node.output[0]}_size"
                model.graph.initializer.extend([
                    numpy_helper.from_array(np.array([0]), f"{name}_zero"),
                    numpy_helper.from_array(sizes[1:], f"{name}_rest"),
                ])  # fmt: skip
                nodes += [
                    helper.make_node("Shape", [node.input[0]], [f"{name}_all"]),
                    helper.make_node("Gather", [f"{name}_all", f"{name}_zero"], [f"{name}_first"]),
                    helper.make_node("Concat", [f"{name}_first", f"{name}_rest"], [name], axis=0),
                ]
                node.input[1] = name
        nodes.append(node)
    _replace(model.graph.node, nodes)


def zeroed(model: onnx.ModelProto, random: Random) -> None:
    """Slices of weights are zero, without their partners being so."""
    for tensor in _weights(model):
        if random.random() < 0.5:
            values = np.array(numpy_helper.to_array(tensor))
            axis = int(random.integers(min(values.ndim, 2)))
            np.moveaxis(values, axis, 0)[random.random(values.shape[axis]) < 0.4] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def shuffled(model: onnx.ModelProto, random: Random) -> None:
    """Nodes in no order at all, which onnxruntime takes."""
    nodes = [model.graph.node[i] for i in random.permutation(len(model.graph.node))]
    _replace(model.graph.node, nodes)


def nameless(model: onnx.ModelProto, random: Random) -> None:
    """Tensors with names that need quoting, nodes with the same name."""
    names = {name for node in model.graph.node for name in node.output if name} - {o.name for o in model.graph.output}
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return
    new = {name: f"/layer.0/{i}:0 é" for i, name in enumerate(sorted(names))}
    for node in model.graph.node:
        node.name = "node"
        for list_ in (node.input, node.output):
            list_[:] = [new.get(name, name) for name in list_]


# What needs an order of nodes, or names, comes before what takes them away.
DRESSES: dict[str, Callable[[onnx.ModelProto, Random], None]] = {
    dress.__name__: dress
    for dress in (
        zeroed,
        shared,
        computed,
        turned,
        flattened,
        in_double,
        in_bytes,
        as_nodes,
        as_inputs,
        nameless,
        shuffled,
    )
}


def dressed(model: onnx.ModelProto, dresses: frozenset[str], seed: int) -> onnx.ModelProto:
    """A copy of the model, written in these ways."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, (name, dress) in enumerate(DRESSES.items()):
        if name in dresses:
            dress(copy, np.random.default_rng([seed, number]))
    return copy


def _before(
    model: onnx.ModelProto,
    tensor: TensorProto,
    operator: str,
    stored: Any,
    more: list[TensorProto] | None = None,
    **attributes: Any,
) -> None:
    """Store other values under another name, from which a node makes the tensor."""
    name, more = tensor.name, more or []
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(stored), f"{name}_stored"))
    model.graph.initializer.extend(more)
    node = helper.make_node(operator, [tensor.name, *(one.name for one in more)], [name], **attributes)
    _replace(model.graph.node, [node, *model.graph.node])


def _replace(field: Any, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del field[:]
    field.extend(kept)
