"""Models written as ONNX text with named sizes, and how to run them.

A size is an expression over letters (`c`, `2*c`), so that one text gives as many models as there are sizes:

    build("h = Gemm (x, w, b)", c=4, x="2 3", w="3 c", b="c")

Tensors whose name begins with `x` are inputs, all others initializers with random values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import zig
from zig import bodies

Array = np.ndarray[Any, Any]
BATCH = 8  # what a symbol stands for when a model runs


def build(
    text: str, *, opset: int = 20, ir_version: int = 10, seed: int = 0, dynamic: str = "", returns: str = "float",
    functions: str = "", **given: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model from the nodes of a graph.

    Args:
        text: nodes in ONNX text, one a line; `{...}` in an attribute holds an expression over sizes. The results that
            no node reads are the model's outputs.
        opset: version of the standard domain.
        ir_version: version of the file format.
        seed: of the random values.
        dynamic: letters that are symbols of the model's input instead of numbers.
        returns: type of the outputs.
        functions: model-local functions in ONNX text, of the domain `local`.
        given: letters (an int) and tensors: the sizes as text (`"c 3"` for a float one, `"positive: c"`, `"zeros: c"`, `"int8: c"`), the
            entries of an integer one as a list, a float scalar, or an array.
    """
    letters = {name: value for name, value in given.items() if isinstance(value, int)}
    tensors = {name: value for name, value in given.items() if not isinstance(value, int)}
    text = re.sub(r"\{(\d*[*]?[a-z][\w*+/-]*)\}", lambda found: str(evaluate(found[1], letters)), text)
    opsets = f'["" : {opset}, "com.microsoft" : 1, "local" : 1]'
    header = f"<ir_version : {ir_version}, opset_import : {opsets}>"
    model = parser.parse_model(f"{header} graph () => () {{\n{text}\n}}\n{functions}")
    generator = np.random.default_rng(seed)
    for name, value in tensors.items():
        if name.startswith("x"):
            model.graph.input.append(_input(name, value, letters, dynamic))
        else:
            model.graph.initializer.append(numpy_helper.from_array(_array(value, letters, generator), name))
    read = {name for node in model.graph.node for name in (*node.input, *bodies.captured(node))}
    dtype = TensorProto.DataType.Value(returns.upper())
    for name in (name for node in model.graph.node for name in node.output if name and name not in read):
        model.graph.output.append(helper.make_tensor_value_info(name, dtype, None))
    _declare_sizes(model)
    return model


def _declare_sizes(model: onnx.ModelProto) -> None:
    """Give the outputs the sizes that they have, without which a model is no valid ONNX; not those of inner tensors."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return  # for onnx's reference or onnxruntime to complain of
    for declared, known in zip(model.graph.output, inferred.graph.output, strict=True):
        if known.type.tensor_type.HasField("shape"):
            declared.type.tensor_type.shape.CopyFrom(known.type.tensor_type.shape)


def evaluate(expression: str, letters: Mapping[str, int]) -> int:
    """The number that a size stands for."""
    return int(eval(expression, {}, dict(letters)))


def _input(name: str, spec: str, letters: Mapping[str, int], dynamic: str) -> onnx.ValueInfoProto:
    kind, _, sizes = spec.rpartition(":")
    shape = [s if s in ("N", "S", *dynamic) else evaluate(s, letters) for s in sizes.split()]
    return helper.make_tensor_value_info(name, TensorProto.INT64 if kind else TensorProto.FLOAT, shape)


def _array(value: Any, letters: Mapping[str, int], generator: np.random.Generator) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list):
        return np.array([evaluate(str(entry), letters) for entry in value], np.int64)
    if isinstance(value, float):
        return np.float32(value).reshape(())
    kind, _, sizes = value.rpartition(":")
    shape = [evaluate(size, letters) for size in sizes.split()]
    if kind in ("int8", "uint8", "int32"):
        return generator.integers(0 if kind == "uint8" else -9, 10, shape).astype(kind)
    if kind in ("zeros", "ones"):
        return np.full(shape, float(kind == "ones"), np.float32)
    values = generator.standard_normal(shape).astype(np.float32)
    return np.abs(values) + np.float32(0.5) if kind == "positive" else values


def feeds(model: onnx.ModelProto, seed: int = 0, **symbols: int) -> dict[str, Array]:
    """Random inputs: floats are normal, integers in [0, 7); a symbol is `BATCH` unless told."""
    generator = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in (value for value in model.graph.input if value.name not in constants):
        tensor = value.type.tensor_type
        shape = [symbols.get(d.dim_param, BATCH) if d.dim_param else d.dim_value for d in tensor.shape.dim]
        floats = tensor.elem_type == TensorProto.FLOAT
        found[value.name] = (
            generator.standard_normal(shape).astype(np.float32) if floats else generator.integers(0, 7, shape)
        )
    return found


class NhwcConv(OpRun):
    """A convolution with channels last, for which onnxruntime has no kernel on every processor."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, w: Array, *bias: Array, **attributes: Any) -> tuple[Array]:
        names = ["x", "w", "b"][: 2 + len(bias)]
        conv = helper.make_node("Conv", names, ["y"], **{k: v for k, v in attributes.items() if v is not None})
        y = ReferenceEvaluator(conv).run(None, dict(zip(names, (np.moveaxis(x, -1, 1), w, *bias), strict=True)))[0]
        return (np.moveaxis(np.asarray(y), 1, -1),)


