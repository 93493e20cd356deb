"""How the command begins and ends: signals at any moment, and streams that are closed, full or read by nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from zig import process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and streams are POSIX")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SLOW = f"""
import signal, sys, time; sys.path.insert(0, {str(ROOT)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have it ignored
import zig.inputs
def slow(*arguments, **options):
    print("running", flush=True); time.sleep(60)
zig.inputs.random_feeds = slow
sys.modules["zig.verify"].random_feeds = slow  # `zig.verify` itself is the function
from zig.cli import main
main(["compress", "network.onnx", "-o", "small.onnx"])
"""


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of the shell, with `zig` for the command; the exit code is that of a pipe's first program."""
    text = f'zig() {{ "{sys.executable}" -m zig "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_and_leaves_nothing(number: signal.Signals, model_path: Path) -> None:
    """The comparison sleeps in a process of its own, while the small model lies beside the target already."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=model_path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        time.sleep(0.1)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (128 + number, "")
    assert [path.name for path in model_path.parent.iterdir()] == ["network.onnx"]


def test_a_signal_that_is_ignored_stays_so(model_path: Path) -> None:
    """As under `nohup`."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process.ending():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(process.Terminated) as caught:
                os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_code == 143
    finally:
        signal.signal(signal.SIGHUP, usual)


INTERRUPTED_IMPORT = """
import builtins, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
usual = builtins.__import__
def interrupting(name, *rest, **more):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return usual(name, *rest, **more)
builtins.__import__ = interrupting
sys.argv = [{first!r}, "analyze", "network.onnx"]
sys.orig_argv = ["python", "-m", "zig", "analyze", "network.onnx"]
{start}
"""
SCRIPT = "from zig.cli import main; main()"
MODULE = "runpy.run_module('zig', run_name='__main__', alter_sys=True)"


@pytest.mark.parametrize("module", ["numpy", "typer", "zig.errors", "onnx", "zig.partition"])
@pytest.mark.parametrize(("first", "start"), [("bin/zig", SCRIPT), ("-m", MODULE)])
def test_an_interrupt_while_modules_load_says_nothing(module: str, first: str, start: str, model_path: Path) -> None:
    code = INTERRUPTED_IMPORT.format(module=module, first=first, start=start)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=model_path.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_program_that_uses_zig_keeps_its_signals() -> None:
    code = "import signal; before = signal.getsignal(2), signal.getsignal(15); import zig.cli\n"
    code += "assert before == (signal.getsignal(2), signal.getsignal(15))"
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


COMPRESS = "zig compress network.onnx -o small.onnx --no-verify"
PRUNE = "zig prune network.onnx -o small.onnx --ratio 0.5 --json"


@pytest.mark.parametrize("line", [COMPRESS, PRUNE])
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("| head -c 0; exit ${PIPESTATUS[0]}", ""),
        (">&-", "warning: stdout can't be written: it is closed\n"),
        ("> /dev/full", "warning: stdout can't be written: No space left on device\n"),
        ("< /dev/null >&- 2>&-", ""),
    ],
)
def test_a_stdout_that_takes_nothing_fails_no_job(line: str, where: str, words: str, model_path: Path) -> None:
    folder = model_path.parent
    before = model_path.read_bytes()
    done = shell(f"{line} {where}", folder)
    assert done.returncode == 0, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") <= 1 + ("no group is zero" in done.stderr)
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["network.onnx", "small.onnx"]
    assert shell("zig verify small.onnx small.onnx", folder).returncode == 0
    assert model_path.read_bytes() == before


@pytest.mark.parametrize("line", ["zig analyze network.onnx --json", "zig operators", "zig --help", "zig --version"])
@pytest.mark.parametrize(
    ("where", "words"), [(">&-", "it is closed"), ("> /dev/full", "No space left on device")]
)  # fmt: skip
def test_a_result_that_goes_nowhere_is_an_error(line: str, where: str, words: str, model_path: Path) -> None:
    done = shell(f"{line} {where}", model_path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"zig: error: stdout can't be written: {words}\n"


def test_a_reader_that_has_had_enough_is_no_error(model_path: Path) -> None:
    done = shell("zig operators --json | head -n 1; echo ${PIPESTATUS[0]}", model_path.parent)
    assert done.stdout.splitlines() in (["[", "141"], ["[", "0"])
    assert done.stderr == ""


@pytest.mark.parametrize(("other", "code"), [("network.onnx", 0), ("zeroed.onnx", 1)])
def test_a_verdict_needs_no_stdout(other: str, code: int, model_path: Path) -> None:
    assert shell("zig prune network.onnx -o zeroed.onnx --ratio 0.5", model_path.parent).returncode == 0
    for where in (">&-", "> /dev/full"):
        assert shell(f"zig verify network.onnx {other} {where}", model_path.parent).returncode == code


class Full:
    """A stream that refuses everything."""

    encoding = "utf-8"

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        """Nothing."""

    def fileno(self) -> int:
        raise ValueError("no file")


def test_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    full: Any = Full()
    monkeypatch.setattr(sys, "stdout", full)
    with process.streams() as out:
        print("something")
        print("more")
        assert sys.stdout is out
        assert out.encoding == "utf-8"
    assert sys.stdout is full
    assert out.failure is not None
    assert out.failure.errno == 28
