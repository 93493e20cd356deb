"""A model edited in memory so that a comparison of outputs means more: it shows more, and leaves nothing to chance.

A Sigmoid that is saturated, a Softmax, an ArgMax give the same output for very different inputs. The tensors before
them, here called probes, are compared too. Operators that draw random numbers get a seed. bfloat16, for which
onnxruntime has hardly a kernel, becomes float32, which holds every value of it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from zig.model import bodies, tensors

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, *HALVES)
_FLATTENS = {
    "Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Hardmax", "Clip", "Softsign", "Erf", "ArgMax", "ArgMin", "TopK",
    "NonZero", "NonMaxSuppression", "Unique", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Round",
    "Floor", "Ceil", "Sign", "QuantizeLinear",
}  # fmt: skip
_PASSES = {
    "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Concat", "Slice", "Split", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "Pad", "ScatterND", "ScatterElements", "Add", "Sub", "Mul", "Div",
    "Neg", "Cast", "Where", "And", "Or", "Not", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "Exp", "Sqrt",
    "DequantizeLinear",
}  # fmt: skip
_ROUNDS = {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_TABLES = {"Gather": ((1, 0),), "com.microsoft.EmbedLayerNormalization": ((0, 2), (1, 4))}
_VARIADIC = onnx.defs.OpSchema.FormalParameterOption.Variadic
_REACH = 64  # nodes behind an output that are looked at


def probes(graph: GraphProto) -> dict[str, tuple[str, ...]]:
    """For each output the tensors before the last operators on the way to it that flatten values or decide by them."""
    makers = {name: node for node in graph.node for name in node.output if name}
    return {output.name: tuple(_before(output.name, makers)) for output in graph.output}


def _before(name: str, makers: Mapping[str, NodeProto]) -> Iterator[str]:
    waiting, seen = deque([name]), {name}
    while waiting and len(seen) < _REACH:
        node = makers.get(waiting.popleft())
        if node is None or node.domain not in ("", "ai.onnx", "com.microsoft"):
            continue
        if _flattens(node):
            yield from (name for name in node.input[:2] if name in makers)
        elif node.op_type in _PASSES:
            fresh = [name for name in node.input if name not in seen]
            seen.update(fresh)
            waiting.extend(fresh)


def _flattens(node: NodeProto) -> bool:
    if node.op_type == "Cast":
        return not any(attribute.name == "to" and attribute.i in _FLOATS for attribute in node.attribute)
    return node.op_type in _FLATTENS


def tables(graph: GraphProto) -> dict[str, int]:
    """For inputs that are looked up in a table of weights: how many rows it has."""
    rows = {tensor.name: tensor.dims for tensor in graph.initializer}
    source = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Cast", "Identity") and node.output
    }
    found: dict[str, int] = {}
    for node in graph.node:
        for indices, table in _TABLES.get(f"{node.domain}.{node.op_type}".lstrip("."), ()):
            if len(node.input) > max(indices, table) and rows.get(node.input[table]):
                name = source.get(node.input[indices], node.input[indices])
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                size = rows[node.input[table]][axis] if axis < len(rows[node.input[table]]) else 0
                found[name] = min(found.get(name, size), size)
    return found


def is_half(model: ModelProto) -> bool:
    """Whether any weight or result has the half of float32's bits."""
    ends = (value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output))
    return any(kind in HALVES for kind in (*ends, *(tensor.data_type for tensor in model.graph.initializer)))


def is_rough(model: ModelProto) -> bool:
    """Whether it computes with fewer bits than those of float32: in half floats, or in integers that it rounds to.

    Where sums come out in another order, a number next to the middle between two integers becomes the other one.
    """
    weights = {tensor.name for graph in _graphs(model) for tensor in graph.initializer}
    rounding = (node for graph in _graphs(model) for node in graph.node if node.op_type in _ROUNDS)
    return is_half(model) or any(node.input and node.input[0] not in weights for node in rounding)


def is_shared(model: ModelProto) -> bool:
    """Whether it is a matter of threads what comes out: each quantises its share of a batch by the range of that.

    Whether onnxruntime shares the batch among them depends on the number of units, and that is less in a small model.
    """
    return any(node.op_type == "DynamicQuantizeLSTM" for graph in _graphs(model) for node in graph.node)