class NhwcFusedConv(NhwcConv):
    """The same, here without an activation."""


def session(model: onnx.ModelProto | Path) -> Callable[[dict[str, Array]], list[Array]]:
    """The model as a function of its inputs: onnxruntime, or onnx's reference where onnxruntime lacks an operator."""
    import onnxruntime  # here, since the fuzzer builds graphs in processes that must not load it

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        ready = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    ) as error:
        told = str(error).lower()
        if not any(text in told for text in ("unrecognized", "not implemented", "not_implemented", "opset")):
            raise
        reference = ReferenceEvaluator(
            str(model) if isinstance(model, Path) else model, new_ops=[NhwcConv, NhwcFusedConv]
        )
        return lambda inputs: [np.asarray(a) for a in reference.run(None, inputs)]
    return lambda inputs: ready.run(None, inputs)


def run(model: onnx.ModelProto | Path, inputs: dict[str, Array]) -> list[Array]:
    """The outputs of one run."""
    return session(model)(inputs)


def difference(a: list[Array], b: list[Array]) -> float:
    """The largest difference of any output, relative to its largest entry; infinite where shapes or nans differ."""
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(a: Array, b: Array) -> float:
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return np.inf
    finite = np.isfinite(a)
    if not finite.any() or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else np.inf
    return float(np.abs(a[finite] - b[finite]).max() / max(np.abs(a[finite]).max(), 1e-30))


def families(partition: zig.Partition) -> set[str]:
    """The node groups as text, `4: w1.1 b1.0 | w2.0`: size, members, dependents."""
    return {family(group.size, group.members, group.dependents) for group in partition.node_groups}


def family(size: int, members: list[tuple[str, int]], dependents: list[tuple[str, int]]) -> str:
    """One node group as text."""
    left, right = (" ".join(f"{name}.{axis}" for name, axis in sorted(side)) for side in (members, dependents))
    return f"{size}: {left} | {right}".rstrip(" |")


def expected(groups: str, letters: Mapping[str, int]) -> set[str]:
    """Node groups as a test writes them, one a line or between `;`, with letters for sizes."""
    lines = (line.strip() for line in re.split(r"[;\n]", groups))
    return {_expected(line, letters) for line in lines if line}


def _expected(line: str, letters: Mapping[str, int]) -> str:
    size, _, axes = line.partition(":")
    sides = [
        [(name, int(axis)) for name, _, axis in (entry.rpartition(".") for entry in side.split())]
        for side in [*axes.split("|"), ""][:2]
    ]
    return family(evaluate(size, letters), sides[0], sides[1])


def shapes(model: onnx.ModelProto | Path) -> dict[str, tuple[int, ...]]:
    """The sizes of all initializers."""
    proto = onnx.load(model) if isinstance(model, Path) else model
    return {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}


def half(partition: zig.Partition, seed: int = 0) -> zig.Plan:
    """A random plan that leaves at least one group of each node group, and takes at least one where two are there."""
    generator = np.random.default_rng(seed)
    remove = np.zeros(len(partition), bool)
    for group in partition.node_groups:
        if group.size > 1:
            count = generator.integers(1, group.size)
            remove[generator.choice(group.groups, count, replace=False)] = True
    return zig.Plan(partition, remove)
