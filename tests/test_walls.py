"""The folder list is the pipeline: imports run one way, types included, and no two files are in a circle."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from conftest import ROOT

grimp = pytest.importorskip("grimp", reason="needs import-linter")


def test_no_file_is_in_a_circle() -> None:
    graph = grimp.build_graph("zig", cache_dir=None)
    files = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        order = list(TopologicalSorter(files).static_order())
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))
    assert len(order) > 100


def test_the_contracts_hold() -> None:
    lint = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rooms_are_small() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob("zig/**/*.py")
    }
    assert {path for path, lines in sizes.items() if lines > 700} == set()
