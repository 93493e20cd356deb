"""Checkpoints that are damaged, killed while they are written, or fought for by two runs."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import arm
from tiny_run import Write, fitted

from zig import atomic, locks
from zig.cli import _run
from zig.errors import UsageError
from zig.runs import checkpoint
from zig.runs.models import load_weights

STATE = {
    "step": 3,
    "model": {"weight": torch.arange(600.0).view(20, 30), "bias": torch.ones(7)},
    "random": [1, 2.5, "a"],
}
SHORT = {"step": 1, "weights": torch.arange(40.0)}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def fork(work: Callable[[], None]) -> int:
    """Do something in a fork of this process; its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads
        child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def damages(content: bytes, random: np.random.Generator) -> list[bytes]:
    """A file with a flipped bit, cut off, overwritten in part, and longer than it was."""
    place, other = sorted(random.integers(0, len(content), 2))
    flipped = bytearray(content)
    flipped[place] ^= 1 << int(random.integers(8))
    noise = random.bytes(int(other - place))
    return [bytes(flipped), content[:place], content[:place] + noise + content[other:], content + noise]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_checkpoint_is_refused_or_means_the_same(zipped: bool, tmp_path: Path) -> None:
    path, random, refused = tmp_path / "checkpoint.pt", np.random.default_rng(0), list[str]()
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for _ in range(100):
        for damaged in damages(content, random):
            path.write_bytes(damaged)
            try:
                found = checkpoint.read(path)
            except UsageError as error:
                refused.append(str(error))
            else:
                assert not zipped or same(found, STATE)
    assert len(refused) > (250 if zipped else 100)
    assert all(said.startswith(f"{path} ") for said in refused)


def pickled(code: bytes) -> Callable[[Path], object]:
    """An archive whose checksums are right and whose pickle is not."""

    def write(path: Path) -> None:
        torch.save(SHORT, path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, code if name.endswith("data.pkl") else content)

    return write


FOREIGN: dict[str, Callable[[Path], object]] = {
    "KeyError": pickled(b"\x80\x02j\x87\x01\x00\x80."),
    "IndexError": pickled(b"\x80\x02s."),
    "AttributeError": pickled(b"\x80\x02K\x01(K\x02e."),
    "UnicodeDecodeError": pickled(b"\x80\x02X\x02\x00\x00\x00\xff\xff."),
    "an empty pickle": pickled(b""),
    "code": pickled(b"cos\nsystem\n(S'true'\ntR."),
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("step: 1\n"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"step": 1})),
    "a list": lambda path: torch.save([1, 2], path),
    "another archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "a folder": lambda path: path.mkdir(),
    "numbers for names": lambda path: torch.save({1: torch.ones(2), "weight": 3}, path),
    "a wrong model": lambda path: torch.save({"model": 5, "weight": torch.ones(2, 2)}, path),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_gives_one_sentence(
    kind: str, config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    FOREIGN[kind](path)
    with pytest.raises(UsageError, match=r"run/checkpoint\.pt "):
        load_weights(torch.nn.Linear(3, 3), path)
    if kind == "KeyError":
        for line in (["train", config(), "--resume"], ["prune-checkpoint", config(), path]):
            assert _run([str(part) for part in line], debug=False) == 2
            said = capsys.readouterr().err.strip().splitlines()
            assert len(said) == 1
            assert "checkpoint.pt" in said[0]


def test_the_one_before_is_kept_and_taken(tmp_path: Path) -> None:
    path, said = tmp_path / "checkpoint.pt", list[str]()

    def step() -> int | None:
        return checkpoint.resume(path, lambda state: int(state["step"]), said.append)

    assert step() is None
    checkpoint.write(path, {"step": 1})
    assert not checkpoint.previous(path).exists()
    checkpoint.write(path, {"step": 2})
    assert checkpoint.read(tmp_path / "checkpoint.previous.pt")["step"] == 1
    checkpoint.write(path, {"step": 3})
    assert (step(), said) == (3, [])
    content = bytearray(path.read_bytes())
    content[content.index(b"step") + 1] ^= 1
    path.write_bytes(content)
    assert step() == 2
    (line,) = said
    assert line.startswith(f"{path} is damaged: the checksum of")
    assert line.endswith("; going on from checkpoint.previous.pt, the one before it")
    checkpoint.write(path, {"step": 4})
    assert step() == 4
    path.unlink()
    assert checkpoint.exists(path)
    checkpoint.previous(path).write_bytes(content)
    with pytest.raises(UsageError, match=r"checkpoint\.previous\.pt is damaged"):
        step()
    torch.save({"another": "file"}, path)
    with pytest.raises(UsageError, match=r"checkpoint\.pt does not fit this run \('step'\)"):
        step()


def test_a_run_goes_on_from_the_one_before_with_the_same_bits(config: Write, tmp_path: Path) -> None:
    file = config(training={"epochs": 3})
    fitted(file)
    path = tmp_path / "run" / "checkpoint.pt"
    truth = checkpoint.read(path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    path.write_bytes(damaged)
    fitted(file)
    found = checkpoint.read(path)
    assert found["step"] == truth["step"]
    assert same(found["model"], truth["model"])


@pytest.mark.skipif(sys.platform != "linux", reason="this process is forked")
def test_killed_at_any_step_of_a_checkpoint(tmp_path: Path) -> None:
    path, seen = tmp_path / "checkpoint.pt", set[int]()
    for number in range(1, 100):
        checkpoint.write(path, {"step": 1})
        checkpoint.write(path, {"step": 2})

        def work(number: int = number) -> None:
            arm(number)
            checkpoint.write(path, {"step": 3})

        status = fork(work)
        found = checkpoint.read(path)["step"]
        seen.add(found)
        before = checkpoint.read(checkpoint.previous(path))["step"]
        assert (found, before) in ((2, 1), (2, 2), (3, 2)), number
        assert checkpoint.resume(path, lambda state: int(state["step"]), print) == found
        if checkpoint.previous(path).exists():
            atomic.sweep(checkpoint.previous(path))
        assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
        if not status:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert number > 10
    assert seen == {2, 3}


# --- two runs in one folder --------------------------------------------------------------------------------------------


def test_a_folder_is_one_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = r"another run is at work in .*out; wait for its end, or"
    with locks.alone(out), pytest.raises(UsageError, match=words), locks.alone(out):
        pass
    assert not out.exists(), "there is nothing in it"
    with locks.alone(out):
        (out / "log.csv").touch()
    with locks.alone(out, "search"):
        pass
    assert [file.name for file in out.iterdir()] == ["log.csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="this process is forked")
def test_a_dead_process_and_the_forks_of_a_living_one_have_no_lock(tmp_path: Path) -> None:
    def die() -> None:
        with locks.alone(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(fork(die)) == signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == [locks.LOCK]
    reader, writer = os.pipe()
    with locks.alone(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if not (child := os.fork()):  # such as one that reads data
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    with locks.alone(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == [locks.LOCK]
    os.close(writer)
    os.waitpid(child, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("smoke", [False, True])
def test_the_second_of_two_runs_is_refused(
    smoke: bool, config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = config(), tmp_path / ("run-smoke" if smoke else "run")
    out.mkdir()
    (out / "theirs").touch()
    with locks.alone(out):
        for line in (["train", file], ["train", file, "--resume"], ["prune-checkpoint", file, "weights.pt"]):
            assert _run([*map(str, line), *(["--smoke"] if smoke else [])], debug=False) == 2
            said = capsys.readouterr().err
            assert said == f"zig: error: another run is at work in {out}; wait for its end, or choose another out\n"
    assert [file.name for file in out.iterdir()] == ["theirs"]
