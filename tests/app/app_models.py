"""Models for the tests of the app, as fixtures; a test module asks for them by `pytest_plugins`."""

from pathlib import Path

import onnx
import pytest
from zig.app import sample
from zig.app.opened import Opened


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample model as a file."""
    return sample.write(tmp_path_factory.mktemp("sample") / "sample.onnx")


@pytest.fixture
def sample_model(sample_path: Path) -> Opened:
    """The sample model, opened."""
    return Opened(sample_path, "sample.onnx")


@pytest.fixture
def small_model(network: onnx.ModelProto, tmp_path: Path) -> Opened:
    """The network of tests/conftest.py, opened."""
    onnx.save(network, tmp_path / "network.onnx")
    return Opened(tmp_path / "network.onnx", "network.onnx")
