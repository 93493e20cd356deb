"""The arithmetic that exporters do with shapes, on arrays of numbers and symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.numpy_helper import to_array

from zig.model.dims import Dim, Size, product
from zig.model.node import Node

Array = np.ndarray[Any, Any]


def _object(sizes: Any) -> Array:
    """Numbers where all are numbers, else objects."""
    flat = list(sizes)
    if not any(isinstance(size, Dim) for size in flat):
        return np.array(flat, np.int64)
    array = np.empty(len(flat), object)
    array[:] = flat
    return array


def axes_of(node: Node, given: Array | None) -> Any:
    """The axes that a node names by an operand, or by its attribute; None for all."""
    axes = node.attribute("axes") if given is None else given
    return None if axes is None else tuple(int(a) for a in np.atleast_1d(axes))


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axes_of(node, axes))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, axes_of(node, axes))


def _slice(node: Node, x: Array, *given: Array | None) -> Array:
    for axis, selection in selections(node, x.ndim, given):
        x = x[(slice(None),) * axis + (selection,)]
    return x


def selections(node: Node, rank: int, given: tuple[Array | None, ...]) -> list[tuple[int, slice]]:
    """What a Slice selects, axis by axis."""
    names = ("starts", "ends", "axes", "steps")
    operands: list[Any] = [*given, None, None, None, None][:4]
    starts, ends, axes, steps = (node.attribute(n) if o is None else o for n, o in zip(names, operands, strict=True))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    rows = zip(axes, starts, ends, steps, strict=True)
    return [(int(a) % rank, slice(int(s), None if k < 0 and e < -(2**30) else int(e), int(k))) for a, s, e, k in rows]


def _cast(node: Node, x: Array) -> Array:
    return x if x.dtype == object else x.astype(tensor_dtype_to_np_dtype(node.attribute("to")))


def _div(_: Node, a: Array, b: Array) -> Array:
    whole = all(x.dtype == object or np.issubdtype(x.dtype, np.integer) for x in (a, b))
    return np.floor_divide(a, b) if whole else np.true_divide(a, b)


def _fill(node: Node, shape: Array) -> Array:
    tensor = node.attribute("value")
    value = 0 if tensor is None else _scalar(tensor)
    return np.full([int(s) for s in shape], value)


def _scalar(tensor: TensorProto) -> Any:
    return to_array(tensor).reshape(-1)[0]


def _shape(node: Node, shape: tuple[Size, ...]) -> Array:
    return _object(shape[node.attribute("start", 0) : node.attribute("end")])


def _equal(_: Node, a: Array, b: Array) -> Array:
    """Equality that is the same for every value of a symbol; unknown ones are left alone by a TypeError."""
    pairs = list(np.broadcast(a, b))
    if any(x != y and _may_meet(x, y) for x, y in pairs):
        raise TypeError("different sizes may still be equal when the model runs")
    return np.array([x == y for x, y in pairs], bool).reshape(np.broadcast(a, b).shape)


def _may_meet(a: Any, b: Any) -> bool:
    """Whether two different sizes can be equal when the model runs; none is negative or 0."""
    return (isinstance(a, Dim) or isinstance(b, Dim)) and all(isinstance(size, Dim) or size > 0 for size in (a, b))


# What each operator of shape arithmetic computes, on arrays of numbers or `Dim`s.
VALUES: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Size": lambda node, shape: product(shape),
    "Identity": lambda node, x: x,
    "Cast": _cast,
    "Gather": lambda node, x, i: np.take(x, i.astype(np.int64), axis=node.attribute("axis", 0)),
    "GatherElements": lambda node, x, i: np.take_along_axis(x, i.astype(np.int64), axis=node.attribute("axis", 0)),
    "Slice": _slice,
    "Concat": lambda node, *xs: np.concatenate([np.asarray(x) for x in xs], axis=node.attribute("axis", 0)),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": lambda node, x, s: x.reshape([int(i) for i in s]),
    "Transpose": lambda node, x: np.transpose(x, node.attribute("perm")),
    "Add": lambda node, a, b: np.add(a, b),
    "Sub": lambda node, a, b: np.subtract(a, b),
    "Mul": lambda node, a, b: np.multiply(a, b),
    "Div": _div,
    "Mod": lambda node, a, b: np.mod(a, b),
    "Neg": lambda node, a: np.negative(a),
    "Floor": lambda node, a: a if a.dtype == object else np.floor(a),
    "Ceil": lambda node, a: a if a.dtype == object else np.ceil(a),
    "Sqrt": lambda node, a: np.sqrt(a),
    "Min": lambda node, *xs: np.minimum.reduce([x.astype(np.int64) for x in xs]),
    "Max": lambda node, *xs: np.maximum.reduce([x.astype(np.int64) for x in xs]),
    "Equal": _equal,
    "Where": lambda node, c, a, b: np.where(c.astype(bool), a, b),
    "Expand": lambda node, x, s: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(i) for i in s))),
    "ConstantOfShape": _fill,
    "Range": lambda node, a, b, c: np.arange(int(a), int(b), int(c)),
    "ReduceProd": lambda node, x, *axes: np.array(
        [product(x.tolist())] if node.attribute("keepdims", 1) else product(x.tolist())
    ),
}
BY_SHAPE = {"Shape", "Size"}
