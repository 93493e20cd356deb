"""The core is light: it needs neither torch nor streamlit, and loads onnxruntime only to run a model."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "streamlit", "onnxruntime", "onnxscript", "matplotlib", "sklearn")
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {root!r})
"""


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("module", ["zig", "zig.cli", "zig.verify", "zig.picture"])
def test_importing_zig_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import sys, json; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(json.dumps(list(sys.modules)))"
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stdout))


def test_the_command_line_works_where_torch_and_streamlit_cannot_be_imported(model_path: Path) -> None:
    blocked = {"torch", "torchvision", "streamlit", "onnxscript", "sklearn"}
    lines = [
        ["analyze", "network.onnx", "--json"],
        ["analyze", "network.onnx"],
        ["prune", "network.onnx", "-o", "zeroed.onnx", "--ratio", "0.5"],
        ["compress", "zeroed.onnx", "-o", "small.onnx"],
        ["verify", "zeroed.onnx", "small.onnx"],
        ["operators"],
    ]
    for line in lines:
        code = BLOCKED.format(blocked=blocked, root=str(ROOT)) + f"from zig.cli import main\nmain({line!r})"
        done = python(code, model_path.parent)
        assert done.returncode == 0, (line, done.stderr)


def test_training_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = BLOCKED.format(blocked={"torch"}, root=str(ROOT)) + "from zig.cli import main\nmain(['demo'])"
    done = python(code, tmp_path)
    assert done.returncode == 2
    assert done.stderr == "zig: error: zig demo needs torch; install it by pip install 'onnx-zig[train]'\n"


@pytest.mark.parametrize("package", ["torchvision", "timm", "transformers"])
def test_the_tests_of_a_lone_clone_import_what_is_installed(package: str) -> None:
    """Beside a torch of another build too, by what stands in tests/ alone: else a hundred tests would be skipped."""
    if importlib.util.find_spec(package) is None:
        pytest.skip("needs the extra 'zoo'")
    importlib.import_module(f"{package}.models")


def test_public_names_stay_what_they_are_when_a_module_of_the_same_name_is_imported(model_path: Path) -> None:
    # zig.verify is a function and a module; importing the module must not hide the function.
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import zig
from zig.verify import latency
import zig.cli, zig.picture, zig.surgery
for name in zig.__all__:
    assert name == "OTO" or callable(getattr(zig, name)), name
    assert name == "OTO" or callable(getattr(zig, name)), name
assert zig.verify("network.onnx", "network.onnx").equal
"""
    done = python(code, model_path.parent)
    assert done.returncode == 0, done.stderr
