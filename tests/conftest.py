"""What tests share: models written as ONNX text, files of them, and the `zig` command as users run it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torchvision_schemas
from onnx import numpy_helper, parser
from tiny_run import config  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parent.parent

# torch, numpy and onnxruntime would each take every core in every test process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HEADER = '<ir_version: 10, opset_import: ["" : 20, "local" : 1]>'
NETWORK = f"""{HEADER}
network (float[N, 3, 8, 8] image) => (float[N, 5] logits) {{
    conv1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    norm1 = BatchNormalization (conv1, gamma, beta, mean, var)
    relu1 = Relu (norm1)
    conv2 = Conv <pads = [1, 1, 1, 1]> (relu1, w2)
    sum = Add (relu1, conv2)
    pool = GlobalAveragePool (sum)
    flat = Flatten (pool)
    logits = Gemm <transB = 1> (flat, w3, b3)
}}"""
WEIGHTS = {
    "w1": (6, 3, 3, 3),
    "b1": (6,),
    "gamma": (6,),
    "beta": (6,),
    "mean": (6,),
    "var": (6,),
    "w2": (6, 6, 3, 3),
    "w3": (5, 6),
    "b3": (5,),
}
SCOPES = ["stem", "stem", "stem", "block", "block", "head", "head", "head"]


def pytest_configure() -> None:
    """Let torchvision import beside a torch of another build."""
    torchvision_schemas.install()


def parse(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """A model from a graph in ONNX text, with initializers by name."""
    model = parser.parse_model(text if text.lstrip().startswith("<") else f"{HEADER} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


@pytest.fixture
def network() -> onnx.ModelProto:
    """A residual network with random weights: 6 channels that stand and fall together, before 5 logits."""
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    model = parse(NETWORK, **(weights | {"var": np.abs(weights["var"]) + 1}))
    for node, scope in zip(model.graph.node, SCOPES, strict=True):
        node.name = f"/{scope}/{node.output[0]}/{node.op_type}"
    return model


@pytest.fixture
def model_path(network: onnx.ModelProto, tmp_path: Path) -> Path:
    """The residual network as a file."""
    path = tmp_path / "network.onnx"
    onnx.save(network, path)
    return path


@pytest.fixture
def zig(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, run in a process of its own in an empty folder."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zig", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120"}
        settings = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(command, check=False, **{**settings, **options})  # type: ignore[call-overload]

    return run
