"""Bytes that go to a large file past the system's cache are the bytes that would have gone through it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_large import SMALL, large

import zig
from zig.model.shapes import Array
from zig.surgery import direct

ODD = direct.ALIGNED // 2 + 1


def pieces(*lengths: int) -> Iterator[Array]:
    """Runs of random bytes."""
    return (np.random.default_rng(length).integers(0, 256, length, np.uint8) for length in lengths)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large."""
    monkeypatch.setattr(direct, "LARGE", 1)
    monkeypatch.setattr(direct, "_BLOCK", 2 * direct.ALIGNED)
    path = tmp_path / "file"
    path.write_bytes(b"?" * direct.ALIGNED)
    return path


@pytest.mark.parametrize("start", [0, direct.ALIGNED, ODD])
@pytest.mark.parametrize(
    "lengths", [(), (0,), (ODD,), (direct.ALIGNED,), (ODD,) * 9, (5 * direct.ALIGNED, 1, 2 * direct.ALIGNED - 1, ODD)]
)
def test_every_byte_arrives_where_it_should(file: Path, start: int, lengths: tuple[int, ...]) -> None:
    with file.open("r+b") as opened:
        opened.seek(start)
        direct.put(opened, pieces(*lengths))
        opened.write(b"end")
    before = b"?" * direct.ALIGNED
    expected = before[:start].ljust(start, b"\0") + b"".join(piece.tobytes() for piece in pieces(*lengths)) + b"end"
    assert file.read_bytes() == expected + before[len(expected) :]


def test_only_large_files_go_past_the_cache_and_only_where_it_can_be(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with file.open("r+b") as opened:
        straight = direct._straight(opened)
        if straight is None:
            pytest.skip("this file system has no way past the cache")
        straight.close()
        monkeypatch.setattr(direct, "LARGE", 2 * direct.ALIGNED)
        assert direct._straight(opened) is None
        monkeypatch.setattr(direct, "LARGE", 1)
        opened.seek(ODD)
        assert direct._straight(opened) is None
        opened.seek(0)
        monkeypatch.setattr(os, "open", refuse)
        assert direct._straight(opened) is None
        direct.put(opened, pieces(3 * direct.ALIGNED + 1))
    assert file.read_bytes() == next(pieces(3 * direct.ALIGNED + 1)).tobytes()


def refuse(*_: object) -> None:
    """What `os.open` does for a file system that has no way past the cache."""
    raise OSError(errno.EINVAL, "Invalid argument")


def test_a_large_model_is_the_same_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, zeroed = tmp_path / "full.onnx", tmp_path / "zeroed.onnx"
    large.build(SMALL._replace(words=20_000), full, distinct=True)
    zig.zero(zig.prune(zig.analyze(full), 0.5, criterion="random"), zeroed)
    usual = zig.compress(zeroed, tmp_path / "usual.onnx", check=False)
    monkeypatch.setattr(direct, "LARGE", 1)
    ways, find = [], direct._straight
    monkeypatch.setattr(direct, "_straight", lambda opened: ways.append(find(opened)) or ways[-1])
    straight = zig.compress(zeroed, tmp_path / "straight.onnx", rtol=5e-3)
    assert straight.removed == usual.removed > 0
    ours, others = (zig.load(tmp_path / f"{name}.onnx") for name in ("straight", "usual"))
    assert ours.initializers.keys() == others.initializers.keys()
    for name in ours.initializers:
        np.testing.assert_array_equal(ours.array(name), others.array(name))
    if not any(ways):
        pytest.skip("this file system has no way past the cache: both went through it")


def test_a_file_system_that_takes_no_such_writes_gets_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(io.FileIO):
        """Takes writes through the cache alone."""

        def write(self, data: object, /) -> int:
            fcntl = pytest.importorskip("fcntl")
            if fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return super().write(data)  # type: ignore[arg-type]

    with file.open("r+b") as opened:
        if (straight := direct._straight(opened)) is None:
            pytest.skip("this file system has no way past the cache")
        straight.close()
        monkeypatch.setattr(io, "FileIO", Refusing)
        direct.put(opened, pieces(5 * direct.ALIGNED + 7))
    assert file.read_bytes() == next(pieces(5 * direct.ALIGNED + 7)).tobytes()
