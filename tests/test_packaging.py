"""What is built from this repository: every room in it, the app too, without links, and what the tests need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 can't read pyproject.toml")


def packages() -> set[str]:
    """The names of all folders of Python files that users get."""
    rooms = {"zig": ROOT / "zig", "zig.app": ROOT / "app"}
    return {
        ".".join((name, *path.parent.relative_to(folder).parts))
        for name, folder in rooms.items()
        for path in folder.rglob("*.py")
    }


def test_every_room_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert set(setuptools["packages"]) == packages()


def test_the_repository_holds_no_links() -> None:
    """A clone on a system without symbolic links turns each into a text file."""
    folders = ("zig", "app", "tests", "samples", "benchmarks", "docs")
    assert [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_symlink()] == []


@pytest.mark.slow
def test_wheel_and_source_archive_serve_the_app(tmp_path: Path) -> None:
    """Builds both as pip does; the wheel that comes of the source archive is the one that comes of the repository."""
    build = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"

    def made(what: str, source: Path, target: Path) -> Path:
        command = [sys.executable, "-c", build, what, str(target)]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
        return target / done.stdout.split()[-1]

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    archive = made("build_sdist", clone, tmp_path)
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        tar.extractall(tmp_path / "source", filter="data")
    assert {"CHANGELOG.md", "docs/app.md", "tests/conftest.py", "tests/runs/squad/vocab.txt", "Makefile"} <= names
    (source,) = (tmp_path / "source").iterdir()
    wheels = [made("build_wheel", folder, tmp_path / name) for name, folder in (("a", clone), ("b", source))]
    contents = [set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels]
    assert contents[0] == contents[1]
    assert {"zig/py.typed", "zig/app/main.py", "zig/app/icon.svg", "zig/app/canvas/graph.js"} <= contents[0]
    assert not any(name.startswith(("app/", "tests/")) for name in contents[0])
