"""A small model to try the app with, made on the spot: a residual network with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (16, 32, 64)
BLOCKS = 3


class _Network:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def conv(self, x: str, path: str, inputs: int, outputs: int, size: int, stride: int = 1) -> str:
        # Channels get different magnitudes, as training gives them, so that there is something to choose.
        strength = self.random.lognormal(0, 0.7, (outputs, 1, 1, 1))
        weight = self.random.standard_normal((outputs, inputs, size, size)) * strength / np.sqrt(inputs * size * size)
        name = path.strip("/").split("/")[-1] if "/" in path.strip("/") else path.strip("/")
        self.add_weight(f"{name}.weight", weight)
        self.add_weight(f"{name}.bias", 0.05 * self.random.standard_normal(outputs))
        pads = [size // 2] * 4
        return self.add(
            "Conv", [x, f"{name}.weight", f"{name}.bias"], path, strides=[stride, stride], pads=pads,
            kernel_shape=[size, size],
        )  # fmt: skip

    def add_weight(self, name: str, values: np.ndarray) -> None:
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))

    def add(self, op: str, inputs: list[str], path: str, **attributes: Any) -> str:
        output = f"{path}/{op}_output"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{path}/{op}", **attributes))
        return output

    def block(self, x: str, path: str, inputs: int, outputs: int, stride: int) -> str:
        dotted = path.strip("/").split("/")[-1]
        y = self.conv(x, f"{path}/{dotted}.conv1", inputs, outputs, 3, stride)
        y = self.add("Relu", [y], f"{path}/relu1")
        y = self.conv(y, f"{path}/{dotted}.conv2", outputs, outputs, 3)
        shortcut = x if inputs == outputs else self.conv(x, f"{path}/{dotted}.shortcut", inputs, outputs, 1, stride)
        return self.add("Relu", [self.add("Add", [y, shortcut], path)], f"{path}/relu2")


def write(target: Path) -> Path:
    """Write the sample model: 3 stages of 3 residual blocks on 32 x 32 images, 10 scores."""
    network = _Network()
    x = network.add("Relu", [network.conv("image", "/stem", 3, WIDTHS[0], 3)], "/stem")
    inputs = WIDTHS[0]
    for stage, outputs in enumerate(WIDTHS):
        for number in range(BLOCKS):
            path = f"/stage{stage + 1}/stage{stage + 1}.{number}"
            x = network.block(x, path, inputs, outputs, 2 if stage and not number else 1)
            inputs = outputs
    x = network.add("Flatten", [network.add("GlobalAveragePool", [x], "/pool")], "/pool")
    network.add_weight("head.weight", network.random.standard_normal((10, WIDTHS[-1])) / 8)
    network.add_weight("head.bias", np.zeros(10))
    network.nodes.append(helper.make_node("Gemm", [x, "head.weight", "head.bias"], ["scores"], "/head/Gemm", transB=1))
    graph = helper.make_graph(
        network.nodes,
        "sample",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        network.weights,
    )
    model = helper.make_model(graph, producer_name="zig", opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, target)
    return target
