"""Killed at any step, a command leaves its target as it was or as it should be, and everything else as it was."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
from killing import SAID, killed_at, process

import zig
from zig import atomic, datafiles
from zig.errors import UsageError
from zig.picture import draw

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed as on Linux")

Files = dict[str, bytes]
LINES = {
    "prune": ["prune", "full.onnx", "-o", "{}", "--ratio", "0.5"],
    "compress": ["compress", "full.onnx", "-o", "{}", "--no-verify"],
}
CASES = [
    ("prune", False, "small.onnx", True),
    ("prune", True, "small.onnx", True),
    ("prune", True, "full.onnx", True),
    ("compress", False, "full.onnx", True),
    ("compress", True, "small.onnx", False),
    ("compress", True, "small.onnx", True),
    ("compress", True, "full.onnx", True),
]


def model(seed: int, external: str = "", to: Path | None = None, zeros: bool = True) -> None:
    """A network with some zero groups; its weights, if asked for, in a file of the given name."""
    made = graphs.build("h = Gemm (x, w, b)\ny = Relu (h)\nz = Gemm (y, v)", x="N 32", w="32 64", b="64", v="64 32")
    random = np.random.default_rng(seed)
    for tensor in made.graph.initializer:
        values = random.standard_normal(tensor.dims).astype(np.float32)
        if zeros and tensor.name in "wb":
            values[..., :20] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(made, to, save_as_external_data=bool(external), location=external or None, size_threshold=100)


def furnish(folder: Path, external: bool, old: bool) -> None:
    """The input, an old target, and files that are nobody's business, with names as unlucky as can be."""
    folder.mkdir(exist_ok=True)
    model(1, "small.onnx.data" if external else "", folder / "full.onnx")
    if old:
        model(2, "old.bin" if external else "", folder / "small.onnx")
    model(3, "others.bin", folder / "others.onnx")
    (folder / "full.onnx.data").write_text("nobody's")
    (folder / ".small.onnx.kept.part").mkdir()
    (folder / ".small.onnx.kept.part" / "notes").write_text("somebody's")


