"""The shape arithmetic of exporters, evaluated before the model runs.

TorchScript exports compute shapes at run time (`Shape -> Gather -> Div -> Concat -> Reshape`). Here each element of
such an integer tensor becomes a number or a `Dim`, so that rules see constants; and sizes that onnx's own inference
left open are completed from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from onnx.checker import ValidationError
from onnx.defs import SchemaError, get_schema
from onnx.helper import make_tensor_type_proto, tensor_dtype_to_np_dtype
from onnx.numpy_helper import from_array, to_array
from onnx.shape_inference import InferenceError, infer_node_outputs

from zig import bodies
from zig.dims import Dim, Size, divide, number, product, symbol
from zig.errors import RuleError

if TYPE_CHECKING:
    from zig.graph import Graph, Node

Shapes = dict[str, tuple[Size, ...]]
Array = np.ndarray[Any, Any]
_LARGEST = 4096  # elements of a tensor that counts as shape arithmetic


def anonymous(tensor: str, axis: int) -> str:
    """The name of a size that nothing names: the axis itself."""
    return f"{tensor}[{axis}]"


def evaluate(graph: Graph, shapes: Shapes, complete: bool = False) -> dict[str, Array]:
    """Evaluate every integer tensor that follows from shapes and constants.

    Args:
        graph: its `nodes`, `initializers` and `array` are read.
        shapes: sizes of all tensors; with `complete`, open sizes are filled in on the way.
        complete: whether to fill `shapes`.

    Returns:
        For each known tensor an array of numbers, or of objects where a `Dim` is among them.
    """
    with np.errstate(all="ignore"):  # what is not a number is not known
        return _evaluate(graph, shapes, complete)


def _evaluate(graph: Graph, shapes: Shapes, complete: bool) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for node in graph.nodes:
        _read_constants(graph, node, values)
        operation = VALUES.get(node.op)
        if operation and all(not name or name in values or node.op in _BY_SHAPE for name in node.inputs):
            result = _attempt(operation, node, values, shapes)
            if result is not None and node.outputs:
                values[node.outputs[0]] = result
                shapes[node.outputs[0]] = result.shape
        if complete:
            _complete(node, shapes, values)
    return values


def _read_constants(graph: Graph, node: Node, values: dict[str, Array]) -> None:
    for name in node.inputs:
        tensor = graph.initializers.get(name)
        if tensor is not None and name not in values and graph.is_real(name):
            limit = _LARGEST if tensor.data_type in _INTEGERS else 8 if node.op in ("Resize", "Upsample") else 1
            if math.prod(tensor.dims) <= limit:  # a longer list of floats is a weight
                values[name] = graph.array(name)


NOT_REAL = {TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128}
_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}


def _attempt(operation: Callable[..., Any], node: Node, values: dict[str, Array], shapes: Shapes) -> Array | None:
    try:
        if node.op in _BY_SHAPE:
            result = operation(node, shapes[node.inputs[0]])
        else:
            result = operation(node, *(values[name] if name else None for name in node.inputs))
    except (TypeError, KeyError, ValueError, IndexError, ZeroDivisionError):
        return None  # not shape arithmetic after all: the tensor is simply not known in advance
    result = np.asarray(result)
    if result.dtype == object and not any(isinstance(size, Dim) for size in result.reshape(-1)):
        result = result.astype(np.int64)
    made_up = node.op in ("Expand", "ConstantOfShape") and _is_spread(result)
    return None if made_up or result.size > _LARGEST else result


def _is_spread(result: Array) -> bool:
    """Whether it is data: floats spread over an axis, or places spread over the features that are written there."""
    if result.dtype.kind == "f":
        return result.size > 1
    return result.ndim > 1 and result.shape[-1] > 1 and bool((result == result[..., :1]).all())


def _object(sizes: Any) -> Array:
    """Numbers where all are numbers, else objects."""
    flat = list(sizes)
    if not any(isinstance(size, Dim) for size in flat):
        return np.array(flat, np.int64)
    array = np.empty(len(flat), object)
    array[:] = flat
    return array


def _axes(node: Node, given: Array | None) -> Any:
    axes = node.attribute("axes") if given is None else given
    return None if axes is None else tuple(int(a) for a in np.atleast_1d(axes))


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, _axes(node, axes))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, _axes(node, axes))


def _slice(node: Node, x: Array, *given: Array | None) -> Array:
    for axis, selection in _selections(node, x.ndim, given):
        x = x[(slice(None),) * axis + (selection,)]
    return x


def _selections(node: Node, rank: int, given: tuple[Array | None, ...]) -> list[tuple[int, slice]]:
    """What a Slice selects, axis by axis."""
    names = ("starts", "ends", "axes", "steps")
    operands: list[Any] = [*given, None, None, None, None][:4]
    starts, ends, axes, steps = (node.attribute(n) if o is None else o for n, o in zip(names, operands, strict=True))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    rows = zip(axes, starts, ends, steps, strict=True)
    return [(int(a) % rank, slice(int(s), None if k < 0 and e < -(2**30) else int(e), int(k))) for a, s, e, k in rows]


def _sliced(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    sizes = list(inputs[0])
    if any(value is None for name, value in zip(node.inputs[1:], values[1:], strict=True) if name):
        raise ValueError("bounds that are not known in advance")
    for axis, selection in _selections(node, len(sizes), tuple(values[1:])):
        whole = selection == slice(0, selection.stop, 1) and (selection.stop or 0) >= 2**31 - 1
        sizes[axis] = sizes[axis] if whole else len(range(number(sizes[axis]))[selection])
    return tuple(sizes)


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
_BY_SHAPE = {"Shape", "Size"}


def reshaped(shape: tuple[Size, ...], target: Array, allowzero: bool = False) -> tuple[Size, ...]:
    """The sizes that Reshape gives: 0 copies, -1 takes what is left."""
    sizes = [shape[i] if s == 0 and not allowzero else s for i, s in enumerate(target.tolist())]
    if -1 in sizes:
        rest = divide(product(shape), product(s for s in sizes if s != -1))
        sizes[sizes.index(-1)] = symbol(f"{product(shape)}/{sizes}") if rest is None else rest
    return tuple(sizes)


def broadcast(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The common shape under numpy's rules; a symbol meets a symbol as itself."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True)
    return tuple(_widest(column) for column in columns)


def _widest(column: tuple[Size, ...]) -> Size:
    numbers = [size for size in column if isinstance(size, int) and size != 1]
    return numbers[0] if numbers else next((size for size in column if size != 1), 1)


def _complete(node: Node, shapes: Shapes, values: dict[str, Array]) -> None:
    """Fill in the sizes of a node's outputs that inference left open."""
    for i, name in enumerate(node.outputs):
        known = shapes.get(name)
        if not name or (known is not None and not any(_is_open(s, name, a) for a, s in enumerate(known))):
            continue
        sizes = _sizes(node, i, shapes, values)
        if (
            sizes is not None
            and all(isinstance(s, Dim) or (s is not None and s >= 0) for s in sizes)
            and (known is None or len(known) == len(sizes))
        ):
            keep = known or sizes
            shapes[name] = tuple(
                s if known is None or _is_open(k, name, a) else k
                for a, (k, s) in enumerate(zip(keep, sizes, strict=True))
            )


