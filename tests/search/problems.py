"""Random networks whose budgets are to be met: chains of convolutions, some of them residual, as ONNX."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from zig.groups.partition import Partition, analyze


def problem(seed: int, layers: int = 8, narrowest: int = 6, widest: int = 48) -> Partition:
    """Convolutions of random widths and kernels; about a third of them adds to what came before."""
    random = np.random.default_rng(seed)
    nodes, weights = [], []
    name, channels = "x", 3
    for i in range(layers):
        residual = i > 0 and random.random() < 0.35
        out = channels if residual else int(random.integers(narrowest, widest + 1))
        k = int(random.choice([1, 3]))
        weights.append(numpy_helper.from_array(random.standard_normal((out, channels, k, k), np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[k // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        if residual:
            nodes.append(helper.make_node("Add", [name, f"r{i}"], [f"s{i}"], f"sum{i}"))
        name, channels = nodes[-1].output[0], out
    weights.append(numpy_helper.from_array(random.standard_normal((4, channels, 1, 1), np.float32), "head"))
    nodes.append(helper.make_node("Conv", [name, "head"], ["y"], "head"))
    size = int(random.choice([4, 7, 16]))
    graph = helper.make_graph(
        nodes, "problem",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, size, size])],
        weights,
    )  # fmt: skip
    return analyze(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