def files(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def own(found: Files, target: str, folder: Path) -> Files:
    """The target and its data."""
    names = [target, *datafiles.of_model(folder / target)] if target in found else []
    return {name: found[name] for name in names}


@pytest.mark.parametrize(("command", "external", "target", "old"), CASES)
def test_killed_between_any_two_steps(command: str, external: bool, target: str, old: bool, tmp_path: Path) -> None:
    line = [part.format(target) for part in LINES[command]]
    start, end = tmp_path / "start", tmp_path / "end"
    for folder in (start, end):
        furnish(folder, external, old)
    assert not killed_at(1 << 20, end, *line)
    before, after = files(start), files(end)
    states = own(before, target, start), own(after, target, end)
    onnxruntime.InferenceSession(end / target, providers=["CPUExecutionProvider"])
    others = before.keys() - states[0].keys()
    assert after.keys() == others | states[1].keys(), "it left something behind, or removed what is not its own"
    seen: set[bool] = set()
    for number in count(1):
        here = tmp_path / str(number)
        shutil.copytree(start, here)
        killed = killed_at(number, here, *line)
        found = files(here)
        assert own(found, target, here) in states, number
        seen.add(own(found, target, here) == states[1])
        assert all(found[name] == before[name] for name in others), number
        killed_at(1 << 20, here, *line)
        left = files(here)
        assert left.keys() == others | own(left, target, here).keys(), number
        assert target == "full.onnx" or left == after, number
        shutil.rmtree(here)
        if not killed:
            break
    assert number > 5
    assert seen == {True, False}


def test_data_that_others_name_stay(tmp_path: Path) -> None:
    """The old data of a target go, but not where any other model names them, in whatever format."""
    for other in ("copy.onnx", "without_suffix", "text.textproto", "../above.onnx"):
        folder = tmp_path / other.strip("./") / "inner"
        folder.mkdir(parents=True)
        furnish(folder, external=True, old=True)
        proto = onnx.load(folder / "small.onnx", load_external_data=False)
        if other.startswith(".."):
            for tensor in proto.graph.initializer:
                for entry in tensor.external_data:
                    entry.value = entry.value.replace("old.bin", "inner/old.bin")
        onnx.save(proto, folder / other, format="textproto" if other.startswith("text") else "protobuf")
        kept = (folder / "old.bin").read_bytes()
        zig.compress(folder / "full.onnx", folder / "small.onnx", check=False)
        assert (folder / "old.bin").read_bytes() == kept
        (folder / other).unlink()
        zig.compress(folder / "full.onnx", folder / "small.onnx", check=False)
    folder = tmp_path / "alone"
    furnish(folder, external=True, old=True)
    zig.compress(folder / "full.onnx", folder / "small.onnx", check=False)
    assert not (folder / "old.bin").exists()


def test_data_are_never_written_over(tmp_path: Path) -> None:
    """A file that has the name which new data would get makes them take another one; the same bytes are the same file."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        furnish(folder, external=True, old=False)
    zig.compress(first / "full.onnx", first / "small.onnx", check=False)
    (name,) = datafiles.of_model(first / "small.onnx")
    assert name.startswith("small.onnx.")
    assert len(name) == len("small.onnx.") + 12 + len(".data")
    for content in (b"somebody's", b""):
        (second / name).write_bytes(content)
        zig.compress(second / "full.onnx", second / "small.onnx", check=False)
        assert (second / name).read_bytes() == content
        (other,) = datafiles.of_model(second / "small.onnx")
        assert other == name.replace(".data", "-2.data")
        assert (second / other).read_bytes() == (first / name).read_bytes()
    (second / name).unlink()
    shutil.copy(first / name, second / name)
    zig.compress(second / "full.onnx", second / "small.onnx", check=False)
    assert datafiles.of_model(second / "small.onnx") == [name]
    assert not (second / other).exists()
    os.link(second / name, tmp_path / "elsewhere")  # which onnx refuses to read
    zig.compress(second / "full.onnx", second / "small.onnx", check=False)
    assert datafiles.of_model(second / "small.onnx") == [other]


def test_an_old_target_that_names_a_model_takes_nothing_with_it(tmp_path: Path) -> None:
    """What a damaged model calls its data may be another model, the target itself, or lie elsewhere."""
    furnish(tmp_path, external=True, old=True)
    (tmp_path / "inner").mkdir()
    for location in ("others.onnx", "small.onnx", "../outside.bin", "/etc/hostname", ""):
        proto = onnx.load(tmp_path / "small.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        target = tmp_path / "inner" / "small.onnx"
        target.write_bytes(proto.SerializeToString())
        (tmp_path / "outside.bin").write_text("outside")
        shutil.copy(tmp_path / "others.onnx", tmp_path / "inner" / "others.onnx")
        zig.compress(tmp_path / "full.onnx", target, check=False)
        assert (tmp_path / "outside.bin").exists()
        assert (tmp_path / "inner" / "others.onnx").exists()
        assert target.exists()


def test_what_lives_is_not_swept(tmp_path: Path) -> None:
    """Two drafts of one target at a time; each removes what is dead, and only that."""
    target = tmp_path / "file"
    dead = tmp_path / ".file.12345678.part"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "new").mkdir()
    (dead / "new" / "file").write_text("half")
    with atomic.draft(target) as one:
        assert not dead.exists()
        one.file.write_text("one")
        with atomic.draft(target) as two:
            two.file.write_text("two")
            two.publish()
        one.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "one"


@pytest.mark.parametrize("room", [400, 3000])  # for no data, for some data
@pytest.mark.parametrize("command", list(LINES))
def test_a_full_disk_changes_nothing(command: str, room: int, tmp_path: Path) -> None:
    furnish(tmp_path, external=True, old=True)
    before = files(tmp_path)
    child = process(tmp_path, [part.format("small.onnx") for part in LINES[command]], room=room)
    child.join(300)
    found = files(tmp_path)
    said = found.pop(SAID).decode()
    assert (child.exitcode, said.count("\n"), found) == (2, 1, before), said
    assert said == "zig: error: small.onnx can't be written: File too large; nothing was changed\n"


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["mkdir", "fsync", "rename", "replace"])
@pytest.mark.parametrize("external", [True, False])
def test_a_step_that_fails_changes_nothing(
    step: str, problem: int, external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if step == "rename" and not external:
        pytest.skip("a single file is only replaced")
    furnish(tmp_path, external, old=True)
    before = files(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(problem, os.strerror(problem))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(UsageError, match=rf"can't be written: {re.escape(os.strerror(problem))}; nothing was"):
            zig.compress(tmp_path / "full.onnx", tmp_path / "small.onnx", check=False)
    assert files(tmp_path) == before
    assert not list(tmp_path.glob(".small.onnx.????????.part"))


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    furnish(tmp_path, external=False, old=True)
    inner = tmp_path / "inner"
    inner.mkdir()
    for name, place in (("here.onnx", "small.onnx"), ("there.onnx", "inner/new.onnx"), ("twice.onnx", "there.onnx")):
        link = tmp_path / name
        link.symlink_to(place)
        zig.compress(tmp_path / "full.onnx", link, check=False)
        assert link.is_symlink()
        assert zig.verify(tmp_path / "full.onnx", link).equal
    assert [path.name for path in inner.iterdir()] == ["new.onnx"]
    external = tmp_path / "external"
    furnish(external, external=True, old=True)
    for name in ("here.onnx", "there.onnx"):
        (external / name).symlink_to(tmp_path / name if name == "there.onnx" else "small.onnx")
    assert zig.compress(external / "full.onnx", external / "here.onnx").removed
    assert zig.verify(external / "full.onnx", external / "here.onnx").equal
    before = files(tmp_path)
    with pytest.raises(
        UsageError, match=r"there\.onnx is a link into another folder, where its data would not be found"
    ):
        zig.compress(external / "full.onnx", external / "there.onnx", check=False)
    assert files(tmp_path) == before


def test_what_is_no_file_is_no_target(tmp_path: Path) -> None:
    furnish(tmp_path, external=True, old=True)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("about")
    (tmp_path / "about").symlink_to("round")
    before = files(tmp_path)
    for name, words in {
        "folder": "is not a file but a folder", "pipe": "is not a file but a pipe or a device", "/dev/null": "a device",
        "/dev/stdout": "an open stream", "/dev/fd/1": "an open stream", "/proc/self/fd/1": "an open stream",
        "round": "is a link that leads to no file", "nowhere/small.onnx": "there is no folder", ".": "a folder",
    }.items():  # fmt: skip
        for write in (
            lambda target: zig.compress(tmp_path / "full.onnx", target, check=False),
            lambda target: zig.zero(zig.prune(zig.analyze(tmp_path / "full.onnx"), 0.5), target),
            lambda target: draw(zig.analyze(tmp_path / "full.onnx"), target, "dot"),
            lambda target: atomic.write_json(target, {}),
        ):
            with pytest.raises(UsageError, match=words):
                write(tmp_path / name)
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    """At random moments, of prune and compress, inline and external, fresh and over an old target and in place."""
    random, told = np.random.default_rng(0), {"old": 0, "new": 0}
    for number, (command, external, target, old) in zip(range(100), _cases(random), strict=False):
        here, end = tmp_path / f"{number}", tmp_path / f"{number}.end"
        for folder in (here, end):
            furnish(folder, external, old)
        line = [part.format(target) for part in LINES[command] if part != "--no-verify"]
        begun = time.monotonic()
        child = process(end, line)
        child.join(300)
        seconds = time.monotonic() - begun
        before, after = files(here), files(end)
        states = own(before, target, here), own(after, target, end)
        child = process(here, line)
        child.join(random.uniform(0, 1) * seconds)
        child.kill()
        child.join()
        found = files(here)
        assert own(found, target, here) in states, line
        told["new" if own(found, target, here) == states[1] else "old"] += 1
        if target in found:
            onnxruntime.InferenceSession(here / target, providers=["CPUExecutionProvider"])
        assert all(found[name] == before[name] for name in before.keys() - states[0].keys()), line
        assert not killed_at(1 << 20, here, *line)
        left = files(here)
        assert left.keys() == (before.keys() - states[0].keys()) | own(left, target, here).keys(), line
    print(told)


def _cases(random: np.random.Generator) -> Iterator[tuple[str, bool, str, bool]]:
    while True:
        command, target = random.choice(list(LINES)), random.choice(["small.onnx", "small.onnx", "full.onnx"])
        yield str(command), bool(random.integers(2)), str(target), bool(random.integers(2))
