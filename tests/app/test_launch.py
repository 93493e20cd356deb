"""`zig view` as users start it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit", reason="zig view needs streamlit: pip install 'onnx-zig[app]'")
pytest_plugins = ("app_models",)
Zig = Callable[..., subprocess.CompletedProcess[str]]


def test_a_missing_file_is_said(zig: Zig) -> None:
    done = zig("view", "none.onnx", "--headless")
    assert done.returncode == 2
    assert done.stderr.startswith("zig: error: none.onnx: there is no such file or folder")


def test_a_port_that_is_taken_is_said(zig: Zig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = zig("view", "--headless", "--port", taken.getsockname()[1])
    assert done.returncode == 2
    assert "choose another by --port" in done.stderr


def test_the_help_has_an_example(zig: Zig) -> None:
    assert "Example: zig view model.onnx" in zig("view", "--help").stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_serves_on_this_machine_alone(sample_path: Path, tmp_path: Path) -> None:
    port = free_port()
    root = Path(__file__).resolve().parent.parent.parent
    command = [sys.executable, "-m", "zig", "view", str(sample_path), "--port", str(port), "--headless"]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(root))))
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        try:
            assert answers(f"http://127.0.0.1:{port}/_stcore/health", process) == "ok"
            outside = socket.gethostbyname(socket.gethostname())
            if not outside.startswith("127."):
                with socket.socket() as other:
                    assert other.connect_ex((outside, port)) != 0
        finally:
            process.terminate()
            process.wait(20)


def answers(address: str, process: subprocess.Popen[bytes]) -> str:
    """What the address says, asked until it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.2)
    pytest.fail("zig view did not answer")