def _is_open(size: Size, tensor: str, axis: int) -> bool:
    return isinstance(size, Dim) and (size == symbol(anonymous(tensor, axis)) or str(size).startswith("unk__"))


def _sizes(node: Node, output: int, shapes: Shapes, values: dict[str, Array]) -> tuple[Size, ...] | None:
    if node.body is not None:
        if node.is_entry:
            return bodies.entry_shape(node, output, shapes)
        return bodies.result_shape(node, output, shapes, values.get(node.inputs[0]))
    inputs = [shapes.get(name) for name in node.inputs if name]
    if node.op in SIZES and inputs and inputs[0] is not None:
        try:
            found = SIZES[node.op](node, inputs, [values.get(name) for name in node.inputs])
            return found[output] if isinstance(found, list) else found
        except (TypeError, IndexError, ValueError, KeyError, AttributeError, RuleError):
            return None  # an operand is not known in advance, so neither is the size
    if node.op in BROADCASTING and all(s is not None for s in inputs) and inputs:
        return broadcast(*(s for s in inputs if s is not None))
    return _ask_onnx(node, output, shapes, values)


def _ask_onnx(node: Node, output: int, shapes: Shapes, values: dict[str, Array]) -> tuple[Size, ...] | None:
    """Let onnx infer one node, with every symbol under its own name, so that it comes back as it went in."""
    named: dict[str, Size] = {}
    types, data = {}, {}
    try:
        schema = get_schema(node.proto.op_type, node.version, node.proto.domain)
        for i, name in enumerate(node.inputs):
            if name in shapes:
                dtype = _kind(schema.inputs[min(i, len(schema.inputs) - 1)].types)
                named.update({str(size): size for size in shapes[name]})
                types[name] = make_tensor_type_proto(dtype, [n if isinstance(n, int) else str(n) for n in shapes[name]])
                if dtype == TensorProto.INT64 and name in values and values[name].dtype != object:
                    data[name] = from_array(values[name].astype(np.int64), name)
        inferred = infer_node_outputs(schema, node.proto, types, data)
    except (InferenceError, SchemaError, ValidationError, ValueError, KeyError, RuntimeError):
        return None  # onnx can't tell either
    shape = inferred[node.outputs[output]].tensor_type.shape if node.outputs[output] in inferred else None
    if shape is None or not len(shape.dim):
        return None
    dims = enumerate(shape.dim)
    return tuple(
        int(d.dim_value)
        if d.HasField("dim_value")
        else named.get(d.dim_param, symbol(anonymous(node.outputs[output], i)))
        for i, d in dims
    )


