"""Shells complete the commands of zig, its options and its files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
Zig = Callable[..., "subprocess.CompletedProcess[str]"]
# typer looks up which shell has started it; a test is started by none.
NAMED = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_shown_and_installed(shell: str, zig: Zig, tmp_path: Path) -> None:
    environment = {**os.environ, **NAMED, "HOME": str(tmp_path)}
    shown = zig("--show-completion", shell, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"complete_{shell}" in shown.stdout
    installed = zig("--install-completion", shell, env=environment)
    assert (installed.returncode, installed.stderr) == (0, "")
    assert any(f"complete_{shell}" in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "wanted"), [(["zig", "pr"], "prune prune-checkpoint"), (["zig", "compress", "--tol"], "--tolerance")]
)
def test_bash_completes(words: list[str], wanted: str, zig: Zig, tmp_path: Path) -> None:
    script = tmp_path / "zig.bash"
    script.write_text(zig("--show-completion", "bash", env={**os.environ, **NAMED}).stdout)
    command = tmp_path / "zig"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zig "$@"\n')
    command.chmod(0o755)
    line = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"_zig_completion {command}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, **NAMED}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (wanted, "")