def is_random(model: ModelProto) -> bool:
    """Whether any node draws random numbers."""
    return any(node.op_type in _RANDOM for graph in _graphs(model) for node in graph.node)


def edited(model: ModelProto, shown: Iterable[str], given: Mapping[str, int], folder: str) -> ModelProto | None:
    """A copy that shows inner tensors as outputs and takes others as inputs, seeds what is random, widens bfloat16.

    Args:
        model: the model.
        shown: names of tensors.
        given: names of tensors, with their element types; what their nodes compute is not read any more.
        folder: where external data lie.

    Returns:
        The copy, or None where it would be equal to the model.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    more = sorted(set(shown) - {output.name for output in model.graph.output})
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
    for node in copy.graph.node:
        for i, name in enumerate(node.output):
            if name in given:
                node.output[i] = f"{name} (computed)"
    copy.graph.input.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in given.items())
    seeded = [_seed(node) for graph in _graphs(copy) for node in graph.node]
    return copy if any((widen(copy, folder), *seeded, more, given)) else None


def unsound(model: ModelProto) -> str:
    """What onnxruntime does not look for and would not survive; empty where there is nothing of the kind.

    Operands missing in the middle of a list of any length end its process, as attention by no heads does, and a Scan
    over more inputs than it has takes all memory.
    """
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for node in (node for graph in _graphs(model) for node in graph.node):
        if node.op_type == "Scan":
            count = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
            if not 0 < count <= len(node.input):
                return f"node '{node.name}' (Scan) scans {count} inputs of {len(node.input)}"
        elif any(a.name in ("q_num_heads", "kv_num_heads") and a.i < 1 for a in node.attribute):
            return f"node '{node.name}' ({node.op_type}) has no heads"
        elif "" in node.input and _has_gap(node, versions):
            return f"node '{node.name}' ({node.op_type}) lacks an operand"
    return ""


def _has_gap(node: NodeProto, versions: Mapping[str, int]) -> bool:
    """Whether an operand is missing where any number of them may stand."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = _schema(node.op_type, versions.get(domain, 1), domain)
    any_number = schema and schema.inputs and schema.inputs[-1].option == _VARIADIC
    return bool(any_number) and not all(list(node.input)[len(schema.inputs) - 1 :])


def _schema(operator: str, version: int, domain: str) -> Any:
    try:
        return onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:  # an operator of somebody else's, or one that is younger than the model says it is
        return None


def _seed(node: NodeProto) -> bool:
    """Give a node that draws random numbers a seed, the same one in every model that has it."""
    if node.op_type not in _RANDOM or any(attribute.name == "seed" for attribute in node.attribute):
        return False
    node.attribute.append(helper.make_attribute("seed", float(zlib.crc32(node.output[0].encode()) % 2**20)))
    return True


def widen(model: ModelProto, folder: str) -> bool:
    """Turn bfloat16 into float32 everywhere; whether there was any."""
    found = [_widen_tensor(tensor, folder) for graph in _graphs(model) for tensor in graph.initializer]
    for graph in _graphs(model):
        found += [_widen_value(value) for value in (*graph.input, *graph.output, *graph.value_info)]
        found += [_widen_attribute(a, folder) for node in graph.node for a in node.attribute]
    for function in model.functions:
        found += [_widen_attribute(a, folder) for node in function.node for a in node.attribute]
    return any(found)


def _widen_tensor(tensor: TensorProto, folder: str) -> bool:
    if tensor.data_type != TensorProto.BFLOAT16:
        return False
    if tensor.data_location == TensorProto.EXTERNAL:
        tensors.bring_in("the model", tensor, Path(folder))
    values = numpy_helper.to_array(tensor).astype("float32")
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return True


def _widen_value(value: onnx.ValueInfoProto) -> bool:
    if value.type.tensor_type.elem_type != TensorProto.BFLOAT16:
        return False
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return True


def _widen_attribute(attribute: AttributeProto, folder: str) -> bool:
    if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == TensorProto.BFLOAT16:
        attribute.i = TensorProto.FLOAT
        return True
    return attribute.HasField("t") and _widen_tensor(attribute.t, folder)


def _graphs(model: ModelProto) -> list[GraphProto]:
    """The graph and all that lie in it, the outer ones first."""
    return list(bodies.walk(model.graph))