def _kind(allowed: Collection[str]) -> int:
    """A type that an operand may have, which is all that inference asks: floats, where they are allowed."""
    usual = next((text for text in _USUAL if text in allowed), None)
    names = [usual] if usual else sorted(allowed)
    return next((_KINDS[name] for name in names if name in _KINDS), TensorProto.FLOAT)


_KINDS: dict[str, int] = {f"tensor({name.lower()})": kind for name, kind in TensorProto.DataType.items() if kind}
_USUAL = ("tensor(float)", "tensor(int64)", "tensor(bool)")
BROADCASTING = {
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal",
    "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub",
    "Tanh", "Where",
}  # fmt: skip


def _window(node: Node, inputs: list[Any], _: Any) -> tuple[Size, ...]:
    """Spatial sizes of a convolution or pooling window, by ONNX's formula."""
    x: Any = inputs[0]
    weight: Any = inputs[1] if node.op.endswith("Conv") else None
    kernel = node.attribute("kernel_shape") or list(weight[2:])
    count = len(kernel)
    strides, dilations = (node.attribute(n) or [1] * count for n in ("strides", "dilations"))
    pads = node.attribute("pads") or [0] * 2 * count
    if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or node.attribute("ceil_mode", 0):
        raise ValueError("padding that depends on the size")
    sizes = [
        (x[2 + i] + (pads[i] + pads[i + count] - dilations[i] * (kernel[i] - 1) - 1)) // strides[i] + 1
        for i in range(count)
    ]
    return (x[0], weight[0] if weight is not None else x[1], *sizes)


