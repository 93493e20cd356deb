"""Prunes a random half, cuts it without any verification, and compares by plain onnxruntime, apart from zig's verifier.

Inputs come at several scales, since what a gate hides from small ones it may let through for large ones; and every
`Where` and `If` that chooses between data is held open and shut.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import zig
from zig.errors import ZigError
from zig.units import Call

Array = np.ndarray[Any, Any]
SCALES = (0.01, 1.0, 30.0, 60.0)
HELD = (None, True, False)  # as the model decides, or every choice the same
EXACT = 3e-4  # of the largest entry of an output: float32, summed in another order, at any scale
FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}


@dataclass(frozen=True)
class Pair:
    """A model with a random half of its groups at zero, and what is left of it when they are cut."""

    model: onnx.ModelProto
    zeroed: onnx.ModelProto
    small: onnx.ModelProto
    removed: int
    chosen: frozenset[str]  # results of the `Where`s that choose between data


def pair(model: onnx.ModelProto, folder: Path, seed: int = 0, **options: Any) -> Pair | None:
    """Zero and cut without verification; None where there is nothing to cut."""
    partition = zig.analyze(model, **options)
    plan = graphs.half(partition, seed)
    if not plan.remove.any():
        return None
    zeroed, small = folder / "zeroed.onnx", folder / "small.onnx"
    zig.zero(plan, zeroed)
    report = zig.compress(model, small, plan, check=False)
    chosen = (call.node.outputs[0] for call in partition.flow.calls if call.node.op == "Where" and _is_free(call))
    return Pair(model, onnx.load(zeroed), onnx.load(small), report.removed, frozenset(chosen))


def _is_free(call: Call) -> bool:
    """Whether a choice does not follow from what is pruned: where that rests is known, so is what is chosen there."""
    return not call.tensor(0).live


def worst(found: Pair, inputs: Iterable[dict[str, Array]]) -> float:
    """The largest difference of the two, over all inputs, scales and choices."""
    inputs, largest = list(inputs), 0.0
    for held in HELD if _chooses(found) else HELD[:1]:
        whole, zeroed, small = (hold(m, held, found.chosen) for m in (found.model, found.zeroed, found.small))
        try:
            before, full = graphs.session(whole), graphs.session(zeroed)
            wanted = [full(x) for x in inputs]
        except Exception:
            if held is None:
                raise NotRunnableError from None
            continue
        cut = graphs.session(small)
        for x in inputs:
            some = _finite(before(scaled(x, SCALES[0])))
            for scale in SCALES:
                given = scaled(x, scale)
                wanted = full(given)
                outputs = before(given)
                alive = _finite(outputs)
                if alive == some and not _infinite(outputs):  # else it is too large for this network, whoever runs it
                    assert _finite(wanted) or not alive, "what is zeroed leaves nothing defined"
                    far = graphs.difference(wanted, cut(given))
                    steady = far <= EXACT or graphs.difference(wanted, full(scaled(given, 1 + 1e-6))) <= EXACT / 10
                    largest = max(largest, far if steady else 0.0)  # else rounding alone does as much
    return largest


def _infinite(outputs: list[Array]) -> bool:
    return any(np.isinf(array).any() for array in outputs if array.dtype.kind == "f")


def _finite(outputs: list[Array]) -> bool:
    return all(np.isfinite(array).all() for array in outputs if array.dtype.kind == "f")


def runs(model: onnx.ModelProto, inputs: dict[str, Array]) -> bool:
    """Whether onnxruntime takes the model at all."""
    try:
        graphs.run(model, inputs)
    except Exception:
        return False
    return True


class NotRunnableError(Exception):
    """onnxruntime does not run the full model."""


def scaled(inputs: dict[str, Array], scale: float) -> dict[str, Array]:
    """The floats among the inputs, times a number."""
    return {k: np.asarray(v * scale, v.dtype) if v.dtype.kind == "f" else v for k, v in inputs.items()}


def _chooses(found: Pair) -> bool:
    return bool(found.chosen) or any(node.op_type == "If" for node in walk(found.zeroed.graph))


def walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from walk(attribute.g)


def hold(model: onnx.ModelProto, held: bool | None, chosen: frozenset[str]) -> onnx.ModelProto:
    """The model with every choice between data held open (True) or shut (False)."""
    if held is None:
        return model
    model = copy.deepcopy(model)
    always = numpy_helper.from_array(np.array(held), "held")
    for graph in _graphs(model.graph):
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            if node.op_type == "If" or (node.op_type == "Where" and node.output[0] in chosen):
                name = f"{node.output[0]}.held"
                graph.node.append(helper.make_node("Or" if held else "And", [node.input[0], "held"], [name]))
                node.input[0] = name
            graph.node.append(node)
    model.graph.initializer.append(always)
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


# -- attributes -----------------------------------------------------------------------------------------------------

_STRINGS = {
    "activations": ["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus",
                    "Sigmoid", "Tanh", "Relu"],
    "activation": ["Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid", "silu", "swish", "none"],
    "auto_pad": ["SAME_UPPER", "SAME_LOWER", "VALID"],
    "approximate": ["tanh", "none"], "direction": ["forward", "reverse", "bidirectional", "LEFT", "RIGHT"],
    "mode": ["constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic", "DCR", "CRD", "bilinear", "bicubic",
             "avg", "max"],
    "coordinate_transformation_mode": ["half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
                                       "pytorch_half_pixel", "half_pixel_symmetric", "output_half_pixel"],
    "nearest_mode": ["floor", "ceil", "round_prefer_ceil"], "keep_aspect_ratio_policy": ["not_larger", "not_smaller"],
    "padding_mode": ["zeros", "border", "reflection"],
    "reduction": ["none", "add", "mul", "max", "min", "mean", "sum"],
}  # fmt: skip
_COUNTS = {"RNN": 1, "GRU": 2, "LSTM": 3, "DynamicQuantizeLSTM": 3}


def variants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model with one attribute of one node at another value, whether or not anything runs it; with its name."""
    opsets = {o.domain: o.version for o in model.opset_import}
    for place, node in enumerate(model.graph.node):
        for attribute, schema in _attributes(node, opsets):
            given = next((helper.get_attribute_value(a) for a in node.attribute if a.name == attribute), None)
            for value in _values(node, attribute, schema, given):
                other = copy.deepcopy(model)
                changed = other.graph.node[place]
                kept = [a for a in changed.attribute if a.name != attribute]
                del changed.attribute[:]
                changed.attribute.extend([*kept, helper.make_attribute(attribute, value)])
                _forget_sizes(other)
                yield f"{node.op_type}.{attribute}={value}", other


