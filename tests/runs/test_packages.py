"""A package that is missing, or that is installed and does not load: one sentence that names it, and exit code 2."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
RAISED = {
    "ImportError": "libcudart.so.12: cannot open shared object file: No such file or directory",
    "OSError": "libtorch_cuda.so: undefined symbol: _ZN3c10",
    "RuntimeError": "operator torchvision::nms does not exist",
}
LINES = {
    "train": ["run.yml"],
    "prune-checkpoint": ["run.yml", "checkpoint.pt"],
    "search": ["run.yml"],
}
Zig = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """An environment in which a package raises an error while it is imported."""

    def write(package: str, body: str) -> dict[str, str]:
        folder = tmp_path / "site" / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(body)
        path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), str(ROOT / "tests" / "runs")])
        return {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"}

    return write


def run(tmp_path: Path, model: str = "dropping:Dropping") -> None:
    (tmp_path / "run.yml").write_text(yaml.safe_dump({"out": "run", **TINY, "model": {"name": model}}))


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == f"zig: error: {sentence}\n"


def reinstall(package: str, said: str) -> str:
    return (
        f"needs {package}, which is installed but does not load ({said}); reinstall it with what it builds on by "
        f"pip install --force-reinstall {package}"
    )


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("command", LINES)
def test_a_torch_that_does_not_load(command: str, kind: str, broken: Callable[..., dict[str, str]], zig: Zig) -> None:
    environment = broken("torch", f"def load():\n    raise {kind}({RAISED[kind]!r})\nload()\n")
    refused(zig(command, *LINES[command], env=environment), f"zig {command} {reinstall('torch', RAISED[kind])}")


@pytest.mark.parametrize("kind", RAISED)
def test_a_torchvision_that_does_not_load(
    kind: str, broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    run(tmp_path, "torchvision/resnet18")
    done = zig("train", "run.yml", env=broken("torchvision", f"raise {kind}({RAISED[kind]!r})"))
    refused(done, f"model.name is torchvision/resnet18, which {reinstall('torchvision', RAISED[kind])}")


def test_the_package_at_fault_is_named_where_another_one_hides_its_error(
    broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    environment = broken("torchvision", f"raise RuntimeError({RAISED['RuntimeError']!r})")
    hiding = """
def __getattr__(name):
    try:
        import torchvision
    except Exception as error:
        raise ModuleNotFoundError(f"Could not import module '{name}'. Are its requirements defined?") from error
"""
    broken("transformers", hiding)
    run(tmp_path, "transformers/BertForQuestionAnswering")
    sentence = reinstall("torchvision", RAISED["RuntimeError"])
    done = zig("prune-checkpoint", "run.yml", "checkpoint.pt", env=environment)
    refused(done, f"model.name is transformers/BertForQuestionAnswering, which {sentence}")


def test_transformers_itself_hides_the_error_of_torchvision(
    broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("transformers", "torchvision")):
        pytest.skip("needs the extra 'zoo'")
    environment = broken("torchvision", f"raise RuntimeError({RAISED['RuntimeError']!r})")
    run(tmp_path, "transformers/BertForQuestionAnswering")
    done = zig("train", "run.yml", env=environment)
    sentence = reinstall("torchvision", RAISED["RuntimeError"])
    refused(done, f"model.name is transformers/BertForQuestionAnswering, which {sentence}")


def test_a_dependency_of_a_package_is_named_where_it_is_missing(
    broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    run(tmp_path, "timm/resnet18")
    done = zig("train", "run.yml", env=broken("timm", "import not_there.inside"))
    refused(done, "model.name is timm/resnet18, which needs not_there; install it by pip install not_there")


@pytest.mark.parametrize("command", LINES)
def test_an_onnxruntime_that_does_not_load_is_told_before_hours_of_training(
    command: str, broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    run(tmp_path)
    done = zig(command, *LINES[command], env=broken("onnxruntime", "import onnxruntime.capi._missing"))
    assert done.returncode == 2
    assert done.stderr.startswith("zig: error: running a model needs onnxruntime, which is installed but does not load")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "model.name: module mine can't be imported (ZeroDivisionError: division by zero); mend it"),
        ("def make(:", "mine/__init__.py, line 1 is no Python (invalid syntax)"),
        ("import not_there", "model.name is mine:make, which needs not_there; install it by pip install not_there"),
        ("def make():\n    import not_there", "which needs not_there; install it by pip install not_there"),
    ],
)
def test_a_module_of_the_users_is_to_be_mended(
    body: str, said: str, broken: Callable[..., dict[str, str]], zig: Zig, tmp_path: Path
) -> None:
    run(tmp_path, "mine:make")
    done = zig("train", "run.yml", env=broken("mine", body))
    assert done.returncode == 2
    assert done.stderr.startswith("zig: error: model.name")
    assert done.stderr.endswith(f"{said}\n")
    assert done.stderr.count("\n") == 1


def test_any_other_command_says_it_too(broken: Callable[..., dict[str, str]], zig: Zig, model_path: Path) -> None:
    environment = broken("onnxruntime", "raise OSError('libonnxruntime.so.1: cannot open shared object file')")
    done = zig("verify", model_path, model_path, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("zig: error: running a model needs onnxruntime, which is installed but does not load")