def _squeezed(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    axes = node.attribute("axes") if len(values) < 2 else values[1].tolist()
    gone = {axis % len(inputs[0]) for axis in axes}
    return tuple(size for i, size in enumerate(inputs[0]) if i not in gone)


def _matmul(_: Node, inputs: list[Any], __: Any) -> tuple[Size, ...]:
    a, b = inputs
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _top(node: Node, inputs: list[Any], values: list[Any]) -> list[tuple[Size, ...]]:
    count = node.attribute("k") if len(inputs) < 2 else values[1].reshape(-1)[0]
    axis, sizes = node.attribute("axis", -1) % len(inputs[0]), list(inputs[0])
    sizes[axis] = count if isinstance(count, Dim) else int(count)
    return [tuple(sizes)] * 2


def _concat(node: Node, inputs: list[Any], _: Any) -> tuple[Size, ...]:
    axis = node.attribute("axis") % len(inputs[0])
    sizes = list(broadcast(*inputs))
    sizes[axis] = sum((s[axis] for s in inputs[1:]), start=inputs[0][axis])
    return tuple(sizes)


def _flattened(node: Node, inputs: list[Any], _: Any) -> tuple[Size, ...]:
    axis = node.attribute("axis", 1) % (len(inputs[0]) + 1)
    return product(inputs[0][:axis]), product(inputs[0][axis:])


def _resized(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise RuleError("the sizes are limits")
    sizes = list(inputs[0])
    axes = node.attribute("axes") or range(len(sizes))
    given = values[3] if len(values) > 3 else None
    if given is None:
        scales = values[2 if len(values) > 2 else 1]
        given = np.array([_scaled(sizes[a], float(k)) for a, k in zip(axes, scales, strict=True)], object)
    for axis, n in zip(axes, given.tolist(), strict=True):
        sizes[axis] = n
    return tuple(sizes)


def _scaled(size: Size, scale: float) -> Size:
    if isinstance(size, int):
        return int(size * scale)
    if scale.is_integer():
        return size * int(scale)
    if not (1 / scale).is_integer():
        raise RuleError("a dynamic size is scaled by a fraction")
    return size // int(1 / scale)


def _quantized_window(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    given = [inputs[0], inputs[3]] if node.op.endswith("Conv") else inputs[:1]
    return _channels_last(node, given, values) if node.attribute("channels_last", 0) else _window(node, given, values)


def _channels_last(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    n, *space, c = inputs[0]
    n, c, *space = _window(node, [(n, c, *space), *inputs[1:]], values)
    return (n, *space, c)


def _fused_matmul(node: Node, inputs: list[Any], values: list[Any]) -> tuple[Size, ...]:
    turned = (node.attribute("transA", 0), node.attribute("transB", 0))
    a, b = ((*x[:-2], x[-1], x[-2]) if turn else x for x, turn in zip(inputs, turned, strict=True))
    return _matmul(node, [a, b], values)


def _quantized_gemm(node: Node, inputs: list[Any], _: Any) -> tuple[Size, ...]:
    a, b = inputs[0], inputs[3]
    return a[1 if node.attribute("transA", 0) else 0], b[0 if node.attribute("transB", 0) else 1]


def _quantized_lstm(node: Node, inputs: list[Any], _: Any) -> list[tuple[Size, ...]]:
    (time, batch, _), directions, hidden = inputs[0], inputs[1][0], node.attribute("hidden_size")
    return [(time, directions, batch, hidden), (directions, batch, hidden), (directions, batch, hidden)]


_LIKE_THE_FIRST = """BatchNormalization LayerNormalization InstanceNormalization GroupNormalization
    SimplifiedLayerNormalization ai.onnx.ml.Scaler ai.onnx.ml.Imputer ai.onnx.ml.Normalizer ai.onnx.ml.Binarizer"""
_LIKE_THE_FIRST_TOO = """Gelu BiasGelu FastGelu QuickGelu SkipLayerNormalization SkipSimplifiedLayerNormalization
    RotaryEmbedding QuantizeLinear DequantizeLinear QLinearSigmoid QLinearLeakyRelu QLinearSoftmax"""
# How the sizes of an output follow where onnx's inference gave up.
SIZES: dict[str, Callable[..., tuple[Size, ...] | list[tuple[Size, ...]]]] = {
    "Reshape": lambda node, ins, vals: reshaped(ins[0], vals[1], bool(node.attribute("allowzero", 0))),
    "Expand": lambda node, ins, vals: broadcast(ins[0], tuple(vals[1].tolist())),
    "ConstantOfShape": lambda node, ins, vals: tuple(vals[0].tolist()),
    "Transpose": lambda node, ins, vals: tuple(ins[0][i] for i in node.attribute("perm") or range(len(ins[0]))[::-1]),
    "Conv": _window,
    "MaxPool": _window,
    "AveragePool": _window,
    "MatMul": _matmul,
    "Squeeze": _squeezed,
    "Concat": _concat,
    "TopK": _top,
    "Flatten": _flattened,
    "Tile": lambda node, ins, vals: tuple(s * int(k) for s, k in zip(ins[0], vals[1], strict=True)),
    "Slice": _sliced,
    "Resize": _resized,
    "Upsample": _resized,
    **{name: lambda node, ins, vals: ins[0] for name in _LIKE_THE_FIRST.split()},
    **{f"com.microsoft.{name}": lambda node, ins, vals: ins[0] for name in _LIKE_THE_FIRST_TOO.split()},
    **{
        f"com.microsoft.{name}": lambda node, ins, vals: broadcast(ins[0], ins[3])
        for name in ("QLinearAdd", "QLinearMul")
    },
    "com.microsoft.QLinearWhere": lambda node, ins, vals: broadcast(ins[0], ins[1], ins[4]),
    "com.microsoft.QGemm": _quantized_gemm,
    "com.microsoft.MatMulIntegerToFloat": lambda node, ins, vals: _matmul(node, ins[:2], vals),
    "com.microsoft.DynamicQuantizeMatMul": lambda node, ins, vals: _matmul(node, ins[:2], vals),
    "MatMulInteger": lambda node, ins, vals: _matmul(node, ins[:2], vals),
    "com.microsoft.DynamicQuantizeLSTM": _quantized_lstm,
    "com.microsoft.QLinearConcat": lambda node, ins, vals: _concat(node, ins[2::3], vals),
    "com.microsoft.FusedConv": _window,
    "com.microsoft.NhwcConv": _channels_last,
    "com.microsoft.NhwcFusedConv": _channels_last,
    "com.microsoft.NhwcMaxPool": _channels_last,
    "com.microsoft.QLinearConv": _quantized_window,
    "com.microsoft.QLinearAveragePool": _quantized_window,
    "com.microsoft.QLinearGlobalAveragePool": lambda node, ins, vals: (*ins[0][:2], *[1] * (len(ins[0]) - 2)),
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.TransposeMatMul": _fused_matmul,
    "com.microsoft.MatMulNBits": lambda node, ins, vals: (*ins[0][:-1], node.attribute("N")),
    "com.microsoft.Attention": lambda node, ins, vals: (*ins[0][:2], divide(ins[1][1], 3)),
    "com.microsoft.MultiHeadAttention": lambda node, ins, vals: (*ins[0][:2], ins[2][2]),
    "MaxUnpool": lambda node, ins, vals: tuple(vals[2].tolist()),
}