def _attributes(node: onnx.NodeProto, opsets: dict[str, int]) -> list[tuple[str, Any]]:
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:  # onnxruntime's own: those that are written
        return [(a.name, a.type) for a in node.attribute]
    return [(name, int(a.type.value)) for name, a in schema.attributes.items()]


def _values(node: onnx.NodeProto, name: str, kind: int, given: Any) -> list[Any]:
    if kind == AttributeProto.FLOAT:
        return [v for v in (0.0, 1.0, -0.7, 0.3, 2.5) if v != given]
    if name == "saturate":  # a switch: other numbers are nobody's
        return [0, 1]
    if kind == AttributeProto.INT and name not in ("to", "hidden_size", "num_outputs"):  # the last ends onnx's process
        return [v for v in (0, 1, 2, -1) if v != given]
    if kind == AttributeProto.STRING:
        return [v for v in _STRINGS.get(name, []) if v.encode() != given]
    if kind == AttributeProto.STRINGS and name == "activations":
        return list(_activations(node))
    if kind == AttributeProto.FLOATS:
        count = len(given) if given else _COUNTS.get(node.op_type, 1)
        return [[0.3] * count, [-0.4] * count]
    if kind == AttributeProto.INTS:
        counts = [len(given)] if given else [1, 2, 4]
        least = 0 if name in ("pads", "axes", "output_padding") else 1
        return [[v] * n for v in range(least, 3) for n in counts]
    return []


def _activations(node: onnx.NodeProto) -> Iterator[list[str]]:
    count = _COUNTS[node.op_type]
    both = any(a.name == "direction" and a.s == b"bidirectional" for a in node.attribute)
    usual = {1: ["Tanh"], 2: ["Sigmoid", "Tanh"], 3: ["Sigmoid", "Tanh", "Tanh"]}[count]
    for name, place in itertools.product(_STRINGS["activations"], range(count)):
        chosen = [name if i == place else one for i, one in enumerate(usual)]
        yield from ([[*usual, *chosen], [*chosen, *usual]] if both else [chosen])


def _forget_sizes(model: onnx.ModelProto) -> None:
    """Declared sizes may no longer hold."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        kind = output.type.tensor_type.elem_type
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, None))
    graphs._declare_sizes(model)


def differs(model: onnx.ModelProto, folder: Path, seed: int = 0, **options: Any) -> str:
    """What is wrong with cutting this model, or nothing."""
    try:
        found = pair(model, folder, seed, **options)
    except ZigError as error:
        return f"refused: {error}" if runs(model, graphs.feeds(model, seed)) else ""
    if found is None:
        return ""
    try:
        far = worst(found, [graphs.feeds(model, seed)])
    except NotRunnableError:
        return ""
    except AssertionError as error:
        return str(error)
    except Exception as error:
        return f"the small model does not run: {str(error).splitlines()[0]}"
    return "" if far <= EXACT else f"differs by {far:.2g}"
