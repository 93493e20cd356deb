"""Integers that stand for numbers: which weights are quantised, and what stands for zero in them.

A slice of a quantised weight is zero where all its integers are the zero point, so that is what pruning writes there
and surgery looks for. Scales are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

if TYPE_CHECKING:
    from zig.graph import Graph
    from zig.operators import Operator

_NAMES = ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
_NARROW = {kind for name, kind in TensorProto.DataType.items() if name in _NAMES}  # onnx 1.19 has no INT2


def quantised(graph: Graph, operators: Mapping[str, Operator]) -> tuple[dict[str, float], dict[str, str]]:
    """The integer initializers that some node reads as numbers: which integer stands for zero, and what scales them."""
    found: dict[str, set[float]] = {}
    scales: dict[str, str] = {}
    stored = graph.initializers.keys() - graph.overridable
    rows = {name: row for name, row in operators.items() if row.zero_points}
    for node in [node for node in graph.nodes if node.op in rows]:
        kinds = _NARROW if node.op == "Cast" else _NARROW | {TensorProto.INT32}  # a bias, not a table of places
        for operand, zero in rows[node.op].zero_points.items():
            name = node.inputs[operand] if operand < len(node.inputs) else ""
            if name in stored and graph.initializers[name].data_type in kinds:
                point, scale = (node.inputs[i] if i < len(node.inputs) else "" for i in (zero, zero - 1))
                found.setdefault(name, set()).add(_zero_point(graph, point))
                if scale in stored and graph.is_float(scale):
                    scales[name] = scale
    return {name: z.pop() for name, z in found.items() if len(z) == 1 and not np.isnan(list(z)).any()}, scales


def _zero_point(graph: Graph, name: str) -> float:
    """A zero point that is one number, or the same for all channels; nan for others."""
    if not name:
        return 0.0
    values = graph.array(name) if name in graph.initializers.keys() - graph.overridable else np.empty(0)
    return float(values.flat[0]) if values.size and (values == values.flat[0]).all() else np.nan
